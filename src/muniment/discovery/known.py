"""The set of records a roster knows: verified on the way in, expired ones dropped on the way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from muniment.crypto.records import open_record, record_from_text
from muniment.errors import IntegrityError
from muniment.ids import NodeId
from muniment.ports import Clock
from muniment.spec.record import NodeRecord

_log = logging.getLogger(__name__)


class KnownNodes:
    """Records by node; belongs to one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[NodeId, tuple[NodeRecord, str]] = {}
        self._changed = asyncio.Event()

    def add(self, text: str) -> NodeRecord | None:
        """Take a record if it verifies and is not older than the one known; None if it is not taken."""
        try:
            record = open_record(record_from_text(text), now_s=self._clock.now_s())
        except IntegrityError as error:
            _log.warning("a record from the roster was refused: %s", error)
            return None
        known = self._records.get(record.node)
        if known is not None and known[0].issued_s > record.issued_s:
            return None
        self._records[record.node] = (record, text)
        if known is None or known[0].addresses != record.addresses:
            self._notify()
        return record

    def remove(self, node: NodeId) -> None:
        """Forget a node."""
        if self._records.pop(node, None) is not None:
            self._notify()

    def keep_only(self, nodes: set[NodeId]) -> None:
        """Forget all others."""
        for node in self._records.keys() - nodes:
            self.remove(node)

    def nodes_nowait(self) -> Mapping[NodeId, NodeRecord]:
        """What is known and has not expired."""
        now_s = self._clock.now_s()
        return {node: record for node, (record, _) in self._records.items() if record.expires_s > now_s}

    def texts(self) -> list[str]:
        """The signed records as they came, for a cache."""
        return [text for _, text in self._records.values()]

    async def wait_changed(self) -> None:
        """Return after the next node came, went or moved."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
