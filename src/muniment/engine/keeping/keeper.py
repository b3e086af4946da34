"""The keeper of one volume: four kinds of jobs in a durable queue (docs/keeping.md).

    follow    the log: notes the blobs that new entries name
    scan      page by page along all blobs: asks, has leaves proven, takes and renews leases, adds repairs
    repair    one blob: looks once more, rebuilds what is missing, copies what lies wrong
    collect   page by page along what one node lists for the keeper's account: corrects what is known of
              leases, gives up what was pruned

Leases are given up in two places only.  Of what is referred to: where the same share was proven at another
node in the same look, and has a lease there (`looking`).  Of the rest: where a prune names the blob, and no
entry of the newest log names it since (`collecting`); what this keeper has never heard of may be what
another one knows from a newer log, and ends by itself.

Needs the verify right and an account, and no key of any content.  Steps may be done twice and by two keepers.
The book and the log are read in threads; everything else runs on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from muniment.core.keeping.challenge import challenge_seed, is_sampled
from muniment.core.keeping.change import is_material
from muniment.core.keeping.job import NewJob, new_job
from muniment.core.keeping.repair import Plan
from muniment.core.placement import Candidate
from muniment.engine.check import Check
from muniment.engine.grid import Grid
from muniment.engine.keeping.collecting import Collecting
from muniment.engine.keeping.duties import Duties, KeeperTally
from muniment.engine.keeping.looking import Looking
from muniment.engine.keeping.named import LogHead
from muniment.engine.keeping.repair import RepairResult
from muniment.engine.keeping.throttle import Throttle
from muniment.engine.keeping.work import Patience, Work, Worker
from muniment.errors import MunimentError
from muniment.ids import (
    BlobId,
    JobId,
    MemberId,
    NodeId,
    VolumeId,
    id_from_text,
    id_text,
)
from muniment.ports import BlobBook, Clock, NamedBlobs
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape

_PAGE: Final = 1024
"""Blobs looked at in one step of a scan."""

_WATCH_S: Final = 60.0
"""Between two looks at nodes that have changed and wait for their scan."""

_SCAN_PRIORITY: Final = -1
"""Before every repair: it takes one of the worker's places; behind repairs of weeks, leases would end."""

_COLLECT_PRIORITY: Final = 1
"""Behind the repairs of blobs that cannot lose a share more."""

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
        self._begun_s = clock.monotonic_s()  # when the last scan did, or this object
        self._scanned: tuple[Candidate, ...] = ()  # the nodes when the last scan began, if it did here
        self._ended_s: float | None = None  # when the last scan did, by the monotonic clock
        self._repairer = grid.repairer(
            Throttle(self._duties.bytes_per_s), below=self._duties.repair_below, move=self._duties.move
        )
        self.tally = KeeperTally()
        self._looking = Looking(grid, book, self._repairer, clock, self._duties, self.tally)
        collecting = Collecting(grid, book, self.follow, self.tally)
        self.scanned: Callable[[], None] = lambda: None
        self.then: Callable[[], Iterable[NewJob]] = tuple
        worker.register(self._kind("follow"), self._follow, _ENDLESS)
        worker.register(self._kind("scan"), self._scan, _ENDLESS)
        worker.register(self._kind("repair"), self._repair)
        worker.register(self._kind("collect"), collecting.step, _ENDLESS)

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
            work.put("begun", int(self._clock.now_s()))
            self._scanned, self._begun_s = self._grid.candidates, self._clock.monotonic_s()
            self.tally.conditions.clear()
            self.tally.unpaid.clear()
        after = work.box("after")
        names = await asyncio.to_thread(self._book.kept, after and BlobId(after), _PAGE)
        self._looking.round_s = max(self._looking.round_s, self._round_s(work))
        asking, proving = self._checks(seed)
        groups: dict[Check, list[BlobName]] = {proving: [], asking: []}
        for name in names:
            groups[proving if is_sampled(seed, name.blob, self._duties.sample) else asking].append(name)
        for check, group in groups.items():
            silent = asking.offline | proving.offline
            for name, needed in await self._looking.look(
                check, group, proven=check is proving, silent=silent
            ):
                self.tally.conditions[needed.condition] += 1
                if self._repairer.due(needed):
                    work.add(self._new_repair(name, needed))
        if len(names) == _PAGE:
            _, kept = await asyncio.to_thread(self._book.count)
            work.put("after", names[-1].blob)
            work.progress(work.progress_done + len(names), kept)
            work.repeat()
            return
        self._looking.round_s = self._round_s(work)
        self._scanning, self._ended_s = None, self._clock.monotonic_s()
        self.tally.scans += 1
        self.scanned()
        work.add(self._new_scan(self._clock.now_s() + self._duties.scan_s), *self.then())
        work.add(*self.collections())

    def _round_s(self, work: Work) -> float:
        """From the beginning of the scan under way, perhaps in an earlier process, to that of the next, if it
        ended now.  Of a wall clock that was set back, this process's own time counts.
        """
        now_s = self._clock.now_s()
        begun_s: float = work.box("begun", now_s)
        return max(self._clock.monotonic_s() - self._begun_s, now_s - begun_s) + self._duties.scan_s

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
        needed = await self._looking.together(name, self._seed(work.job.id))
        if work.step == "run" and self._repairer.due(needed):
            await self._repairer.carry_out(name, needed)
            work.then("lease")

    def collections(self) -> list[NewJob]:
        """The jobs that give up, at each node, what it holds for this account and was pruned.

        Cost: a page of LIST_SHARES_MAX shares at a time, whatever the volume.
        """
        return [self._new_collect(lane.node) for lane in self._grid.lanes()]

    def _checks(self, seed: bytes) -> tuple[Check, Check]:
        """What asks and what has proven, the same for all pages of a scan: who is offline stays so."""
        if self._scanning is None or self._scanning[0] != seed:
            self._scanning = (seed, *self._looking.checks(seed))
        return self._scanning[1:]

    def _seed(self, job: JobId) -> bytes:
        """Of the challenges of a job, bound to the checkpoint up to which the log was followed."""
        return challenge_seed(self._source.volume, self._source.head.root, job, self._member)

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
