"""Months of keeping in seconds: the real plans and challenges over nodes that die, rot, hide and cheat.

What decides is the product's own: `core.placement`, `core.keeping.repair.plan` and the challenges.  What is
simulated is the world: time, nodes, zones, disks, and how long a repair takes.  Everything follows from a
seed; the same seed is the same run on every machine.

    world = World(nodes=100, node_mttf_s=12 * MONTH_S)
    outcome = simulate(world, Keeping(k=4, n=10, repair_below=8), months=24, seed=7)
    print(outcome.lost, outcome.download_bytes)
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from muniment.core.keeping.challenge import challenge_seed, challenged_leaf, is_sampled
from muniment.core.keeping.repair import Condition, Seen, plan
from muniment.core.placement import Candidate, Slot, place
from muniment.ids import BlobId, MemberId, NodeId, VolumeId
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape, CodecId

DAY_S: Final = 86400.0
MONTH_S: Final = 365.25 / 12 * DAY_S

_VOLUME: Final = VolumeId(bytes(32))
_MEMBER: Final = MemberId(bytes(32))


@dataclass(frozen=True, slots=True)
class World:
    """What happens to nodes; times in seconds, infinity for never.

    Attributes:
        nodes: at any time; one that dies is replaced by an empty one.
        zones: over which nodes are spread evenly.
        node_mttf_s: mean life of a node.
        zone_mttf_s: mean time until all nodes of a zone die at once.
        up_s, down_s: mean times a node is there and away, in turn.
        rot_s: mean time until a share loses one of its leaves.
        cheats: part of all nodes that keep only `kept` of what they took.
        kept: part of the leaves that a cheat keeps; it answers for those, and claims to have all.
    """

    nodes: int = 100
    zones: int = 10
    node_mttf_s: float = 12 * MONTH_S
    zone_mttf_s: float = math.inf
    up_s: float = math.inf
    down_s: float = DAY_S / 4
    rot_s: float = math.inf
    cheats: float = 0.0
    kept: float = 0.9


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept, and how.

    Attributes:
        k, n: of the coding.
        repair_below: missing shares are rebuilt when fewer are live.
        blobs: in the volume.
        blob_bytes: of each, sealed.
        scan_s: between looks at all blobs; 0: a loss is seen at once.
        repair_s: from a look to the rebuilt shares being in place.
        offline_s: for so long a node that is away counts as there.
        sample: one in so many blobs is proven in a scan.
    """

    k: int = 4
    n: int = 10
    repair_below: int = 8
    blobs: int = 100
    blob_bytes: int = 4 << 20
    scan_s: float = DAY_S
    repair_s: float = DAY_S / 4
    offline_s: float = DAY_S
    sample: int = 1


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        lost: blobs of which fewer than k good shares are left anywhere.
        lost_at_s: when the first was.
        deaths: nodes that died.
        repairs: plans that were carried out.
        rebuilt: shares.
        download_bytes, upload_bytes: of repairs.
        proofs: challenges asked.
        caught: shares found bad by a challenge.
        fewest: good shares that the worst blob ever had.
    """

    lost: int = 0
    lost_at_s: float = math.inf
    deaths: int = 0
    repairs: int = 0
    rebuilt: int = 0
    download_bytes: int = 0
    upload_bytes: int = 0
    proofs: int = 0
    caught: int = 0
    fewest: int = 1 << 30


@dataclass(slots=True, eq=False)
class _Node:
    id: NodeId
    zone: str
    cheat: bool
    away_since_s: float | None = None
    shares: set[tuple[int, int]] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Blob:
    """A blob: who holds which share, and which part of a share's leaves is bad."""

    name: BlobName
    holders: dict[Slot, float] = field(default_factory=dict)
    busy: bool = False
    lost: bool = False


class Simulation:
    """One run."""

    def __init__(self, world: World, keeping: Keeping, seed: int) -> None:
        self._world, self._keeping = world, keeping
        self._chance = random.Random(seed)
        self._now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count()
        self._nodes: dict[NodeId, _Node] = {}
        self._candidates: list[Candidate] = []
        self._blobs: list[_Blob] = []
        self._dirty: set[int] = set()
        self._round = itertools.count()
        self.outcome = Outcome()
        for at in range(world.nodes):
            self._join(f"zone {at % world.zones}")
        shape = BlobShape(CodecId.RS, keeping.k, keeping.n, keeping.blob_bytes)
        for at in range(keeping.blobs):
            blob = _Blob(BlobName(BlobId(self._chance.randbytes(32)), shape))
            self._blobs.append(blob)
            for slot in place(blob.name.blob, keeping.n, self._candidates).slots:
                self._store(at, slot)
        for number in range(world.zones):
            self._after(world.zone_mttf_s, lambda zone=f"zone {number}": self._lose_zone(zone))  # type: ignore[misc]
        if math.isfinite(world.rot_s):
            self._after(world.rot_s / (keeping.blobs * keeping.n), self._rot)
        if keeping.scan_s:
            self._at(keeping.scan_s, self._scan)

    def run(self, until_s: float) -> Outcome:
        """Let time pass."""
        while self._events and self._events[0][0] <= until_s:
            self._now_s, _, event = heapq.heappop(self._events)
            event()
            if not self._keeping.scan_s:
                self._look(seed=b"")
        self._now_s = until_s
        return self.outcome

    # --- the world

    def _at(self, when_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), event))

    def _after(self, mean_s: float, event: Callable[[], None]) -> None:
        """At a time that knows nothing of the past: exponential with this mean."""
        if math.isfinite(mean_s):
            self._at(self._now_s + self._chance.expovariate(1 / mean_s), event)

    def _join(self, zone: str) -> None:
        node = _Node(
            NodeId(next(self._names).to_bytes(32, "big")), zone, self._chance.random() < self._world.cheats
        )
        self._nodes[node.id] = node
        self._candidates.append(Candidate(node.id, 1, zone))
        self._after(self._world.node_mttf_s, lambda: self._die(node))
        self._after(self._world.up_s, lambda: self._leave(node))

    def _die(self, node: _Node) -> None:
        if self._nodes.pop(node.id, None) is None:
            return  # with its zone, before its time
        self._candidates = [one for one in self._candidates if one.node != node.id]
        self.outcome.deaths += 1
        for at, share in node.shares:
            blob = self._blobs[at]
            blob.holders = {
                s: bad for s, bad in blob.holders.items() if (s.share, s.node) != (share, node.id)
            }
            self._judge(at)
        self._join(node.zone)

    def _lose_zone(self, zone: str) -> None:
        for node in [node for node in self._nodes.values() if node.zone == zone]:
            self._die(node)
        self._after(self._world.zone_mttf_s, lambda: self._lose_zone(zone))

    def _leave(self, node: _Node) -> None:
        node.away_since_s = self._now_s
        self._dirty.update(at for at, _ in node.shares)
        self._after(self._world.down_s, lambda: self._return(node))

    def _return(self, node: _Node) -> None:
        node.away_since_s = None
        self._dirty.update(at for at, _ in node.shares)
        self._after(self._world.up_s, lambda: self._leave(node))

    def _rot(self) -> None:
        at = self._chance.randrange(len(self._blobs))
        blob = self._blobs[at]
        if blob.holders:
            slot = self._chance.choice(sorted(blob.holders))
            leaves = blob.name.shape.leaf_count
            blob.holders[slot] = min(1.0, blob.holders[slot] + 1 / leaves)
            self._judge(at)
        self._after(self._world.rot_s / (self._keeping.blobs * self._keeping.n), self._rot)

    def _store(self, at: int, slot: Slot) -> None:
        node = self._nodes.get(slot.node)
        if node is None:
            return
        node.shares.add((at, slot.share))
        self._blobs[at].holders[slot] = 1.0 - self._world.kept if node.cheat else 0.0

    def _judge(self, at: int) -> None:
        """Whether a blob can still be read once everybody who is away has come back."""
        blob = self._blobs[at]
        self._dirty.add(at)
        good = len({slot.share for slot, bad in blob.holders.items() if bad == 0.0})
        self.outcome.fewest = min(self.outcome.fewest, good)
        if good < blob.name.shape.k and not blob.lost:
            blob.lost = True
            self.outcome.lost += 1
            self.outcome.lost_at_s = min(self.outcome.lost_at_s, self._now_s)

    # --- the keeper

    def _scan(self) -> None:
        self._look(challenge_seed(_VOLUME, self._chance.randbytes(32), next(self._round), _MEMBER))
        self._at(self._now_s + self._keeping.scan_s, self._scan)

    def _look(self, seed: bytes) -> None:
        """One scan: shares that a challenge finds bad count as gone, what is due is rebuilt a while later."""
        prove = bool(seed) and (self._world.cheats > 0 or math.isfinite(self._world.rot_s))
        waiting: set[int] = set()
        for at in range(len(self._blobs)) if prove else sorted(self._dirty):
            blob = self._blobs[at]
            if blob.busy or blob.lost:
                continue
            seen = {slot: self._seen(blob, slot, seed if prove else b"") for slot in blob.holders}
            for slot in [slot for slot, what in seen.items() if what is Seen.DAMAGED]:
                del blob.holders[slot]
                self._nodes[slot.node].shares.discard((at, slot.share))
            offline = [slot for slot, what in seen.items() if what is Seen.OFFLINE]
            if offline:
                waiting.add(at)  # nothing tells when patience with a node is over but the next look
            lasting = {slot for slot in offline if self._is_waited_for(slot.node)}
            live = {slot.share for slot, what in seen.items() if what is Seen.HELD or slot in lasting}
            if len(live) >= self._keeping.repair_below:
                continue  # as the plan would find, only sooner
            needed = plan(
                blob.name.blob,
                blob.name.shape,
                seen,
                [one for one in self._candidates if self._nodes[one.node].away_since_s is None],
                repair_below=self._keeping.repair_below,
                waiting=lasting,
            )
            if needed.condition is Condition.DUE and needed.rebuild:
                self._repair(at, needed.rebuild)
        self._dirty = waiting

    def _seen(self, blob: _Blob, slot: Slot, seed: bytes) -> Seen:
        if self._nodes[slot.node].away_since_s is not None:
            return Seen.OFFLINE
        if seed and is_sampled(seed, blob.name.blob, self._keeping.sample):
            self.outcome.proofs += 1
            leaves = blob.name.shape.leaf_count
            leaf = challenged_leaf(seed, blob.name.share(slot.share), leaves)
            if leaf < blob.holders[slot] * leaves:
                self.outcome.caught += 1
                return Seen.DAMAGED
        return Seen.HELD

    def _is_waited_for(self, node: NodeId) -> bool:
        away_since_s = self._nodes[node].away_since_s
        return away_since_s is not None and away_since_s > self._now_s - self._keeping.offline_s

    def _repair(self, at: int, slots: tuple[Slot, ...]) -> None:
        blob = self._blobs[at]
        blob.busy = True

        def done() -> None:
            blob.busy = False
            self._dirty.add(at)
            if blob.lost:
                return
            good = {
                slot.share
                for slot, bad in blob.holders.items()
                if bad == 0.0 and self._nodes[slot.node].away_since_s is None
            }
            if len(good) < blob.name.shape.k:
                return  # too many of those it would read from are away or bad: the next look tries again
            shares = len(slots)
            self.outcome.repairs += 1
            self.outcome.rebuilt += shares
            self.outcome.download_bytes += blob.name.shape.k * blob.name.shape.share_bytes
            self.outcome.upload_bytes += shares * blob.name.shape.share_bytes
            for slot in slots:
                self._store(at, slot)

        self._at(self._now_s + self._keeping.repair_s, done)


def simulate(world: World, keeping: Keeping, *, months: float, seed: int) -> Outcome:
    """One run of so many months."""
    return Simulation(world, keeping, seed).run(months * MONTH_S)
