"""When one blob on its way is late: after what is usual, or sooner once half of it has come.

Owned by a `Fetching` or `Sending`, of which each has one; calls back on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Lateness:
    """The timer of one blob.

    Args:
        wanted: shares that make it whole.
        least_s: seconds that nothing is late before, however fast the first half came.
        patience_s: seconds in which the whole blob usually comes, asked for at each start.
        late: called when it has not.
    """

    def __init__(
        self, wanted: int, least_s: float, patience_s: Callable[[], float], late: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._wanted, self._least_s = wanted, least_s
        self._patience_s, self._late = patience_s, late
        self._come = 0
        self._timer: asyncio.TimerHandle | None = None
        self._begun_s = self._loop.time()

    def start(self) -> None:
        """Wait for as long as is usual from now on."""
        self.stop()
        self._call_later(self._patience_s())

    def share_came(self) -> None:
        """From the half on the blob's own shares say what is usual: who needs three times as long is late."""
        self._come += 1
        if self._timer is None or self._come * 2 < self._wanted:
            return
        delay_s = max(self._least_s, 2 * (self._loop.time() - self._begun_s))
        if self._loop.time() + delay_s < self._timer.when():
            self.stop()
            self._call_later(delay_s)

    def stop(self) -> None:
        """Nothing is late any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_later(self, delay_s: float) -> None:
        self._timer = self._loop.call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._late()
