"""A log whose service runs in the same process: for a single user, and for tests.  `ports.LogClient`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from muniment.engine.sequencer import Sequencer
from muniment.merkle.log_tree import consistency_path, inclusion_path
from muniment.ports import Appended, LogStore
from muniment.spec.limits import MIB

_READ_BYTES: Final = 4 * MIB
_T = TypeVar("_T")


class LocalLog:
    """The client of a sequencer in this process.

    Args:
        sequencer: gives that of the volume; closed by its owner.
    """

    def __init__(self, sequencer: Callable[[], Awaitable[Sequencer]]) -> None:
        self._sequencer = sequencer

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        appended = []
        for outcome in await (await self._sequencer()).append(signed):
            if not isinstance(outcome, Appended):
                raise outcome
            appended.append(outcome)
        return appended

    async def checkpoint(self) -> bytes:
        return await self._read(lambda store: store.checkpoint())

    async def entries(self, start: int, stop: int) -> list[bytes]:
        return await self._read(lambda store: store.read(start, stop, bytes_max=_READ_BYTES))

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return await self._read(lambda store: inclusion_path(index, size, store.node))

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return await self._read(lambda store: consistency_path(old, new, store.node))

    async def clear_part(self) -> tuple[bytes, bytes]:
        return await (await self._sequencer()).clear_part()

    async def wait_beyond(self, size: int, wait_s: float) -> bytes:
        return await (await self._sequencer()).wait_beyond(size, wait_s)

    async def cosign(self, note: bytes) -> None:
        await (await self._sequencer()).cosign(note)

    async def aclose(self) -> None:
        """Nothing of its own."""

    async def _read(self, work: Callable[[LogStore], _T]) -> _T:
        store = (await self._sequencer()).store
        return await asyncio.get_running_loop().run_in_executor(None, work, store)
