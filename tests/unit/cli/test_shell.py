"""The shell: relative paths become full ones, lines are read and run, names are completed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni

from muniment.gateways.cli.completing import completions
from muniment.gateways.cli.context import Context
from muniment.gateways.cli.shell import Shell, history_in


class Named(FakeComposition):
    """Its volume has folders `a b`, `books` and a file `bill`; whatever is asked."""

    def names(self, home: Path, name: str, folder: bytes) -> list[tuple[bytes, bool]]:
        return [(b"a b", True), (b"bill", False), (b"books", True)] if folder == b"/" else [(b"x", False)]


@pytest.fixture
def shell() -> Shell:
    return Shell(Context(Named(), home=Path("/h")), "vol", ["2026"])


@pytest.mark.parametrize(
    ("line", "expanded"),
    [
        ("ls", "ls vol:/2026"),
        ("ls -l", "ls -l vol:/2026"),
        ("ls --at yesterday sub", "ls --at yesterday vol:/2026/sub"),
        ("ls ..", "ls vol:/"),
        ("ls ../../..", "ls vol:/"),
        ("cat /a/./b//c", "cat vol:/a/b/c"),
        ("cat other:/x", "cat other:/x"),
        ("mkdir -p a/b c/", "mkdir -p vol:/2026/a/b vol:/2026/c/"),
        ("mv a ../b", "mv vol:/2026/a vol:/b"),
        ("chmod 600 a b", "chmod 600 vol:/2026/a vol:/2026/b"),
        ("ln a b", "ln vol:/2026/a vol:/2026/b"),
        ("ln -s a b", "ln -s a vol:/2026/b"),
        ("rm -r -- -x", "rm -r -- vol:/2026/-x"),
        ("diff sub 3 now", "diff vol:/2026/sub 3 now"),
        ("put here there", "put here vol:/2026/there"),
        ("put here", "put here vol:/2026"),
        ("get there here", "get vol:/2026/there here"),
        ("get there", "get vol:/2026/there ."),
        ("audit --offline", "audit vol --offline"),
        ("audit other", "audit other"),
        ("member list", "member list vol"),
        ("member kick -y bert", "member kick vol -y bert"),
        ("member kick other bert", "member kick other bert"),
        ("volume info", "volume info vol"),
        ("volume cap --right read", "volume cap vol --right read"),
        ("volume create new", "volume create new"),
        ("volume list", "volume list"),
        ("snapshot", "snapshot vol:"),
        ("snapshot year-end", "snapshot vol: year-end"),
        ("snapshot other: year-end", "snapshot other: year-end"),
        ("nonsense a b", "nonsense a b"),
    ],
)
def test_paths_are_made_full(shell: Shell, line: str, expanded: str) -> None:
    assert shell.expanded(line.split()) == expanded.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("hi", [("history ", 2)]),
        ("cat /b", [("/bill ", 2), ("/books/", 2)]),
        ("cat '/a ", [("'/a b'/", 4)]),
        ("cat /books/", [("/books/x ", 7)]),
        ("cat ", [("x ", 0)]),
        ("cat /a\\ ", [("'/a b'/", 4)]),
        ('cat "/a ', [("'/a b'/", 4)]),
        ("ls -l ../bo", [("../books/", 5)]),
    ],
)
def test_names_are_completed(shell: Shell, line: str, found: list[tuple[str, int]]) -> None:
    assert list(completions(shell, line)) == found


def test_local_names_are_completed(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert list(completions(shell, "put f")) == [("file ", 1), ("folder/", 1)]
    assert list(completions(shell, "lcd fo")) == [("folder/", 2)]
    assert list(completions(shell, "get x f")) == [("file ", 1), ("folder/", 1)]


@pytest.fixture
def world(tmp_path: Path) -> Callable[[str], list[str]]:
    """A volume `vol` in a home of its own; runs lines in its shell: the output and the status."""
    world = FakeComposition()
    home = tmp_path / "home"
    assert muni(world, "--home", home, "identity", "new", "--unlocked").code == 0
    assert muni(world, "--home", home, "volume", "create", "vol").code == 0

    def run(lines: str) -> list[str]:
        done = muni(world, "--home", home, "-q", "shell", "vol", stdin=lines)
        return [*done.lines, str(done.code), done.err]

    return run


def test_a_session(
    world: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a name").write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    out = world("mkdir 'my books'\ncd 'my books'\nput 'a name'\nls\ncat 'a name'\npwd\nlocal\ncd\nls\n")
    assert out[0] == "a name"
    assert "content" in out[1]
    assert any(line.endswith("vol:/my books") for line in out)
    assert out[-2:] == ["0", ""]
    assert out[-3].rstrip("/") == "my books"


def test_its_status_is_that_of_the_last_command(world: Callable[[str], list[str]]) -> None:
    assert world("cat nothing\n")[-2] == "2"
    assert world("cat nothing\nls\n")[-2] == "0"
    assert world("cd nothing\n")[-2] == "2"
    assert world("ls\nexit\ncat nothing\n")[-2] == "0"
    assert world("'unended\n")[-2] == "2"


def test_a_line_of_this_machine(world: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert world("!echo one; exit 5\n")[-2] == "5"
    assert capfd.readouterr().out == "one\n"
    assert world("!kill -9 $$\n")[-2] == "137"
    assert world("!cat\nls\nls nowhere\n")[-2] == "2"  # the script is the shell's own input
    assert world("!echo '[$MUNIMENT_PASSPHRASE_FILE]'\n")[-2] == "0"


def test_where_one_is_on_this_machine(
    world: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "file").touch()
    assert world("lcd 'a b'\nlpwd\nlls\n")[:2] == [str(tmp_path / "a b"), "file"]


def test_what_a_word_of_the_shell_cannot_do_is_said(world: Callable[[str], list[str]]) -> None:
    for line, said in (
        ("cd a b", "quote a name with blanks"),
        ("cd nothing", "'muni ls' shows what there is"),
        ("lcd /nothing/here", "No such file"),
    ):
        *_, code, err = world(f"{line}\n")
        assert code in "26"
        assert said in err
    assert "/file is not a folder" in world("touch file\ncd file\n")[-1]


def test_help_names_commands_and_words(world: Callable[[str], list[str]]) -> None:
    out = "\n".join(world("help\n"))
    for word in ("cd [FOLDER]", "local [FOLDER]", "ls", "restore"):
        assert word in out
    assert "introducer" not in out


def test_lines_are_remembered_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch(mode=0o644)
    path.chmod(0o644)
    kept = history_in(path)
    for line in ("ls", "get mun:file:read:aebo here", "volume join mun:volume:write:ab", "help"):
        kept.append_string(line)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(history_in(path).load_history_strings()) == ["help", "ls"]
