"""Archives a volume's log: tiles of it on the grid, for whoever has the volume capability (docs/keeping.md).

    archiver = LogArchiver(VolumeLog(volume), TileShelf(grid, secret, os.urandom), clock, ArchiveDuties())
    archiver.register(worker)                         # the job `archive.VOLUME`, for ever
    await archiver.begin(worker)
    standing = await archiver.round(everything=True)  # or one round by hand

What is archived is what the nodes list, so nothing is remembered between two processes.  A crash leaves at
most a tile that others contain, or one of which too few shares landed; the next look finds and gives it up.
Needs the verify right and an account of its own.  One round at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from muniment.core.keeping.challenge import challenge_seed
from muniment.core.keeping.change import is_material
from muniment.core.keeping.job import new_job
from muniment.core.keeping.tiles import HeldTile, cover, end_of, gap_end, merged_start, superfluous
from muniment.core.placement import Candidate
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.entries import known_entry
from muniment.engine.check import Depth
from muniment.engine.grid import Grid
from muniment.engine.keeping.repair import RepairResult
from muniment.engine.keeping.shelf import Look, Row, TileShelf
from muniment.engine.keeping.throttle import Throttle
from muniment.engine.keeping.work import Patience, Work, Worker
from muniment.engine.policy import Policy
from muniment.engine.volume import Volume
from muniment.erasure.codec import Coding
from muniment.errors import HistoryMissing, NotHappy
from muniment.ids import BlobId, JobId, MemberId, VolumeId, id_text
from muniment.ports import Clock
from muniment.spec.archive import TILE_BYTES_MAX, Tile, fitting, sealed_bytes
from muniment.spec.checkpoint import origin_of
from muniment.spec.limits import MIB

KIND: Final = "archive"
_PATIENCE: Final = Patience(tries=1 << 30, first_s=5.0, longest_s=600.0)
"""An archive never gives up because nodes are away; what no try can help is set aside all the same."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArchiveDuties:
    """How a log is archived; times in seconds.

    Attributes:
        interval_s: so old is the oldest entry that is not archived, at most, while nodes take shares.
        bytes_max: so much may wait; more is archived at once.
        follow_s: between looks at the log.
        look_s: between looks at what the nodes list, where leases are renewed and shares rebuilt and moved.
        soon_s: the same if the nodes are others than at the last (`core.keeping.change`).
        lease_s: of leases taken; renewed when half of it is over.
        bytes_per_s: read and sent to rebuild shares.
    """

    interval_s: float = 300.0
    bytes_max: int = 1 * MIB
    follow_s: float = 60.0
    look_s: float = 86400.0
    soon_s: float = 900.0
    lease_s: int = 31 * 86400
    bytes_per_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class LoggedHead:
    """How a log stands that was followed.

    Attributes:
        start: the first entry that is here.
        size: behind the last.
        root: of its tree.
        note: a signed checkpoint of at least these entries.
        log_key: of who signed it.
        policy: how the volume's blobs are stored.
    """

    start: int
    size: int
    root: bytes = field(repr=False)
    note: bytes = field(repr=False)
    log_key: bytes = field(repr=False)
    policy: Policy


class ArchivedLog(Protocol):
    """A followed log, as far as it is archived."""

    @property
    def volume(self) -> VolumeId: ...

    async def follow(self) -> LoggedHead: ...

    async def read(self, start: int, stop: int, bytes_max: int) -> list[bytes]: ...


class VolumeLog:
    """The log of a volume; followed by others as well.

    Args:
        volume: stays its owner's to close.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    @property
    def volume(self) -> VolumeId:
        """Whose log it is."""
        return self._volume.id

    async def follow(self) -> LoggedHead:
        """Take what the log service has; verified as every member does.  Raises: as `Volume.sync`."""
        await self._volume.sync()
        return await self._volume.run(self._head)

    def _head(self) -> LoggedHead:
        follower = self._volume.follower
        note, agreed = follower.replica.checkpoint(), follower.membership.policy
        open_checkpoint(note, follower.log_key, origin=origin_of(follower.volume))
        policy = Policy(coding=Coding.from_text(agreed.coding), happy=agreed.happy)
        size, root = follower.frontier.size, follower.frontier.root()
        return LoggedHead(follower.replica.start, size, root, note, follower.log_key, policy)

    async def read(self, start: int, stop: int, bytes_max: int) -> list[bytes]:
        """Signed entries, as `LogStore.read`."""
        replica = self._volume.follower.replica
        return await asyncio.to_thread(replica.read, start, stop, bytes_max=bytes_max)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an archive is after a round.

    Attributes:
        size: entries of the log.
        archived: of them, from the first on, are at the nodes.
        tiles: that have them.
        tiles_bytes: sealed, before they are coded.
        weak: of the tiles, have fewer live shares than the volume's `happy`.
        written: tiles stored in this round.
        given_up: tiles given up in this round.
        leased: leases extended in this round.
        silent: nodes that did not say what they hold, when they were last asked.
        troubles: what was passed over then.
    """

    size: int
    archived: int
    tiles: int
    tiles_bytes: int
    weak: int
    written: int
    given_up: int
    leased: int
    silent: int
    troubles: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "entries": self.size,
            "archived": self.archived,
            "tiles": self.tiles,
            "tiles_bytes": self.tiles_bytes,
            "weak_tiles": self.weak,
            "written": self.written,
            "given_up": self.given_up,
            "leased": self.leased,
            "silent_nodes": self.silent,
            "troubles": list(self.troubles),
        }


@dataclass(slots=True)
class _Done:
    """What one round did."""

    written: int = 0
    given_up: int = 0
    leased: int = 0


class LogArchiver:
    """Archives one volume's log.

    Args:
        log: followed by every round.
        shelf: under the archive account of this volume.
        grid: the shelf's; rebuilds shares.
        clock: ages of entries and leases.
        member: whose archive it is; enters the challenges.
        duties: how.

    Attributes:
        standing: after the last round; None before the first.
    """

    def __init__(
        self,
        log: ArchivedLog,
        shelf: TileShelf,
        grid: Grid,
        clock: Clock,
        member: MemberId,
        duties: ArchiveDuties | None = None,
    ) -> None:
        self._log, self._shelf, self._grid = log, shelf, grid
        self._clock, self._member, self._duties = clock, member, duties or ArchiveDuties()
        self._look: Look | None = None
        self._looked_s = 0.0  # these two by the monotonic clock
        self._waiting: tuple[int, float] | None = None  # the first entry not archived, and since when
        self._looked_at: tuple[Candidate, ...] = ()  # the nodes then
        self._tiles: dict[BlobId, HeldTile] = {}
        self._turn = asyncio.Lock()
        self.repaired = RepairResult()
        self.standing: Standing | None = None

    # --- jobs

    @property
    def kind(self) -> str:
        """Of its jobs: keepers of several volumes share a queue."""
        return f"{KIND}.{id_text(self._log.volume)}"

    def register(self, worker: Worker) -> None:
        """Have a worker do the job; before it runs."""
        worker.register(self.kind, self._work, _PATIENCE)

    async def begin(self, worker: Worker) -> None:
        """Add the job that goes on for ever; one that was set aside is taken up again."""
        await worker.add(new_job(self.kind, "log", again=True))

    async def _work(self, work: Work) -> None:
        """One tile at most; so others get their turn while a long log is archived."""
        standing, more = await self._round(everything=False, tiles_max=1, job=work.job.id)
        work.progress(standing.archived, standing.size)
        work.repeat(after_s=0.0 if more else self._duties.follow_s)

    # --- rounds

    async def round(self, *, everything: bool = False, write: bool = True) -> Standing:
        """Follow the log, look at the nodes, and archive what is due.

        Args:
            everything: also what is neither old nor much.
            write: without, only look.
        Returns: how far the archive is; what it counts as archived is durable at the nodes.
        Raises: as `Volume.sync`; NotHappy: too few nodes take shares; HistoryMissing: entries that are not
            archived are not here either; InvalidCoding; RosterEmpty.
        """
        self._look = None
        standing, _ = await self._round(everything=everything, tiles_max=None if write else 0)
        return standing

    async def _round(
        self, *, everything: bool, tiles_max: int | None, job: JobId | None = None
    ) -> tuple[Standing, bool]:
        async with self._turn:
            done, head = _Done(), await self._log.follow()
            writes = tiles_max != 0
            fresh = None
            if self._is_look_due():
                fresh = await self._looked()
                if writes:
                    await self._tend(fresh, head, done, job)
            more = writes and await self._is_due(head, everything=everything)
            while more and (tiles_max is None or done.written < tiles_max):
                await self._write(head, done)
                more = await self._is_due(head, everything=everything)
            if writes:
                await self._clear(fresh, head, done)
            self.standing = self._stands(head, done)
            return self.standing, more

    def _is_look_due(self) -> bool:
        past_s = self._clock.monotonic_s() - self._looked_s
        if self._look is None or past_s >= self._duties.look_s:
            return True
        return past_s >= self._duties.soon_s and is_material(self._looked_at, self._grid.candidates)

    async def _looked(self) -> Look:
        self._looked_s, self._looked_at = self._clock.monotonic_s(), self._grid.candidates
        look = self._look = await self._shelf.look()
        self._tiles = {tile.name.blob: tile for tile in look.tiles}
        return look

    async def _tend(self, look: Look, head: LoggedHead, done: _Done, job: JobId | None) -> None:
        """Have the tiles that are needed proven, rebuild what is missing of them, and renew their leases."""
        seed = challenge_seed(self._log.volume, head.root, job or JobId(0), self._member)
        # A node that is away for a while costs nothing as long as enough others have their shares.
        below = head.policy.happy if look.silent else None
        repairer = self._grid.repairer(Throttle(self._duties.bytes_per_s), below=below, move=True)
        names = [tile.name for tile in cover(self._tiles.values())]
        found = await repairer.repair(names, self._grid.checker(Depth.PROVEN, seed))
        self.repaired = repairer.result
        for blob, reason in self.repaired.troubles:
            _log.warning("a tile of the archive stays weak: %s: %s", id_text(blob)[:12], reason)
        if self.repaired.rebuilt or self.repaired.moved:
            look = await self._looked()
            found = await self._grid.checker(Depth.PROVEN, seed).blobs(names)
        for health in found:  # what is listed and not proven is not there; its entries are archived anew
            if (tile := self._tiles.get(health.name.blob)) is not None:
                self._tiles[tile.name.blob] = replace(tile, live=health.live)
        due_s = self._clock.now_s() + self._duties.lease_s / 2
        renewed = (
            (tile.name.blob, row)
            for tile in cover(self._tiles.values())
            for row in _to_lease(look.rows[tile.name.blob], due_s)
        )
        done.leased = await self._shelf.lease(renewed, self._duties.lease_s)

    async def _clear(self, look: Look | None, head: LoggedHead, done: _Done) -> None:
        """Give up tiles that others contain, and with a look of now those of which too few shares landed."""
        chain = cover(self._tiles.values())
        old = [tile.name.blob for tile in superfluous(self._tiles.values(), chain, head.policy.happy)]
        if look is not None and not look.silent and end_of(chain) >= head.size:
            old += look.torn  # the archive has all entries, and no node has more of these
        if old:
            await self._shelf.give_up(old)
            done.given_up += len(old)
            for blob in old:
                self._tiles.pop(blob, None)

    async def _is_due(self, head: LoggedHead, *, everything: bool) -> bool:
        """Whether entries are to be archived now."""
        end = end_of(cover(self._tiles.values()))
        if end >= head.size:
            self._waiting = None
            return False
        if self._waiting is None or self._waiting[0] != end:
            self._waiting = end, self._clock.monotonic_s()
        if everything or gap_end(self._tiles.values(), end, head.size) < head.size:
            return True
        # By its author's clock, which may be ahead, and by when it was first seen here.
        (first,) = (await self._fresh(head, end, end + 1))[:1]
        age_s = self._clock.now_s() - known_entry(first).entry.time_ns / 1e9
        waits_s = max(age_s, self._clock.monotonic_s() - self._waiting[1])
        if waits_s + self._duties.follow_s >= self._duties.interval_s:  # the next look would be too late
            return True
        waiting = await self._log.read(end, head.size, self._duties.bytes_max + 1)
        return end + len(waiting) < head.size or sum(map(len, waiting)) > self._duties.bytes_max

    async def _write(self, head: LoggedHead, done: _Done) -> None:
        """Bring one tile to the nodes; durable and proven there before those that it contains are given up.

        Raises: NotHappy: too few nodes took a share, or show it; the next round looks at what there is.
        """
        tiles = self._tiles.values()
        chain = cover(tiles)
        end = end_of(chain)
        stop = gap_end(tiles, end, head.size)
        fresh = await self._fresh(head, end, stop)
        start, entries = merged_start(chain, sealed_bytes(fresh, head.note)), fresh
        if head.start <= start < end:
            entries = await self._fresh(head, start, stop)
        if start + len(entries) <= end or start < head.start:
            start, entries = end, fresh  # what was there before is longer than it seemed, or not here
        tile = Tile(start, head.log_key, head.note, tuple(entries))
        held = await self._shelf.store(tile, head.policy)
        self._tiles[held.name.blob] = held
        done.written += 1
        if held.live < head.policy.happy:
            self._look = None
            raise NotHappy(
                blob=held.name.blob,
                happy=head.policy.happy,
                placed=held.live,
                reasons=("nodes that took a share do not prove it",),
            )
        await self._clear(None, head, done)

    async def _fresh(self, head: LoggedHead, start: int, stop: int) -> list[bytes]:
        """Entries from `start` on that are one tile.  Raises: HistoryMissing."""
        if start < head.start:
            raise HistoryMissing(start=head.start)
        entries = await self._log.read(start, stop, TILE_BYTES_MAX)
        return entries[: fitting(entries)]

    def _stands(self, head: LoggedHead, done: _Done) -> Standing:
        chain = cover(self._tiles.values())
        happy, look = head.policy.happy, self._look or Look()
        return Standing(
            head.size,
            min(end_of(chain), head.size),
            len(chain),
            sum(tile.name.shape.length for tile in chain),
            sum(tile.live < min(happy, tile.name.shape.n) for tile in chain),
            done.written,
            done.given_up,
            done.leased,
            len(look.silent),
            tuple(look.troubles),
        )


def _to_lease(rows: Sequence[Row], due_s: float) -> list[Row]:
    """Those of one tile whose leases end soon, or were given up though no other copy of the share has one."""
    kept = {row.slot.share for row in rows if not row.trashed}
    return [row for row in rows if (row.slot.share not in kept if row.trashed else row.expires_s < due_s)]
