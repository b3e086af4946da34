"""Locks across two mounts of one volume, as real programs take them."""

from __future__ import annotations

import contextlib
import fcntl
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.mounting import Library, library, needs_mounts
from tests.e2e.node_processes import running

from muniment.net.server import free_port
from muniment.node.compose import init_log
from muniment.node.config import LogConfig

pytestmark = needs_mounts

LOCKER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
print("asks", flush=True)
getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX)
found = os.pread(file, 100, 0).decode()
os.pwrite(file, sys.argv[3].encode(), 0)
print("has it, and reads " + found, flush=True)
sys.stdin.read()
"""
MAKER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute("CREATE TABLE counter (n)")
base.execute("INSERT INTO counter VALUES (0)")
base.commit()
"""
READER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
for asked in ("SELECT n FROM counter", "PRAGMA quick_check"):
    print(*base.execute(asked).fetchone())
"""
ADDER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for _ in range(int(sys.argv[2])):
    base.execute("BEGIN IMMEDIATE")
    (count,) = base.execute("SELECT n FROM counter").fetchone()
    base.execute("UPDATE counter SET n = ?", (count + 1,))
    base.execute("COMMIT")
base.close()
"""


@contextlib.contextmanager
def mounted(books: Library, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    books.typed(f"muni mount -o locks=volume books {folder}")
    try:
        yield folder
    finally:
        books.typed(f"muni umount {folder}")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("locks")
    port = free_port("127.0.0.1")
    init_log(folder / "log", LogConfig(port=port))
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(running("run_log", folder / "log"))
        books = stack.enter_context(library(folder, str(log.address)))
        one, other = (stack.enter_context(mounted(books, folder / name)) for name in ("one", "other"))
        yield one, other


def locker(path: Path, call: str, text: str) -> subprocess.Popen[str]:
    """A process that asks for a lock, then reads, writes and keeps it."""
    command = [sys.executable, "-c", LOCKER, str(path), call, text]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert line(started) == "asks"
    return started


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


@pytest.mark.parametrize("call", ["lockf", "flock"])
def test_a_lock_keeps_out_who_comes_through_another_mount(two: tuple[Path, Path], call: str) -> None:
    one, other = (folder / f"by-{call}" for folder in two)
    one.write_text("old text")
    with locker(one, call, "new") as first:
        assert line(first) == "has it, and reads old text"
        assert other in list(other.parent.iterdir())  # listing asks for what is new, looks do not
        with other.open("r+b") as file:
            assert file.read() == b"old text"  # which stays in the kernel
            with pytest.raises(BlockingIOError):
                getattr(fcntl, call)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with locker(other, call, "") as second:
                assert second.stdout is not None
                assert not select.select([second.stdout], [], [], 0)[0]
                first.kill()
                assert line(second) == "has it, and reads new text"
                second.kill()
            file.seek(0)
            assert file.read() == b"new text"


def python(code: str, *arguments: str | Path) -> str:
    """What a program prints that must succeed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_sqlite_counts_through_both_mounts_and_misses_none(two: tuple[Path, Path]) -> None:
    turns, (one, other) = 6, (folder / "base" for folder in two)
    python(MAKER, one)
    assert other in list(other.parent.iterdir())
    command = [sys.executable, "-c", ADDER]
    adders = [subprocess.Popen([*command, str(base), str(turns)]) for base in (one, other)]
    assert [adder.wait(100) for adder in adders] == [0, 0]
    for base in (one, other):
        assert python(READER, base).split() == [str(2 * turns), "ok"]
