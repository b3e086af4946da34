"""A home's own log, used beside other processes of this home.

Commands that change a volume hold its folder while they run, and order its log themselves.  A process that
lives longer takes its turn between them, and reads the log anew each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from muniment.engine.opened import KnownVolume
from muniment.node import volumes
from muniment.node.folder import wait_lock
from muniment.ports import Appended, LogClient

_T = TypeVar("_T")


class SharedLocalLog:
    """`LogClient` of a log that is on this machine only; every call waits for its turn at the volume.

    Raises: as `LogClient`; StoreFailed, DiskFull.
    """

    def __init__(self, home: Path, known: KnownVolume) -> None:
        self._home, self._known = home, known

    async def _turn(self, use: Callable[[LogClient], Awaitable[_T]]) -> _T:
        lock = await wait_lock(self._known.folder)
        try:
            async with volumes.log_service(self._home, self._known.log) as service:
                return await use(service.client(self._known.volume))
        finally:
            lock.close()

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        return await self._turn(lambda log: log.append(signed))

    async def checkpoint(self) -> bytes:
        return await self._turn(lambda log: log.checkpoint())

    async def entries(self, start: int, stop: int) -> list[bytes]:
        return await self._turn(lambda log: log.entries(start, stop))

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return await self._turn(lambda log: log.inclusion(index, size))

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return await self._turn(lambda log: log.consistency(old, new))

    async def clear_part(self) -> tuple[bytes, bytes]:
        return await self._turn(lambda log: log.clear_part())

    async def wait_beyond(self, size: int, wait_s: float) -> bytes:
        """Returns at once: to wait would keep everybody else from the volume."""
        return await self._turn(lambda log: log.wait_beyond(size, 0.0))

    async def cosign(self, note: bytes) -> None:
        await self._turn(lambda log: log.cosign(note))

    async def aclose(self) -> None:
        pass
