"""Where the clear part of a log is kept in short: drivers of `ports.ClearStore`."""

from __future__ import annotations

import os
from pathlib import Path

from muniment.durable_file import write_whole
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
        write_whole(self._path, part, mode=0o600)


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
