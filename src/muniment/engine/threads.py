"""Work off the loop: a small pool of threads that measures what it does and survives cancelled callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from muniment.ports import Clock

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Threads:
    """A few threads for one kind of work.

    Args:
        name: of the threads.
        count: how many.
        clock: measures busy seconds.
    """

    def __init__(self, name: str, count: int, clock: Clock) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"muniment-{name}")

    async def run(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> tuple[_T, float]:
        """Run `work` in a thread; returns its result and its busy seconds.

        If the caller is cancelled it still waits for the work to end, because the work uses buffers or files
        that the caller is about to give away.
        """
        future = self.start(work, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await wait_ended(future)
            raise

    def start(self, work: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[tuple[_T, float]]:
        """As `run`, for those who have no task to wait in."""
        return asyncio.get_running_loop().run_in_executor(self._pool, self._timed, work, args)

    def close(self) -> None:
        """End the threads; waits for work in progress, and drops what has not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _timed(self, work: Callable[[*_Ts], _T], args: tuple[*_Ts]) -> tuple[_T, float]:
        start_s = self._clock.monotonic_s()
        result = work(*args)
        return result, self._clock.monotonic_s() - start_s


async def wait_ended(future: asyncio.Future[_T]) -> None:
    """Wait until `future` is done, through any number of cancellations; its result is dropped."""
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()
