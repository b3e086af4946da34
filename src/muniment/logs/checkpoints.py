"""Where checkpoints that were seen are kept: drivers of `ports.CheckpointStore`.

Source: docs/drivers/checkpoints.md.

In a folder, a file holds the notes of 4096 log sizes, each behind its length, in the order in which they were
seen: many notes in few files, and every write is one append.  A power cut can leave half a note at the end of
a file; it is cut off before the next is written.
"""

from __future__ import annotations

import os
import struct
from bisect import insort
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from muniment.errors import DiskFull, MunimentError, StoreFailed
from muniment.spec.checkpoint import NOTE_BYTES_MAX

_SUFFIX: Final = ".notes"
_RANGE_BITS: Final = 12
_LENGTHS: Final = struct.Struct(">QI")
"""Size of the log, length of the note."""

Kept = tuple[int, bytes]


def _by_size(kept: Kept) -> int:
    return kept[0]


class MemoryCheckpoints:
    """In memory: for tests and simulation."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []

    def keep(self, size: int, note: bytes) -> None:
        if (size, note) not in self._kept:
            insort(self._kept, (size, note), key=_by_size)

    def notes(self, start: int = 0) -> Iterator[bytes]:
        return iter([note for size, note in self._kept if size >= start])

    def newest(self) -> bytes:
        return self._kept[-1][1] if self._kept else b""

    def flush(self) -> None:
        """Nothing survives anyway."""

    def close(self) -> None:
        """Nothing to give back."""


class FolderCheckpoints:
    """In files of one folder, which is made if it is missing.  One process at a time.

    Raises: StoreFailed: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._range = -1
        self._present: set[Kept] = set()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._translated(error) from error

    def keep(self, size: int, note: bytes) -> None:
        try:
            if size >> _RANGE_BITS != self._range:
                self._turn_to(size >> _RANGE_BITS)
            if (size, note) not in self._present:
                frame = _LENGTHS.pack(size, len(note)) + note
                written = os.write(self._fd, frame)
                if written != len(frame):
                    self._range = -1  # half a note is cut off when the file is opened again
                    raise DiskFull(where=str(self._folder))
                self._present.add((size, note))
        except OSError as error:
            raise self._translated(error) from error

    def notes(self, start: int = 0) -> Iterator[bytes]:
        for number in self._ranges():
            if number >= start >> _RANGE_BITS:
                kept, _ = self._read(number)
                yield from (note for size, note in sorted(kept, key=_by_size) if size >= start)

    def newest(self) -> bytes:
        for number in reversed(self._ranges()):
            kept, _ = self._read(number)
            if kept:
                largest = max(size for size, _ in kept)
                return [note for size, note in kept if size == largest][-1]
        return b""

    def flush(self) -> None:
        try:
            if self._fd >= 0:
                os.fsync(self._fd)
                # The file and the folder may be new, or left by a process that was killed before this.
                _flush_names(self._folder)
                _flush_names(self._folder.parent)
        except OSError as error:
            raise self._translated(error) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._range = -1

    def _turn_to(self, number: int) -> None:
        """Open the file of a range to append to it; what was written to another becomes durable."""
        self.flush()
        self.close()
        path = self._path(number)
        kept, end = self._read(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.ftruncate(fd, end)
        self._fd, self._range, self._present = fd, number, set(kept)

    def _read(self, number: int) -> tuple[list[Kept], int]:
        """The notes of a range in the order of writing, and where the last whole one ends."""
        try:
            data = self._path(number).read_bytes()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise self._translated(error) from error
        kept: list[Kept] = []
        at = 0
        while at + _LENGTHS.size <= len(data):
            size, length = _LENGTHS.unpack_from(data, at)
            end = at + _LENGTHS.size + length
            if size >> _RANGE_BITS != number or length > NOTE_BYTES_MAX or end > len(data):
                break
            kept.append((size, data[at + _LENGTHS.size : end]))
            at = end
        return kept, at

    def _ranges(self) -> list[int]:
        try:
            return sorted(int(path.stem, 16) for path in self._folder.glob(f"*{_SUFFIX}"))
        except (OSError, ValueError) as error:
            raise StoreFailed(
                where=str(self._folder), reason=f"not a folder of checkpoints: {error}"
            ) from error

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:013x}{_SUFFIX}"

    def _translated(self, error: OSError) -> MunimentError:
        return StoreFailed(where=str(self._folder), reason=f"a checkpoint cannot be kept: {error}")


def _flush_names(folder: Path) -> None:
    """What is in a folder is found under its name after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
