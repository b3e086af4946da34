"""How long a caller waits: whatever he asked for, he is told at his deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from muniment.errors import DeadlineExceeded
from muniment.ports import Clock


class Patience:
    """How long calls wait: each of them so long, and when an end has begun, all together so long from there.

    Args:
        deadline_s: the time.
        clock: of this machine.
    """

    def __init__(self, deadline_s: float, clock: Clock) -> None:
        self.deadline_s, self._clock = deadline_s, clock
        self._end_s: float | None = None

    def end(self) -> None:
        """The end begins, if it has not yet; calls are over some time before it is."""
        if self._end_s is None:
            self._end_s = self._clock.monotonic_s() + self.deadline_s - self.breaking_off_s

    @property
    def breaking_off_s(self) -> float:
        """So long at the end it may take to break off what is under way: nodes want to hear of it."""
        return self.deadline_s / 10

    @property
    def is_ending(self) -> bool:
        """Whether the end has begun."""
        return self._end_s is not None

    @property
    def left_s(self) -> float:
        """For a call that begins now."""
        return self.deadline_s if self._end_s is None else max(0.0, self._end_s - self._clock.monotonic_s())


@contextlib.asynccontextmanager
async def within(call: str, patience: Patience) -> AsyncIterator[None]:
    """Break off what is awaited in here when patience ends.  Raises: DeadlineExceeded: of `call`."""
    try:
        async with asyncio.timeout(patience.left_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(node=b"", call=call, deadline_s=patience.deadline_s) from error
