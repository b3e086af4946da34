"""Patterns and odd names with every command on a volume's files, and dry runs that change nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.unit.cli.support import Done
from tests.unit.cli.test_files import Desk

ODD = [
    "with blank",
    "a[b]c",
    "x*y?",
    "two\nlines",
    "-r",
    "--",
    "é",
    os.fsdecode(b"\xff\xfe"),
    "a:b",
    "~",
    "$HOME",
]
LOGS = ["2026-1.txt", "2026-2.txt", "2025-9.txt", "other"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    (tmp_path / "logs").mkdir()
    for name in LOGS:
        (tmp_path / "logs" / name).write_bytes(name.encode())
    desk("put", "-r", "logs", "books:/")
    return desk


def held(desk: Desk, folder: str = "books:/logs") -> list[str]:
    found = desk("ls", "--json", folder).json["entries"]
    return [one["path"].rpartition("/")[2] for one in found]


def got(desk: Desk, done: Done) -> object:
    return sorted(path.name for path in (desk.here / "into").iterdir())


PATTERN = "books:/logs/2026-*.txt"

MATCHED = ["2026-1.txt", "2026-2.txt"]
LEFT = ["2025-9.txt", "other"]
GLOBS = {
    "get": (["get", PATTERN, "into"], got, MATCHED),
    "cat": (["cat", PATTERN], lambda _, done: done.out, b"2026-1.txt2026-2.txt"),
    "ls": (["ls", PATTERN], lambda _, done: len(done.lines), 2),
    "du": (["du", PATTERN], lambda _, done: len(done.lines), 2),
    "stat": (["stat", PATTERN], lambda _, done: done.text.count("version"), 2),
    "find": (["find", PATTERN], lambda _, done: len(done.lines), 2),
    "rm": (["rm", PATTERN], lambda desk, _: held(desk), LEFT),
    "mv": (["mv", PATTERN, "books:/to"], lambda d, _: held(d) + held(d, "books:/to"), LEFT + MATCHED),
    "cp": (["cp", PATTERN, "books:/to"], lambda desk, _: held(desk, "books:/to"), MATCHED),
    "chmod": (
        ["chmod", "600", PATTERN],
        lambda desk, _: [one["mode"] for one in desk("ls", "--json", PATTERN).json["entries"]],
        ["0600", "0600"],
    ),
    "touch": (["touch", PATTERN], lambda desk, _: len(held(desk)), 4),
}  # fmt: skip


@pytest.mark.parametrize("command", GLOBS)
def test_patterns_stand_for_what_the_volume_holds(desk: Desk, command: str) -> None:
    words, look, expected = GLOBS[command]
    (desk.here / "into").mkdir()
    desk("mkdir", "books:/to")
    assert look(desk, desk(*words)) == expected


@pytest.mark.parametrize("command", [name for name in GLOBS if name != "touch"])
def test_a_pattern_that_matches_nothing_is_refused(desk: Desk, command: str) -> None:
    words = [word.replace("2026", "1999") for word in GLOBS[command][0]]
    (desk.here / "into").mkdir()
    desk("mkdir", "books:/to")
    assert "1999" in desk(*words, code=2).err


DRY = {
    "rm": ["rm", "books:/logs/other"],
    "rm -r": ["rm", "-r", "books:/logs"],
    "rmdir": ["rmdir", "books:/empty"],
    "mv": ["mv", "books:/logs/2025-9.txt", "books:/logs/other"],
    "cp within": ["cp", "books:/logs/2025-9.txt", "books:/logs/other"],
    "cp -r within": ["cp", "-r", "books:/logs", "books:/empty"],
    "cp to": ["cp", "tree/a", "books:/logs/other"],
    "cp from": ["cp", "books:/logs/other", "mine"],
    "get": ["get", "books:/logs/other", "mine"],
    "get -r": ["get", "-r", "books:/logs", "tree"],
    "get --replace": ["get", "--replace", "books:/logs/other", "mine"],
    "restore": ["restore", "books:/logs", "--at", "2"],
}


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_says_what_would_be_and_changes_nothing(desk: Desk, name: str) -> None:
    desk("mkdir", "books:/empty")
    desk("rm", "books:/logs/2026-1.txt")
    desk("put", "-", "books:/logs/other", stdin=b"changed")
    (desk.here / "mine").write_bytes(b"mine")

    def everything() -> object:
        entries = desk("history", "--json", "books:").json["entries"]
        here = {path: path.is_file() and path.read_bytes() for path in sorted(desk.here.rglob("*"))}
        return entries, {path: held for path, held in here.items() if "home" not in path.parts}

    before = everything()
    done = desk(*DRY[name], "-n")
    assert done.out
    assert desk(*DRY[name], "-n", "--json").json
    assert everything() == before


def test_what_a_dry_run_says(desk: Desk) -> None:
    (desk.here / "mine").write_bytes(b"mine")
    assert desk("get", "-n", "books:/logs/other", "mine").lines == ["books:/logs/other -> mine (replaced)"]
    assert desk("cp", "-n", "books:/logs/other", "books:/new").lines == ["books:/logs/other -> books:/new"]
    would = desk("cp", "-n", "--json", "tree/a", "books:/logs/other").json["would"]
    assert would == [{"path": "tree/a", "target": "books:/logs/other", "replaces": True}]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_go_in_and_come_back(desk: Desk, name: str) -> None:
    (desk.here / name).write_bytes(b"odd")
    where = f"books:/odd/{name}"
    desk("mkdir", "books:/odd")
    desk("put", "--", f"./{name}", "books:/odd/")
    assert held(desk, "books:/odd") == [name]
    assert desk("ls", "books:/odd").lines
    assert desk("cat", where).out == b"odd"
    desk("get", where, "back")
    assert (desk.here / "back").read_bytes() == b"odd"
    desk("cp", where, "books:/odd/copy")
    desk("mv", where, "books:/logs/")
    assert name in held(desk)
    desk("chmod", "600", f"books:/logs/{name}")
    for command in (["stat"], ["du"], ["find"], ["history"]):
        desk(*command, f"books:/logs/{name}")
    desk("get", "-r", "books:/logs", "all")
    assert (desk.here / "all" / name).read_bytes() == b"odd"
    desk("rm", f"books:/logs/{name}")
    assert name not in held(desk)
    assert sys.getfilesystemencoding() == "utf-8"


def test_several_files_are_one_entry(desk: Desk) -> None:
    names = [name for name in ODD if name != "-r"]
    for name in names:
        (desk.here / name).write_bytes(os.fsencode(name))
    desk("mkdir", "books:/odd")
    before = len(desk("history", "--json", "books:").json["entries"])
    done = desk("put", "--json", *(f"./{name}" for name in names), "books:/odd/")
    assert len({one["entry"] for one in done.json["stored"]}) == 1
    assert [one["size_bytes"] for one in done.json["stored"]] == [len(os.fsencode(name)) for name in names]
    assert len(desk("history", "--json", "books:").json["entries"]) == before + 1
    for name in names:
        assert desk("cat", f"books:/odd/{name}").out == os.fsencode(name)
    assert "same name" in desk("put", "tree/a", "tree/../tree/sub/../a", "books:/odd", code=2).err


def test_copies_into_another_volume(desk: Desk) -> None:
    desk("volume", "create", "other", "--own-name", "anna")
    desk("put", "-r", "tree", "books:/")
    desk("mkdir", "other:/to")
    assert "-r" in desk("cp", "books:/tree", "other:/to", code=2).err
    assert desk("cp", "-n", "-r", "books:/tree", "other:/to").lines == ["books:/tree -> other:/to/tree"]
    desk("cp", "-r", "books:/tree", PATTERN, "other:/to")
    assert held(desk, "other:/to") == [*MATCHED, "tree"]
    assert desk("cat", "other:/to/tree/sub/b").out == desk("cat", "books:/tree/sub/b").out
    desk("cp", "books:/logs/other", "other:/new")
    assert desk("cat", "other:/new").out == b"other"
    assert "not a folder" in desk("cp", PATTERN, "other:/new", code=2).err
    desk("rm", "books:/logs/other")
    desk("cp", "books:/logs/other", "other:/again", "--at", "2")
    assert desk("cat", "other:/again").out == b"other"


def test_what_was_left_out_is_told_and_fails_only_if_that_is_wanted(desk: Desk) -> None:
    os.mkfifo(desk.here / "tree" / "pipe")
    (desk.here / "tree" / "a").chmod(0o4755)
    desk("put", "-r", "tree", "books:/")
    desk("get", "-r", "--no-owners", "--strict", "books:/tree", "plain")
    assert (desk.here / "plain" / "pipe").is_fifo()
    assert (desk.here / "plain" / "a").stat().st_mode & 0o7777 == 0o755
    desk("get", "-r", "--owners", "books:/tree", "whole")
    assert (desk.here / "whole" / "a").stat().st_mode & 0o7777 == 0o4755


def test_options_for_volumes_are_refused_elsewhere(desk: Desk) -> None:
    cap = desk("put", "tree/a").text.strip()
    assert "--strict" in desk("put", "--strict", "tree/a", code=2).err
    for option in ("--strict", "--owners", "-n"):
        assert "paths in a volume" in desk("get", option, cap, "x", code=2).err
