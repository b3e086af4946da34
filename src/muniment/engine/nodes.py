"""The nodes of the grid as the engine knows them now: one lane each, who is trusted with the next share.

Follows the roster.  Touched by the loop only; owns one task that waits for roster changes, and those that
close the lanes of nodes that left.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterable
from typing import Final

from muniment.core.placement import Candidate, Placement, Slot, place, place_pairs
from muniment.engine.lane import Lane
from muniment.engine.policy import Limits, PlacementName
from muniment.errors import InvalidCoding, RosterEmpty
from muniment.ids import BlobId, NodeId
from muniment.ports import Connector, Roster
from muniment.spec.record import PROTOCOL_VERSION, NodeRecord

_SMALL_BYTES: Final = 64 * 1024


class Nodes:
    """All lanes.

    Args:
        roster: who there is; started and closed by the Grid.
        connector: makes the connections.
        limits: for the lanes, and how patient to be.
    """

    def __init__(self, roster: Roster, connector: Connector, limits: Limits) -> None:
        self._roster = roster
        self._connector = connector
        self._limits = limits
        self._lanes: dict[NodeId, Lane] = {}
        self._records: dict[NodeId, NodeRecord] = {}
        self._candidates: tuple[Candidate, ...] = ()
        self._changed = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the roster's nodes and begin to follow it."""
        self._refresh()
        self._watcher = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Close every lane; what is under way is broken off."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        for node in list(self._lanes):
            self._drop(node)
        while self._closing:
            await asyncio.wait(set(self._closing))

    def lane(self, node: NodeId) -> Lane | None:
        """The node's lane; None if it has left the roster."""
        return self._lanes.get(node)

    def lanes(self) -> tuple[Lane, ...]:
        """Every node's lane."""
        return tuple(self._lanes.values())

    def record(self, node: NodeId) -> NodeRecord:
        """The node's newest record; it must have a lane."""
        return self._records[node]

    def require_nodes(self) -> None:
        """Raises: RosterEmpty: there is nobody to ask."""
        if not self._lanes:
            raise RosterEmpty(source=self._roster.source)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All nodes as placement sees them."""
        return self._candidates

    async def wait_other(self, known: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Return when the candidates are not these, with those of then."""
        while self._candidates == known:
            await self._changed.wait()
        return self._candidates

    def placement(self, blob: BlobId, n: int, how: PlacementName) -> Placement:
        """Where the blob belongs.  Raises: InvalidCoding: the grid does not fit the placement."""
        if how == "pairs":
            return place_pairs(blob, self._candidates)
        return place(blob, n, self._candidates)

    def upload_plan(self, blob: BlobId, n: int, how: PlacementName) -> Placement:
        """Where to bring the blob now: the placement, spares instead of nodes in trouble."""
        placement = self.placement(blob, n, how)
        return placement.avoiding({lane.node for lane in self._lanes.values() if lane.avoided(upload=True)})

    def download_plan(self, blob: BlobId, n: int, how: PlacementName) -> tuple[list[Slot], list[NodeId]]:
        """Where to look for the blob: expected slots, then everybody; nodes in trouble last.

        Only a guess: if the grid does not fit the placement (it has grown since), everybody is asked.
        """
        try:
            placement = self.placement(blob, n, how)
        except InvalidCoding:
            placement = self.placement(blob, n, "rendezvous")
        slots = sorted(placement.slots, key=lambda slot: self._avoided(slot.node))
        nodes = dict.fromkeys([slot.node for slot in placement.slots])
        nodes.update(dict.fromkeys(placement.spares))
        nodes.update(dict.fromkeys(self._lanes))  # those of no weight may still hold something
        return slots, sorted(nodes, key=self._avoided)

    def patience_s(self, size_bytes: int, least_s: float) -> float:
        """From when on a share of this size is late: a multiple of what the median node takes."""
        small = size_bytes < _SMALL_BYTES
        known = [s for s in (lane.latency_s(small=small) for lane in self._lanes.values()) if s is not None]
        if not known:
            return max(least_s, self._limits.first_patience_s)
        return max(least_s, self._limits.lateness * statistics.median(known))

    def avoid(self, nodes: Iterable[NodeId]) -> None:
        """Let these nodes come after the others for a while."""
        for node in nodes:
            if (lane := self._lanes.get(node)) is not None:
                lane.avoid()

    def _avoided(self, node: NodeId) -> bool:
        lane = self._lanes.get(node)
        return lane is None or lane.avoided(upload=False)

    async def _watch(self) -> None:
        while True:
            self._refresh()  # before the first wait as well: this task begins a turn after `start`
            await self._roster.wait_changed()

    def _refresh(self) -> None:
        known = {
            node: record
            for node, record in self._roster.nodes_nowait().items()
            if PROTOCOL_VERSION in record.protocols
        }
        for node, old in list(self._records.items()):
            if node not in known or known[node].addresses != old.addresses:
                self._drop(node)
        for node, record in known.items():
            self._records[node] = record
            if node not in self._lanes:
                self._lanes[node] = Lane(self._connector(record), self._limits)
        self._candidates = tuple(
            Candidate(node, 0 if record.draining else record.capacity_bytes, record.zone)
            for node, record in known.items()
        )
        self._changed.set()
        self._changed = asyncio.Event()

    def _drop(self, node: NodeId) -> None:
        del self._records[node]
        task = asyncio.create_task(self._lanes.pop(node).aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
