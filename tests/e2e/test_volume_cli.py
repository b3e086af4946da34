"""The commands on a volume's files as people type them, over node processes; the log is in the home."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.muni_command import User
from tests.e2e.node_processes import running_node

RNG = random.Random(5)
FILES = {f"small/{at:03}": RNG.randbytes(RNG.randrange(1, 20_000)) for at in range(40)}
FILES |= {"big": RNG.randbytes(5_000_000), "empty": b"", "deep/er/tiny": b"x", "zz": RNG.randbytes(5000)}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    folder = tmp_path_factory.mktemp("volume")
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running_node(folder / f"node{at}")) for at in range(6)]
        roster = folder / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        somebody = User(folder / "home", grid=str(roster))
        somebody.home.mkdir()
        for name, data in FILES.items():
            path = somebody.home / "tree" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (somebody.home / "tree" / "link").symlink_to("big")
        (somebody.home / "tree" / "zz").chmod(0o640)
        os.utime(somebody.home / "tree" / "zz", (10**9, 10**9))
        yield somebody


def typed(user: User, line: str) -> str:
    done = user.shell(line)
    assert done.code == 0, done.err
    return done.text


def content(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if not p.is_symlink()}
    return {name: path.read_bytes() for name, path in found.items() if path.is_file()}


def test_a_day_with_a_volume(user: User) -> None:
    typed(user, "muni identity new --unlocked && muni volume create books --own-name anna")
    typed(user, "muni put -r tree books:/ -m 'first of all'")
    long = typed(user, "muni ls -l books:/tree").splitlines()
    assert [line.split()[-1] for line in long] == ["big", "deep", "empty", "big", "small", "zz"]
    assert long[-1].startswith("-rw-r-----")
    assert str(len(FILES["big"])) in long[0]

    typed(user, "muni get -r books:/tree out")
    assert content(user.home / "out") == FILES
    assert (user.home / "out" / "link").readlink() == Path("big")
    assert (user.home / "out" / "zz").stat().st_mtime == 10**9
    typed(user, "muni cat books:/tree/big | cmp - tree/big")

    typed(user, "muni snapshot books: kept && muni mkdir books:/old && muni mv books:/tree books:/old")
    assert typed(user, "muni ls books:/old/tree/deep") == "er"
    typed(user, "echo new | muni put - books:/old/tree/zz && muni rm -r books:/old")
    assert typed(user, "muni ls books:") == ""
    typed(user, "muni cat books:/tree/zz --at kept | cmp - tree/zz")
    assert "+ /tree/big" in typed(user, "muni restore -n books:/tree --at kept")
    typed(user, "muni restore books: --at kept && muni get -r books:/tree again")
    assert content(user.home / "again") == FILES
    assert "first of all" in typed(user, "muni history books:")

    stranger = User(user.home / "stranger", grid=user.grid)
    stranger.home.mkdir()
    typed(user, "(umask 077; muni share books:/tree/small > stranger/cap)")
    typed(stranger, "muni get @cap theirs && muni check @cap")
    small = {name.removeprefix("small/"): data for name, data in FILES.items() if name.startswith("small/")}
    assert content(stranger.home / "theirs") == small
    typed(user, "muni share books:/tree/zz > stranger/cap")
    typed(stranger, "muni get @cap | cmp - ../tree/zz")
    assert not list(user.home.rglob(".muniment-*"))
