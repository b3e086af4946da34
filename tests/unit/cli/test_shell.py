"""The shell: relative paths become full ones, lines are read and run, names are completed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni

from muniment.gateways.cli.context import Context
from muniment.gateways.cli.shell import Shell, completions


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


def test_help_names_commands_and_words(world: Callable[[str], list[str]]) -> None:
    out = "\n".join(world("help\n"))
    for word in ("cd [FOLDER]", "local [FOLDER]", "ls", "restore"):
        assert word in out
    assert "introducer" not in out
