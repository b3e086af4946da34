"""The keeper of one volume: four kinds of jobs in a durable queue (docs/keeping.md).

    follow    the log: notes the blobs that new entries name
    scan      page by page along all blobs: asks, has leaves proven, takes and renews leases, adds repairs
    repair    one blob: looks once more, rebuilds what is missing, moves what lies wrong
    collect   page by page along what one node holds for the keeper's account: gives up what nothing refers to

Needs the verify right and an account, and no key of any content.  Steps may be done twice and by two keepers.
The book and the log are read in threads; everything else runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Protocol

from muniment.core.keeping.challenge import challenge_seed, is_sampled
from muniment.core.keeping.job import NewJob, new_job
from muniment.core.keeping.repair import Condition, Plan
from muniment.core.placement import Slot
from muniment.engine.check import Check, Depth
from muniment.engine.grid import Grid
from muniment.engine.health import BlobHealth, ShareState
from muniment.engine.keeping.named import LogHead
from muniment.engine.keeping.repair import RepairResult
from muniment.engine.keeping.throttle import Throttle
from muniment.engine.keeping.work import Patience, Work, Worker
from muniment.errors import CallerError, LocalError, NodeUnreachable, PeerError, UnavailableError
from muniment.ids import BlobId, MemberId, NodeId, ShareKey, ShareNumber, VolumeId, id_from_text, id_text
from muniment.ports import BlobBook, Clock, NamedBlobs, NodeAccount, Sighting
from muniment.spec.blob import BlobName
from muniment.spec.limits import BATCH_SHARES_MAX, LIST_SHARES_MAX
from muniment.spec.share import BlobShape

_PAGE: Final = 1024
"""Blobs looked at in one step of a scan."""

_DAY_S: Final = 86400.0
_SCAN_PRIORITY: Final = 1000
"""Behind every repair: those have the shares that a blob can still lose."""

_ENDLESS: Final = Patience(tries=1 << 30)
"""For what goes on as long as the keeper: a log or node that is away for days must not end it."""

_log = logging.getLogger(__name__)


class NamedSource(Protocol):
    """The log, as far as it names blobs (`engine.keeping.named.NamedByLog`)."""

    @property
    def volume(self) -> VolumeId: ...

    async def follow(self) -> LogHead: ...

    def page(self, start: int) -> list[NamedBlobs]: ...


@dataclass(frozen=True, slots=True)
class Duties:
    """What a keeper is told to do; times in seconds.

    Attributes:
        repair_below: missing shares are rebuilt when fewer distinct ones are live; None: as soon as one is.
        sample: one in so many blobs is proven in a scan, the others are only asked for; 1: all.
        scan_s: from the end of a scan to the next.
        offline_s: for so long the shares of a node that does not answer count as live.
        lease_s: of leases taken; renewed when half of it is over.
        follow_s: between looks at the log.
        bytes_per_s: read and sent by repairs together.
        move: bring shares to where placement wants them.
    """

    repair_below: int | None = None
    sample: int = 1
    scan_s: float = _DAY_S
    offline_s: float = _DAY_S
    lease_s: int = 31 * int(_DAY_S)
    follow_s: float = 60.0
    bytes_per_s: float = float("inf")
    move: bool = True


@dataclass(slots=True)
class KeeperTally:
    """What a keeper has done since it was made.

    Attributes:
        scans: ended.
        conditions: blobs in the last scan that ended, or in the one under way.
        proofs: shares that were proven.
        leased: leases taken or renewed.
        collected: leases given up.
        unpaid: shares that nodes hold and give no lease on, by the reason.
    """

    scans: int = 0
    conditions: Counter[Condition] = field(default_factory=Counter)
    proofs: int = 0
    leased: int = 0
    collected: int = 0
    unpaid: Counter[str] = field(default_factory=Counter)


class Keeper:
    """Keeps one volume.

    Args:
        source: its log.
        grid: a client under the keeper's account of this volume.
        book: what is remembered; closed by its owner.
        worker: does the jobs; this object registers its handlers there.
        member: whose keeper it is; enters the challenges.
        duties: how.

    Attributes:
        tally: what was done.
        scanned: called after each scan.
        then: gives the jobs that follow each scan.
    """

    def __init__(
        self,
        source: NamedSource,
        grid: Grid,
        book: BlobBook,
        worker: Worker,
        clock: Clock,
        member: MemberId,
        duties: Duties | None = None,
    ) -> None:
        self._source, self._grid, self._book = source, grid, book
        self._worker, self._clock, self._member = worker, clock, member
        self._duties = duties or Duties()
        self._head = LogHead(0, bytes(32))
        self._following = asyncio.Lock()
        self._scanning: tuple[bytes, Check, Check] | None = None
        self._repairer = grid.repairer(
            Throttle(self._duties.bytes_per_s), below=self._duties.repair_below, move=self._duties.move
        )
        self.tally = KeeperTally()
        self.scanned: Callable[[], None] = lambda: None
        self.then: Callable[[], Iterable[NewJob]] = tuple
        worker.register(self._kind("follow"), self._follow, _ENDLESS)
        worker.register(self._kind("scan"), self._scan, _ENDLESS)
        worker.register(self._kind("repair"), self._repair)
        worker.register(self._kind("collect"), self._collect, _ENDLESS)

    @property
    def repairs(self) -> str:
        """The kind of the jobs that repair."""
        return self._kind("repair")

    @property
    def repaired(self) -> RepairResult:
        """What repairs have done; conditions are the scans' (`tally`)."""
        return self._repairer.result

    async def begin(self) -> None:
        """Add the jobs that go on for ever; those that wait already go on as they were."""
        jobs = [new_job(self._kind("follow"), "log", again=True), self._new_scan(0.0)]
        jobs += [self._new_collect(lane.node, 0.0) for lane in self._grid.lanes()]
        await self._worker.add(*jobs)

    async def follow(self) -> None:
        """Bring the book up to the log's newest entry.  Raises: as `Volume.sync`."""
        async with self._following:
            self._head = await self._source.follow()
            while (start := await asyncio.to_thread(lambda: self._book.size)) < self._head.size:
                named = await asyncio.to_thread(self._source.page, start)
                await asyncio.to_thread(self._book.take_in, start, named)

    # --- jobs

    async def _follow(self, work: Work) -> None:
        await self.follow()
        work.repeat(after_s=self._duties.follow_s)

    async def _scan(self, work: Work) -> None:
        """One page; a scan is bound to the checkpoint at which it began."""
        seed = work.box("seed")
        if seed is None:
            await self.follow()
            seed = challenge_seed(self._source.volume, self._head.root, work.job.id, self._member)
            work.put("seed", seed)
            self.tally.conditions.clear()
        after = work.box("after")
        names = await asyncio.to_thread(self._book.kept, after and BlobId(after), _PAGE)
        asking, proving = self._checks(seed)
        sampled = [name for name in names if is_sampled(seed, name.blob, self._duties.sample)]
        rest = [name for name in names if not is_sampled(seed, name.blob, self._duties.sample)]
        for check, group in ((proving, sampled), (asking, rest)):
            for name, needed in await self._look(check, group, proven=check is proving):
                self.tally.conditions[needed.condition] += 1
                if self._repairer.due(needed):
                    work.add(self._new_repair(name, needed))
        if len(names) == _PAGE:
            _, kept = await asyncio.to_thread(self._book.count)
            work.put("after", names[-1].blob)
            work.progress(work.progress_done + len(names), kept)
            work.repeat()
            return
        self._scanning = None
        self.tally.scans += 1
        self.scanned()
        work.add(self._new_scan(self._clock.now_s() + self._duties.scan_s), *self.then())

    async def _repair(self, work: Work) -> None:
        """Look at one blob once more and do what it needs now; then look again, to lease what was brought."""
        name = BlobName(BlobId(id_from_text(work.key)), BlobShape.unpack(work.args))
        seed = challenge_seed(self._source.volume, self._head.root, work.job.id, self._member)
        for _, needed in await self._look(self._grid.checker(Depth.PROVEN, seed), [name], proven=True):
            if work.step == "run" and self._repairer.due(needed):
                await self._repairer.carry_out(name, needed)
                work.then("lease")

    async def _collect(self, work: Work) -> None:
        """One page of what a node holds for this account, beside what is referred to."""
        node, after = NodeId(id_from_text(work.key)), work.box("after")
        behind = None if after is None else ShareKey(BlobId(after[0]), ShareNumber(after[1]))
        last = await self._collect_page(node, behind)
        if last is not None:
            work.put("after", [last.blob, last.number])
            work.repeat()
        elif self._account(node) is not None:  # else it left the roster
            work.add(self._new_collect(node, self._clock.now_s() + self._duties.scan_s))

    async def collect(self, node: NodeId) -> None:
        """Give up all that one node holds for this account and nothing refers to.

        Cost: a page of LIST_SHARES_MAX shares at a time, whatever the volume.  Raises: UnavailableError.
        """
        behind: ShareKey | None = None
        while (behind := await self._collect_page(node, behind)) is not None:
            pass

    async def _collect_page(self, node: NodeId, behind: ShareKey | None) -> ShareKey | None:
        """Where the next page begins; None behind the last."""
        account = self._account(node)
        if account is None:
            return None
        rows = await account.shares(after=behind, limit=LIST_SHARES_MAX)
        keys = [ShareKey(BlobId(id_from_text(row.blob)), ShareNumber(row.number)) for row in rows]
        kept = await asyncio.to_thread(self._book.is_kept, [key.blob for key in keys])
        leased = {
            key: row.expires_s
            for key, row, keep in zip(keys, rows, kept, strict=True)
            if keep and not row.trashed
        }
        await asyncio.to_thread(self._learn, node, leased)
        given_up = [
            key for key, row, keep in zip(keys, rows, kept, strict=True) if not keep and not row.trashed
        ]
        for at in range(0, len(given_up), BATCH_SHARES_MAX):
            done = await account.trash(given_up[at : at + BATCH_SHARES_MAX])
            self.tally.collected += sum(done)
        return keys[-1] if len(rows) == LIST_SHARES_MAX else None

    def _learn(self, node: NodeId, leased: Mapping[ShareKey, float]) -> None:
        """In a thread: note leases of this account that the book does not know of.

        A repair took them with the share it brought, or a keeper that was killed before it noted them; what
        is one copy too many is given up only where a lease is known.
        """
        blobs = sorted({key.blob for key in leased})
        unknown = [
            (blob, one.slot)
            for blob, seen in zip(blobs, self._book.sightings(blobs), strict=True)
            for one in seen
            if one.slot.node == node and not one.leased_s and ShareKey(blob, one.slot.share) in leased
        ]
        if unknown:
            until_s = min(leased[ShareKey(blob, slot.share)] for blob, slot in unknown)
            self._book.leased(unknown, until_s)

    # --- what is seen

    def _checks(self, seed: bytes) -> tuple[Check, Check]:
        """What asks and what has proven, the same for all pages of a scan: who is offline stays so."""
        if self._scanning is None or self._scanning[0] != seed:
            self._scanning = (seed, self._grid.checker(Depth.ASKED), self._grid.checker(Depth.PROVEN, seed))
        return self._scanning[1:]

    async def _look(
        self, check: Check, names: Sequence[BlobName], *, proven: bool
    ) -> list[tuple[BlobName, Plan]]:
        """See what the nodes have of these blobs, remember it, plan, and lease what is to stay."""
        if not names:
            return []
        found = await check.blobs(names)
        now_s = self._clock.now_s()
        answered = {lane.node for lane in self._grid.lanes()} - check.offline
        sightings, answers = await asyncio.to_thread(
            self._remember, found, answered, now_s=now_s, proven=proven
        )
        self.tally.proofs += proven * sum(one.held_s >= now_s for seen in sightings for one in seen)
        waited_for = {node for node, when_s in answers.items() if when_s > now_s - self._duties.offline_s}
        plans: list[tuple[BlobName, Plan]] = []
        leases: list[tuple[BlobId, Sighting]] = []
        surplus: list[tuple[BlobId, Sighting]] = []
        for health, seen in zip(found, sightings, strict=True):
            away = [one.slot for one in seen if one.slot.node not in answered]
            needed = self._repairer.plan(health, away, waited_for=waited_for)
            plans.append((health.name, needed))
            for one in seen:
                if one.held_s >= now_s:
                    kept = one.slot not in needed.surplus
                    (leases if kept else surplus).append((health.name.blob, one))
        soon_s = now_s + self._duties.lease_s / 2
        await self._lease([(blob, one.slot) for blob, one in leases if one.leased_s < soon_s], now_s)
        await self._give_up([(blob, one.slot) for blob, one in surplus if one.leased_s])
        return plans

    def _remember(
        self, found: Sequence[BlobHealth], answered: Set[NodeId], *, now_s: float, proven: bool
    ) -> tuple[Sequence[Sequence[Sighting]], Mapping[NodeId, float]]:
        """In a thread: write down what was seen; returns what is known now, and when nodes last answered."""
        blobs = [health.name.blob for health in found]
        held = {
            (health.name.blob, Slot(share.number, node))
            for health in found
            for share in health.shares
            for node, state in share.nodes
            if state is ShareState.HELD
        }
        gone = [
            (blob, one.slot)
            for blob, seen in zip(blobs, self._book.sightings(blobs), strict=True)
            for one in seen
            if one.slot.node in answered and (blob, one.slot) not in held
        ]
        self._book.note(sorted(held), gone, now_s=now_s, proven=proven)
        self._book.answered(answered, now_s)
        return self._book.sightings(blobs), self._book.last_answers()

    async def _lease(self, slots: Sequence[tuple[BlobId, Slot]], now_s: float) -> None:
        """Take or extend leases."""
        duration_s = self._duties.lease_s

        async def lease(account: NodeAccount, batch: Sequence[tuple[BlobId, Slot]]) -> None:
            done = await account.lease(_keys(batch), duration_s)
            leased = [one for one, was in zip(batch, done, strict=True) if was]
            self.tally.leased += len(leased)
            await asyncio.to_thread(self._book.leased, leased, now_s + duration_s)

        await self._everywhere(slots, lease)

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
        """Ask each node for its own of these, in batches; one that fails is left to the next scan."""
        by_node: defaultdict[NodeId, list[tuple[BlobId, Slot]]] = defaultdict(list)
        for blob, slot in slots:
            by_node[slot.node].append((blob, slot))

        async def one(node: NodeId, own: Sequence[tuple[BlobId, Slot]]) -> None:
            for at in range(0, len(own), BATCH_SHARES_MAX):
                try:
                    if (account := self._account(node)) is None:
                        raise NodeUnreachable(node=node, reason="it left the roster")
                    await ask(account, own[at : at + BATCH_SHARES_MAX])
                except (CallerError, LocalError, PeerError, UnavailableError) as error:
                    _log.warning("node %s: leases stay as they are: %s", id_text(node)[:12], error)
                    self.tally.unpaid[error.code] += len(own) - at
                    return

        await asyncio.gather(*(one(node, own) for node, own in by_node.items()))

    def _account(self, node: NodeId) -> NodeAccount | None:
        return next((lane.connection for lane in self._grid.lanes() if lane.node == node), None)

    # --- new jobs

    def _kind(self, what: str) -> str:
        """Keepers of several volumes share a queue, and each does its own jobs."""
        return f"{what}.{id_text(self._source.volume)}"

    def _new_scan(self, due_s: float) -> NewJob:
        return new_job(self._kind("scan"), "blobs", priority=_SCAN_PRIORITY, due_s=due_s, again=True)

    def _new_collect(self, node: NodeId, due_s: float) -> NewJob:
        kind = self._kind("collect")
        return new_job(kind, id_text(node), priority=_SCAN_PRIORITY, due_s=due_s, again=True)

    def _new_repair(self, name: BlobName, needed: Plan) -> NewJob:
        """The fewer shares a blob can still lose, the sooner."""
        kind, priority = self._kind("repair"), max(needed.spare, 0)
        return new_job(kind, id_text(name.blob), name.shape.pack(), priority=priority, again=True)


def _keys(slots: Iterable[tuple[BlobId, Slot]]) -> list[ShareKey]:
    return [ShareKey(blob, slot.share) for blob, slot in slots]
