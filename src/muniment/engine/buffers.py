"""Reused memory for blobs in flight, bounded over the whole grid client.

Fresh pages cost more here than the arithmetic done on them, so buffers are kept and handed out again.  The
bound is the engine's window: whoever wants to start another blob waits here until an earlier one has ended.

Touched by the loop only; no locks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from muniment.spec.limits import KIB

_B = TypeVar("_B")
_K = TypeVar("_K", bound=Hashable)

_CLASSES: Final = tuple(4 * KIB * 2**power for power in range(13))  # 4 KiB to 16 MiB


def size_class(size_bytes: int, most_bytes: int) -> int:
    """The buffer size for `size_bytes` of content: one of few, so that a buffer fits the next blob too."""
    return next((size for size in _CLASSES if size_bytes <= size < most_bytes), most_bytes)


class BufferPool(Generic[_K, _B]):
    """Buffers of several kinds under one limit, in use and idle together.

    Args:
        limit_bytes: never exceeded, but for a single buffer that is larger than it.
        make: makes a buffer of a kind.
        measure: memory of a buffer of a kind.
        starved: called when somebody has to wait, so that memory held for less important work is freed.
    """

    def __init__(
        self,
        limit_bytes: int,
        make: Callable[[_K], _B],
        measure: Callable[[_K], int],
        starved: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._make = make
        self._measure = measure
        self._starved = starved
        self._idle: dict[_K, list[_B]] = {}
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.used_bytes = 0
        self.idle_bytes = 0
        self.peak_bytes = 0

    @property
    def contended(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    async def acquire(self, kind: _K) -> _B:
        """A buffer of this kind, first come first served; give it back with `release`."""
        size = self._measure(kind)
        if self._waiting or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            self._starved()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():
                    self._grant()  # who comes after it may fit
                else:
                    self._give_back(size)  # it was granted in the same moment
                raise
        else:
            self.used_bytes += size
        return self._take(kind, size)

    def acquire_nowait(self, kind: _K) -> _B | None:
        """A buffer if there is room and nobody waits, else None."""
        size = self._measure(kind)
        if self._waiting or not self._fits(size):
            return None
        self.used_bytes += size
        return self._take(kind, size)

    def release(self, kind: _K, buffer: _B) -> None:
        """Take a buffer back that nobody reads or writes any more."""
        size = self._measure(kind)
        self._idle.setdefault(kind, []).append(buffer)
        self.idle_bytes += size
        self._give_back(size)

    def _fits(self, size: int) -> bool:
        return self.used_bytes + size <= self._limit_bytes or self.used_bytes == 0

    def _take(self, kind: _K, size: int) -> _B:
        idle = self._idle.get(kind)
        if idle:
            self.idle_bytes -= size
            return idle.pop()
        while self.idle_bytes and self.used_bytes + self.idle_bytes > self._limit_bytes:
            self._drop_one()
        self.peak_bytes = max(self.peak_bytes, self.used_bytes + self.idle_bytes)
        return self._make(kind)

    def _drop_one(self) -> None:
        kind, buffers = next((kind, buffers) for kind, buffers in self._idle.items() if buffers)
        buffers.pop()
        self.idle_bytes -= self._measure(kind)

    def _give_back(self, size: int) -> None:
        self.used_bytes -= size
        self._grant()

    def _grant(self) -> None:
        # A turn is cancelled at once, and who waited for it learns so a moment later: buffers that come back
        # in between are for the next.
        self._waiting = deque(waiting for waiting in self._waiting if not waiting[1].cancelled())
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            self.used_bytes += size
            turn.set_result(None)
        if self._waiting:
            self._starved()
