"""Calls on a mounted volume that programs make rarely: holes, locks, access lists, and what is broken off."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.mounting import Library, library, needs_mounts, silent
from tests.e2e.node_processes import eventually

pytestmark = needs_mounts

KEEP_SIZE, PUNCH_HOLE = 1, 2
LOCKER = """
import fcntl, os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
file = os.open(sys.argv[1], os.O_RDWR)
print("waits", flush=True)
getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX)
print("has it", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    with library(tmp_path_factory.mktemp("calls")) as made:
        yield made


@pytest.fixture(scope="module")
def folder(books: Library) -> Iterator[Path]:
    with books.served("--allow-other"):
        yield books.mounted
        books.typed("muni umount mounted")


def locker(path: Path, call: str) -> subprocess.Popen[str]:
    """A process that asks for a lock and keeps it."""
    command = [sys.executable, "-c", LOCKER, str(path), call]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert line(started) == "waits"
    return started


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def asleep(pid: int) -> bool:
    """Whether a process waits in a call."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "SD"


def until_asleep(pid: int) -> None:
    """Wait for that; all that it does before is to print a line and make the call."""
    eventually(lambda: asleep(pid))


def test_holes_are_punched_and_found(folder: Path) -> None:
    with (folder / "sparse").open("w+b", buffering=0) as file:
        file.write(b"x" * 300_000)
        done = ctypes.CDLL(None, use_errno=True).fallocate(
            file.fileno(), KEEP_SIZE | PUNCH_HOLE, ctypes.c_int64(100_000), ctypes.c_int64(50_000)
        )
        assert done == 0, os.strerror(ctypes.get_errno())
        assert os.pread(file.fileno(), 3, 99_998) == b"xx\0"
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 100_000
        assert os.lseek(file.fileno(), 100_000, os.SEEK_DATA) == 150_000
        os.posix_fallocate(file.fileno(), 300_000, 50_000)
        assert os.fstat(file.fileno()).st_size == 350_000
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.lseek(file.fileno(), 300_000, os.SEEK_DATA)


def link(file: int, path: Path) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW, which Python calls only if a folder is given."""
    os.link(f"/proc/self/fd/{file}", path, src_dir_fd=file, follow_symlinks=True)


def test_a_file_without_a_name_gets_one_by_a_link(folder: Path) -> None:
    file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o640)
    try:
        os.write(file, b"x" * 200_000)
        assert os.fstat(file).st_nlink == 0
        assert "named" not in os.listdir(folder)  # noqa: PTH208 - the plain call
        link(file, folder / "named")
        assert os.fstat(file).st_nlink == 1
    finally:
        os.close(file)
    assert (folder / "named").read_bytes() == b"x" * 200_000
    assert (folder / "named").stat().st_mode & 0o777 == 0o640
    forever = os.open(folder, os.O_TMPFILE | os.O_EXCL | os.O_RDWR)
    with pytest.raises(FileNotFoundError):
        link(forever, folder / "never")
    os.close(forever)


def test_an_attribute_is_created_once(folder: Path) -> None:
    path = folder / "attributes"
    path.touch()
    os.setxattr(path, "user.one", b"1", os.XATTR_CREATE)
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.one", b"2", os.XATTR_CREATE)
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.setxattr(path, "user.two", b"2", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.one") == b"1"


@pytest.mark.parametrize("call", ["lockf", "flock"])
def test_who_has_a_lock_keeps_others_out_until_he_ends(folder: Path, call: str) -> None:
    path = folder / f"locked-by-{call}"
    path.touch()
    with locker(path, call) as first:
        assert line(first) == "has it"
        with path.open("r+b") as file, pytest.raises(BlockingIOError):
            getattr(fcntl, call)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with locker(path, call) as second, locker(path, call) as third:
            until_asleep(second.pid)
            until_asleep(third.pid)
            third.kill()  # who is killed while he waits is gone at once, and gets nothing
            assert third.wait(10) == -signal.SIGKILL
            assert second.stdout is not None
            assert not select.select([second.stdout], [], [], 0)[0]
            first.kill()
            assert line(second) == "has it"
            second.kill()
    with path.open("r+b") as file:
        getattr(fcntl, call)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_an_access_list_lets_somebody_in_and_is_inherited(folder: Path) -> None:
    shut = folder / "shut"
    shut.mkdir(mode=0o755)
    (shut / "file").write_text("secret")
    (shut / "file").chmod(0o600)

    def reads(path: Path) -> bool:  # from there: he may not come through the folders above
        where, name = path.parent, path.name
        done = subprocess.run(
            ["cat", name], cwd=where, user=4321, group=4321, capture_output=True, check=False
        )
        return done.returncode == 0

    entries = ((0x01, 6, -1), (0x02, 4, 4321), (0x04, 0, -1), (0x10, 4, -1), (0x20, 0, -1))
    grant = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in entries)
    assert not reads(shut / "file")
    os.setxattr(shut / "file", "system.posix_acl_access", grant)
    assert reads(shut / "file")
    assert (shut / "file").stat().st_mode & 0o777 == 0o640
    os.setxattr(shut, "system.posix_acl_default", grant)
    (shut / "heir").write_text("not secret either")
    assert reads(shut / "heir")
    (shut / "heir").chmod(0o600)
    assert not reads(shut / "heir")


def test_who_is_killed_while_the_nodes_say_nothing_is_gone_at_once(books: Library, folder: Path) -> None:
    code = """
import sys
file = open(sys.argv[1], "rb", buffering=0)
print("waits", flush=True)
file.read()
"""
    books.typed("head -c 200000 /dev/urandom | muni put - books:/cold")
    assert "cold" in os.listdir(folder)  # noqa: PTH208 - looking asks for what is new
    with silent(books.nodes):
        command = [sys.executable, "-c", code, str(folder / "cold")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            assert line(reader) == "waits"
            until_asleep(reader.pid)
            reader.kill()
            assert reader.wait(20) == -signal.SIGKILL  # a call's deadline is 60 s
    assert len((folder / "cold").read_bytes()) == 200_000
