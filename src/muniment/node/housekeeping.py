"""What a node does by itself: give back expired reservations, trash and purge, compare store and ledger.

Every task belongs to whoever awaits `run`, which ends only by cancellation and leaves no thread behind.  A
step that fails because of the disk is logged and tried again at its next turn; a bug ends the node.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final

from muniment.errors import LocalError
from muniment.node.config import NodeConfig
from muniment.node.ledger import Ledger
from muniment.node.reconcile import reconcile
from muniment.node.service import NodeService
from muniment.node.survey import Survey
from muniment.ports import Clock, ShareStore

_EXPIRE_S_MAX: Final = 30.0
_PURGE_S: Final = 60.0
_RECONCILE_RETRY_S: Final = 60.0
_AT_ONCE_MAX: Final = 1000
"""Batches of one turn, so that one step never keeps its thread for long."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """The background work of one node.

    Args:
        pool: threads for short steps; the comparison has one of its own, for it may run for hours.
    """

    def __init__(
        self,
        config: NodeConfig,
        service: NodeService,
        store: ShareStore,
        ledger: Ledger,
        clock: Clock,
        pool: Executor,
    ) -> None:
        self._config, self._service, self._store = config, service, store
        self._ledger, self._clock, self._pool = ledger, clock, pool

    async def run(self) -> None:
        """Do everything in its turn until cancelled."""
        expire_s = min(_EXPIRE_S_MAX, max(1.0, self._config.times.reservation_s / 4))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(expire_s, self._service.books.expire), name="expire reservations")
            tasks.create_task(self._every(_PURGE_S, self._tidy), name="trash and purge")
            tasks.create_task(self._compare(), name="reconcile")

    def _tidy(self) -> None:
        """Trash what has expired and purge what was long enough in the trash; several batches."""
        for step in (self._service.books.trash_expired, self._service.purge):
            for _ in range(_AT_ONCE_MAX):
                if not step():
                    break

    async def _every(self, interval_s: float, step: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval_s)
            try:
                await loop.run_in_executor(self._pool, step)
            except LocalError as error:
                _log.error("housekeeping: %s", error)

    async def _compare(self) -> None:
        """Compare store and ledger once; again in a minute if the disk failed meanwhile."""
        while True:
            try:
                await self._compare_once()
            except LocalError as error:
                _log.error("store and ledger could not be compared: %s", error)
                await asyncio.sleep(_RECONCILE_RETRY_S)
            else:
                return

    async def _compare_once(self) -> None:
        stop = threading.Event()
        survey = Survey(self._ledger.path)
        work = asyncio.get_running_loop().run_in_executor(
            None,
            partial(
                reconcile,
                self._service,
                self._store,
                survey,
                now_s=self._clock.now_s(),
                bytes_per_s=self._config.limits.reconcile_bytes_per_s,
                pause=stop.wait,
            ),
        )
        try:
            await asyncio.shield(work)
        finally:
            stop.set()
            await asyncio.wait([work])
            survey.close()
