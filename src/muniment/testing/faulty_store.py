"""A `ShareStore` around another one whose calls fail, or whose records are damaged, as a test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Literal

from muniment.errors import MunimentError
from muniment.ids import ShareKey
from muniment.ports import ForeignObject, ShareReader, ShareStore, ShareWriter, StoredShare

StoreCall = Literal[
    "create", "write", "commit", "open", "read_into", "delete", "quarantine", "scan", "free_bytes"
]


class FaultyStore:
    """Passes every call on to `inner` unless a fault was scripted for it.

    Args:
        inner: does the work; closed with this one.
    """

    def __init__(self, inner: ShareStore) -> None:
        self._inner = inner
        self._faults: dict[StoreCall, list[MunimentError | None]] = {}
        self._damage: dict[ShareKey, int] = {}
        self._lock = threading.Lock()

    # --- the script ---------------------------------------------------------------------------

    def fail(self, call: StoreCall, error: MunimentError, *, after: int = 0, times: int = 1) -> None:
        """Let a call raise `error` instead of reaching the inner store.

        Args:
            call: `write` and `read_into` are those of any writer and reader.
            after: so many calls pass first.
            times: so many calls fail, then all pass again.
        """
        with self._lock:
            self._faults[call] = [None] * after + [error] * times

    def damage(self, key: ShareKey, offset: int) -> None:
        """From now on this byte of the record reads with all its bits inverted."""
        self._damage[key] = offset

    def heal(self) -> None:
        """Forget all faults and damage."""
        with self._lock:
            self._faults.clear()
            self._damage.clear()

    def checked(self, call: StoreCall) -> None:
        """Count one call; raises what was scripted for it."""
        with self._lock:
            script = self._faults.get(call)
            error = script.pop(0) if script else None
        if error is not None:
            raise error

    # --- the port -----------------------------------------------------------------------------

    def create(self, key: ShareKey, size_bytes: int) -> ShareWriter:
        self.checked("create")
        return _FaultyWriter(self, self._inner.create(key, size_bytes))

    def commit(self, writers: Sequence[ShareWriter]) -> None:
        try:
            self.checked("commit")
        except MunimentError:
            for writer in writers:
                writer.abort()
            raise
        self._inner.commit([w.inner if isinstance(w, _FaultyWriter) else w for w in writers])

    def open(self, key: ShareKey) -> ShareReader:
        self.checked("open")
        return _FaultyReader(self, self._inner.open(key), self._damage.get(key))

    def delete(self, key: ShareKey) -> None:
        self.checked("delete")
        self._inner.delete(key)

    def quarantine(self, found: ShareKey | ForeignObject) -> None:
        self.checked("quarantine")
        self._inner.quarantine(found)

    def scan(self) -> Iterator[StoredShare | ForeignObject]:
        for item in self._inner.scan():
            self.checked("scan")
            yield item

    def free_bytes(self) -> int | None:
        self.checked("free_bytes")
        return self._inner.free_bytes()

    def close(self) -> None:
        self._inner.close()


class _FaultyWriter:
    def __init__(self, store: FaultyStore, inner: ShareWriter) -> None:
        self.inner = inner
        self._store = store

    @property
    def key(self) -> ShareKey:
        return self.inner.key

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._store.checked("write")
        self.inner.write(data)

    def abort(self) -> None:
        self.inner.abort()


class _FaultyReader:
    def __init__(self, store: FaultyStore, inner: ShareReader, damaged: int | None) -> None:
        self._store, self._inner, self._damaged = store, inner, damaged

    @property
    def size_bytes(self) -> int:
        return self._inner.size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> int:
        self._store.checked("read_into")
        got = self._inner.read_into(offset, buffer)
        if self._damaged is not None and offset <= self._damaged < offset + got:
            buffer[self._damaged - offset] ^= 0xFF
        return got

    def close(self) -> None:
        self._inner.close()
