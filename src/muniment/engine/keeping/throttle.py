"""A limit on bytes in a second, over everything that asks it."""

from __future__ import annotations

import asyncio
import math


class Throttle:
    """Lets bytes through at a steady rate; who asks for more than a second's worth waits for all of it.

    Touched by the loop only.

    Args:
        bytes_per_s: infinity for no limit.
    """

    def __init__(self, bytes_per_s: float = math.inf) -> None:
        self._rate = bytes_per_s
        self._free_at_s = 0.0

    async def take(self, size_bytes: int) -> None:
        """Wait until so many more may be moved.  Cancelled, its place in the line is lost, and no bytes."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        begin_s = max(now_s, self._free_at_s)
        self._free_at_s = begin_s + size_bytes / self._rate
        if begin_s > now_s:
            await asyncio.sleep(begin_s - now_s)
