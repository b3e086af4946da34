"""The set of records a roster knows: verified on the way in, expired ones dropped on the way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from muniment.crypto.records import open_record, record_from_text
from muniment.errors import IntegrityError
from muniment.ids import NodeId
from muniment.ports import Clock
from muniment.spec.record import NodeRecord

_log = logging.getLogger(__name__)


class KnownNodes:
    """Records by node; belongs to one event loop.

    An expired record is not shown any more, but kept: where its node was is the best guess where it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[NodeId, tuple[NodeRecord, str]] = {}
        self._changed = asyncio.Event()

    def add(self, text: str, *, of: NodeId | None = None, expired: bool = False) -> NodeRecord | None:
        """Take a record if it verifies and is not older than the one known.

        Args:
            text: signed.
            of: refuse another node's.
            expired: take it even so; it is not shown.
        Returns: the record known of its node from now on, this one or a later; None if this is none.
        """
        now_s = self._clock.now_s()
        try:
            record = open_record(record_from_text(text), now_s=0.0 if expired else now_s)
        except IntegrityError as error:
            _log.warning("a record from the roster was refused: %s", error)
            return None
        if of is not None and record.node != of:
            _log.warning("a node told another node's record")
            return None
        known = self._records.get(record.node)
        if known is not None and known[0].issued_s > record.issued_s:
            return known[0]
        self._records[record.node] = (record, text)
        if known is None or known[0].expires_s <= now_s or _timeless(known[0]) != _timeless(record):
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

    def __contains__(self, node: NodeId) -> bool:
        """Whether anything is known of a node, be it expired."""
        return node in self._records

    def nodes_nowait(self) -> Mapping[NodeId, NodeRecord]:
        """What is known and has not expired."""
        now_s = self._clock.now_s()
        return {node: record for node, (record, _) in self._records.items() if record.expires_s > now_s}

    def expiring(self, within_s: float) -> list[NodeRecord]:
        """Records that have expired or soon will."""
        until_s = self._clock.now_s() + within_s
        return [record for record, _ in self._records.values() if record.expires_s <= until_s]

    def texts(self) -> list[str]:
        """The signed records as they came, for a cache."""
        return [text for _, text in self._records.values()]

    async def wait_changed(self) -> None:
        """Return after the next node came, went, or said something new.

        Time alone wakes nobody: who works with a node whose record runs out may go on while it answers.
        """
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _timeless(record: NodeRecord) -> NodeRecord:
    """What a record says but for its times: a mere renewal is no news."""
    return replace(record, issued_s=0, expires_s=0)
