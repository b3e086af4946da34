"""Time that passes only when nothing else can happen: tests of timeouts without waiting.

`VirtualTimeLoop` is an asyncio loop whose clock jumps to the next timer as soon as no callback is ready and
no thread it started is at work.  Order of events is then decided by delays alone, the same on every machine.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class StepClock:
    """A clock that stands still until it is told otherwise; implements `ports.Clock`."""

    def __init__(self, start_s: float = 1_800_000_000.0) -> None:
        self.offset_s = 0.0
        self._start_s = start_s

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._start_s + self.offset_s

    def monotonic_s(self) -> float:
        """Seconds since the clock was made."""
        return self.offset_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.offset_s += seconds


class LoopClock(StepClock):
    """The clock of a running loop: advances with its (virtual) time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start_s: float = 1_800_000_000.0) -> None:
        super().__init__(start_s)
        self._loop = loop

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return super().now_s() + self._loop.time()

    def monotonic_s(self) -> float:
        """The loop's time."""
        return super().monotonic_s() + self._loop.time()


class _SkippingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer, tells the loop that its time has come."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualTimeLoop | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As every selector, but a wait with nothing else to come passes at once."""
        if self.loop is None or timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.loop.threads_at_work:
            return super().select(None)  # a thread will call back; virtual time waits for real work
        self.loop.skip(timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; see the module.

    Attributes:
        threads_at_work: jobs given to `run_in_executor` that have not come back.
    """

    def __init__(self) -> None:
        selector = _SkippingSelector()
        self._now_s = 0.0
        super().__init__(selector)
        self.threads_at_work = 0
        selector.loop = self

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def skip(self, seconds: float) -> None:
        """Pass time; the loop's own timers become due."""
        self._now_s += seconds

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """As every loop; counts the job as work until it is done."""
        self.threads_at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self.threads_at_work -= 1


def run_virtual(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end on a new `VirtualTimeLoop`; fails if it leaves a task behind."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        result = runner.run(main)
        left = asyncio.all_tasks(runner.get_loop())
        assert not left, f"tasks left behind: {left}"
        return result
