"""Buffers of written bytes: what becomes one blob when it is full or has to be durable."""

from __future__ import annotations

import asyncio
from typing import Final

from muniment.spec.blob import BlobRef
from muniment.spec.limits import KIB

_SMALL_BYTES: Final = 64 * KIB
_KEPT: Final = 8


class Buffer:
    """Bytes in the order in which they were written; what a place in a file is worth is said by its `Piece`.

    Attributes:
        slot: which chunk of the file its bytes belong to.
        size: bytes in it.
        data: its memory, which may be larger; None as soon as they are stored.
        ref: where they are stored.
        storing: the task that does it; from then on nothing is added but to the buffer that files share.
    """

    __slots__ = ("data", "ref", "size", "slot", "storing")

    def __init__(self, slot: int, data: bytearray | None = None) -> None:
        self.slot = slot
        self.data: bytearray | None = bytearray() if data is None else data
        self.size = 0 if data is None else len(data)
        self.ref: BlobRef | None = None
        self.storing: asyncio.Task[None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it is being stored."""
        return self.storing is not None and not self.storing.done()

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes of it, while they are in memory."""
        assert self.data is not None
        return memoryview(self.data)[start:stop]


class Memory:
    """Memory of full buffers, used again: fresh pages cost more than filling them.

    Args:
        chunk_bytes: of a full one.
    """

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._free: list[bytearray] = []

    def append(self, buffer: Buffer, data: memoryview) -> int:
        """Add bytes to a buffer that has room; returns where in it they begin."""
        at, held = buffer.size, buffer.data
        assert held is not None
        stop = at + len(data)
        if stop > len(held):
            if stop <= _SMALL_BYTES:
                held.extend(bytes(stop - len(held)))
            else:
                large = self._free.pop() if self._free else bytearray(self._chunk_bytes)
                large[:at] = memoryview(held)[:at]
                buffer.data = held = large
        held[at:stop] = data
        buffer.size = stop
        return at

    def give_back(self, buffer: Buffer) -> None:
        """Its bytes are stored."""
        if buffer.data is not None and len(buffer.data) == self._chunk_bytes and len(self._free) < _KEPT:
            self._free.append(buffer.data)
        buffer.data = None
