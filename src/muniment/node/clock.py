"""The machine's own clocks."""

from __future__ import annotations

import time


class SystemClock:
    """Implements `ports.Clock`."""

    def now_s(self) -> float:
        """Seconds since the epoch, as the machine is set."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds since some start, never going back."""
        return time.monotonic()
