"""`muni demo`, small: what it tells, and that it leaves neither a process nor a folder, however it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.e2e.mounting import missing
from tests.e2e.muni_command import PATIENCE_S, ROOT, User
from tests.e2e.node_processes import eventually

SIZE = ["--size-mb", "8"]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return User(tmp_path)


def processes(user: User) -> Iterator[psutil.Process]:
    """Those that work for a demo in this user's folder."""
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{user.home}/tmp/" in word for word in process.info["cmdline"] or ()):
            yield process


def nothing_is_left(user: User) -> bool:
    return not any(processes(user)) and not any((user.home / "tmp").iterdir())


def test_the_story_is_told_and_nothing_is_left(user: User) -> None:
    done = user.muni("demo", *SIZE)
    assert done.code == 0, done.err
    rows = dict(line.split("  ", 1) for line in done.text.splitlines())
    assert rows["killed"].strip() == "node1, with SIGKILL"
    assert rows["caught lying"].strip().startswith("node2: ")
    assert rows["identical"].strip() == "yes: every byte, permission, time and link"
    assert rows["checked"].strip().startswith("readable; ")
    assert rows["whole again"].strip().startswith("all ")
    mounted = "not on this machine: " if missing() else "as a folder: 43 names "
    assert rows["mounted"].strip().startswith(mounted)
    assert nothing_is_left(user)


def test_it_is_kept_when_asked_for(user: User) -> None:
    done = user.muni("demo", *SIZE, "--keep", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    try:
        assert set(told["liars"]) == {"node2"}
        assert told["killed"] == "node1"
        page = (ROOT / "docs" / "gateways" / "cli.md").read_text().split("### `muni demo`")[1]
        shown = json.loads(page.split("```json\n")[1].split("```")[0])
        assert set(told) - set(shown) == {"folder", "grid", "home", "cap_file", "processes"}
        assert set(shown) <= set(told)
        assert {process.pid for process in processes(user)} == set(told["processes"])
        again = User(user.home, told["grid"])
        assert again.muni("get", f"@{told['cap_file']}", "back").code == 0
        assert (user.home / "back" / "media" / "latest.csv").is_symlink()
    finally:
        for pid in told["processes"]:
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(processes(user)))


@pytest.mark.parametrize(
    ("moment", "place"),
    [("making a tree", "*/original/library/*"), ("reading everything back", "*/back*")],
)
def test_ctrl_c_leaves_nothing(user: User, moment: str, place: str) -> None:
    with user.starting("demo", "--size-mb", "40") as process:
        assert process.stderr is not None
        said = b""
        while moment not in said.decode():
            line = process.stderr.readline()
            assert line, said
            said += line
        eventually(lambda: any((user.home / "tmp").glob(place)))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().decode()
        assert process.wait(PATIENCE_S) == 130
    assert rest.splitlines()[-2:] == [
        "muni: interrupted",
        "      its processes are ended and its files are removed",
    ]
    assert nothing_is_left(user)


def test_ctrl_c_while_the_processes_start_leaves_nothing(user: User) -> None:
    with user.starting("demo", *SIZE) as process:
        eventually(lambda: any((user.home / "tmp").glob("*/node3.log")))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    assert nothing_is_left(user)


def test_a_demo_that_is_killed_takes_its_processes_with_it(user: User) -> None:
    with user.starting("demo", *SIZE) as process:
        eventually(lambda: any((user.home / "tmp").glob("*/node6.log")))
        process.kill()
    eventually(lambda: not any(processes(user)))
