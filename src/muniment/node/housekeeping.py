"""What a node does by itself: give back expired reservations, trash and purge, compare store and ledger,
read every share again.

Every task belongs to whoever awaits `run`, which ends only by cancellation and leaves no thread behind.  A
step that fails because of the disk is logged and tried again at its next turn; a bug ends the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final

from muniment.errors import LocalError
from muniment.node.config import NodeConfig
from muniment.node.ledger import Ledger
from muniment.node.reconcile import reconcile
from muniment.node.scrub import Scrub
from muniment.node.scrub_book import ScrubBook
from muniment.node.service import NodeService
from muniment.node.survey import Survey
from muniment.ports import Clock, ShareStore

_EXPIRE_S_MAX: Final = 30.0
_PURGE_S_MAX: Final = 60.0
_RETRY_S: Final = 60.0
_AT_ONCE_MAX: Final = 1000
"""Batches of one turn, so that one step never keeps its thread for long."""

_log = logging.getLogger(__name__)


class Housekeeping:
    """The background work of one node.

    Args:
        pool: threads for short steps; comparison and scrub have one of their own, for they run for long.
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
        purge_s = min(_PURGE_S_MAX, max(1.0, self._config.times.trash_grace_s / 4))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(expire_s, self._service.books.expire), name="expire reservations")
            tasks.create_task(self._every(purge_s, self._tidy), name="trash and purge")
            tasks.create_task(self._read_all(), name="reconcile and scrub")

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

    async def _read_all(self) -> None:
        """Compare store and ledger once, then read the shares again and again: never both, for the disk's
        sake.
        """
        await self._until_done("store and ledger could not be compared", self._compare_once)
        await self._until_done("the scrub was interrupted", self._scrub)

    async def _until_done(self, trouble: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do long work; again in a minute if the disk failed meanwhile."""
        while True:
            try:
                await work()
            except LocalError as error:
                _log.error("%s: %s", trouble, error)
                await asyncio.sleep(_RETRY_S)
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

    async def _scrub(self) -> None:
        loop = asyncio.get_running_loop()
        book = ScrubBook(self._ledger.path)
        with contextlib.closing(book), ThreadPoolExecutor(1, thread_name_prefix="scrub") as thread:
            scrub = Scrub(
                self._service,
                book,
                round_s=self._config.times.scrub_s,
                bytes_per_s=self._config.limits.scrub_bytes_per_s,
                clock=self._clock,
            )
            self._service.scrub_status = scrub.status
            try:
                while True:
                    wait_s = await loop.run_in_executor(thread, scrub.step)
                    await asyncio.sleep(wait_s)
            finally:
                noted = loop.run_in_executor(thread, scrub.note)  # after a step under way
                await asyncio.wait([noted])
                if error := noted.exception():  # raised here it would hide the cancellation
                    _log.warning("where the scrub is could not be noted: %s", error)
