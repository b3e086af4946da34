"""Where a download's bytes go: any object with `write`, or a path that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from muniment.durable_file import flush
from muniment.errors import DiskFull, FileFailed, InvalidRequest, LocalError

_FLUSH_BYTES: Final = 16 << 20
"""Written between two flushes of a large file.  It must be flushed in the end anyway; on the way it lets
its pages serve the next bytes, and fresh pages cost several times as much (docs/drivers/posix.md)."""


class Writable(Protocol):
    """What `Grid.get` needs of a file object."""

    def write(self, data: memoryview, /) -> int | None: ...


class Target(Protocol):
    """Takes verified bytes in order; all methods block and are called from one thread at a time."""

    def begin(self) -> None:
        """Make ready."""
        ...

    def write(self, data: memoryview) -> None:
        """Append all of `data`."""
        ...

    def finish(self) -> None:
        """All was written."""
        ...

    def abandon(self) -> None:
        """It will not be finished.  Idempotent; without effect before `begin` and after `finish`."""
        ...


class ObjectTarget:
    """A file object of the caller's; what it raises passes as it is."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream

    def begin(self) -> None:
        pass

    def write(self, data: memoryview) -> None:
        while data:
            count = self._stream.write(data)
            data = data[len(data) if count is None else count :]

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class PathTarget:
    """A new file beside its place, moved there when it is whole and flushed.

    Keeps the permissions of a file that it replaces; a new one gets what the process gives new files.  A
    symbolic link is followed: what it points to is replaced.

    Args:
        settle: called before the end with the descriptor, and whether there was a file before.
    Raises: FileFailed, DiskFull: from every method but `abandon`.
    """

    def __init__(self, path: Path, settle: Callable[[int, bool], None] | None = None) -> None:
        self._path = self._real = path
        self._settle = settle
        self._replaces = False
        self._fd = -1
        self._temp: Path | None = None
        self._unflushed_bytes = 0

    def begin(self) -> None:
        try:
            self._real = self._path.resolve()
            mode = self._real.stat().st_mode & 0o777 if self._real.exists() else None
            self._fd, self._temp = _open_new(self._real.parent)
            self._replaces = mode is not None
            if mode is not None:
                os.fchmod(self._fd, mode)  # before there is content that somebody else could read
        except OSError as error:
            raise local_error(self._path, error) from error

    def write(self, data: memoryview) -> None:
        self._unflushed_bytes += len(data)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            if self._unflushed_bytes >= _FLUSH_BYTES:
                self._unflushed_bytes = 0
                os.fdatasync(self._fd)
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise local_error(self._path, error) from error

    def skip(self, length: int) -> None:
        """Leave a hole."""
        try:
            os.ftruncate(self._fd, os.lseek(self._fd, length, os.SEEK_CUR))
        except OSError as error:
            raise local_error(self._path, error) from error

    def finish(self) -> None:
        """Durable under its name on return."""
        assert self._temp is not None
        try:
            if self._settle is not None:
                self._settle(self._fd, self._replaces)
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._temp.replace(self._real)
            self._temp = None
            flush(self._real.parent)
        except OSError as error:
            raise local_error(self._path, error) from error

    def abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._temp is not None:
            with contextlib.suppress(OSError):
                self._temp.unlink()
            self._temp = None


class DeviceTarget:
    """A device or named pipe: written to as it is, since there is nothing to replace.

    Raises: FileFailed, DiskFull: from every method but `abandon`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def begin(self) -> None:
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise local_error(self._path, error) from error

    def write(self, data: memoryview) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise local_error(self._path, error) from error

    def finish(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_target(
    target: Path | Writable, settle: Callable[[int, bool], None] | None = None
) -> Target | PathTarget:
    """The target behind anything `Grid.get` takes; makes nothing yet.

    Args:
        settle: as `PathTarget`; nothing else is settled.
    Raises: InvalidRequest: the path is a folder.
    """
    if not isinstance(target, Path):
        return ObjectTarget(target)
    if target.is_dir():
        raise InvalidRequest(reason=f"{target} is a folder, not a file")
    if target.exists() and not target.is_file():
        return DeviceTarget(target)
    return PathTarget(target, settle)


def _open_new(folder: Path) -> tuple[int, Path]:
    """A new file of a name that nobody else uses, with the permissions the process gives new files."""
    for attempt in itertools.count():
        path = folder / f".muniment-{os.getpid()}-{attempt}.partial"
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path
    raise AssertionError


def local_error(path: Path, error: OSError) -> LocalError:
    """A system error on a file of the user's as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(where=str(path))
    return FileFailed(path=str(path), reason=error.strerror or str(error))
