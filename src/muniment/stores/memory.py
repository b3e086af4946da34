"""`ShareStore` in memory: for tests, simulated grids and demonstrations (docs/drivers/memory.md).

Keeps every promise of the port but durability: all is gone with the object.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Final

from muniment.errors import InternalError, ShareUnknown, StoreFailed
from muniment.ids import ShareKey
from muniment.ports import ForeignObject, ShareReader, ShareWriter, StoredShare

_WHERE: Final = "the memory store"


class MemoryStore:
    """Shares in a dict.

    Attributes:
        quarantined: what was condemned, by key, the oldest first.
    """

    def __init__(self) -> None:
        self.quarantined: dict[ShareKey, list[bytes]] = {}
        self._records: dict[ShareKey, bytes] = {}
        self._is_open = True
        self._lock = threading.Lock()

    def create(self, key: ShareKey, size_bytes: int) -> ShareWriter:
        with self._lock:
            self._check_open()
        return _Writer(self, key, size_bytes)

    def commit(self, writers: Sequence[ShareWriter]) -> None:
        try:
            records = {}
            for writer in writers:
                if not isinstance(writer, _Writer) or writer.store is not self:
                    raise InternalError(reason=f"share {writer.key} is not being written here")
                records[writer.key] = writer.take()
            with self._lock:
                self._check_open()
                self._records.update(records)
        finally:
            for writer in writers:
                writer.abort()

    def open(self, key: ShareKey) -> ShareReader:
        with self._lock:
            self._check_open()
            record = self._records.get(key)
        if record is None:
            raise ShareUnknown(blob=key.blob, share=key.number)
        return _Reader(record)

    def delete(self, key: ShareKey) -> None:
        with self._lock:
            self._check_open()
            self._records.pop(key, None)

    def quarantine(self, found: ShareKey | ForeignObject) -> None:
        with self._lock:
            self._check_open()
            if isinstance(found, ShareKey) and (record := self._records.pop(found, None)) is not None:
                self.quarantined.setdefault(found, []).append(record)

    def scan(self) -> Iterator[StoredShare | ForeignObject]:
        with self._lock:
            self._check_open()
            found = [StoredShare(key, len(record)) for key, record in self._records.items()]
        yield from found

    def free_bytes(self) -> int | None:
        with self._lock:
            self._check_open()
        return None

    def close(self) -> None:
        with self._lock:
            self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreFailed(where=_WHERE, reason="the store is closed")


class _Writer:
    """A growing buffer; None once aborted or committed."""

    def __init__(self, store: MemoryStore, key: ShareKey, size_bytes: int) -> None:
        self.store = store
        self._key, self._size_bytes = key, size_bytes
        self._content: bytearray | None = bytearray()
        self._lock = threading.Lock()

    @property
    def key(self) -> ShareKey:
        return self._key

    def write(self, data: bytes | bytearray | memoryview) -> None:
        with self._lock:
            if self._content is None:
                raise StoreFailed(where=_WHERE, reason="this write was ended")
            if len(self._content) <= self._size_bytes:  # one byte too many is enough to be refused
                self._content += data

    def abort(self) -> None:
        with self._lock:
            self._content = None

    def take(self) -> bytes:
        """The complete record; ends the writer.  Raises: InternalError: ended before, or of another size."""
        with self._lock:
            content, self._content = self._content, None
        if content is None or len(content) != self._size_bytes:
            raise InternalError(reason=f"the write of share {self._key} was ended or is not complete")
        return bytes(content)


class _Reader:
    """A record; replaced or deleted meanwhile, it still reads as what was opened."""

    def __init__(self, record: bytes) -> None:
        self._record = memoryview(record)

    @property
    def size_bytes(self) -> int:
        return len(self._record)

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> int:
        piece = self._record[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Nothing to release."""
