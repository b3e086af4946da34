"""The commands as people type them, over a grid of processes started as the README says."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.muni_command import PATIENCE_S, ROOT, VENV, Done, User, code_blocks, terminal
from tests.e2e.node_processes import Plain, eventually

from muniment.spec.address import parse_node
from muniment.spec.cap import LiteralFile, cap_text

CONTENT = random.Random(1).randbytes(5_000_000)
README = ROOT / "README.md"
TOUR = next(block for block in code_blocks(README, "sh") if "grid join" in block).split("\n\n")
MIB = 1 << 20


@dataclass(frozen=True)
class Grid:
    """Introducer, log service and six nodes as the tour has them.

    Attributes:
        folder: what the tour calls /tmp.
        introducer: its address.
        user: has joined it.
    """

    folder: Path
    introducer: str
    user: User

    def typed(self, line: str, **caps: str) -> str:
        """A line of the tour with this grid's folder and addresses, and these capabilities."""
        line = line.replace("/tmp/", f"{self.folder}/").replace("mun:introducer:...", self.introducer)
        if "mun:log:..." in line:
            line = line.replace("mun:log:...", next(iter(re.findall(r"mun:log:\S+", self.said()))))
        for kind, cap in caps.items():
            line = line.replace(f"mun:{kind.replace('_', ':')}:...", cap)
        assert "..." not in line, line
        return line

    def said(self) -> str:
        """What the processes have printed."""
        return (self.folder / "log.txt").read_text()

    def nodes(self) -> list[dict[str, object]]:
        """What `grid status` says of each."""
        nodes: list[dict[str, object]] = json.loads(self.user.muni("grid", "status", "--json").out)["nodes"]
        return nodes


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    folder = tmp_path_factory.mktemp("tour")
    user = User(folder / "home")
    user.home.mkdir()
    shutil.copy(README, user.home)
    (user.home / "books").mkdir()
    (user.home / "books" / "novel").write_bytes(CONTENT[:200_000])
    (user.home / "content").write_bytes(CONTENT)
    activate, *start = (line for line in TOUR[0].splitlines() + TOUR[1].splitlines() if line[:1] != "#")
    assert activate == ". .venv/bin/activate"
    made = user.shell(start.pop(0).replace("/tmp/", f"{folder}/"))
    assert made.code == 0, made.err
    grid = Grid(folder, made.text, user)
    # The rest of the paragraph in one shell, which then waits for what it has started.
    paragraph = grid.typed("\n".join([*start, "trap : TERM", "wait || wait"]))
    script = f". {VENV}/bin/activate\n{paragraph}"
    with (folder / "log.txt").open("wb") as log:
        how = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
        shell = user.start("bash", "-eu", "-c", script, **how)
    try:
        # Fifteen programs are started, those that make folders one after another.
        eventually(lambda: grid.said().count("serving mun:") == 8, 3 * PATIENCE_S)
        join, status = (grid.typed(line) for line in TOUR[2].splitlines())
        joined = user.shell(join)
        assert joined.text.startswith(f"joined {grid.introducer}"), joined.err
        eventually(lambda: "6 of 6 nodes up" in user.shell(status).text)
        yield grid
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        try:
            shell.wait(PATIENCE_S)
        finally:
            with pytest.raises(ProcessLookupError):  # all have ended by themselves
                os.killpg(shell.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def user(grid: Grid) -> User:
    return grid.user


@pytest.fixture(scope="module")
def cap(user: User) -> str:
    """Of `content`."""
    done = user.muni("put", "content")
    assert done.code == 0, done.err
    return done.text


# --- the README


def at_once(user: User, lines: list[str]) -> list[Done]:
    """Lines that do not depend on each other."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(user.shell, lines))


def test_the_rest_of_the_tour(grid: Grid, user: User) -> None:
    readme, books, stdin = at_once(user, TOUR[3].splitlines())
    assert [done.code for done in (readme, books, stdin)] == [0, 0, 0], books.err
    caps = {"file_read": readme.text, "tree_read": books.text}
    copied, ranged, restored = at_once(user, [grid.typed(line, **caps) for line in TOUR[4].splitlines()])
    assert (user.home / "copy.md").read_bytes() == README.read_bytes(), copied.err
    assert ranged.out == README.read_bytes()[:1024]
    assert (user.home / "restored" / "novel").read_bytes() == CONTENT[:200_000], restored.err
    weaken, check = TOUR[5].splitlines()
    weak = user.shell(grid.typed(weaken, **caps)).text
    checked = user.shell(grid.typed(check, file_verify=weak))
    assert checked.code == 0
    assert checked.text.startswith("healthy: 1 blob, 6 shares checked")
    assert user.muni("get", stdin.text).out == b"a line\n"


@pytest.mark.timeout(300)  # some thirty programs, one after another
def test_the_tour_of_a_volume_and_its_keeping(grid: Grid, user: User) -> None:
    blocks = [block for block in code_blocks(README, "sh") if "books:" in block or "keeper" in block]
    secret = user.home / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("correct horse\n")
    said = {}
    for line in "\n".join(blocks).splitlines():
        line = line.partition("#")[0].strip()
        done = user.shell(f"export MUNIMENT_PASSPHRASE_FILE={secret}; {grid.typed(line)}")
        assert done.code == 0, (line, done.err)
        said[line] = done.text
    assert "novel" in said["muni ls -l books:/2026"]
    assert said["muni audit books"].startswith("clean")
    assert "due for repair" not in said["muni keeper once books"]
    got = user.shell(f"export MUNIMENT_PASSPHRASE_FILE={secret}; muni cat books:/2026/novel")
    assert got.out == CONTENT[:200_000]
    assert (grid.folder / "restored-books" / "novel").read_bytes() == CONTENT[:200_000]
    undone = user.shell(grid.typed("muni node drain /tmp/node6 --undo"))  # other tests use it
    assert undone.code == 0


def test_the_python_of_the_readme_runs_as_it_stands(user: User, tmp_path: Path) -> None:
    (program,) = code_blocks(README, "python")
    shutil.copy(README, tmp_path)
    done = subprocess.run(
        [VENV / "bin" / "python", "-c", program],
        env=user.environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "copy.md").read_bytes() == README.read_bytes()
    assert "Health(verified=True" in done.stdout


# --- content


def test_a_file_comes_back_whole_and_in_part_by_every_way(user: User, cap: str) -> None:
    assert user.muni("get", cap).out == CONTENT
    (user.home / "note").write_text(cap + "\n")
    assert user.muni("get", "@note", "back").code == 0
    assert (user.home / "back").read_bytes() == CONTENT
    assert user.muni("get", "-", "--range", "4MiB-4194310", stdin=cap.encode()).out == CONTENT[4 * MIB :][:6]


def test_standard_input_is_the_same_content_as_a_file(user: User, cap: str) -> None:
    assert user.muni("put", "-", stdin=CONTENT).text == cap


def test_names_that_are_no_text_lose_no_capability(user: User, cap: str) -> None:
    odd = user.home / os.fsdecode(b"odd \xff")
    shutil.copy(user.home / "content", odd)
    done = user.muni("put", odd, "content")
    assert done.code == 0, done.err
    assert [line.split("  ") for line in done.text.splitlines()] == [
        [cap, f"{user.home}/odd \\udcff"], [cap, "content"],
    ]  # fmt: skip


def test_what_is_damaged_on_disk_is_told_and_read_nevertheless(grid: Grid, user: User) -> None:
    before = set(grid.folder.glob("node3/store/shares/*/*"))
    (user.home / "other").write_bytes(CONTENT[1000:300_000])
    cap = user.muni("put", "other").text
    (share,) = set(grid.folder.glob("node3/store/shares/*/*")) - before
    content = bytearray(share.read_bytes())
    content[-1] ^= 1
    share.write_bytes(content)
    done = user.muni("check", "--verify", cap)
    assert done.code == 10
    assert done.text.startswith("readable, but degraded")
    assert user.muni("get", cap).out == CONTENT[1000:300_000]
    assert "1 shares" in user.muni("node", "status", grid.folder / "node3").text.split("quarantined")[1]


# --- refusals


def test_a_second_start_on_the_same_folder_is_refused(grid: Grid, user: User) -> None:
    for kind, folder in (("node", grid.folder / "node1"), ("introducer", grid.folder / "intro")):
        done = user.muni(kind, "run", folder)
        assert (done.code, done.out) == (6, b"")
        assert f"another process is using {folder}" in done.err


def test_who_has_no_grid_is_told_how_to_get_one(tmp_path: Path) -> None:
    stranger = User(tmp_path)
    (tmp_path / "file").write_bytes(CONTENT[:1000])
    done = stranger.muni("put", "file")
    assert (done.code, done.out) == (6, b"")
    assert done.err.startswith("muni: no grid is known yet")
    for way in ("muni grid join", "--grid", "MUNIMENT_GRID", "muni demo --keep"):
        assert way in done.err


def test_a_capability_reads_from_anywhere_with_the_grid_named(grid: Grid, cap: str, tmp_path: Path) -> None:
    done = User(tmp_path).muni("--grid", grid.introducer, "get", cap)
    assert done.out == CONTENT, done.err
    roster = tmp_path / "roster"
    served = re.findall(r"serving (mun:node:\S+)", grid.said())
    lines = [User(tmp_path).muni("node", "status", served[0], "--record").text, *served[4:]]
    for address in served[1:4]:  # with the first as many as are needed, whoever answers late
        with Plain(parse_node(address)) as client:
            lines.append(json.loads(client.ask("GET", "/v1/info")[1])["record"])
    roster.write_text("\n".join(lines))
    done = User(tmp_path, str(roster)).muni("get", cap)
    assert done.out == CONTENT, done.err


# --- signals


def shares_sent(grid: Grid) -> set[Path]:
    return set(grid.folder.glob("node*/store/*/**/*"))


def test_ctrl_c_in_the_middle_of_a_put_leaves_nothing_reserved(grid: Grid, user: User) -> None:
    before = shares_sent(grid)
    with user.starting("put", "-") as process:
        assert process.stdin is not None
        process.stdin.write(random.Random(2).randbytes(4 * MIB + 1))  # a chunk, and no end
        process.stdin.flush()
        eventually(lambda: bool(shares_sent(grid) - before))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == b""
        told = process.stderr.read().decode()
        assert told.count("\n") == 2, told
        message, hint = told.splitlines()
    assert message == "muni: interrupted"
    assert hint.strip() == "nothing stays reserved; the same put goes on from what is stored already"
    assert [node["reserved_bytes"] for node in grid.nodes()] == [0] * 6


def test_ctrl_c_ends_a_get_whose_reader_has_stopped_reading(user: User, cap: str) -> None:
    with user.starting("get", cap) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        fd = process.stdout.fileno()
        room = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        waiting = bytearray(4)

        def full() -> bool:
            fcntl.ioctl(fd, termios.FIONREAD, waiting)
            return int.from_bytes(waiting, "little") == room

        eventually(full)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert "the output is not complete" in process.stderr.read().decode()


def test_a_reader_that_goes_away_ends_a_get_without_a_word(user: User, cap: str) -> None:
    with user.starting("get", cap) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == CONTENT[:10]
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


# --- terminals


def test_progress_is_shown_on_a_terminal_only(user: User, cap: str) -> None:
    with terminal() as screen, user.starting("put", "content", stderr=screen.end) as process:
        screen.close_end()
        while screen.read():
            pass
        assert process.stdout is not None
        assert process.stdout.read().decode() == cap + "\n"
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}".encode() in screen.shown
    assert b"MB" in screen.shown
    piped = user.muni("put", "content")
    assert "\x1b" not in piped.err
    assert len(piped.err.splitlines()) == 1
    assert piped.err.startswith("content: 5.0 MB")


def test_ctrl_c_gives_the_terminal_back_as_it_was(grid: Grid, user: User) -> None:
    with terminal() as screen, user.starting("put", "-", stderr=screen.end) as process:
        screen.close_end()
        while b"\x1b[?25l" not in screen.shown:  # the bar hides the cursor
            assert screen.read()
        process.send_signal(signal.SIGINT)
        while screen.read():
            pass
        assert process.wait(PATIENCE_S) == 130
    assert screen.shown.count(b"\x1b[?25l") == screen.shown.count(b"\x1b[?25h")
    last = screen.shown.rpartition(b"\x1b[?25h")[2].decode()
    assert "interrupted" in last
    assert "Traceback" not in screen.shown.decode()


def test_colours_are_for_terminals_and_can_be_declined(tmp_path: Path) -> None:
    for setting, escapes in (("NO_COLOR=", 2), ("NO_COLOR=1", 0)):
        with terminal() as screen:
            command = ("env", setting, VENV / "bin" / "muni", "get", "nonsense")
            with User(tmp_path).start(*command, stderr=screen.end):
                screen.close_end()
                while screen.read():
                    pass
        assert b"not a valid capability" in screen.shown
        assert screen.shown.count(b"\x1b") == escapes


def test_a_capability_that_is_typed_is_not_shown(tmp_path: Path) -> None:
    cap = cap_text(LiteralFile(b"secret"))
    with terminal() as screen:
        command = ("setsid", "--ctty", "--wait", VENV / "bin" / "muni", "cap", "show", "-")
        with User(tmp_path).start(*command, stdin=screen.end, stderr=screen.end) as process:
            screen.close_end()
            while b"capability:" not in screen.shown:
                assert screen.read()
            screen.type(cap + "\n")
            while screen.read():
                pass
            assert process.stdout is not None
            assert b"size_bytes  6\n" in process.stdout.read()
    assert cap.encode() not in screen.shown
