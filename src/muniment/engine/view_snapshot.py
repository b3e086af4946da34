"""Signed view snapshots: made by a writer, used by a newcomer (docs/spec/view_snapshot.md).

    made = await snapshot_view(volume, store, commit, folder)
    begun = await Newcomer(follower, log, run, fetch, folder).begin()

A snapshot is a stream of rows in blobs like those of a file, named by an entry of its author.  A newcomer
who finds one near the end of the log needs the entries behind it and none before.  What is not right, or
cannot be had, is logged, and the log is followed from its first entry as if there were no snapshot.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

from muniment.core.beginning import ClearEnd, checked_beginning, clear_end
from muniment.core.clear_part import head_of, load_clear
from muniment.core.entries import open_transaction
from muniment.core.tree_state import StoredExtent
from muniment.crypto.entries import known_entry
from muniment.engine.follower import Follower
from muniment.engine.stored_content import StoredContent
from muniment.engine.volume import BlobPlan, Committed, Volume
from muniment.errors import (
    DiskFull,
    FileFailed,
    IntegrityError,
    InternalError,
    InvalidRequest,
    LogForked,
    MalformedRecord,
    MunimentError,
    NotCapable,
    ProtocolViolation,
    StoreFailed,
)
from muniment.ports import LogClient
from muniment.spec.blob import BlobRef
from muniment.spec.limits import MIB
from muniment.spec.operation import SNAPSHOT_LAG_MAX, ViewSnapshot
from muniment.spec.transaction import Transaction
from muniment.spec.view_snapshot import decode_view, encode_view

LOG_ENTRIES_MIN: Final = 256
"""A log that is shorter is followed from its start: that takes a tenth of a second."""

LOOK_BACK_MAX: Final = 8192
TAIL_BYTES_MAX: Final = 64 * MIB
"""How far back from a log's end a snapshot is looked for; the entries are kept in memory meanwhile."""

SNAPSHOT_BYTES_MAX: Final = 16 << 30
_TRIES: Final = 3
_FIRST_PAGE: Final = 4
_PAGE_MAX: Final = 1024

_OURS: Final = (LogForked, DiskFull, StoreFailed, FileFailed, InternalError)
"""What another snapshot, or none, does not make better."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

StoreContent = Callable[[BinaryIO], Awaitable[StoredContent]]
"""Stores what is read from a file under the volume's policy and present keys."""

CommitContent = Callable[[Sequence[BlobRef], BlobPlan], Awaitable[Committed]]
"""Commits a change that names blobs which `StoreContent` stored, under the keys of its epoch."""

FetchContent = Callable[[tuple[StoredExtent, ...], BinaryIO], Awaitable[None]]
"""Writes content that lies without a hole to a file."""


class Run(Protocol):
    """Runs blocking work in the volume's thread."""

    async def __call__(self, work: Callable[[], _T], /) -> _T: ...


@dataclass(frozen=True, slots=True)
class SnapshotMade:
    """A view snapshot that newcomers can use.

    Attributes:
        committed: its entry.
        size: entries whose state it has.
        size_bytes: of it.
        state_hash: what its author has signed.
    """

    committed: Committed
    size: int
    size_bytes: int
    state_hash: bytes


async def snapshot_view(
    volume: Volume, store: StoreContent, commit: CommitContent, folder: Path, message: str = ""
) -> SnapshotMade:
    """Store the newest state that is known, and sign for it; durable on return, like any change.

    Args:
        store: brings it to the nodes.
        commit: what was stored.
        folder: for a file without a name, as large as the snapshot; it is as secret as the view.
    Others may go on writing meanwhile.  Cancelled, nothing or all is done.
    Raises: NotCapable: no right to write, or no keys for the newest entries; NotHappy; FileFailed; as
        `Volume.commit`.
    """
    with _scratch(folder) as file:
        size, state_hash = await volume.run(lambda: _write(volume.follower, file))
        stored = await store(file)
    operation = ViewSnapshot(size, state_hash, stored.extents)
    committed = await commit(stored.blobs, lambda _, blobs: Transaction((operation,), blobs, message))
    return SnapshotMade(committed, size, stored.size, state_hash)


def _write(follower: Follower, file: BinaryIO) -> tuple[int, bytes]:
    """The newest state to a file that is then read from its start."""
    membership, view = follower.membership, follower.view
    if view.size < membership.size:
        raise NotCapable(needed=f"read (entry {view.size})", given="keys of earlier entries")
    try:
        file.writelines(encode_view(head_of(membership, follower.frontier), view.state_rows()))
        file.flush()
        file.seek(0)
    except OSError as error:
        raise FileFailed(path="a temporary file", reason=error.strerror or str(error)) from error
    return view.size, view.state_hash().digest()


@dataclass(frozen=True, slots=True)
class Begun:
    """What a replica began with.

    Attributes:
        index: of the snapshot's entry.
        size: entries whose state it has: the replica's first.
    """

    index: int
    size: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A snapshot's entry, which nobody has verified yet."""

    index: int
    operation: ViewSnapshot
    extents: tuple[StoredExtent, ...]


class Newcomer:
    """The first look at a log that is long, by one who has nothing of it.

    Args:
        follower: with an empty replica and view, and a place to keep the clear part.
        log: the service.
        run: runs work in the follower's thread.
        fetch: brings content from the nodes.
        folder: for a file without a name, as large as the snapshot.

    Attributes:
        fetched: entries that were asked of the log service.
    """

    def __init__(
        self, follower: Follower, log: LogClient, run: Run, fetch: FetchContent, folder: Path
    ) -> None:
        self._follower, self._log, self._run = follower, log, run
        self._fetch, self._folder = fetch, folder
        self._tail: list[bytes] = []  # the last entries of the log
        self._low = 0  # index of the first of them
        self.fetched = 0

    async def begin(self) -> Begun | None:
        """Begin with the newest snapshot that is right and in reach.

        Returns: None: with none; replica and view are as they were, and the log has it all.
        Raises: LogForked: the service signed for another log than this member has seen; DiskFull,
            StoreFailed, FileFailed: this machine fails.
        """
        try:
            if self._follower.replica.size or self._follower.view.size:
                return None
            end = await self._end()
            if end is None:
                return None
            return await self._try(end)
        except _OURS:
            raise
        except MunimentError as error:
            _log.warning("no view snapshot is used; the log is followed from its start: %s", error)
            return None

    async def _end(self) -> ClearEnd | None:
        """The clear part at the log's end; with it the ring has the keys.  None: a snapshot is no use."""
        note, data = await self._log.clear_part()

        def judged() -> ClearEnd | None:
            checkpoint = self._follower.compare(note)
            if checkpoint.size < LOG_ENTRIES_MIN:
                return None
            part, ring = load_clear(data), self._follower.ring
            end = clear_end(note, checkpoint.size, checkpoint.root, part, self._follower.volume, ring.follow)
            newest = ring.newest
            return None if newest is None or newest.read is None else end

        return await self._run(judged)

    async def _try(self, end: ClearEnd) -> Begun | None:
        self._low = below = end.part.head.size
        for _ in range(_TRIES):
            found = await self._newest(below)
            if found is None:
                return None
            try:
                await self._use(found, end)
            except _OURS:
                raise
            except MunimentError as error:
                _log.warning("the view snapshot in entry %d is passed over: %s", found.index, error)
                below = found.index
                continue
            _log.info(
                "begun with the view snapshot in entry %d: %d entries fetched of %d",
                found.index,
                self.fetched,
                end.part.head.size,
            )
            return Begun(found.index, found.operation.size)
        return None

    # --- looking back -------------------------------------------------------------------------

    async def _newest(self, below: int) -> _Candidate | None:
        """The last snapshot before an entry, as far as is looked back."""
        at = below
        while True:
            while at > self._low:
                at -= 1
                signed = self._tail[at - self._low]
                found = await self._run(lambda at=at, signed=signed: self._opened(at, signed))  # type: ignore[misc]
                if found is not None:
                    return found
            if not await self._look_back():
                return None

    async def _look_back(self) -> bool:
        """Fetch a page of earlier entries; False if that is far enough."""
        page = min(max(_FIRST_PAGE, len(self._tail)), _PAGE_MAX, LOOK_BACK_MAX - len(self._tail), self._low)
        if page <= 0 or sum(map(len, self._tail)) > TAIL_BYTES_MAX:
            return False
        await self._reach(self._low - page)
        return True

    async def _reach(self, low: int) -> None:
        """Have all entries from `low` on."""
        found: list[bytes] = []
        while low + len(found) < self._low:
            some = await self._log.entries(low + len(found), self._low)
            if not some or low + len(found) + len(some) > self._low:
                raise ProtocolViolation(node=b"", reason="other entries than were asked for")
            found += some
        self.fetched += len(found)
        self._tail, self._low = found + self._tail, low

    def _opened(self, index: int, signed: bytes) -> _Candidate | None:
        """In the thread: what a snapshot's entry says, not verified; None: it is another, or closed to us."""
        try:
            entry = known_entry(signed).entry
            if entry.act is not None:
                return None
            transaction = open_transaction(entry, self._follower.ring)
        except (IntegrityError, NotCapable):
            return None
        for operation in transaction.operations:
            if isinstance(operation, ViewSnapshot) and 0 <= index - operation.size <= SNAPSHOT_LAG_MAX:
                return _Candidate(index, operation, _stored(operation, transaction))
        return None

    # --- using --------------------------------------------------------------------------------

    async def _use(self, found: _Candidate, end: ClearEnd) -> None:
        operation, follower = found.operation, self._follower
        if operation.size_bytes > SNAPSHOT_BYTES_MAX:
            raise MalformedRecord(format="view snapshot", reason=f"{operation.size_bytes} bytes")
        if operation.size < self._low:
            if end.part.head.size - operation.size > LOOK_BACK_MAX:
                raise InvalidRequest(reason=f"its state is of entry {operation.size}, too far back")
            await self._reach(operation.size)
        tail = self._tail[operation.size - self._low :]
        with _scratch(self._folder) as file:
            await self._fetch(found.extents, file)

            def begin() -> None:
                file.seek(0)
                head, rows = decode_view(file)
                if head.size != operation.size:
                    raise MalformedRecord(format="view snapshot", reason="it is of another state")
                follower.begin(checked_beginning(head, end, tail), rows, operation.state_hash)

            await self._run(begin)


def _stored(operation: ViewSnapshot, transaction: Transaction) -> tuple[StoredExtent, ...]:
    """Where a snapshot's content is."""
    return tuple(
        StoredExtent(
            extent.offset,
            extent.length,
            transaction.blobs[extent.source] if isinstance(extent.source, int) else extent.source or b"",
            extent.source_offset,
        )
        for extent in operation.content
    )


def _scratch(folder: Path) -> BinaryIO:
    """A file that has no name and ends with its last handle.  Raises: FileFailed."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise FileFailed(path=str(folder), reason=error.strerror or str(error)) from error
