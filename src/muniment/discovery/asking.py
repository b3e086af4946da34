"""Asking nodes for their own records: one question at a time to each address, some to all together.

Owns one task for each question under way; `aclose` ends them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

from muniment.discovery.known import KnownNodes
from muniment.errors import MunimentError
from muniment.ids import NodeId
from muniment.spec.address import PeerAddress

_AT_ONCE: Final = 16
_log = logging.getLogger(__name__)

Resolve = Callable[[PeerAddress], Awaitable[str]]
"""Ask a node for its signed record; raises a MunimentError leaf."""


class Asker:
    """Puts what the nodes tell into `known`; belongs to one event loop.

    Args:
        resolve: asks one node.
        known: takes the answers.
        wanted: whether a node is still to be taken when its answer is there.
    """

    def __init__(self, resolve: Resolve, known: KnownNodes, wanted: Callable[[NodeId], bool]) -> None:
        self._resolve, self._known, self._wanted = resolve, known, wanted
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._asking: dict[PeerAddress, asyncio.Task[None]] = {}

    def ask(self, addresses: Iterable[PeerAddress]) -> None:
        """Begin to ask at these addresses, but for those where an answer is still awaited."""
        for address in addresses:
            if address not in self._asking:
                task = asyncio.create_task(self._ask(address), name=f"ask {address}")
                self._asking[address] = task
                task.add_done_callback(partial(self._ended, address))

    async def wait_answers(self, patience_s: float) -> None:
        """Return when all have answered or failed, or after `patience_s` as soon as any node is known.

        So a node that hangs costs a start that patience, and not its deadline.
        """
        pending = set(self._asking.values())
        if pending:
            _, pending = await asyncio.wait(pending, timeout=patience_s)
        while pending and not self._known.nodes_nowait():
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def aclose(self) -> None:
        """Break off what is being asked."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, address: PeerAddress, _: asyncio.Task[None]) -> None:
        del self._asking[address]

    async def _ask(self, address: PeerAddress) -> None:
        async with self._places:
            try:
                text = await self._resolve(address)
            except MunimentError as error:
                _log.info("%s has not told its record: %s", address, error)
                return
        if self._wanted(address.node):
            self._known.add(text, of=address.node)
