"""What a keeper sees of blobs: written down, planned, and leased where it is to stay (docs/keeping.md).

Looks of many repairs are taken together, and a node that was silent is not asked by them for a while: each
repair on its own would wait for every node that hangs until its deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from typing import Final

from muniment.core.keeping.repair import Plan
from muniment.core.placement import Slot
from muniment.engine.check import Check, Depth
from muniment.engine.grid import Grid
from muniment.engine.groups import task_group
from muniment.engine.health import ShareState
from muniment.engine.keeping.duties import Duties, KeeperTally
from muniment.engine.keeping.repair import Repairer
from muniment.errors import MunimentError, NodeUnreachable, ShareUnknown
from muniment.ids import BlobId, NodeId, ShareKey, id_text
from muniment.ports import BlobBook, Clock, NodeAccount, Sighting
from muniment.spec.blob import BlobName
from muniment.spec.limits import BATCH_SHARES_MAX

_SILENT_S: Final = 60.0
"""So long no repair asks a node that has not answered, unless a scan hears it before; never longer than its
shares count as live without an answer, or it would lose them unheard."""

_log = logging.getLogger(__name__)


class Looking:
    """Looks of one keeper.

    Args:
        grid: a client under the keeper's account of this volume.
        book: what is remembered.
        repairer: plans.
        tally: what is done is counted there.

    Attributes:
        round_s: from one look of the scans at a blob to the next.
    """

    def __init__(
        self, grid: Grid, book: BlobBook, repairer: Repairer, clock: Clock, duties: Duties, tally: KeeperTally
    ) -> None:
        self._grid, self._book, self._plan = grid, book, repairer.plan
        self._clock, self._duties, self._tally = clock, duties, tally
        self._silent_until_s: dict[NodeId, float] = {}
        self._asked: list[tuple[BlobName, asyncio.Future[Plan]]] = []
        self._turn = asyncio.Lock()
        self.round_s = duties.scan_s

    def checks(self, seed: bytes) -> tuple[Check, Check]:
        """What asks, and what has proven; each asks every node once more."""
        return self._grid.checker(Depth.ASKED), self._grid.checker(Depth.PROVEN, seed)

    async def together(self, name: BlobName, seed: bytes) -> Plan:
        """Look at one blob, proven, with all others that are wanted by the time a look begins.

        Args:
            seed: of the challenges, if this call begins the look.
        """
        answer: asyncio.Future[Plan] = asyncio.get_running_loop().create_future()
        item = name, answer
        self._asked.append(item)
        try:
            async with self._turn:
                if not answer.done():
                    await self._look_at_all(seed)
        finally:
            self._asked = [one for one in self._asked if one is not item]
        return answer.result()

    async def _look_at_all(self, seed: bytes) -> None:
        asked, now_s = tuple(self._asked), self._clock.monotonic_s()
        silent = frozenset(node for node, until_s in self._silent_until_s.items() if until_s > now_s)
        check = self._grid.checker(Depth.PROVEN, seed, silent=silent)
        plans = await self.look(check, [name for name, _ in asked], proven=True)
        for (_, answer), (_, needed) in zip(asked, plans, strict=True):
            answer.set_result(needed)
        self._asked = [one for one in self._asked if not one[1].done()]

    async def look(
        self, check: Check, names: Sequence[BlobName], *, proven: bool, silent: Set[NodeId] = frozenset()
    ) -> list[tuple[BlobName, Plan]]:
        """See what the nodes have of these blobs, remember it, plan, and lease what is to stay.

        Args:
            proven: whether the check believes no node; copies are given up only then.
            silent: nodes that did not answer another check of the same round, so nothing they say counts.
        """
        if not names:
            return []
        silent_before, lanes = check.offline, set(self._grid.lanes())
        found = await check.blobs(names)
        now_s = self._clock.now_s()
        # Who came, or came back, while others were asked was not asked for all of it, and has lost nothing.
        answered = {lane.node for lane in lanes.intersection(self._grid.lanes())} - check.offline - silent
        held = {
            (health.name.blob, Slot(share.number, node))
            for health in found
            for share in health.shares
            for node, state in share.nodes
            if state is ShareState.HELD and node in answered
        }
        self._note_silence(check.offline - silent_before, answered)
        self._tally.proofs += proven * len(held)
        sightings, answers = await asyncio.to_thread(
            self._remember, [health.name.blob for health in found], held, answered, now_s=now_s, proven=proven
        )
        plans: list[tuple[BlobName, Plan]] = []
        for health, seen in zip(found, sightings, strict=True):
            away = [one.slot for one in seen if one.slot.node not in answered]
            waiting = {one.slot for one in seen if self._is_waited_for(one, answers, now_s)}
            needed = self._plan(health, away, waiting=waiting, offline=check.offline | silent)
            plans.append((health.name, needed))
        ends = {
            (name.blob, one.slot): one.leased_s
            for (name, _), seen in zip(plans, sightings, strict=True)
            for one in seen
            if (name.blob, one.slot) in held
        }
        await self._settle(plans, ends, now_s, proven=proven)
        return plans

    def _note_silence(self, newly: Set[NodeId], answered: Set[NodeId]) -> None:
        now_s = self._clock.monotonic_s()
        until_s = now_s + min(_SILENT_S, self._duties.offline_s)
        known = {node: end_s for node, end_s in self._silent_until_s.items() if end_s > now_s}
        known |= dict.fromkeys(newly, until_s)
        self._silent_until_s = {node: end_s for node, end_s in known.items() if node not in answered}

    def _is_waited_for(self, one: Sighting, answers: Mapping[NodeId, float], now_s: float) -> bool:
        """Whether a share counts as live though its node does not answer.

        Not if the node answered lately for others and not for this one: it falls silent where it has nothing
        to show.  Times are compared by their distance, as a clock that was ahead leaves some of the future.
        """
        offline_s = self._duties.offline_s
        return (
            abs(now_s - answers.get(one.slot.node, 0.0)) < offline_s
            and abs(now_s - one.held_s) < offline_s + 2 * self.round_s
        )

    async def _settle(
        self,
        plans: Sequence[tuple[BlobName, Plan]],
        ends: Mapping[tuple[BlobId, Slot], float],
        now_s: float,
        *,
        proven: bool,
    ) -> None:
        """Lease what is to stay, and give up second copies of what was proven and has a lease.

        Args:
            ends: of the leases on what is held, as far as known.
        """
        surplus = {(name.blob, slot) for name, needed in plans for slot in needed.surplus}
        soon_s, latest_s = now_s + self._duties.lease_s / 2, now_s + self._duties.lease_s
        # One that ends later than any can was noted by a clock that was ahead.
        good = {one for one, end_s in ends.items() if soon_s <= end_s <= latest_s}
        good |= await self._lease([one for one in ends if one not in good and one not in surplus], now_s)
        if proven:
            kept = {(blob, slot.share) for blob, slot in good - surplus}
            await self._give_up(
                [one for one in sorted(surplus) if ends.get(one) and (one[0], one[1].share) in kept]
            )

    def _remember(
        self,
        blobs: Sequence[BlobId],
        held: Set[tuple[BlobId, Slot]],
        answered: Set[NodeId],
        *,
        now_s: float,
        proven: bool,
    ) -> tuple[Sequence[Sequence[Sighting]], Mapping[NodeId, float]]:
        """In a thread: write down what was seen; returns what is known now, and when nodes last answered."""
        gone = [
            (blob, one.slot)
            for blob, seen in zip(blobs, self._book.sightings(blobs), strict=True)
            for one in seen
            if one.slot.node in answered and (blob, one.slot) not in held
        ]
        self._book.note(sorted(held), gone, now_s=now_s, proven=proven)
        self._book.answered(answered, now_s)
        return self._book.sightings(blobs), self._book.last_answers()

    async def _lease(self, slots: Sequence[tuple[BlobId, Slot]], now_s: float) -> set[tuple[BlobId, Slot]]:
        """Take or extend leases; returns on which that was done."""
        duration_s, taken = self._duties.lease_s, set[tuple[BlobId, Slot]]()

        async def lease(account: NodeAccount, batch: Sequence[tuple[BlobId, Slot]]) -> None:
            done = await account.lease(_keys(batch), duration_s)
            leased = [one for one, was in zip(batch, done, strict=True) if was]
            self._tally.leased += len(leased)
            if len(leased) < len(batch):
                self._tally.unpaid[ShareUnknown.code] += len(batch) - len(leased)
            await asyncio.to_thread(self._book.leased, leased, now_s + duration_s)
            taken.update(leased)

        await self._everywhere(slots, lease)
        return taken

    async def _give_up(self, slots: Sequence[tuple[BlobId, Slot]]) -> None:
        """End leases on copies that are one too many."""

        async def trash(account: NodeAccount, batch: Sequence[tuple[BlobId, Slot]]) -> None:
            await account.trash(_keys(batch))
            await asyncio.to_thread(self._book.leased, batch, 0.0)

        await self._everywhere(slots, trash)

    async def _everywhere(
        self,
        slots: Sequence[tuple[BlobId, Slot]],
        ask: Callable[[NodeAccount, Sequence[tuple[BlobId, Slot]]], Awaitable[None]],
    ) -> None:
        """Ask each node for its own of these, in batches; one that fails is left to the next scan.

        Whatever it says: the scan that stops for the word of one node renews no lease at any other.
        """
        by_node: defaultdict[NodeId, list[tuple[BlobId, Slot]]] = defaultdict(list)
        for blob, slot in slots:
            by_node[slot.node].append((blob, slot))

        async def one(node: NodeId, own: Sequence[tuple[BlobId, Slot]]) -> None:
            for at in range(0, len(own), BATCH_SHARES_MAX):
                try:
                    if (lane := self._grid.lane(node)) is None:
                        raise NodeUnreachable(node=node, reason="it left the roster")
                    await ask(lane.connection, own[at : at + BATCH_SHARES_MAX])
                except MunimentError as error:
                    _log.warning("node %s: leases stay as they are: %s", id_text(node)[:12], error)
                    self._tally.unpaid[error.code] += len(own) - at
                    return

        async with task_group() as group:
            for node, own in by_node.items():
                group.create_task(one(node, own))


def _keys(slots: Iterable[tuple[BlobId, Slot]]) -> list[ShareKey]:
    return [ShareKey(blob, slot.share) for blob, slot in slots]
