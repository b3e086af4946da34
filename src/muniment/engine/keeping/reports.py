"""Reports on the log: who kept a volume, when, what was found, until when leases run (docs/keeping.md 9).

`Reporter` writes them for a keeper whose member has a signing key; who has the verify right reads them.  The
keeper itself is opened with the verify right alone, whatever its home holds: the key signs here and does
nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from muniment.core.entries import Place, open_statement, seal_statement
from muniment.core.keeping.job import NewJob, new_job
from muniment.core.keeping.repair import Condition
from muniment.core.membership import REPORTS_NS, Reported
from muniment.crypto.entries import known_entry, sign_entry
from muniment.crypto.member import MemberSecret
from muniment.engine.follower import Follower
from muniment.engine.volume import Volume
from muniment.errors import (
    ActRefused,
    AuthorChainBroken,
    EntryMisplaced,
    EpochPassed,
    MalformedRecord,
    NotCapable,
)
from muniment.ids import BlobId, MemberId, id_text
from muniment.ports import BlobBook, Clock, Entropy, LogClient
from muniment.spec.act import Report
from muniment.spec.statement import LOST_MAX, KeepingRecord, decode_record, encode_record

if TYPE_CHECKING:
    from muniment.engine.keeping.keeper import Keeper
    from muniment.engine.keeping.work import Work, Worker

EVERY_S: Final = 20 * 3600.0
"""Between two reports, so that one follows each daily scan."""

SILENT_S: Final = 21 * 86400
"""So long nobody has reported: half of what uploads' leases and the nodes' grace leave."""

ENDING_S: Final = 10 * 86400
"""Leases that end so soon are warned of."""

_TRIES: Final = 8
_PAGE: Final = 1024
_PRIORITY: Final = 2000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptReport:
    """A report that stands on the log.

    Attributes:
        index: of its entry.
        author: who reports.
        time_ns: by his clock.
        record: None if its statement is void, or closed to the reader.
    """

    index: int
    author: MemberId
    time_ns: int
    record: KeepingRecord | None


@dataclass(frozen=True, slots=True)
class _Done:
    """What a keeper has done in all, as `KeepingRecord` names it."""

    proofs: int = 0
    leased: int = 0
    rebuilt: int = 0
    rebuilt_bytes: int = 0
    moved: int = 0
    collected: int = 0

    def since(self, before: _Done) -> dict[str, int]:
        """Of that, what was done after `before`."""
        return {name: count - getattr(before, name) for name, count in asdict(self).items()}


def reports(follower: Follower) -> Iterator[KeptReport]:
    """All reports in the replica, the newest first.  Blocking.  Cost: O(acts) if there are none."""
    for place in reversed(follower.membership.acts):
        if place.index < follower.replica.start:
            return
        if (report := _report_at(follower, place.index)) is not None:
            yield report


def _report_at(follower: Follower, index: int) -> KeptReport | None:
    (signed,) = follower.replica.read(index, index + 1, bytes_max=1)
    entry = known_entry(signed).entry
    if not isinstance(entry.act, Report):
        return None
    try:
        record = decode_record(open_statement(entry, follower.ring))
    except (MalformedRecord, NotCapable):
        record = None
    return KeptReport(index, entry.author, entry.time_ns, record)


def newest_reports(follower: Follower) -> list[KeptReport]:
    """The last report of each member, the newest first, as far as it is in the replica.  Blocking."""
    found, authors = [], set[MemberId]()
    for last in follower.membership.reports():
        if last.author not in authors and last.index >= follower.replica.start:
            authors.add(last.author)
            report = _report_at(follower, last.index)
            found += [report] if report is not None else []
    return found


def warnings(volume: Volume) -> list[str]:
    """What whoever uses the volume should know of its keeping; blocking, in the volume's thread."""
    follower, now_s = volume.follower, volume.now_ns() / 1e9
    if next(volume.view.blobs(), None) is None:
        return []
    last_s = (
        max((report.time_ns for report in volume.membership.reports()), default=_begun_ns(follower)) / 1e9
    )
    told = []
    if now_s - last_s > SILENT_S:
        days = int((now_s - last_s) / 86400)
        told.append(
            f"no keeper has reported for {days} days: what nobody keeps is deleted 38 days after it was "
            "stored; run 'muni keeper run'"
        )
    ends_s = max(
        (one.record.leases_until_s for one in newest_reports(follower) if one.record and one.record.blobs),
        default=None,
    )
    if ends_s is not None and ends_s < now_s + ENDING_S:
        days = max(int((ends_s - now_s) / 86400), 0)
        told.append(f"leases on some content end in {days} days: run 'muni keeper once', and see why")
    return told


def _begun_ns(follower: Follower) -> int:
    """When the oldest entry was written that is here."""
    start = follower.replica.start
    (signed,) = follower.replica.read(start, start + 1, bytes_max=1)
    return known_entry(signed).entry.time_ns


class Reporter:
    """Writes reports of one keeper.

    Args:
        keeper: whose work is told; `then` of it is taken over.
        book: of the keeper.
        volume: that the keeper follows.
        secret: of the member; signs.
        log: a client of its own; closed by its owner.
        archived: entries of the log that are on the grid.
        reported: called after each look whether it is time for one.
        every_s: between two reports.
    """

    def __init__(
        self,
        keeper: Keeper,
        book: BlobBook,
        volume: Volume,
        secret: MemberSecret,
        log: LogClient,
        clock: Clock,
        entropy: Entropy,
        archived: Callable[[], int] = lambda: 0,
        *,
        reported: Callable[[], Awaitable[None]] | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._keeper, self._book, self._volume = keeper, book, volume
        self._secret, self._log, self._clock, self._entropy = secret, log, clock, entropy
        self._archived, self._reported, self._every_s = archived, reported, every_s
        self._told = _Done()
        self._told_s = 0
        self._kind = f"report.{id_text(volume.id)}"
        keeper.then = self._jobs

    def register(self, worker: Worker) -> None:
        """Do the jobs of the kind `report`."""
        worker.register(self._kind, self._run)

    def _jobs(self) -> list[NewJob]:
        return [new_job(self._kind, "log", priority=_PRIORITY, again=True)]

    async def _run(self, _: Work) -> None:
        await self.report()
        if self._reported is not None:
            await self._reported()

    async def report(self) -> int | None:
        """Write down what was done since the last report, if a scan has ended and it is time.

        Returns: the entry; None: there is nothing to say yet, or this member may not.
        Raises: as `LogClient`; LogForked.
        """
        if not self._keeper.tally.scans:
            return None
        await self._volume.sync()
        held = self._volume.membership.members.get(self._secret.member)
        if held is None or not held.role.verifies:
            return None
        size, lost, leases_until_s, blobs = await asyncio.to_thread(self._look)
        ordinary, urgent = await self._volume.run(self._last)
        news = not set(lost) <= set(await self._volume.run(self._lost_told))
        now_ns = max(self._volume.now_ns(), self._volume.membership.time_ns)
        if ordinary is None or now_ns >= ordinary.time_ns + max(int(self._every_s * 1e9), REPORTS_NS):
            act = Report(urgent=False)
        elif news and (urgent is None or now_ns >= urgent.time_ns + REPORTS_NS):
            act = Report(urgent=True)
        else:
            return None
        done = self._done()
        record = self._record(done, size, lost, leases_until_s, blobs)
        index = await self._write(act, encode_record(record))
        if index is not None:
            self._told, self._told_s = done, record.until_s
        return index

    def _last(self) -> tuple[Reported | None, Reported | None]:
        """This member's last report, and his last urgent one."""
        own = [one for one in self._volume.membership.reports() if one.author == self._secret.member]
        return (
            next((one for one in own if not one.urgent), None),
            next((one for one in own if one.urgent), None),
        )

    def _lost_told(self) -> list[BlobId]:
        """The lost blobs that this member has told of last."""
        follower, found = self._volume.follower, list[BlobId]()
        for last in self._last():
            report = None if last is None else _report_at(follower, last.index)
            if report is not None and report.record is not None:
                found += report.record.lost
        return found

    def _look(self) -> tuple[int, tuple[BlobId, ...], int, int]:
        """In a thread: the size in the book, lost blobs, until when k shares of all others are leased, and
        how many there are.
        """
        size = self._book.size  # before the rest: what is said up to it must be true of it
        after, lost, ends, blobs = None, list[BlobId](), list[float](), 0
        while names := self._book.kept(after, _PAGE):
            for name, seen in zip(names, self._book.sightings([name.blob for name in names]), strict=True):
                until: dict[int, float] = {}
                for one in seen:
                    until[one.slot.share] = max(one.leased_s, until.get(one.slot.share, 0.0))
                if len(until) < name.shape.k:
                    lost.append(name.blob)
                else:
                    ends.append(sorted(until.values())[-name.shape.k])
            blobs += len(names)
            after = names[-1].blob
        return size, tuple(lost[:LOST_MAX]), int(min(ends, default=0.0)), blobs

    def _done(self) -> _Done:
        tally, repaired = self._keeper.tally, self._keeper.repaired
        return _Done(
            proofs=tally.proofs,
            leased=tally.leased,
            rebuilt=repaired.rebuilt,
            rebuilt_bytes=repaired.rebuilt_bytes,
            moved=repaired.moved,
            collected=tally.collected,
        )

    def _record(
        self, done: _Done, size: int, lost: tuple[BlobId, ...], leases_until_s: int, blobs: int
    ) -> KeepingRecord:
        seen = self._keeper.tally.conditions
        return KeepingRecord(
            lost=lost,
            since_s=self._told_s,
            until_s=int(self._clock.now_s()),
            log_size=size,
            blobs=blobs,
            whole=seen[Condition.WHOLE],
            due=seen[Condition.DUE],
            unreadable=seen[Condition.LOST] + seen[Condition.OUT_OF_REACH],
            unpaid=self._keeper.tally.unpaid.total(),
            leases_until_s=leases_until_s,
            archived=self._archived(),
            **done.since(self._told),
        )

    async def _write(self, act: Report, statement: bytes) -> int | None:
        """Sign and order; what others did meanwhile is followed and joined on."""
        for attempt in range(_TRIES):
            signed = await self._volume.run(lambda: self._signed(act, statement))
            try:
                (done,) = await self._log.append([signed])
            except (EpochPassed, AuthorChainBroken, EntryMisplaced):
                if attempt == _TRIES - 1:
                    raise
                await self._volume.sync()
            except ActRefused as error:  # another keeper under this identity was faster
                _log.info("a report was not needed: %s", error)
                return None
            else:
                await self._volume.sync()
                return done.index
        raise AssertionError

    def _signed(self, act: Report, statement: bytes) -> bytes:
        follower, membership = self._volume.follower, self._volume.membership
        place = Place.next(
            membership,
            self._secret.member,
            seen_size=follower.frontier.size,
            seen_root=follower.frontier.root(),
            now_ns=self._volume.now_ns(),
        )
        keys = follower.ring.keys(place.epoch)
        return sign_entry(self._secret.identity, seal_statement(place, act, statement, keys, self._entropy))
