"""The log service of one volume: verifies entries, orders them, answers when they are durable.

It holds no key of the volume: what it can check is the clear part (signature, membership, author chain,
epoch, size, clock), and that is what every member checks again.  It runs in the process of a single user
(`engine.local_log`) as well as in a server (`node.log_api`).

Concurrency: `append` runs on one event loop, where it checks the signature of a small entry, and queues.
One batch at a time is judged and written by the one thread of `thread`; entries that arrive meanwhile are the
next batch and share its flush.  Only that thread touches the membership and the frontier.  Readers go to the
store directly.

Authors who write one entry after the other come back a moment after they were answered.  As many as wrote at
the same time before are waited for, but only for a moment: else they would part into two halves that wait for
each other's flush, and each flush, checkpoint and wake-up would be shared by half as many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeVar

from muniment.core.membership import Membership
from muniment.crypto.checkpoints import merge_cosignatures, sign_checkpoint
from muniment.crypto.entries import SignedEntry, known_entry, open_entry
from muniment.crypto.identity import Identity
from muniment.engine.kept_clear import KeptClear
from muniment.engine.opening import open_entries
from muniment.engine.strangers import Strangers
from muniment.errors import (
    EntryMisplaced,
    MalformedRecord,
    MunimentError,
    Overloaded,
    StoreFailed,
    UnknownVersion,
)
from muniment.ids import EntryHash, VolumeId
from muniment.merkle.kept_roots import KeptRoots
from muniment.merkle.log_tree import Frontier
from muniment.ports import Appended, ClearStore, Clock, LoggedEntry, LogStore
from muniment.spec.checkpoint import Checkpoint, origin_of, witness_of
from muniment.spec.entry import ENTRY_BYTES_MAX, Entry
from muniment.spec.limits import KIB, MIB
from muniment.spec.log_wire import CLEAR_ANSWER_BYTES_MAX

QUEUE_ENTRIES_MAX: Final = 4096
QUEUE_BYTES_MAX: Final = 64 * MIB
"""Entries that wait; more are refused as Overloaded, and their authors come again later."""

_T = TypeVar("_T")
_BATCH_ENTRIES: Final = 1024
_BATCH_BYTES: Final = 16 * MIB
_GATHER_S: Final = 0.002
"""The longest that a batch waits for authors who may not come back: a round trip in a local network."""

_GATHER_ENTRIES_MAX: Final = 32
"""After a batch of more nobody is waited for: its entries cost more than its flush, and so would idleness."""

_VAIN_MAX: Final = 6
"""Where authors do not come back in time, only every 2^6th batch tries whether they do by now."""

_OPENED_AT_ONCE_BYTES: Final = 64 * KIB
"""An entry that is checked on the event loop, in some 0.1 ms; larger ones, and many, are the thread's."""

_REPLAY_BYTES: Final = 4 * MIB
_KEEP_ENTRIES: Final = 1 << 14
"""After so many the clear part is kept while the service runs: what a crash then leaves to be replayed."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A request in the queue: its entries and where its answer goes."""

    signed: Sequence[bytes]
    peer: str
    answer: asyncio.Future[list[Appended | MunimentError]]
    opened: Sequence[SignedEntry | MalformedRecord | UnknownVersion] | None = None

    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = sum(map(len, self.signed))


class Sequencer:
    """Orders the entries of one volume.

    Args:
        volume: which one.
        store: its log; not empty (`found` makes one).
        identity: signs checkpoints.
        clock: entries whose time is far off it are refused.
        thread: one thread, shared by nobody else.
        kept: keeps the clear part, so that the next start need not read the whole log.
        strangers: bounds how often those who are no members append.

    Attributes:
        restoring: entries of long ago are taken as well, because members send again what another service
            had ordered.  They still may not be long before those that stand in the log.
    """

    def __init__(
        self,
        volume: VolumeId,
        store: LogStore,
        identity: Identity,
        clock: Clock,
        thread: ThreadPoolExecutor,
        kept: ClearStore | None = None,
        strangers: Strangers | None = None,
    ) -> None:
        self.restoring = False
        self.volume = volume
        self._store = store
        self._identity = identity
        self._clock = clock
        self._thread = thread
        self._queue: list[_Waiting] = []
        self._queued_bytes = 0
        self._flushing: asyncio.Task[None] | None = None
        self._expected = 1  # requests in the next batch, if all come back who wrote at the same time
        self._gathered = asyncio.Event()
        self._vain = self._since_vain = 0  # waits one after the other that were; batches since the last
        self._grown = asyncio.Event()
        self._released = self._closing = False
        self._roots = KeptRoots(store.node)
        self._state: tuple[Membership, Frontier] | None = None
        self._kept = KeptClear(volume, store, kept)
        self._strangers = strangers
        self._clear = (0, b"")  # the last one that was asked for, and its size

    @property
    def store(self) -> LogStore:
        """For reading."""
        return self._store

    async def append(self, signed: Sequence[bytes], peer: str = "") -> list[Appended | MunimentError]:
        """Order entries behind each other.

        Args:
            peer: `address:port` they came from; empty for this process, which is no stranger.
        Returns: for each entry its place and a checkpoint that covers it, durable; or why it may not follow.
            What is in the log already keeps its place.
        Raises: Overloaded: too much waits.  Cancelled, the entries may or may not get into the log.
        """
        waiting = _Waiting(signed, peer, asyncio.get_running_loop().create_future())
        size_bytes = waiting.size_bytes
        if len(self._queue) >= QUEUE_ENTRIES_MAX or self._queued_bytes + size_bytes > QUEUE_BYTES_MAX:
            raise Overloaded(limit=f"{QUEUE_ENTRIES_MAX} waiting entries or {QUEUE_BYTES_MAX} bytes of them")
        if len(signed) == 1 and size_bytes <= _OPENED_AT_ONCE_BYTES:
            # While the thread writes the batch before; the check itself holds no global lock.
            waiting.opened = open_entries(signed)
        self._queue.append(waiting)
        self._queued_bytes += size_bytes
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="log sequencer")
        elif len(self._queue) >= self._expected:
            self._gathered.set()
        return await waiting.answer

    async def wait_beyond(self, size: int, wait_s: float) -> bytes:
        """The checkpoint once the log has more than `size` entries, or the newest after `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                while self._store.size <= size and not self._released:
                    grown = self._grown
                    await grown.wait()
        except TimeoutError:
            pass
        return await asyncio.get_running_loop().run_in_executor(None, self._store.checkpoint)

    async def clear_part(self) -> tuple[bytes, bytes]:
        """The newest checkpoint, and the clear part of the log up to it in short.

        Raises: Overloaded: it is more than CLEAR_ANSWER_BYTES_MAX.  Cost: O(acts), the first time at a size.
        """

        def work() -> tuple[bytes, bytes]:
            membership, frontier = self._known()
            if self._clear[0] != frontier.size:
                self._clear = frontier.size, self._kept.part(membership, frontier)
            if len(self._clear[1]) > CLEAR_ANSWER_BYTES_MAX:
                raise Overloaded(limit=f"{CLEAR_ANSWER_BYTES_MAX} bytes of membership acts in one answer")
            return self._store.checkpoint(), self._clear[1]

        return await self.in_thread(work)

    async def cosign(self, note: bytes) -> None:
        """Add the cosignatures of members to the newest checkpoint.

        Raises: MalformedRecord, InvalidRequest: they are not on the newest checkpoint.
        """

        def work() -> None:
            # In the batches' thread, so that none puts another checkpoint in between.
            membership, _ = self._known()
            witnesses = {witness_of(member): bytes(member) for member in membership.members}
            newest = self._store.checkpoint()
            merged = merge_cosignatures(newest, note, witnesses)
            if merged != newest:
                self._store.replace_checkpoint(merged)

        await self.in_thread(work)

    def release_waiting(self) -> None:
        """Let all `wait_beyond` return now, and those to come at once."""
        self._released = True
        self._grown.set()

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Run blocking work between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def aclose(self) -> None:
        """Let what is queued become durable.  The store stays open."""
        self._closing = True
        self._gathered.set()
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        state = self._state
        if state is not None:
            await self.in_thread(lambda: self._kept.keep(*state))

    # --- batches ------------------------------------------------------------------------------

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while await self._gather():
                batch = self._take()
                try:
                    outcomes = await loop.run_in_executor(self._thread, self._order, batch)
                except MunimentError as error:
                    outcomes = [[error for _ in waiting.signed] for waiting in batch]
                except BaseException as error:
                    for waiting in batch:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                    raise
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(outcome)
                few = sum(len(waiting.signed) for waiting in batch) <= _GATHER_ENTRIES_MAX
                self._expected = len(batch) + len(self._queue) if few else 1
                grown, self._grown = self._grown, asyncio.Event()
                grown.set()
        finally:
            self._flushing = None

    async def _gather(self) -> bool:
        """Wait a moment until all are there who are expected; whether there is anything to write."""
        patient = not self._closing and self._since_vain >= (1 << self._vain) - 1
        if patient and len(self._queue) < self._expected:
            self._gathered.clear()
            self._since_vain = 0
            try:
                async with asyncio.timeout(_GATHER_S):
                    await self._gathered.wait()
                self._vain = 0
            except TimeoutError:
                self._vain = min(self._vain + 1, _VAIN_MAX)
        else:
            self._since_vain += 1
        if not self._queue:
            self._expected = 1
        return bool(self._queue)

    def _take(self) -> list[_Waiting]:
        """What is written together next: at least one request."""
        entries = size_bytes = 0
        for at, waiting in enumerate(self._queue):
            entries += len(waiting.signed)
            size_bytes += waiting.size_bytes
            if at and (entries > _BATCH_ENTRIES or size_bytes > _BATCH_BYTES):
                break
        else:
            at = len(self._queue)
        batch, self._queue = self._queue[:at], self._queue[at:]
        self._queued_bytes -= sum(waiting.size_bytes for waiting in batch)
        return batch

    def _known(self) -> tuple[Membership, Frontier]:
        """In the thread: the state after what is durable."""
        if self._state is None:
            membership = self._kept.resume()
            self._state = replay(self._store, membership)
            self._kept.keep(*self._state)
        return self._state

    def _order(self, batch: list[_Waiting]) -> list[list[Appended | MunimentError]]:
        """In the thread: judge each entry, write those that may follow, answer all."""
        membership, frontier = self._known()
        # Until the batch is durable there is no state: a failed flush is judged anew from the store.
        self._state = None
        size = self._store.size
        fresh: list[LoggedEntry] = []
        places: dict[EntryHash, int] = {}
        ahead = _Ahead(frontier, fresh)
        judged: list[list[int | MunimentError]] = []
        now_ns = int(self._clock.now_s() * 1e9)
        closed = [signed for waiting in batch if waiting.opened is None for signed in waiting.signed]
        opened = iter(open_entries(closed))
        for waiting in batch:
            outcome: list[int | MunimentError] = []
            for entry in waiting.opened or list(islice(opened, len(waiting.signed))):
                try:
                    if not isinstance(entry, SignedEntry):
                        raise entry
                    place = places.get(entry.hash)
                    # What is next in its author's chain cannot be in the log: no look-up for what is new.
                    if place is None and entry.entry.sequence < membership.tail(entry.entry.author).sequence:
                        place = self._store.find(entry.hash)
                    if place is None:
                        self._check_seen(entry.entry, ahead)
                        time_ns = entry.entry.time_ns
                        membership.check_clock(
                            entry.entry, min(now_ns, time_ns) if self.restoring else now_ns
                        )
                        self._check_stranger(entry, membership, waiting.peer)
                        membership.admit(entry, size + len(fresh))
                        place = places[entry.hash] = size + len(fresh)
                        fresh.append(LoggedEntry(entry.hash, entry.signed))
                except MunimentError as error:
                    # What comes behind it in the same request is of the same author and cannot follow.
                    outcome.append(error)
                    break
                outcome.append(place)
            judged.append(outcome)
        if fresh:
            frontier, nodes = frontier.extend(entry.hash for entry in fresh)
            note = signed_tree(self._identity, self.volume, frontier)
            self._store.append(fresh, nodes, note)
            self._roots.keep(frontier.size, frontier.root())  # what the next entries' authors have seen
        else:
            note = self._store.checkpoint()
        self._state = membership, frontier
        self._kept.keep(membership, frontier, _KEEP_ENTRIES)
        return [
            [Appended(place, note) if isinstance(place, int) else place for place in outcome]
            for outcome in judged
        ]

    def _check_stranger(self, entry: SignedEntry, membership: Membership, peer: str) -> None:
        """Raise Overloaded if too many entries of strangers came from there; only what may follow counts."""
        known = entry.entry.author in membership.members
        if self._strangers is not None and peer and not known and not self.restoring:
            membership.check(entry)
            self._strangers.take(self.volume, peer)

    def _check_seen(self, entry: Entry, ahead: _Ahead) -> None:
        """An author who has seen another tree of this size was shown another log, or lies."""
        size = entry.seen_size
        if not 0 < size <= ahead.size:
            return  # there is nothing to compare with; membership refuses what is too large
        root = self._roots.root(size) if size <= self._store.size else ahead.root(size)
        if root != entry.seen_root:
            raise EntryMisplaced(reason=f"its author has seen another log of {size} entries")


class _Ahead:
    """The tree of a log with entries that are not durable yet; `fresh` grows behind it."""

    def __init__(self, durable: Frontier, fresh: Sequence[LoggedEntry]) -> None:
        self._start, self._fresh = durable.size, fresh
        self._last = durable
        self._roots: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        return self._start + len(self._fresh)

    def root(self, size: int) -> bytes:
        """Of the first entries, more than are durable."""
        while self._last.size < size:
            self._last, _ = self._last.append(self._fresh[self._last.size - self._start].hash)
            self._roots[self._last.size] = self._last.root()
        return self._roots[size]


def replay(store: LogStore, membership: Membership | None = None) -> tuple[Membership, Frontier]:
    """Membership and frontier at the end of a log of one's own, whose entries were verified when they came.

    Args:
        membership: after the first of its entries; goes on there.
    Raises: StoreFailed: the store's content is not a log.  Cost: O(entries).
    """
    membership = membership or Membership()
    size, at = store.size, membership.size
    try:
        while at < size:
            for signed in store.read(at, size, bytes_max=_REPLAY_BYTES):
                membership.admit(known_entry(signed), at)
                at += 1
        frontier = Frontier.at(size, store.node)
    except StoreFailed:
        raise
    except MunimentError as error:
        raise StoreFailed(where="the log", reason=f"entry {at} does not verify: {error}") from error
    return membership, frontier


def found(signed: bytes, store: LogStore, identity: Identity) -> VolumeId:
    """Begin a log with its first entry in an empty store; durable on return.

    Raises: MalformedRecord, EntryRefused: it founds no volume.
    """
    entry = open_entry(signed)
    membership = Membership()
    membership.admit(entry, 0)
    frontier, nodes = Frontier().append(entry.hash)
    note = signed_tree(identity, membership.volume, frontier)
    store.append([LoggedEntry(entry.hash, signed)], nodes, note)
    return membership.volume


def signed_tree(identity: Identity, volume: VolumeId, frontier: Frontier) -> bytes:
    """The checkpoint by which a log service vouches for its log."""
    return sign_checkpoint(identity, Checkpoint(origin_of(volume), frontier.size, frontier.root()))


assert ENTRY_BYTES_MAX < QUEUE_BYTES_MAX
