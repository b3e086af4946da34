"""Roster from an introducer: the full set, then live changes, and the last known set while it is away.

While it is away, nodes whose records run out are asked for new ones themselves: a grid outlives its
introducer, and clients that start anew find it by their cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from muniment.discovery.asking import Asker, Resolve
from muniment.discovery.known import KnownNodes
from muniment.errors import InvalidRequest, MunimentError, RosterEmpty
from muniment.ids import NodeId, id_from_text
from muniment.ports import Clock
from muniment.spec.address import PeerAddress, PeerKind
from muniment.spec.record import NodeRecord
from muniment.spec.wire import RosterAnswer

_WAIT_S: Final = 30.0
_PAUSE_S: Final = 0.1
"""Between two polls: a burst of changes comes as one, and an introducer that never waits costs little."""
_RETRY_S_MIN: Final = 0.5
_RETRY_S_MAX: Final = 30.0
_RENEW_S: Final = 300.0
"""A record with less than this left is asked for at its node."""
_PATIENCE_S: Final = 2.0
_CACHE_BYTES_MAX: Final = 64 << 20
_log = logging.getLogger(__name__)


class RosterSource(Protocol):
    """An introducer as this roster needs it."""

    async def roster(self, epoch: str, version: int, wait_s: float) -> RosterAnswer: ...

    async def aclose(self) -> None: ...


class IntroducerRoster:
    """Follows one introducer.  `ports.Roster`.

    Args:
        address: for messages.
        source: the introducer; closed with this roster.
        resolve: asks a node for its record while the introducer is away.
        clock: decides what has expired.
        cache: file that keeps the last set (mode 0600), or None.
        chance: a number from 0 to 1, new at each call, so that clients do not return in step.
    """

    def __init__(
        self,
        address: str,
        source: RosterSource,
        resolve: Resolve,
        clock: Clock,
        *,
        cache: Path | None,
        chance: Callable[[], float],
    ) -> None:
        self._address, self._source, self._cache, self._chance = address, source, cache, chance
        self._known = KnownNodes(clock)
        self._asker = Asker(resolve, self._known, self._known.__contains__)
        self._epoch, self._version = "", 0
        self._task: asyncio.Task[None] | None = None

    @property
    def source(self) -> str:
        return self._address

    async def start(self) -> None:
        try:
            await self._update(wait_s=0.0)
        except MunimentError as error:
            self._load_cache()
            self._ask_expiring()
            if self._known.expiring(0.0):
                await self._asker.wait_answers(_PATIENCE_S)
            if not self._known.nodes_nowait():
                raise RosterEmpty(source=self._address) from error
            _log.warning("the introducer is away (%s); going on with the last known nodes", error)
        if not self._known.nodes_nowait():
            raise RosterEmpty(source=self._address)
        self._task = asyncio.create_task(self._follow(), name="follow the introducer")

    def nodes_nowait(self) -> Mapping[NodeId, NodeRecord]:
        return self._known.nodes_nowait()

    async def wait_changed(self) -> None:
        await self._known.wait_changed()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._asker.aclose()
        await self._source.aclose()

    async def _follow(self) -> None:
        """Long polls, one after the other; after a failure again, ever more seldom."""
        retry_s = _RETRY_S_MIN
        while True:
            try:
                await self._update(wait_s=_WAIT_S)
                retry_s = _RETRY_S_MIN
                await asyncio.sleep(_PAUSE_S)
            except MunimentError as error:
                _log.info("the introducer does not answer: %s", error)
                self._ask_expiring()
                await asyncio.sleep(retry_s * (1 - 0.3 * self._chance()))
                retry_s = min(2 * retry_s, _RETRY_S_MAX)

    async def _update(self, wait_s: float) -> None:
        answer = await self._source.roster(self._epoch, self._version, wait_s)
        records = [self._known.add(text) for text in answer.records]
        if answer.full:
            # Another epoch is another run of the introducer: its set is whole, so what it lacks is gone.
            self._known.keep_only({record.node for record in records if record is not None})
        for text in answer.removed:
            with contextlib.suppress(InvalidRequest):
                self._known.remove(NodeId(id_from_text(text)))
        self._epoch, self._version = answer.epoch, answer.version
        if answer.full or answer.records or answer.removed:
            self._save_cache()

    def _ask_expiring(self) -> None:
        self._asker.ask(
            PeerAddress(PeerKind.NODE, record.node, host_port)
            for record in self._known.expiring(_RENEW_S)
            for host_port in record.addresses
        )

    def _load_cache(self) -> None:
        if self._cache is None:
            return
        try:
            if self._cache.stat().st_size > _CACHE_BYTES_MAX:
                return
            texts = json.loads(self._cache.read_text())
        except (OSError, ValueError, RecursionError):
            return  # no cache is no error: there was no earlier run
        for text in texts if isinstance(texts, list) else ():
            if isinstance(text, str):
                self._known.add(text, expired=True)

    def _save_cache(self) -> None:
        """Replace the cache whole; that it cannot be written costs a later start, not this one."""
        if self._cache is None:
            return
        temporary = self._cache.with_suffix(f".{threading.get_native_id()}.tmp")  # others may save too
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self._known.texts(), file)
            temporary.replace(self._cache)
        except OSError as error:
            _log.warning("the roster could not be kept in %s: %s", self._cache, error)
