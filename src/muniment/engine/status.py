"""How the nodes of the grid are now: asked all at once, told for each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from muniment.engine.lane import Lane
from muniment.engine.nodes import Nodes
from muniment.errors import MunimentError
from muniment.ids import NodeId, id_text
from muniment.ports import Clock
from muniment.spec.record import NodeRecord


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """One node.

    Attributes:
        node: who.
        addresses: as its record says.
        zone: its failure zone, "" if unknown.
        capacity_bytes: what its operator gives.
        draining: takes no new shares.
        reachable: whether it answered just now; what follows is 0 or empty otherwise.
        latency_s: until its answer.
        version: of its program.
        used_bytes: whole share records stored.
        reserved_bytes: promised to uploads.
        free_bytes: what is left.
        share_count: shares stored.
        quarantined_count: shares found damaged.
        error: why it is not reachable.
    """

    node: NodeId
    addresses: tuple[str, ...]
    zone: str
    capacity_bytes: int
    draining: bool
    reachable: bool
    latency_s: float = 0.0
    version: str = ""
    used_bytes: int = 0
    reserved_bytes: int = 0
    free_bytes: int = 0
    share_count: int = 0
    quarantined_count: int = 0
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "node": id_text(self.node),
            "addresses": list(self.addresses),
            "zone": self.zone,
            "capacity_bytes": self.capacity_bytes,
            "draining": self.draining,
            "reachable": self.reachable,
            "latency_s": round(self.latency_s, 6),
            "version": self.version,
            "used_bytes": self.used_bytes,
            "reserved_bytes": self.reserved_bytes,
            "free_bytes": self.free_bytes,
            "share_count": self.share_count,
            "quarantined_count": self.quarantined_count,
            "error": self.error,
        }


async def summarise(nodes: Nodes, clock: Clock) -> list[NodeSummary]:
    """Ask every node of the roster, in the order of their ids."""
    lanes = sorted(nodes.lanes(), key=lambda lane: lane.node)
    # Looked up here: a node may have left the roster by the time its question begins.
    asked = [_ask(lane, nodes.record(lane.node), clock) for lane in lanes]
    return list(await asyncio.gather(*asked))


async def _ask(lane: Lane, record: NodeRecord, clock: Clock) -> NodeSummary:
    begun_s = clock.monotonic_s()
    summary = NodeSummary(
        lane.node, record.addresses, record.zone, record.capacity_bytes, record.draining, reachable=False
    )
    try:
        status = await lane.connection.info()
    except MunimentError as error:
        return replace(summary, error=str(error))
    return replace(
        summary,
        capacity_bytes=status.capacity_bytes,
        draining=status.draining,
        reachable=True,
        latency_s=clock.monotonic_s() - begun_s,
        version=status.version,
        used_bytes=status.used_bytes,
        reserved_bytes=status.reserved_bytes,
        free_bytes=max(0, status.capacity_bytes - status.used_bytes - status.reserved_bytes),
        share_count=status.share_count,
        quarantined_count=status.quarantined_count,
    )
