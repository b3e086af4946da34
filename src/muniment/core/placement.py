"""Placement: which node should hold which share of a blob, computed by anybody from the roster alone.

Two documented placements (docs/placement.md).  *Rendezvous*: every node scores every blob, the best scores
hold its shares; a node that comes or goes moves only the shares it wins or loses.  *Pairs*: four nodes, four
shares, each on two neighbours of a ring that the BlobId turns.

A placement is a plan and a first guess, never a promise: an upload may have had to take another node, so a
reader that does not find a share where it should be asks who has it.  No I/O, no state.

Source: D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates" (1998), for the
hashing; the weighted score -ln(u) / w is the exponential race: its minimum falls on a node with
probability proportional to its weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

from muniment.crypto.hashing import derive
from muniment.errors import InvalidCoding
from muniment.ids import BlobId, NodeId, ShareNumber
from muniment.spec.tags import PLACEMENT

PAIR_NODES: Final = 4
"""The pair table has four nodes, four data shares and no parity (row L8)."""


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One share at one node: held, planned or being moved."""

    share: ShareNumber
    node: NodeId


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as placement sees it.

    Attributes:
        node: who.
        weight: relative share of the blobs it should get, for example its capacity; 0 takes none.
        zone: failure zone; all nodes without one ("") count as one zone, because nothing says otherwise.
    """

    node: NodeId
    weight: int
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a blob's shares go.

    Attributes:
        slots: one for each copy of each share, in order of preference for a reader.
        spares: nodes without a slot, best first: where a share goes whose node refuses, fails or is late.
        per_node_max: no node is given more shares of this blob than this.
    """

    slots: tuple[Slot, ...]
    spares: tuple[NodeId, ...]
    per_node_max: int

    @property
    def nodes(self) -> frozenset[NodeId]:
        """Every node the blob may be placed on."""
        return frozenset(slot.node for slot in self.slots).union(self.spares)

    def avoiding(self, nodes: Set[NodeId]) -> Placement:
        """The same plan with slots at `nodes` given to spares that are not among them, while there are any.

        All other slots stay where they are, so that a reader who knows nothing of the trouble finds them.
        """
        if not nodes or not self.spares:
            return self
        good = [node for node in self.spares if node not in nodes]
        poor = [node for node in self.spares if node in nodes]
        slots = list(self.slots)
        for at, slot in enumerate(slots):
            if slot.node in nodes and good:
                slots[at] = Slot(slot.share, good.pop(0))
                poor.append(slot.node)
        return Placement(tuple(slots), (*good, *poor), self.per_node_max)


def score(blob: BlobId, candidate: Candidate) -> float:
    """How long this node takes in the blob's imaginary race; the lowest wins.  Weight must be positive."""
    drawn = int.from_bytes(derive(PLACEMENT, blob, candidate.node)[:8], "big")
    return -math.log((drawn + 0.5) / 2.0**64) / candidate.weight


def rank(blob: BlobId, candidates: Iterable[Candidate]) -> list[NodeId]:
    """All nodes that take shares, best first: by score, but the second node of a zone after the first of all.

    Cost: one hash for each candidate.
    """
    scored = sorted(
        (score(blob, candidate), candidate.node, candidate.zone)
        for candidate in candidates
        if candidate.weight > 0
    )
    taken: dict[str, int] = {}
    ranked = []
    for points, node, zone in scored:
        turn = taken.get(zone, 0)
        taken[zone] = turn + 1
        ranked.append((turn, points, node))
    ranked.sort()
    return [node for _, _, node in ranked]


def place(blob: BlobId, n: int, candidates: Iterable[Candidate]) -> Placement:
    """Rendezvous placement: share i at the i-th node of the ranking, from the front again if n > nodes.

    Args:
        blob: the name all parties hash.
        n: shares, each once.
        candidates: the grid, in any order.
    Returns: `n` slots in share order (none if no candidate takes shares).
    """
    nodes = rank(blob, candidates)
    if not nodes:
        return Placement((), (), 0)
    slots = tuple(Slot(ShareNumber(i), nodes[i % len(nodes)]) for i in range(n))
    return Placement(slots, tuple(nodes[n:]), -(-n // len(nodes)))


def place_pairs(blob: BlobId, candidates: Iterable[Candidate]) -> Placement:
    """The pair table: with m = BlobId mod 4, server s holds shares (s - m) mod 4 and the one after (row L8).

    Servers are the four nodes in order of their NodeIds.  The first four slots name each server's first
    share, so a reader that asks for them gets four distinct shares from four servers, each byte once (L10).
    Any one server may be missing, and two if they are opposite each other (L9).

    Raises: InvalidCoding: not exactly four nodes take shares.
    """
    nodes = sorted(candidate.node for candidate in candidates if candidate.weight > 0)
    if len(nodes) != PAIR_NODES:
        raise InvalidCoding(reason=f"placement 'pairs' needs exactly {PAIR_NODES} nodes, not {len(nodes)}")
    turn = int.from_bytes(blob, "big") % PAIR_NODES
    slots = tuple(
        Slot(ShareNumber((server - turn + second) % PAIR_NODES), node)
        for second in (0, 1)
        for server, node in enumerate(nodes)
    )
    return Placement(slots, (), 2)
