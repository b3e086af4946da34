"""Carrying out plans: shares rebuilt, moved, and given up where there is one too many (docs/keeping.md).

A share counts as brought when its node says that it has it durably; another copy is given up only after it
was proven there.  What is broken off is planned anew from what the nodes hold, so nothing is remembered
between two runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from muniment.core.keeping.repair import Condition, Move, Plan, Seen, plan
from muniment.core.placement import Placement, Slot, rank
from muniment.core.sealing import BlobBuffers, CodedShares
from muniment.engine.check import Check
from muniment.engine.fetcher import Fetcher
from muniment.engine.groups import task_group
from muniment.engine.health import BlobHealth, ShareState
from muniment.engine.keeping.throttle import Throttle
from muniment.engine.kernels import Kernels
from muniment.engine.nodes import Nodes
from muniment.engine.results import DownloadTally
from muniment.engine.sender import Sender
from muniment.engine.sending import Sent
from muniment.errors import IntegrityError, MunimentError, PeerError, UnavailableError
from muniment.ids import BlobId, NodeId, id_text
from muniment.merkle.share_tree import check_share
from muniment.spec.blob import BlobName
from muniment.spec.share import HASH_BYTES

_AT_ONCE: Final = 8
"""Blobs repaired at the same time; the sender's memory is the real bound."""

_LOOKED_AT: Final = 1024
"""Blobs looked at together, of which the rarest are repaired first."""

_SEEN: Final = {
    ShareState.HELD: Seen.HELD,
    ShareState.DAMAGED: Seen.DAMAGED,
    ShareState.MISSING: Seen.DAMAGED,
    ShareState.OFFLINE: Seen.OFFLINE,
}

_TROUBLES_MAX: Final = 256

_LEASE_S: Final = 31 * 86400
"""Of a share whose second copy is given up: as long as that of an upload."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RepairResult:
    """What was found and done.

    Attributes:
        conditions: blobs by how they stood before.
        rebuilt: shares that were missing and are held again.
        rebuilt_bytes: of them, records.
        moved: shares that lie at a better node now.
        read_bytes: records received for all that.
        troubles: blobs that could not be repaired, and why; the first TROUBLES_MAX.
        failed: how many such blobs there are.
        unread: manifests that cannot be read; nothing is known of what is below them.
        liars: for each node that served false shares, how many.
    """

    conditions: Counter[Condition] = field(default_factory=Counter)
    rebuilt: int = 0
    rebuilt_bytes: int = 0
    moved: int = 0
    read_bytes: int = 0
    troubles: list[tuple[BlobId, str]] = field(default_factory=list)
    failed: int = 0
    unread: list[BlobId] = field(default_factory=list)
    liars: Counter[NodeId] = field(default_factory=Counter)

    @property
    def blobs(self) -> int:
        """How many were looked at."""
        return self.conditions.total()

    @property
    def lost(self) -> int:
        """How many cannot be read now."""
        return self.conditions[Condition.LOST] + self.conditions[Condition.OUT_OF_REACH] + len(self.unread)

    def trouble(self, blob: BlobId, reason: str) -> None:
        """A blob could not be repaired."""
        self.failed += 1
        if len(self.troubles) < _TROUBLES_MAX:
            self.troubles.append((blob, reason))

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "blobs": self.blobs,
            "conditions": {condition.value: self.conditions[condition] for condition in Condition},
            "rebuilt_shares": self.rebuilt,
            "rebuilt_bytes": self.rebuilt_bytes,
            "moved_shares": self.moved,
            "read_bytes": self.read_bytes,
            "failed": self.failed,
            "troubles": [{"blob": id_text(blob), "reason": reason} for blob, reason in self.troubles],
            "unread_manifests": [id_text(blob) for blob in self.unread],
            "liars": {id_text(node): count for node, count in self.liars.items()},
        }


class Repairer:
    """Brings blobs back to all their shares.

    Args:
        nodes: the grid.
        fetcher: reads k shares.
        sender: brings what was rebuilt.
        kernels: verify what is copied.
        throttle: bounds the bytes read and sent together.
        repair_below: missing shares are rebuilt when fewer distinct ones are live; None: as soon as one is
            missing.
        move: also bring shares to where placement wants them.
    """

    def __init__(
        self,
        nodes: Nodes,
        fetcher: Fetcher,
        sender: Sender,
        kernels: Kernels,
        throttle: Throttle,
        *,
        repair_below: int | None = None,
        move: bool = False,
    ) -> None:
        self._nodes = nodes
        self._fetcher = fetcher
        self._sender = sender
        self._kernels = kernels
        self._throttle = throttle
        self._repair_below = repair_below
        self._move = move
        self.result = RepairResult()

    async def run(self, names: AsyncIterable[BlobName], check: Check) -> RepairResult:
        """Look at all these blobs and repair what is due, the rarest of every thousand first.

        A blob that cannot be repaired is noted and stops no other.
        """
        batch: list[BlobName] = []
        async for name in names:
            batch.append(name)
            if len(batch) == _LOOKED_AT:
                await self.repair(batch, check)
                batch = []
        await self.repair(batch, check)
        return self.result

    async def repair(self, names: Sequence[BlobName], check: Check) -> Sequence[BlobHealth]:
        """Look at these blobs and do what they need; returns how they stood before."""
        found = await check.blobs(names)
        due = []
        for health in found:
            needed = self.plan(health, offline=check.offline)
            self.result.conditions[needed.condition] += 1
            if needed.condition in (Condition.LOST, Condition.OUT_OF_REACH):
                self.result.trouble(health.name.blob, f"only {len(needed.sources)} shares can be had")
            elif self.due(needed) or (self._move and needed.surplus):
                due.append((needed.spare, health.name, needed))
        due.sort(key=lambda item: (item[0], item[1].blob))
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(name: BlobName, needed: Plan) -> None:
            try:
                await self.carry_out(name, needed)
                if self._move:
                    await self._give_up(name, check)
            except (UnavailableError, IntegrityError, PeerError) as error:
                self.result.trouble(name.blob, str(error))
            finally:
                places.release()

        async with task_group() as group:
            for _, name, needed in due:
                await places.acquire()
                group.create_task(one(name, needed))
        return found

    def plan(
        self,
        health: BlobHealth,
        away: Collection[Slot] = (),
        *,
        waiting: Set[Slot] = frozenset(),
        offline: Set[NodeId] = frozenset(),
    ) -> Plan:
        """What one blob needs.

        Args:
            away: where shares were before, at nodes that do not answer now.
            waiting: of these, those that count as live, since their nodes are away for a short time.
            offline: nodes that do not answer now; what they said before does not count.
        """
        shape = health.name.shape
        seen = {
            Slot(share.number, node): Seen.OFFLINE if node in offline else _SEEN[state]
            for share in health.shares
            for node, state in share.nodes
        }
        seen.update(dict.fromkeys(away, Seen.OFFLINE))
        below = shape.n if self._repair_below is None else self._repair_below
        return plan(
            health.name.blob,
            shape,
            seen,
            self._nodes.candidates,
            repair_below=below,
            waiting=waiting,
            avoid=health.liars,
            offline=offline,
        )

    def due(self, needed: Plan) -> bool:
        """Whether shares are to be rebuilt or moved."""
        return bool(needed.rebuild or (self._move and needed.moves))

    async def carry_out(self, name: BlobName, needed: Plan) -> None:
        """Rebuild what is missing, and copy what lies wrong: nothing is given up.

        Raises: UnavailableError, IntegrityError, PeerError: not all of it is done.
        """
        if needed.rebuild:
            await self._rebuild(name, needed)
        if self._move:
            for move in needed.moves:
                await self._bring(name, move)

    async def _rebuild(self, name: BlobName, needed: Plan) -> None:
        """Compute what is missing and bring it to its nodes, or others: best to such that have none of it."""
        record_bytes = name.shape.record_bytes
        await self._throttle.take((name.shape.k + len(needed.rebuild)) * record_bytes)
        targets, busy = {slot.node for slot in needed.rebuild}, {slot.node for slot in needed.sources}
        ranked = rank(name.blob, self._nodes.candidates)
        spares = [node for node in ranked if node not in targets and node not in needed.avoid]
        spares.sort(key=busy.__contains__)  # stable: by rank, those that have a share already last
        numbers = [slot.share for slot in needed.rebuild]
        sent = await self._brought(
            name, partial(self._rebuilt, name, numbers), Placement(needed.rebuild, tuple(spares), 1)
        )
        landed = len(numbers) - sent.missing
        self.result.rebuilt += landed
        self.result.rebuilt_bytes += landed * record_bytes

    async def _bring(self, name: BlobName, move: Move) -> None:
        """Have a copy of the share at its new node, durable as far as that tells."""
        await self._throttle.take(2 * name.shape.record_bytes)
        copied = partial(self._copied, name, Slot(move.share, move.source))
        await self._brought(name, copied, Placement((Slot(move.share, move.target),), (), 1))
        self.result.moved += 1

    async def _brought(
        self, name: BlobName, make: Callable[[BlobBuffers], Awaitable[CodedShares]], places: Placement
    ) -> Sent:
        """Make shares in the sender's memory, and bring them to their places."""
        buffers = await self._sender.buffers_for(name.shape)
        try:
            shares = await make(buffers.blob)
        except BaseException:
            self._sender.give_back(buffers)
            raise
        return await self._sender.bring(shares, buffers, places)

    async def _rebuilt(self, name: BlobName, numbers: Sequence[int], target: BlobBuffers) -> CodedShares:
        tally = DownloadTally()
        try:
            return await self._fetcher.rebuild(name, numbers, target, tally)
        finally:
            self.result.read_bytes += tally.share_bytes
            self.result.liars.update(tally.liars)

    async def _copied(self, name: BlobName, source: Slot, target: BlobBuffers) -> CodedShares:
        """The share as its node has it; rebuilt from others if that cannot be had."""
        lane = self._nodes.lane(source.node)
        if lane is None:
            return await self._rebuilt(name, [source.share], target)
        head = memoryview(bytearray(name.shape.head_bytes))
        data = target.shares(name.shape)[1][source.share]
        try:
            await lane.connection.get(name.share(source.share), head, data)
            header, _ = await self._kernels.run(check_share, name, source.share, head, data)
        except MunimentError as error:  # whatever it says: others have the blob too
            _log.warning("node %s does not give its share: %s", id_text(source.node)[:12], error)
            return await self._rebuilt(name, [source.share], target)
        self.result.read_bytes += name.shape.record_bytes
        leaves = bytes(head[name.shape.head_bytes - HASH_BYTES * name.shape.leaf_count :])
        return CodedShares(name, header.roots, {source.share: leaves}, {source.share: data})

    async def _give_up(self, name: BlobName, check: Check) -> None:
        """Look once more, and end this account's leases on second copies of shares that are leased elsewhere.

        A node that does not hear it keeps its copy a little longer.
        """
        (health,) = await check.blobs([name])
        needed = self.plan(health, offline=check.offline)
        stays = {slot.share: slot.node for slot in needed.sources}
        for slot in needed.surplus:
            key = [name.share(slot.share)]
            kept, left = self._nodes.lane(stays[slot.share]), self._nodes.lane(slot.node)
            if kept is None or left is None:
                continue
            try:
                if all(await kept.connection.lease(key, _LEASE_S)):
                    await left.connection.trash(key)
            except MunimentError as error:
                _log.warning("node %s keeps a copy: %s", id_text(slot.node)[:12], error)
