"""The seam under `PosixStore`: every system call by which it touches a disk, and no other.

`Disk` is what the store sees, `KernelDisk` is the real one.  The seam exists for tests: a process killed
before or after each call, each call failing in turn, and a model that loses at a power cut what was not
flushed, all stand behind it (`muniment.testing.crash`, `muniment.testing.disk_model`) without patching.

Files and folders are named relative to an open folder (`at`), so that no path is walked twice and no
symbolic link inside a store is ever followed.  Calls raise OSError as the system does; the store translates.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

Buffer = bytes | bytearray | memoryview

DIRECT_BYTES: Final = 4096
"""What `read_uncached` and `write_uncached` count in: the page, and at least the sector, of every disk."""

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class DiskEntry:
    """What stands under a name; links are described, not followed.

    Attributes:
        name: without any folder.
        is_file: a regular file; False for folders, links, pipes, sockets and devices.
        is_folder: a folder.
        size_bytes: as the file system states it.
    """

    name: str
    is_file: bool
    is_folder: bool
    size_bytes: int


class Disk(Protocol):
    """System calls; every `int` returned by an `open_`, `create_` or `lock_` is a descriptor to `close`."""

    def make_folder(self, name: str, at: int | None) -> None:
        """mkdir, for the owner only.  Raises FileExistsError whatever stands there."""
        ...

    def open_folder(self, name: str, at: int | None) -> int:
        """Open a folder; raises NotADirectoryError for a link or file, but follows one where `at` is None."""
        ...

    def lock_file(self, name: str, at: int) -> int:
        """Open, made if need be, and lock until closed.  Raises BlockingIOError: locked by somebody else."""
        ...

    def create_file(self, name: str, at: int) -> int:
        """Open a new file for appending, for the owner only.  Raises FileExistsError."""
        ...

    def open_file(self, name: str, at: int) -> int:
        """Open for reading, without following a link and without waiting for a pipe's other end."""
        ...

    def close(self, fd: int) -> None: ...

    def reserve(self, fd: int, size_bytes: int) -> None:
        """Allocate the file's blocks, so that writing them cannot find the disk full."""
        ...

    def write(self, fd: int, data: memoryview) -> int:
        """Append; returns how many bytes were taken."""
        ...

    def write_uncached(self, fd: int, data: memoryview) -> int:
        """`write` past the page cache; the file's size, the data's address and its size are multiples of
        DIRECT_BYTES.  Raises OSError with EINVAL where they are not or the file system cannot.
        """
        ...

    def cut(self, fd: int, size_bytes: int) -> None:
        """Shorten a file; nothing is appended after that."""
        ...

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Fill from `offset`; returns how many bytes came, 0 at the end."""
        ...

    def read_uncached(self, fd: int, buffer: memoryview, offset: int) -> int:
        """`read_into` past the page cache; `offset`, the buffer's address and its size are multiples of
        DIRECT_BYTES.  Raises OSError with EINVAL where the file system cannot.
        """
        ...

    def describe(self, fd: int) -> DiskEntry:
        """What is open; its `name` is empty."""
        ...

    def look(self, name: str, at: int) -> DiskEntry:
        """What stands under a name.  Raises FileNotFoundError."""
        ...

    def entries(self, fd: int) -> Generator[DiskEntry, None, None]:
        """What a folder holds, in no order."""
        ...

    def rename(self, name: str, at: int, new_name: str, new_at: int) -> None:
        """Give another name, replacing what stands there; atomic for whoever looks."""
        ...

    def unlink(self, name: str, at: int) -> None:
        """Remove a name that is not a folder's."""
        ...

    def flush_file(self, fd: int) -> None:
        """On return the file's bytes and size survive power loss; its name may not."""
        ...

    def drop_cached(self, fd: int) -> None:
        """Advise that a flushed file's bytes are not needed in memory."""
        ...

    def flush_folder(self, fd: int) -> None:
        """On return the names in the folder survive power loss, those gone as gone."""
        ...

    def free_bytes(self, fd: int) -> int:
        """Room on the file system for a process without privileges."""
        ...


class KernelDisk:
    """The operating system's own."""

    def make_folder(self, name: str, at: int | None) -> None:
        os.mkdir(name, _FOLDER_MODE, dir_fd=at)

    def open_folder(self, name: str, at: int | None) -> int:
        # An operator may link the store's own folder to a larger disk; inside it nothing is a link.
        flags = os.O_RDONLY | os.O_DIRECTORY | (0 if at is None else os.O_NOFOLLOW)
        return os.open(name, flags, dir_fd=at)

    def lock_file(self, name: str, at: int) -> int:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _FILE_MODE, dir_fd=at)
        try:
            # flock, not lockf: it belongs to the open file, so a second opener in this process is refused
            # too, and the kernel drops it with the process however that ends.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def create_file(self, name: str, at: int) -> int:
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE, dir_fd=at)

    def open_file(self, name: str, at: int) -> int:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=at)

    def close(self, fd: int) -> None:
        os.close(fd)

    def reserve(self, fd: int, size_bytes: int) -> None:
        os.posix_fallocate(fd, 0, size_bytes)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def write_uncached(self, fd: int, data: memoryview) -> int:
        with _past_cache(fd):
            return os.write(fd, data)

    def cut(self, fd: int, size_bytes: int) -> None:
        os.ftruncate(fd, size_bytes)

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def read_uncached(self, fd: int, buffer: memoryview, offset: int) -> int:
        with _past_cache(fd):
            return os.preadv(fd, [buffer], offset)

    def describe(self, fd: int) -> DiskEntry:
        return _entry("", os.fstat(fd))

    def look(self, name: str, at: int) -> DiskEntry:
        return _entry(name, os.stat(name, dir_fd=at, follow_symlinks=False))

    def entries(self, fd: int) -> Generator[DiskEntry, None, None]:
        # Opened again: a duplicate would share its position with every other scan of this folder.
        own = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        try:
            # Read as the caller goes on: a folder of a large store does not fit in a small node's memory.
            with os.scandir(own) as found:
                for item in found:
                    try:
                        yield _entry(item.name, item.stat(follow_symlinks=False))
                    except FileNotFoundError:
                        continue  # removed since the folder was read
        finally:
            os.close(own)

    def rename(self, name: str, at: int, new_name: str, new_at: int) -> None:
        os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=new_at)

    def unlink(self, name: str, at: int) -> None:
        os.unlink(name, dir_fd=at)

    def flush_file(self, fd: int) -> None:
        os.fdatasync(fd)  # the times, which fsync would add, are of no use here

    def drop_cached(self, fd: int) -> None:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def flush_folder(self, fd: int) -> None:
        os.fsync(fd)

    def free_bytes(self, fd: int) -> int:
        state = os.fstatvfs(fd)
        return state.f_bavail * state.f_frsize


@contextlib.contextmanager
def _past_cache(fd: int) -> Iterator[None]:
    """Let a descriptor pass by the page cache until the end of the block."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
    try:
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def _entry(name: str, status: os.stat_result) -> DiskEntry:
    return DiskEntry(name, stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode), status.st_size)
