"""What the file system stands on: one volume and the grid that has its content.

The only file of `fs/` that calls the engine.  Blobs are stored under the present epoch's secret by one
`EpochWriter` that lives as long as this; content under passed keys is stored again when it is committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from muniment.core.history import Difference
from muniment.core.keys import EpochKeys
from muniment.core.tree_state import TreeReading
from muniment.crypto.entries import entry_hash
from muniment.engine.epoch_writer import EpochWriter
from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.engine.pruning import past_reading
from muniment.engine.results import DownloadTally, UploadTally
from muniment.engine.volume import Attempt, Volume
from muniment.errors import MunimentError
from muniment.fs.committing.changes import Change, NothingLeft, Planned, plan
from muniment.fs.names.numbers import Numbers
from muniment.fs.unsaved.sent import SentBlobs
from muniment.ids import BlobId, EntryHash
from muniment.spec.blob import BlobRef
from muniment.spec.operation import Operation
from muniment.spec.transaction import Transaction

_NAMED_MAX: Final = 4096
_BRIEF_BYTES: Final = 4096
"""Changes of so little are planned in some 0.2 ms."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        index: of its entry; None: nothing of it was allowed.
        failed: changes that were not.
    """

    index: int | None
    failed: tuple[tuple[Change, MunimentError], ...]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An entry that may be in the log.

    Attributes:
        entry: its hash.
        made: numbers here of what it makes, in its order.
        changes: numbers of the changes in it.
    """

    entry: EntryHash
    made: tuple[int, ...]
    changes: frozenset[int]


@dataclass(slots=True, eq=False)
class _Sending:
    """A batch on its way: what its last plan said, and what was sent of it."""

    changes: Sequence[Change]
    planned: Planned = field(default_factory=Planned)
    attempt: Attempt = field(default_factory=Attempt)


class Store:
    """See the module.

    Args:
        volume: in step with its log.
        grid: started.
        numbers: of the file system; made here are known in it when an entry is ordered.
        sent: what is sent and in no entry.
    """

    def __init__(self, volume: Volume, grid: Grid, numbers: Numbers, sent: SentBlobs) -> None:
        self._volume, self._grid, self._numbers, self._sent = volume, grid, numbers, sent
        self._may_give_up = False
        self._giving_up: asyncio.Task[None] | None = None
        self._writer: EpochWriter | None = None
        self._beginning = asyncio.Lock()
        self._own: set[int] = set()  # entries that were committed here
        self._named: deque[BlobRef] = deque()  # lately; files that share a blob may be in several entries
        self._adopted: set[BlobRef] = set()
        self._sending: _Sending | None = None

    # --- states -------------------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The last entry that is folded here."""
        return self._volume.view.size - 1

    def state(self, at: int) -> TreeReading:
        """The tree after an entry."""
        return self._volume.view.reading(at)

    def past(self, at: int) -> TreeReading:
        """The same for one of long ago, of which content may be gone.  Raises: HistoryMissing."""
        return past_reading(self._volume, at)

    def snapshots(self) -> Mapping[bytes, int]:
        """Names that somebody gave to states, with the last entry of each."""
        return dict(self._volume.view.snapshots())

    def index_at(self, time_ns: int) -> int:
        """The newest entry of this time or before; -1: none is.  Raises: HistoryMissing."""
        return self._volume.view.index_at(time_ns)

    def versions(self, ino: int) -> list[int]:
        """The entries that changed a file's content, the oldest first."""
        return [version.index for version in self._volume.view.history(ino)]

    def is_own(self, start: int, stop: int) -> bool:
        """Whether all these entries were committed here."""
        return all(index in self._own for index in range(start, stop))

    def taken_in(self, at: int) -> None:
        """Nobody asks any more whose the entries up to this one are."""
        self._own = {index for index in self._own if index > at}

    def difference(self, before: int, after: int) -> Difference:
        """What others have changed between two entries."""
        return self._volume.view.changed_between(before, after)

    async def follow(self) -> None:
        """Take in what others have committed; one cheap question if there is nothing."""
        if await self._volume.is_behind():
            await self._volume.sync()

    async def wait_change(self, wait_s: float) -> bool:
        """As `Volume.wait_change`."""
        return await self._volume.wait_change(wait_s)

    async def newest_keys(self) -> EpochKeys:
        """Of the present epoch, as far as the log was followed.  Raises: NotMember, NotCapable."""
        return await self._volume.run(self._volume.newest_keys)

    def keys(self, epoch: int) -> EpochKeys:
        """Of any epoch.  Raises: NotCapable."""
        return self._volume.follower.ring.keys(epoch)

    def now_ns(self) -> int:
        """By this member's clock."""
        return self._volume.now_ns()

    # --- content ------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy | None:
        """How content is stored; None before the first was."""
        return None if self._writer is None else self._writer.policy

    @property
    def chunk_bytes(self) -> int:
        """Of the volume's policy."""
        return self._volume.membership.policy.chunk_bytes

    async def put(self, plain: memoryview) -> BlobRef:
        """Store a chunk; durable on `happy` nodes on return.  Raises: NotHappy; NotMember, NotCapable."""
        return await (await self._begun()).store(plain, len(plain), sealed=self._sending_blob)

    def _sending_blob(self, ref: BlobRef) -> None:
        self._sent.sending(ref.name.blob)

    def needs(self, refs: Iterable[BlobRef]) -> None:
        """A change names these, which an earlier mount has sent."""
        self._sent.needed(ref.name.blob for ref in refs)

    def give_up_left(self) -> None:
        """Give up, when this has made an entry, what earlier mounts have sent and nothing refers to.

        Until then an entry of theirs may still be under way; behind one of ours none of them can come.
        """
        self._may_give_up = True

    async def _give_up_left(self) -> None:
        """Best effort: what is not given up now is by the next mount, or its leases end."""
        view, left = self._volume.view, frozenset(self._sent.left)

        def named() -> frozenset[BlobId]:
            return left.intersection(ref.name.blob for ref in view.blobs())

        try:
            self._sent.named(await asyncio.to_thread(named))
            given = await self._grid.give_up(lambda: self._sent.left)
        except MunimentError as error:
            _log.info("what an earlier mount has left leased stays so: %s", error)
            return
        self._sent.named(given)
        _log.info("leases on %d blobs that an earlier mount had left were given up", len(given))

    def hurry(self, wait_s: float) -> None:
        """As `Grid.hurry`."""
        self._grid.hurry(wait_s)

    async def aclose(self, wait_s: float) -> None:
        """End what is under way, after waiting for so long; the volume and the grid are their owners'."""
        if self._giving_up is not None:
            await asyncio.wait({self._giving_up}, timeout=wait_s)
            self._giving_up.cancel()
            await asyncio.wait({self._giving_up})
        self._sent.close()

    async def get(self, ref: BlobRef) -> memoryview:
        """A chunk's plaintext.  Raises: TooFewShares, BlobCorrupt."""
        return await self._grid.read_blob(ref, DownloadTally())

    async def room_bytes(self) -> tuple[int, int]:
        """As `Grid.room_bytes`."""
        return await self._grid.room_bytes(self.policy)

    async def _begun(self) -> EpochWriter:
        async with self._beginning:
            if self._writer is None:
                self._writer = await EpochWriter.begin(self._volume, self._grid, UploadTally())
        return self._writer

    # --- changing -----------------------------------------------------------------------------

    async def commit(self, changes: Sequence[Change], at: int) -> Outcome:
        """Make one entry of changes; durable in the log and folded here on return.

        Whatever kept a batch from being committed, the same one given again is not made twice: if its entry
        was sent and not answered, that is what is found in the log, or sent again.

        Args:
            at: the entry on whose state they were made.
        Raises: as `EpochWriter.commit`.  Cancelled, the entry may or may not be there.
        """
        writer = await self._begun()
        named = (ref for change in changes for ref in change.blobs)
        refs = tuple(dict.fromkeys(ref for ref in named if ref not in self._adopted))
        if self._sending is None or self._sending.changes is not changes:
            self._sending = _Sending(changes)
        sending = self._sending

        def make(state: TreeReading, named: tuple[BlobRef, ...]) -> Transaction:
            view, again = self._volume.view, dict(zip(refs, named, strict=True))
            others = not self.is_own(at + 1, view.size)
            transaction, sending.planned = plan(changes, state, self._numbers, again, view.size, check=others)
            return transaction

        try:
            is_brief = sum(change.size_bytes for change in changes) <= _BRIEF_BYTES
            done = await writer.commit(refs, make, sending.attempt, is_brief=is_brief)
        except NothingLeft as nothing:
            self._forget(writer, refs)
            return Outcome(None, tuple(nothing.planned.failed))
        self._forget(writer, refs)
        first = self._volume.view.reading(done.index - 1).next_inode
        for count, here in enumerate(sending.planned.made):
            self._numbers.settle(here, first + count)
        self._own.add(done.index)
        left_out = {id(change) for change, _ in sending.planned.failed}
        done_changes = (change for change in changes if id(change) not in left_out)
        self._sent.named({ref.name.blob for change in done_changes for ref in change.blobs})
        if self._may_give_up and self._sent.left and self._giving_up is None:
            self._giving_up = asyncio.create_task(self._give_up_left(), name="give up")
        self._sending = None
        return Outcome(done.index, tuple(sending.planned.failed))

    def unanswered(self) -> Unanswered | None:
        """The entry that was sent last, while nothing was heard of it."""
        sending = self._sending
        if sending is None or not sending.attempt.unanswered:
            return None
        left_out = {change.number for change, _ in sending.planned.failed}
        changes = frozenset(change.number for change in sending.changes) - left_out
        return Unanswered(entry_hash(sending.attempt.unanswered), tuple(sending.planned.made), changes)

    def accepted(self, entry: bytes) -> int | None:
        """The index of an entry; None if the log does not have it, or the fold refused it."""
        index = self._volume.follower.replica.find(EntryHash(entry))
        if index is None or self._volume.view.entries(index, index + 1)[0].rejection is not None:
            return None
        return index

    def adopt(self, refs: Iterable[BlobRef]) -> None:
        """The log names these already: when it does so again, their content is not stored again before."""
        self._adopted.update(refs)

    async def change(self, plan: Callable[[TreeReading], Sequence[Operation]], message: str) -> None:
        """Make one entry beside the changes that wait, planned on the newest state; durable on return.

        Raises: as `Volume.commit`, and what `plan` raises.
        """
        done = await self._volume.commit(lambda state: Transaction(tuple(plan(state)), message=message))
        self._own.add(done.index)

    def _forget(self, writer: EpochWriter, refs: Sequence[BlobRef]) -> None:
        self._named.extend(refs)
        writer.forget([self._named.popleft() for _ in range(len(self._named) - _NAMED_MAX)])
