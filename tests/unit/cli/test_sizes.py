"""Files of every size at which something else happens to them, through the commands that move content.

Nothing, one byte, inline (2 KiB), packed with neighbours (64 KiB), cut into chunks (4 MiB): each limit, one
less and one more.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.unit.cli.test_files import Desk

KIB, MIB = 1 << 10, 1 << 20
LIMITS = [2 * KIB, 64 * KIB, 4 * MIB]
SIZES = [0, 1, *(limit + more for limit in LIMITS for more in (-1, 0, 1))]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


@pytest.mark.parametrize("size", SIZES)
def test_every_command_that_moves_content(desk: Desk, size: int) -> None:
    data = random.Random(size).randbytes(size)
    folder = desk.here / "in"
    folder.mkdir()
    (folder / "x").write_bytes(data)
    (folder / "y").write_bytes(data[::-1])
    desk("put", "in/x", "books:/one")
    desk("put", "-", "books:/piped", stdin=data)
    desk("put", "-r", "in", "books:/")
    desk("mkdir", "books:/both")
    desk("put", "in/x", "in/y", "books:/both")
    desk("cp", "books:/in/x", "books:/copy")
    desk("cp", "-r", "books:/both", "books:/copies")
    desk("snapshot", "books:", "then")
    for name in ("one", "piped", "in/x", "both/x", "copy", "copies/x"):
        assert desk("cat", f"books:/{name}").out == data, name
    desk("get", "books:/one", "out")
    assert (desk.here / "out").read_bytes() == data
    desk("get", "-r", "books:/in", "out.d")
    assert [(desk.here / "out.d" / name).read_bytes() for name in "xy"] == [data, data[::-1]]
    desk("put", "-", "books:/one", stdin=b"else")
    desk("rm", "-r", "books:/copies")
    desk("restore", "books:", "--at", "then")
    assert desk("cat", "books:/one").out == data
    assert desk("cat", "books:/copies/y").out == data[::-1]
    if size > 1:
        assert desk("get", "books:/one", "--range", f"1-{size - 1}").out == data[1:-1]
