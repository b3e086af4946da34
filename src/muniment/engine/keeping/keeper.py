"""The keeper of one volume: four kinds of jobs in a durable queue (docs/keeping.md).

    follow    the log: notes the blobs that new entries name
    scan      page by page along all blobs: asks, has leaves proven, takes and renews leases, adds repairs
    repair    one blob: looks once more, rebuilds what is missing, copies what lies wrong
    collect   page by page along what one node lists for the keeper's account: corrects what is known of
              leases, gives up what was pruned

Leases are given up in two places only.  Of what is referred to: where the same share was proven at another
node in the same look, and has a lease there (`_settle`).  Of the rest: where a prune names the blob, and no
entry of the newest log names it since (`_collect_page`); what this keeper has never heard of may be what
another one knows from a newer log, and ends by itself.

Needs the verify right and an account, and no key of any content.  Steps may be done twice and by two keepers.
The book and the log are read in threads; everything else runs on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Protocol

from muniment.core.keeping.challenge import challenge_seed, is_sampled
from muniment.core.keeping.change import is_material
from muniment.core.keeping.job import NewJob, new_job
from muniment.core.keeping.repair import Condition, Plan
from muniment.core.placement import Candidate, Slot
from muniment.engine.check import Check, Depth
from muniment.engine.grid import Grid
from muniment.engine.health import ShareState
from muniment.engine.keeping.named import LogHead
from muniment.engine.keeping.repair import RepairResult
from muniment.engine.keeping.throttle import Throttle
from muniment.engine.keeping.work import Patience, Work, Worker
from muniment.errors import (
    CallerError,
    LocalError,
    MunimentError,
    NodeUnreachable,
    PeerError,
    ShareUnknown,
    UnavailableError,
)
from muniment.ids import (
    BlobId,
    JobId,
    MemberId,
    NodeId,
    ShareKey,
    ShareNumber,
    VolumeId,
    id_from_text,
    id_text,
)
from muniment.ports import BlobBook, Clock, NamedBlobs, NodeAccount, Sighting
from muniment.spec.blob import BlobName
from muniment.spec.limits import BATCH_SHARES_MAX, LIST_SHARES_MAX
from muniment.spec.share import BlobShape

_PAGE: Final = 1024
"""Blobs looked at in one step of a scan."""

_DAY_S: Final = 86400.0
_WATCH_S: Final = 60.0
"""Between two looks at nodes that have changed and wait for their scan."""

_SCAN_PRIORITY: Final = -1
"""Before every repair: it takes one of the worker's places; behind repairs of weeks, leases would end."""

_COLLECT_PRIORITY: Final = 1
"""Behind the repairs of blobs that cannot lose a share more."""

_SHARES_OF_BLOB_MAX: Final = 256

_ENDLESS: Final = Patience(tries=1 << 30)
"""For what goes on as long as the keeper: a log or node that is away for days must not end it."""

_log = logging.getLogger(__name__)


class NamedSource(Protocol):
    """The log, as far as it names blobs (`engine.keeping.named.NamedByLog`)."""

    @property
    def volume(self) -> VolumeId: ...

    @property
    def head(self) -> LogHead: ...

    async def follow(self) -> LogHead: ...

    def root(self, size: int) -> bytes: ...

    def page(self, start: int) -> list[NamedBlobs]: ...


@dataclass(frozen=True, slots=True)
class Duties:
    """What a keeper is told to do; times in seconds.

    Attributes:
        repair_below: missing shares are rebuilt when fewer distinct ones are live; None: as soon as one is.
        sample: one in so many blobs is proven in a scan, the others are only asked for; 1: all.
        scan_s: from the end of a scan to the next.
        soon_s: the same if nodes came, went, drain or are other than when it began (`core.keeping.change`).
        settle_s: from such a change to the scan, so that nodes that change together cost one.
        offline_s: for so long the shares of a node that does not answer count as live.
        lease_s: of leases taken; renewed when half of it is over.
        follow_s: between looks at the log.
        bytes_per_s: read and sent by repairs together.
        move: bring shares to where placement wants them.
    """

    repair_below: int | None = None
    sample: int = 1
    scan_s: float = _DAY_S
    soon_s: float = 900.0
    settle_s: float = 10.0
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
        collected: leases on what was pruned, given up.
        unpaid: shares that nodes hold and give no lease on, by the reason, since the last scan began.
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
        self._following = asyncio.Lock()
        self._scanning: tuple[bytes, Check, Check] | None = None
        self._scanned: tuple[Candidate, ...] = ()  # the nodes when the last scan began, if it did here
        self._ended_s: float | None = None  # when the last scan did, by the monotonic clock
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
        await self._worker.add(new_job(self._kind("follow"), "log", again=True), self._new_scan(0.0))

    async def watch(self) -> None:
        """Bring the next scan forward whenever the nodes change; until cancelled, as long as the worker runs.

        Raises: DiskFull, StoreFailed: the queue's medium failed.
        """
        while True:
            known = self._grid.candidates
            if is_material(self._scanned, known):
                rest_s = 0.0
                if self._ended_s is not None:
                    rest_s = self._ended_s + self._duties.soon_s - self._clock.monotonic_s()
                wait_s = max(self._duties.settle_s, rest_s)
                await self._worker.add(self._new_scan(self._clock.now_s() + wait_s))
            # Looked at again in any case: what was added while a scan noted its last step was that scan.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_S):
                    await self._grid.wait_other(known)

    async def follow(self) -> None:
        """Bring the book up to the log's newest entry.  Raises: as `Volume.sync`."""
        async with self._following:
            await asyncio.to_thread(self._check_book, followed=False)  # also where the log is away
            head = await self._source.follow()
            await asyncio.to_thread(self._check_book, followed=True)
            while (start := await asyncio.to_thread(lambda: self._book.size)) < head.size:
                await asyncio.to_thread(self._take_in, start)

    def _take_in(self, start: int) -> None:
        named = self._source.page(start)
        self._book.take_in(start, named, bound=self._bound(start + len(named)))

    def _check_book(self, *, followed: bool) -> None:
        """In a thread: begin the book anew if it is of another volume, or of another history of this one.

        A book that is ahead of the log here is, once the log was followed: none that was signed gets shorter.
        """
        size, known = self._book.size, self._source.head.size
        if size == 0 or (size > known and not followed):
            return
        if size > known or self._book.bound != self._bound(size):
            _log.warning(
                "the keeper's book of %d entries is not of this log of volume %s and is written anew",
                size,
                id_text(self._source.volume)[:12],
            )
            self._book.clear()

    def _bound(self, size: int) -> bytes:
        """The first entries of this volume's log, as the book remembers them."""
        return self._source.volume + self._source.root(size)

    # --- jobs

    async def _follow(self, work: Work) -> None:
        await self.follow()
        work.repeat(after_s=self._duties.follow_s)

    async def _scan(self, work: Work) -> None:
        """One page; a scan is bound to the checkpoint at which it began."""
        seed = work.box("seed")
        if seed is None:
            await self._follow_if_possible()
            seed = self._seed(work.job.id)
            work.put("seed", seed)
            self._scanned = self._grid.candidates
            self.tally.conditions.clear()
            self.tally.unpaid.clear()
        after = work.box("after")
        names = await asyncio.to_thread(self._book.kept, after and BlobId(after), _PAGE)
        asking, proving = self._checks(seed)
        groups: dict[Check, list[BlobName]] = {proving: [], asking: []}
        for name in names:
            groups[proving if is_sampled(seed, name.blob, self._duties.sample) else asking].append(name)
        for check, group in groups.items():
            silent = asking.offline | proving.offline
            for name, needed in await self._look(check, group, proven=check is proving, silent=silent):
                self.tally.conditions[needed.condition] += 1
                if self._repairer.due(needed):
                    work.add(self._new_repair(name, needed))
        if len(names) == _PAGE:
            _, kept = await asyncio.to_thread(self._book.count)
            work.put("after", names[-1].blob)
            work.progress(work.progress_done + len(names), kept)
            work.repeat()
            return
        self._scanning, self._ended_s = None, self._clock.monotonic_s()
        self.tally.scans += 1
        self.scanned()
        work.add(self._new_scan(self._clock.now_s() + self._duties.scan_s), *self.then())
        work.add(*self.collections())

    async def _follow_if_possible(self) -> None:
        """A log that is away for weeks, or cannot be followed any more, must not end the leases of what it
        named before.
        """
        try:
            await self.follow()
        except MunimentError as error:
            if not await asyncio.to_thread(lambda: self._book.size):
                raise
            _log.warning("the log cannot be followed, what is known of it is kept: %s", error)

    async def _repair(self, work: Work) -> None:
        """Look at one blob once more and do what it needs now; then look again: what was brought has to be
        proven before anything else is given up for it.
        """
        name = BlobName(BlobId(id_from_text(work.key)), BlobShape.unpack(work.args))
        check = self._grid.checker(Depth.PROVEN, self._seed(work.job.id))
        for _, needed in await self._look(check, [name], proven=True):
            if work.step == "run" and self._repairer.due(needed):
                await self._repairer.carry_out(name, needed)
                work.then("lease")

    def collections(self) -> list[NewJob]:
        """The jobs that give up, at each node, what it holds for this account and was pruned.

        Cost: a page of LIST_SHARES_MAX shares at a time, whatever the volume.
        """
        return [self._new_collect(lane.node) for lane in self._grid.lanes()]

    async def _collect(self, work: Work) -> None:
        """One page of what a node lists for this account."""
        node, after = NodeId(id_from_text(work.key)), work.box("after")
        behind = None if after is None else ShareKey(BlobId(after[0]), ShareNumber(after[1]))
        last = await self._collect_page(node, behind)
        if last is not None and work.progress_done <= await self._listed_max():
            work.put("after", [last.blob, last.number])
            work.progress(work.progress_done + LIST_SHARES_MAX)
            work.repeat()

    async def _listed_max(self) -> int:
        """So much can a node have for this account; one that lists on for ever is believed no more."""
        named, _ = await asyncio.to_thread(self._book.count)
        return named * _SHARES_OF_BLOB_MAX

    async def _collect_page(self, node: NodeId, behind: ShareKey | None) -> ShareKey | None:
        """Where the next page begins; None behind the last."""
        lane = self._grid.lane(node)
        if lane is None:  # it left the roster
            return None
        rows = await lane.connection.shares(after=behind, limit=LIST_SHARES_MAX)
        ends = {
            ShareKey(BlobId(id_from_text(row.blob)), ShareNumber(row.number)): row.expires_s
            for row in rows
            if not row.trashed
        }
        last = None
        if len(rows) == LIST_SHARES_MAX:
            last = ShareKey(BlobId(id_from_text(rows[-1].blob)), ShareNumber(rows[-1].number))
        await asyncio.to_thread(self._book.listed, node, behind, last, ends)
        if await self._pruned(ends):
            await self.follow()  # a newer entry may name it again
            pruned = await self._pruned(ends)
            for at in range(0, len(pruned), BATCH_SHARES_MAX):
                batch = pruned[at : at + BATCH_SHARES_MAX]
                done = await lane.connection.trash(
                    batch
                )  # first: `+=` would forget what others added meanwhile
                self.tally.collected += sum(done)
                slots = [(key.blob, Slot(key.number, node)) for key in batch]
                await asyncio.to_thread(self._book.leased, slots, 0.0)
        return last

    async def _pruned(self, keys: Iterable[ShareKey]) -> list[ShareKey]:
        """Those whose blobs were pruned."""
        asked = list(keys)
        pruned = await asyncio.to_thread(self._book.is_pruned, [key.blob for key in asked])
        return [key for key, is_gone in zip(asked, pruned, strict=True) if is_gone]

    # --- what is seen

    def _checks(self, seed: bytes) -> tuple[Check, Check]:
        """What asks and what has proven, the same for all pages of a scan: who is offline stays so."""
        if self._scanning is None or self._scanning[0] != seed:
            self._scanning = (seed, self._grid.checker(Depth.ASKED), self._grid.checker(Depth.PROVEN, seed))
        return self._scanning[1:]

    def _seed(self, job: JobId) -> bytes:
        """Of the challenges of a job, bound to the checkpoint up to which the log was followed."""
        return challenge_seed(self._source.volume, self._source.head.root, job, self._member)

    async def _look(
        self, check: Check, names: Sequence[BlobName], *, proven: bool, silent: Set[NodeId] = frozenset()
    ) -> list[tuple[BlobName, Plan]]:
        """See what the nodes have of these blobs, remember it, plan, and lease what is to stay.

        Args:
            proven: whether the check believes no node; copies are given up only then.
            silent: nodes that did not answer another check of the same round, so nothing they say counts.
        """
        if not names:
            return []
        found = await check.blobs(names)
        now_s = self._clock.now_s()
        answered = {lane.node for lane in self._grid.lanes()} - check.offline - silent
        held = {
            (health.name.blob, Slot(share.number, node))
            for health in found
            for share in health.shares
            for node, state in share.nodes
            if state is ShareState.HELD and node in answered
        }
        self.tally.proofs += proven * len(held)
        sightings, answers = await asyncio.to_thread(
            self._remember, [health.name.blob for health in found], held, answered, now_s=now_s, proven=proven
        )
        plans: list[tuple[BlobName, Plan]] = []
        for health, seen in zip(found, sightings, strict=True):
            away = [one.slot for one in seen if one.slot.node not in answered]
            waiting = {one.slot for one in seen if self._is_waited_for(one, answers, now_s)}
            needed = self._repairer.plan(health, away, waiting=waiting, offline=check.offline | silent)
            plans.append((health.name, needed))
        ends = {
            (name.blob, one.slot): one.leased_s
            for (name, _), seen in zip(plans, sightings, strict=True)
            for one in seen
            if (name.blob, one.slot) in held
        }
        await self._settle(plans, ends, now_s, proven=proven)
        return plans

    def _is_waited_for(self, one: Sighting, answers: Mapping[NodeId, float], now_s: float) -> bool:
        """Whether a share counts as live though its node does not answer.

        Not if the node answered lately for others and not for this one: it falls silent where it has nothing
        to show.  Times are compared by their distance, as a clock that was ahead leaves some of the future.
        """
        offline_s = self._duties.offline_s
        return (
            abs(now_s - answers.get(one.slot.node, 0.0)) < offline_s
            and abs(now_s - one.held_s) < offline_s + 2 * self._duties.scan_s
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
            self.tally.leased += len(leased)
            if len(leased) < len(batch):
                self.tally.unpaid[ShareUnknown.code] += len(batch) - len(leased)
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
        """Ask each node for its own of these, in batches; one that fails is left to the next scan."""
        by_node: defaultdict[NodeId, list[tuple[BlobId, Slot]]] = defaultdict(list)
        for blob, slot in slots:
            by_node[slot.node].append((blob, slot))

        async def one(node: NodeId, own: Sequence[tuple[BlobId, Slot]]) -> None:
            for at in range(0, len(own), BATCH_SHARES_MAX):
                try:
                    if (lane := self._grid.lane(node)) is None:
                        raise NodeUnreachable(node=node, reason="it left the roster")
                    await ask(lane.connection, own[at : at + BATCH_SHARES_MAX])
                except (CallerError, LocalError, PeerError, UnavailableError) as error:
                    _log.warning("node %s: leases stay as they are: %s", id_text(node)[:12], error)
                    self.tally.unpaid[error.code] += len(own) - at
                    return

        await asyncio.gather(*(one(node, own) for node, own in by_node.items()))

    # --- new jobs

    def _kind(self, what: str) -> str:
        """Keepers of several volumes share a queue, and each does its own jobs."""
        return f"{what}.{id_text(self._source.volume)}"

    def _new_scan(self, due_s: float) -> NewJob:
        return new_job(self._kind("scan"), "blobs", priority=_SCAN_PRIORITY, due_s=due_s, again=True)

    def _new_collect(self, node: NodeId) -> NewJob:
        return new_job(self._kind("collect"), id_text(node), priority=_COLLECT_PRIORITY, again=True)

    def _new_repair(self, name: BlobName, needed: Plan) -> NewJob:
        """The fewer shares a blob can still lose, the sooner."""
        kind, priority = self._kind("repair"), max(needed.spare, 0)
        return new_job(kind, id_text(name.blob), name.shape.pack(), priority=priority, again=True)


def _keys(slots: Iterable[tuple[BlobId, Slot]]) -> list[ShareKey]:
    return [ShareKey(blob, slot.share) for blob, slot in slots]
