"""Where checkpoints that were seen are kept: drivers of `ports.CheckpointStore`.

Source: docs/drivers/checkpoints.md.

In a folder, a file holds the notes of 4096 log sizes, each behind its length and checksums, in the order in
which they were seen: many notes in few files, and every write is one append.  A power cut can leave half a
note at the end of a file; it is cut off before the next is written.  Anything else that is no note is damage:
it is passed over, told by `inspect` and left where it is.
"""

from __future__ import annotations

import os
import struct
from bisect import insort
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

from muniment.durable_file import flush
from muniment.errors import DiskFull, MunimentError, StoreFailed
from muniment.spec.checkpoint import NOTE_BYTES_MAX

_SUFFIX: Final = ".notes"
_RANGE_BITS: Final = 12
_FRAME: Final = struct.Struct(">QI")
"""Size of the log, length of the note."""

_SUM: Final = struct.Struct(">I")
_HEAD_BYTES: Final = _FRAME.size + 2 * _SUM.size
"""The frame, CRC-32 of the frame, CRC-32 of the note."""

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
                frame = _framed(size, note)
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
                kept, _, _ = self._read(number)
                yield from (note for size, note in sorted(kept, key=_by_size) if size >= start)

    def newest(self) -> bytes:
        for number in reversed(self._ranges()):
            kept, _, _ = self._read(number)
            if kept:
                largest = max(size for size, _ in kept)
                return [note for size, note in kept if size == largest][-1]
        return b""

    def flush(self) -> None:
        try:
            if self._fd >= 0:
                os.fsync(self._fd)
                # The file and the folder may be new, or left by a process that was killed before this.
                flush(self._folder)
                flush(self._folder.parent)
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
        kept, _, end = self._read(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.ftruncate(fd, end)
        self._fd, self._range, self._present = fd, number, set(kept)

    def inspect(self) -> Sequence[str]:
        """See the port `Inspectable`: every piece of a file that is no note."""
        found = []
        for number in self._ranges():
            _, holes, _ = self._read(number)
            found += [f"{self._path(number)}: bytes {at} to {end} are no note" for at, end in holes]
        return found

    def _read(self, number: int) -> tuple[list[Kept], list[tuple[int, int]], int]:
        """The notes of a range in the order of writing, what is none, and where the next is to be written."""
        try:
            data = self._path(number).read_bytes()
        except FileNotFoundError:
            return [], [], 0
        except OSError as error:
            raise self._translated(error) from error
        kept: list[Kept] = []
        holes: list[tuple[int, int]] = []
        at = end = 0
        while at < len(data):
            found = _unframed(data, at, number)
            if found is None:
                at += 1
                continue
            if at > end:
                holes.append((end, at))
            kept.append(found)
            at = end = at + _HEAD_BYTES + len(found[1])
        if end == len(data) or _is_begun(data[end:], number):
            return kept, holes, end
        return kept, [*holes, (end, len(data))], len(data)

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


def _framed(size: int, note: bytes) -> bytes:
    frame = _FRAME.pack(size, len(note))
    return frame + _SUM.pack(crc32(frame)) + _SUM.pack(crc32(note)) + note


def _unframed(data: bytes, at: int, number: int) -> Kept | None:
    """The note that begins there, if one does and all of it is right."""
    head = _head(data, at, number)
    if head is None:
        return None
    size, length, told = head
    note = data[at + _HEAD_BYTES :][:length]
    return (size, note) if len(note) == length and crc32(note) == told else None


def _head(data: bytes, at: int, number: int) -> tuple[int, int, int] | None:
    """Size, length and checksum of the note behind a frame that is right."""
    if at + _HEAD_BYTES > len(data):
        return None
    size, length = _FRAME.unpack_from(data, at)
    if size >> _RANGE_BITS != number or length > NOTE_BYTES_MAX:
        return None
    frame_sum, note_sum = (_SUM.unpack_from(data, at + _FRAME.size + shift)[0] for shift in (0, _SUM.size))
    return (size, length, note_sum) if crc32(data[at : at + _FRAME.size]) == frame_sum else None


def _is_begun(tail: bytes, number: int) -> bool:
    """Whether this is a note of which the end was not written; damage looks otherwise."""
    if len(tail) < _HEAD_BYTES:
        return True
    head = _head(tail, 0, number)
    return head is not None and len(tail) < _HEAD_BYTES + head[1]
