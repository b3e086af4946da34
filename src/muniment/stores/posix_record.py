"""One share record's file: growing in `incoming`, or open for reading (docs/drivers/posix.md).

Parts of `PosixStore`; a descriptor belongs to exactly one object here, or to the commit that took it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from muniment.durable_file import failed
from muniment.errors import InternalError, StoreFailed
from muniment.ids import ShareKey
from muniment.spec.limits import KIB
from muniment.stores.disk import DIRECT_BYTES, Buffer, Disk
from muniment.stores.posix_gather import Gatherer

UNCACHED_BYTES: Final = 64 * KIB
"""Records from this size on stay out of the page cache, written and read: they are wanted seldom, and fresh
pages for them cost up to thirty times as much as the disk (docs/drivers/posix.md)."""


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn OSError into DiskFull or StoreFailed."""
    try:
        yield
    except OSError as error:
        raise failed(where, error) from error


def close_quietly(disk: Disk, fd: int) -> None:
    """Close; whatever the system says, the descriptor is gone, and what must be durable was flushed."""
    try:
        disk.close(fd)
    except OSError:
        pass


@dataclass(frozen=True, slots=True)
class Record:
    """A file in `incoming`.

    Attributes:
        key: what it is to become.
        name: its name in `incoming`.
        size_bytes: when it is complete.
        fd: open for writing.
    """

    key: ShareKey
    name: str
    size_bytes: int
    fd: int


class RecordWriter:
    """A `ShareWriter`: owns a file in `incoming` until it is aborted or a commit takes it.

    Writes, the commit and an abort from another thread are ordered by a lock: a descriptor used after its
    close may already be another share's.

    Args:
        gatherer: of this file, where it goes past the page cache; ended by the writer.
        discard: called once with the file when it is not wanted any more.
    """

    def __init__(
        self,
        disk: Disk,
        where: str,
        record: Record,
        gatherer: Gatherer | None,
        discard: Callable[[Record], None],
    ) -> None:
        self._disk, self._where, self._gatherer, self._discard = disk, where, gatherer, discard
        self.name, self._key, self._size_bytes = record.name, record.key, record.size_bytes
        self._record: Record | None = record
        self._written_bytes = 0
        self._lock = threading.Lock()

    @property
    def key(self) -> ShareKey:
        return self._key

    def write(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        with self._lock:
            if self._record is None:
                raise StoreFailed(where=self._where, reason="this write was ended")
            self._written_bytes += len(view)
            if self._written_bytes > self._size_bytes:
                return  # takes no more room than was asked for; the commit refuses it
            try:
                if self._gatherer is not None:
                    self._gatherer.write(view)
                    return
                while view:
                    view = view[self._disk.write(self._record.fd, view) :]
            except OSError as error:
                self._end()
                raise failed(self._where, error) from error

    def abort(self) -> None:
        with self._lock:
            self._end()

    def take(self) -> Record:
        """Hand the complete file over to a commit, which closes it.

        Raises: InternalError: ended before, incomplete, or too long.
        """
        with self._lock:
            if self._record is None:
                raise InternalError(reason=f"the write of share {self._key} was ended before its commit")
            if self._written_bytes != self._size_bytes:
                raise InternalError(
                    reason=f"{self._written_bytes} of {self._size_bytes} bytes written of share {self._key}"
                )
            record, self._record = self._record, None
            return record

    def _end(self) -> None:
        if self._gatherer is not None:
            self._gatherer.end()
        record, self._record = self._record, None
        if record is not None:
            self._discard(record)


class RecordReader:
    """A `ShareReader`; replaced or deleted meanwhile, the share still reads as what was opened."""

    def __init__(self, disk: Disk, where: str, fd: int, size_bytes: int) -> None:
        self._disk, self._where, self._fd, self._size_bytes = disk, where, fd, size_bytes

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> int:
        left = memoryview(buffer).cast("B")
        total = 0
        with translated(self._where):
            if self._size_bytes >= UNCACHED_BYTES and offset % DIRECT_BYTES == 0 and _is_aligned(left):
                total = self._read_uncached(offset, left)
                left = left[total:]
            while left:
                got = self._disk.read_into(self._fd, left, offset + total)
                if not got:
                    break
                left = left[got:]
                total += got
        return total

    def _read_uncached(self, offset: int, buffer: memoryview) -> int:
        """As much as comes at once; the rest, if the record has more, is read in the usual way."""
        try:
            return self._disk.read_uncached(self._fd, buffer, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close_quietly(self._disk, fd)


def _is_aligned(buffer: memoryview) -> bool:
    """Whether the disk can write into this buffer itself."""
    if not len(buffer) or len(buffer) % DIRECT_BYTES or buffer.readonly:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % DIRECT_BYTES == 0
