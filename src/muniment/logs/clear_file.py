"""Where the clear part of a log is kept in short: drivers of `ports.ClearStore`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from muniment.errors import DiskFull, StoreFailed
from muniment.spec.clear_part import CLEAR_BYTES_MAX


class FileClear:
    """One file, replaced as a whole.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                return file.read(CLEAR_BYTES_MAX + 1)
        except OSError:
            return b""

    def keep(self, part: bytes) -> None:
        new = self._path.with_name(self._path.name + ".new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(part)
                file.flush()
                os.fsync(descriptor)
            new.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(where=str(self._path)) from error
            raise StoreFailed(where=str(self._path), reason=error.strerror or str(error)) from error


class MemoryClear:
    """In memory.

    Attributes:
        part: what was kept last.
    """

    def __init__(self) -> None:
        self.part = b""

    def load(self) -> bytes:
        return self.part

    def keep(self, part: bytes) -> None:
        self.part = part
