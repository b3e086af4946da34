"""How much there is room for: what the nodes say, asked now and then."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from muniment.errors import MunimentError
from muniment.fs.store import Store
from muniment.ports import Clock

_FRESH_S: Final = 15.0
_PATIENCE_S: Final = 5.0
_log = logging.getLogger(__name__)


class Space:
    """The room on the grid under the volume's policy.

    Args:
        store: asks.
        clock: of this machine.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._known = 0, 0
        self._asked_s = float("-inf")
        self._asking = asyncio.Lock()

    async def room_bytes(self) -> tuple[int, int]:
        """Of all, and free; at most 15 s old, or what was known last if the nodes do not answer."""
        async with self._asking:
            if self._clock.monotonic_s() - self._asked_s > _FRESH_S:
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        self._known = await self._store.room_bytes()
                except (MunimentError, TimeoutError) as error:
                    _log.warning("the nodes' free space is not known: %s", error)
                self._asked_s = self._clock.monotonic_s()
        return self._known
