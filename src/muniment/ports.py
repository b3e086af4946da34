"""The ports: what the engine and the node need from the outside, as Protocols and nothing else.

Drivers (`stores/`, `views/`, `net/`, `discovery/`) implement them; wrappers for faults, limits and metrics
implement the same Protocol around another implementation.  No foreign type crosses a port, and every error
that does is a leaf of `muniment.errors`.  Ports of stores and views block and are called from worker threads;
node and roster ports are asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from muniment.core.history import Difference, EntryMeta, FileVersion, FoldedEntry
from muniment.core.keeping.job import KindCount, NewJob, Outcome, QueuedJob, QueuedStep, Ready
from muniment.core.placement import Slot
from muniment.core.state_hash import StateHash
from muniment.core.tree_state import Changes, Inode, Rejection, TreeReading
from muniment.errors import MunimentError
from muniment.ids import BlobId, EntryHash, JobId, NodeId, ShareKey, ShareNumber
from muniment.merkle.log_tree import Subtree
from muniment.spec.blob import BlobName, BlobRef
from muniment.spec.record import NodeRecord
from muniment.spec.share import ShareHeader
from muniment.spec.wire import AccountUsage, NodeStatus, ShareLease, ShareQuarantined

# --- small values ---------------------------------------------------------------------------------


class Clock(Protocol):
    """Time from outside: wall clock for records and leases, monotonic for deadlines."""

    def now_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        ...


Entropy = Callable[[int], bytes]
"""So many unpredictable bytes from outside."""


# --- shares on this machine -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredShare:
    """One share found in a store by `ShareStore.scan`."""

    key: ShareKey
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ForeignObject:
    """Something found in a store that is not named as a share; `name` is for `quarantine_foreign`."""

    name: str
    size_bytes: int


class ShareWriter(Protocol):
    """One share record on its way into a store; invisible until the store commits it."""

    @property
    def key(self) -> ShareKey: ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; the bytes may be reused by the caller on return.

        Raises: DiskFull, StoreFailed.
        """
        ...

    def abort(self) -> None:
        """Throw away what was written.  Idempotent, never raises, also after commit (then without effect)."""
        ...


class ShareReader(Protocol):
    """One share record open for reading at any offset; safe to use from one thread at a time."""

    @property
    def size_bytes(self) -> int: ...

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer only at the end of the record.

        Raises: StoreFailed: the medium failed.
        """
        ...

    def close(self) -> None: ...


class ShareStore(Protocol):
    """Where a node keeps share records.  Blocking; every method may be called from any thread.

    A store keeps bytes under keys and knows nothing of leases, accounts or capacity (that is the node's
    ledger), and does not check what the bytes say (that is the node's service).
    """

    def create(self, key: ShareKey, size_bytes: int) -> ShareWriter:
        """Begin a record of exactly `size_bytes` bytes.  Raises: DiskFull, StoreFailed."""
        ...

    def commit(self, writers: Sequence[ShareWriter]) -> None:
        """Make all these records durable, then visible, each atomically; replaces a record of the same key.

        On return all survive power loss.  On an error each is either wholly there or not at all, and the
        writers are aborted.  One call for many records costs far fewer flushes than many calls.
        Raises: DiskFull, StoreFailed; InternalError: a writer did not get exactly its `size_bytes`.
        """
        ...

    def open(self, key: ShareKey) -> ShareReader:
        """Raises: ShareUnknown, StoreFailed."""
        ...

    def delete(self, key: ShareKey) -> None:
        """Remove durably; no error if it is not there.  Raises: StoreFailed."""
        ...

    def quarantine(self, found: ShareKey | ForeignObject) -> None:
        """Move aside, out of `open` and `scan`, without deleting; no error if it is not there.

        Raises: StoreFailed.
        """
        ...

    def scan(self) -> Iterator[StoredShare | ForeignObject]:
        """All but unfinished writes and quarantine, in no order, by names and sizes only."""
        ...

    def free_bytes(self) -> int | None:
        """What the medium itself has room for, or None where that is not known."""
        ...

    def close(self) -> None:
        """Release locks and handles; unfinished writes are thrown away."""
        ...


# --- shares on other machines ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShareClaim:
    """Space asked for: the key and `BlobShape.record_bytes`."""

    key: ShareKey
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """The node has this share, durably.

    Attributes:
        new: put: it did not have it before.
    """

    new: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Reserve: space is set aside until `expires_s` (seconds since the epoch, node's clock)."""

    expires_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Reserve or put: not taken; `error` says why and whether later or elsewhere helps."""

    error: MunimentError


ReserveOutcome = Held | Accepted | Refused
PutOutcome = Held | Refused


@dataclass(frozen=True, slots=True)
class ShareUpload:
    """A share record as scattered parts, to be sent without joining them.

    Attributes:
        key: what it is.
        parts: buffers that, one after the other, are the whole share record.  They must not change
            until the put has returned.
    """

    key: ShareKey
    parts: tuple[bytes | memoryview, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class ShareProof:
    """Answer to a challenge: leaf `leaf` of the share's data and its path to the root in `header`."""

    header: ShareHeader
    leaf: int
    data: bytes
    path: tuple[bytes, ...]


class NodeClient(Protocol):
    """One node as the transfer engine sees it.  Never trusted: callers verify what comes back.

    Every call has a deadline and raises NodeUnreachable, DeadlineExceeded, PinMismatch, ProtocolViolation,
    Overloaded, TokenRejected, ClockSkewed or AccountRefused when it fails as a whole.  Cancelling a call
    closes its connection and leaves nothing running.
    """

    @property
    def node(self) -> NodeId: ...

    async def info(self) -> NodeStatus:
        """The node's signed record (checked against `node`) and its present state."""
        ...

    async def reserve(self, claims: Sequence[ShareClaim]) -> list[ReserveOutcome]:
        """Ask for space, one outcome for each claim in order; at most BATCH_SHARES_MAX."""
        ...

    async def release(self, keys: Sequence[ShareKey]) -> None:
        """Give reservations back; those not held are ignored."""
        ...

    async def put(self, uploads: Sequence[ShareUpload], *, reserving: bool = False) -> list[PutOutcome]:
        """Send shares in one request.  `Held` means durable on the node; one outcome for each, in order.

        Args:
            reserving: space is asked for with it where none was reserved.  For small shares: what is held
                already is sent all the same.
        """
        ...

    async def get(self, key: ShareKey, header: memoryview, data: memoryview) -> None:
        """Receive one share, unverified.

        Args:
            header: receives header, roots and leaf hashes: exactly `BlobShape.head_bytes` long.
            data: receives the data: exactly `BlobShape.share_bytes` long.
        Raises: ShareUnknown: not held; ProtocolViolation: another size than the buffers'.
        """
        ...

    async def get_many(self, keys: Sequence[ShareKey]) -> list[bytes | None]:
        """Receive several small share records whole and unverified, None for those not held."""
        ...

    async def have(self, blobs: Sequence[BlobId]) -> Mapping[BlobId, frozenset[ShareNumber]]:
        """Which shares of these blobs the node says it holds; at most HAVE_BLOBS_MAX."""
        ...

    async def prove(self, challenges: Sequence[tuple[ShareKey, int]]) -> list[ShareProof | None]:
        """Leaf and path for each (share, leaf), in order and unverified; None where the share is not held.

        Any number: a driver asks in parts where one answer could be too long.
        """
        ...


class NodeAccount(Protocol):
    """One node as the owner of shares sees it; same deadlines and errors as `NodeClient`."""

    async def lease(self, keys: Sequence[ShareKey], duration_s: int) -> list[bool]:
        """Extend leases to now + duration (never shorten); False where the share is not held."""
        ...

    async def trash(self, keys: Sequence[ShareKey]) -> list[bool]:
        """Give up shares: purged after the node's grace, restored by a lease or reserve before that."""
        ...

    async def shares(self, *, after: ShareKey | None, limit: int) -> list[ShareLease]:
        """A page of this account's shares in key order: those behind `after`, at most `limit`.

        Fewer than `limit` are the last.
        """
        ...

    async def usage(self) -> AccountUsage: ...

    async def quarantined(self, *, after: ShareKey | None, limit: int) -> list[ShareQuarantined]:
        """A page of what the node found damaged or missing among this account's shares, in key order."""
        ...


class NodeConnection(NodeClient, NodeAccount, Protocol):
    """A node with both faces; what a connector returns."""

    async def aclose(self) -> None:
        """Close all connections and end all threads of this client."""
        ...


# --- logs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """A verified entry as a log store keeps it: its leaf hash and its signed form."""

    hash: EntryHash
    signed: bytes


class LogStore(Protocol):
    """One volume's log in order.  Blocking; any thread; one at a time appends.

    Keeps bytes and does not judge them: `engine.sequencer` decides what may follow, checks are made of what
    is read.
    """

    @property
    def size(self) -> int:
        """The index behind the last entry that is durable."""
        ...

    @property
    def start(self) -> int:
        """The first entry that is here; 0 but for a replica that was begun later."""
        ...

    def begin(
        self, start: int, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes
    ) -> None:
        """Let an empty store begin with the entry `start`, of which at least one is given.

        Args:
            nodes: besides those that the entries complete, the frontier's before them and what else is known
                of the tree before them, each once; level 0 too.
        All or nothing, durable on return.  Raises: DiskFull, StoreFailed; InternalError: it is not empty.
        """
        ...

    def append(self, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes) -> None:
        """Add entries behind the last one with the tree nodes they complete and the new signed checkpoint.

        All or nothing; on return all survives power loss.  Cost: one flush for the whole batch.
        Raises: DiskFull, StoreFailed.
        """
        ...

    def read(self, start: int, stop: int, *, bytes_max: int) -> list[bytes]:
        """Signed entries from `start` on: up to `stop` or `bytes_max`, but one at least if there is one.

        Raises: StoreFailed: the medium failed or lost some.
        """
        ...

    def find(self, entry: EntryHash) -> int | None:
        """The index of an entry, or None."""
        ...

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree; level 0 are the leaves.  Raises: StoreFailed: it is not there."""
        ...

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint; empty before the first append."""
        ...

    def replace_checkpoint(self, checkpoint: bytes) -> None:
        """Keep a checkpoint of the same size with more cosignatures.  Raises: DiskFull, StoreFailed."""
        ...

    def close(self) -> None: ...


class ClearStore(Protocol):
    """Where the clear part of a log is kept in short, beside the log: so that opening it need not read all.

    A cache, but for a replica that was begun later: what came before is nowhere else on this machine.
    """

    def load(self) -> bytes:
        """What was kept last; empty if nothing is, or it cannot be read."""
        ...

    def keep(self, part: bytes) -> None:
        """Replace it, durably.  Raises: DiskFull, StoreFailed."""
        ...


class CheckpointStore(Protocol):
    """Every signed checkpoint of one volume's log that a member has seen, from its service or from others.

    Blocking; one thread at a time.  Keeps notes and judges none: who keeps one has verified it.
    """

    def keep(self, size: int, note: bytes) -> None:
        """Add a note of a log of `size` entries; one that is there already changes nothing.

        Not durable before `flush`.  Raises: DiskFull, StoreFailed.
        """
        ...

    def notes(self, start: int = 0) -> Iterator[bytes]:
        """Those of at least `start` entries, smaller logs first."""
        ...

    def newest(self) -> bytes:
        """The last kept of the largest log; empty if there is none."""
        ...

    def flush(self) -> None:
        """On return all that was kept survives power loss.  Raises: DiskFull, StoreFailed."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Appended:
    """An entry is in the log: where, and a signed checkpoint that covers it."""

    index: int
    checkpoint: bytes


class LogClient(Protocol):
    """One volume's log service as a member sees it.  Never trusted: callers verify what comes back.

    Every call has a deadline and raises NodeUnreachable, DeadlineExceeded, PinMismatch, ProtocolViolation or
    Overloaded when it fails as a whole; VolumeUnknown: the service does not have this log.
    """

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        """Have entries ordered, in this order, and made durable; one that is in the log already keeps its
        place, so a call that failed is repeated as it was.

        Raises: EntryRefused: the first that may not follow; those before it are in the log.
        """
        ...

    async def checkpoint(self) -> bytes:
        """The newest signed checkpoint with its cosignatures."""
        ...

    async def entries(self, start: int, stop: int) -> list[bytes]:
        """Signed entries from `start` on, unverified: at least one, at most up to `stop`."""
        ...

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path of an entry in the tree of `size` entries (RFC 9162 section 2.1.3), unverified."""
        ...

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that `new` entries extend `old` ones (RFC 9162 section 2.1.4), unverified."""
        ...

    async def clear_part(self) -> tuple[bytes, bytes]:
        """The newest signed checkpoint, and the clear part of the log up to it in short, both unverified.

        Raises: Overloaded: it is too large for one answer; InvalidRequest: the service cannot do this.
        """
        ...

    async def wait_beyond(self, size: int, wait_s: float) -> bytes:
        """The checkpoint as soon as the log has more than `size` entries, or the newest after `wait_s`."""
        ...

    async def cosign(self, note: bytes) -> None:
        """Hand over a witness's cosignature of the newest checkpoint."""
        ...

    async def aclose(self) -> None: ...


class Connector(Protocol):
    """Makes clients for nodes; does no I/O itself."""

    def __call__(self, record: NodeRecord, /) -> NodeConnection: ...


class Roster(Protocol):
    """Where node records come from.  Keeps answering from its last knowledge while its source is away."""

    @property
    def source(self) -> str:
        """The address or file, for messages."""
        ...

    async def start(self) -> None:
        """Load the first full set (or the last one known) and begin to follow changes.

        Raises: RosterEmpty: the source knows no node, or does not answer and no earlier run has left any;
            ConfigInvalid: the source is a file that cannot be used.
        """
        ...

    def nodes_nowait(self) -> Mapping[NodeId, NodeRecord]:
        """The verified, unexpired records known now."""
        ...

    async def wait_changed(self) -> None:
        """Return after the next node has come, gone, or said something new of itself.

        A mere renewal wakes nobody, and neither does time: a record that runs out is just not shown any more.
        """
        ...

    async def aclose(self) -> None: ...


# --- the state of a volume ------------------------------------------------------------------------


class ViewBatch(Protocol):
    """Entries on their way into a view; used by the thread that opened it."""

    @property
    def size(self) -> int:
        """Entries recorded, those of this batch included: the index of the next."""
        ...

    @property
    def state(self) -> TreeReading:
        """The state after these entries; what the next transaction is folded onto."""
        ...

    def record(self, index: int, meta: EntryMeta, outcome: Changes | Rejection | None) -> None:
        """Add the next entry with what its fold yielded: changes, a rejection, or None for an act.

        Raises: InternalError: `index` is not `size`, or the changes are of another entry or state; DiskFull,
            StoreFailed.
        """
        ...


class View(Protocol):
    """The state that the fold of one volume yielded, as of every index.  Disposable: the log has it all.

    Blocking; every method may be called from any thread.  One batch runs at a time.  Readers do not wait for
    it and see whole batches only.  All raise StoreFailed where the medium fails; an `at` that is not yet
    folded, or below -1, is InvalidRequest.
    """

    @property
    def size(self) -> int:
        """Entries folded."""
        ...

    def state_hash(self) -> StateHash:
        """Of the state after all entries folded."""
        ...

    def batch(self) -> AbstractContextManager[ViewBatch]:
        """Record entries: all together when the context ends, none of them if it ends by an error.

        Power loss may take the last batches, but no others: the caller can record them again.
        """
        ...

    def reading(self, at: int | None = None) -> TreeReading:
        """The state after the entry `at`; -1: before all entries.

        None: whatever is the newest at the time of each call on the result.
        """
        ...

    def lookup(self, parts: Sequence[bytes], at: int | None = None) -> Inode | None:
        """What a path from the root leads to, without following symbolic links."""
        ...

    def snapshots(self) -> Sequence[tuple[bytes, int]]:
        """Names of snapshots in byte order, each with the `at` of its state."""
        ...

    def blobs(self, at: int | None = None) -> Iterator[BlobRef]:
        """Every blob that content refers to after the entry `at`, or (None) at any time; each once."""
        ...

    def close(self) -> None: ...


class ViewHistory(Protocol):
    """What a view tells of the past; as `View` in all else."""

    def index_at(self, time_ns: int) -> int:
        """The last entry up to which none is later than this time by its author's clock; -1 if there is none.

        So the answer never falls while the time rises, though clocks differ.
        """
        ...

    def entries(self, start: int, stop: int) -> Sequence[FoldedEntry]:
        """The entries start to stop - 1, as far as they are folded."""
        ...

    def history(self, ino: int) -> Sequence[FileVersion]:
        """All contents that a file had, the oldest first; anything else has had the one it was made with."""
        ...

    def changed_between(self, before: int, after: int) -> Difference:
        """What differs between the states after two entries, whatever was in between.

        Cost: O(entries between them + rows they touched).
        """
        ...


class ViewStart(Protocol):
    """How a view gives its newest state away, and begins with one; as `View` in all else."""

    @property
    def start(self) -> int:
        """How many entries the state covered that the view began with; 0: it knows everything.

        What is asked about earlier states is HistoryMissing.
        """
        ...

    def state_rows(self) -> Iterator[bytes]:
        """The rows of the newest state as `spec.view_row` has them, in the order of `core.state_rows`.

        While they are read no batch may end.
        """
        ...

    def begin(self, size: int, time_ns: int, rows: Iterator[bytes], digest: bytes) -> None:
        """Let an empty view begin with the state after `size` entries; durable on return, all or nothing.

        Args:
            time_ns: the latest time of those entries.
            rows: from anybody.
            digest: what the state must hash to.
        Raises: MalformedRecord: the rows are none, or of another state; InternalError: it is not empty.
        """
        ...


class ViewRows(Protocol):
    """All that a view ever knew, row by row; as `View` in all else."""

    def row_versions(self) -> Iterator[RowVersion]:
        """Every row that is or was, but for the counter, in no order.  Raises: StoreFailed."""
        ...


class VolumeView(View, ViewHistory, ViewStart, ViewRows, Protocol):
    """A view with all its faces; what drivers implement."""


# --- durable work ---------------------------------------------------------------------------------


class WorkQueue(Protocol):
    """Jobs that survive every crash, each an ordered list of steps.  Blocking; any thread.

    A step is done, then noted: after a crash in between it is done again.  What a method wrote is durable on
    return, and all or nothing.  All raise DiskFull or StoreFailed where the medium fails.
    """

    def add(self, jobs: Sequence[NewJob], now_s: float) -> list[JobId]:
        """Add jobs; one whose kind and key are in the queue is that job, with its steps and arguments.

        That job's priority becomes the smaller one; if none of its steps has failed it is due at the earlier
        of both times; if it was set aside and the new one has `again`, it is as if retried.
        Cost: one flush for all.
        """
        ...

    def ready(self, now_s: float, kinds: Collection[str], *, without: Collection[JobId], limit: int) -> Ready:
        """The `limit` most urgent jobs of these kinds that are due and not set aside.

        Order: priority, then that of adding.  Where `now_s` is more than CLOCK_SLACK_S before that of an
        earlier call, the clock was set back, and whatever waits is due earlier by as much.
        Cost: O(limit + jobs passed over as `without` or of other
        kinds), as long as no time comes.
        """
        ...

    def done(self, job: QueuedJob, outcome: Outcome, now_s: float) -> bool:
        """Note that the job's next step went well.

        Args:
            job: as it was when the step began.
        Returns: False, with no effect, if somebody else has noted a step of it or dropped it since.
        """
        ...

    def failed(self, job: QueuedJob, error: str, *, due_s: float | None) -> bool:
        """Note that the step failed: it is due again at that time, or (None) the job is set aside.

        Returns: as `done`.
        """
        ...

    def counts(self) -> Mapping[str, KindCount]:
        """How many jobs there are of each kind."""
        ...

    def close(self) -> None: ...


class VisibleQueue(WorkQueue, Protocol):
    """A queue that a person can look into and put right, also while another process works on it."""

    def jobs(self, *, after: JobId | None = None, limit: int) -> Sequence[QueuedJob]:
        """A page of jobs in the order of adding: those behind `after`; fewer than `limit` are the last."""
        ...

    def job(self, job: JobId) -> tuple[QueuedJob, tuple[QueuedStep, ...]] | None:
        """One job with all steps that are left, in order; None: there is no such job."""
        ...

    def retry(self, job: JobId) -> bool:
        """Make it due at once, with all tries; False: there is no such job."""
        ...

    def drop(self, job: JobId) -> bool:
        """Forget it with all that is left of it; False: there is no such job."""
        ...


# --- what a keeper remembers ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NamedBlobs:
    """What an entry says of blobs to who holds the verify right.

    Attributes:
        added: that the entry refers to.
        pruned: that nothing kept refers to any more, as a prune states.
        pruned_size: how many entries that prune looked at: what later ones name is kept; None: all before it.
    """

    added: tuple[BlobName, ...] = ()
    pruned: tuple[BlobName, ...] = ()
    pruned_size: int | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """A share at a node, as it was last seen there.

    Attributes:
        slot: which share, at which node.
        held_s: when the node last said that it holds it, seconds since the epoch.
        proven_s: when it last proved it, or it was read; 0: never.
        leased_s: until when the keeper's lease on it runs, as far as known; 0: it has none.
    """

    slot: Slot
    held_s: float
    proven_s: float
    leased_s: float


class BlobBook(Protocol):
    """The blobs of one volume and where their shares were seen.  Disposable; blocking; any thread.

    What a method wrote is durable on return, and all or nothing.  All raise DiskFull or StoreFailed where the
    medium fails.
    """

    @property
    def size(self) -> int:
        """Entries of the log taken in."""
        ...

    @property
    def bound(self) -> bytes:
        """What the last `take_in` said of whose log this is; empty before the first."""
        ...

    def take_in(self, start: int, entries: Sequence[NamedBlobs], *, bound: bytes = b"") -> None:
        """Add what the entries from `start` on name.

        Args:
            bound: tells this volume and its history up to the last of these from any other.
        Raises: InternalError: `start` is not `size`.
        """
        ...

    def clear(self) -> None:
        """Forget everything: this was of another log."""
        ...

    def kept(self, after: BlobId | None, limit: int) -> Sequence[BlobName]:
        """A page of the blobs that are referred to, in the order of BlobIds: those behind `after`.

        A blob is referred to if an entry names it and no prune that looked at that entry does.  Fewer than
        `limit` are the last.
        """
        ...

    def is_kept(self, blobs: Iterable[BlobId]) -> Sequence[bool]:
        """Whether each of these is referred to."""
        ...

    def is_pruned(self, blobs: Iterable[BlobId]) -> Sequence[bool]:
        """Whether each of these was referred to and is not any more; what no entry named is neither."""
        ...

    def count(self) -> tuple[int, int]:
        """How many blobs were ever named, and how many of them are referred to."""
        ...

    def note(
        self,
        held: Iterable[tuple[BlobId, Slot]],
        gone: Iterable[tuple[BlobId, Slot]],
        *,
        now_s: float,
        proven: bool,
    ) -> None:
        """Remember which shares a node has (and proved, if `proven`), and which it has not any more."""
        ...

    def leased(self, slots: Iterable[tuple[BlobId, Slot]], until_s: float) -> None:
        """The keeper's leases on these shares run until then; those never seen are ignored."""
        ...

    def listed(
        self, node: NodeId, after: ShareKey | None, last: ShareKey | None, ends: Mapping[ShareKey, float]
    ) -> None:
        """A node listed the keeper's leases behind `after` up to `last` (None: the first, the end).

        What is not in `ends` has none, and no lease runs longer than its node says; one that was not known
        runs as long.  Shares never seen at the node are ignored.
        """
        ...

    def sightings(self, blobs: Iterable[BlobId]) -> Sequence[Sequence[Sighting]]:
        """Where each blob's shares were seen, in the order of slots."""
        ...

    def answered(self, nodes: Iterable[NodeId], now_s: float) -> None:
        """These nodes answered."""
        ...

    def last_answers(self) -> Mapping[NodeId, float]:
        """When each node that ever answered last did."""
        ...

    def close(self) -> None: ...


# --- blobs that were read -------------------------------------------------------------------------


class BlobCache(Protocol):
    """Sealed blobs on this machine, so that nodes need not be asked for them again.  Blocking; any thread.

    It may forget anything at any time, and what it gives may be wrong: who reads holds it against the BlobId.
    """

    def has(self, blob: BlobId) -> bool:
        """Whether it is here, as far as a look at a name can tell; some microseconds."""
        ...

    def read_into(self, blob: BlobId, parts: Sequence[memoryview]) -> int | None:
        """Fill these, which are as long together as the blob should be; it counts as used now.

        Returns: how many bytes there are; None: it is not here.  If there are fewer or more than fit, what
            the parts hold then means nothing.
        Raises: StoreFailed.
        """
        ...

    def keep(self, blobs: Mapping[BlobId, Sequence[bytes | memoryview]]) -> None:
        """Add blobs, each in parts that follow each other, and bring all under the limit.

        Those least recently used go first.  Nothing need be durable, but after a crash at any moment no blob
        is here in part, and no more than the limit is taken up.
        Raises: DiskFull, StoreFailed: nothing can be kept any more.
        """
        ...

    def drop(self, blob: BlobId) -> None:
        """Forget what turned out wrong, if it is here.  Raises: StoreFailed."""
        ...

    def close(self) -> None: ...


# --- what an audit reads --------------------------------------------------------------------------


class Inspectable(Protocol):
    """A medium that has a check of its own, below what is kept in it."""

    def inspect(self) -> Sequence[str]:
        """What that check finds wrong, for people; empty if nothing.  Raises: StoreFailed."""
        ...


class AuditedLog(LogStore, Inspectable, Protocol):
    """A log store that can be audited."""


@dataclass(frozen=True, slots=True)
class RowVersion:
    """A row of the state with the time of its validity.

    Attributes:
        row: as `spec.view_row` encodes it; empty where what is stored is no row.
        since: index of the entry that brought it; -1: before all entries.
        until: index of the entry that took or replaced it; None: valid still.
    """

    row: bytes
    since: int
    until: int | None


@dataclass(frozen=True, slots=True)
class ViewEntry:
    """All that a view keeps of an entry.

    Attributes:
        folded: what `ViewHistory.entries` shows.
        reached_ns: the largest time of any entry up to this one.
        next_inode: the counter after it.
        inodes: that it touched, in the order of `core.history.touched_by`.
        names: likewise, each with its folder.
    """

    folded: FoldedEntry
    reached_ns: int
    next_inode: int
    inodes: tuple[int, ...]
    names: tuple[tuple[int, bytes], ...]


class AuditedView(VolumeView, Inspectable, Protocol):
    """A view that can be audited: it shows all that it keeps, not only what a question asks for."""

    def entry_rows(self, start: int, stop: int) -> Sequence[ViewEntry]:
        """Entries from `start` to `stop` - 1, as far as they are folded.

        Raises: StoreFailed: also where what is stored is no entry.
        """
        ...


@dataclass(frozen=True, slots=True)
class BlobCondition:
    """What the nodes have of a blob.

    Attributes:
        name: the blob.
        live: distinct shares of which a good copy can be had.
        damaged: copies of shares that were read and do not verify.
        missing: shares of which no node has a copy, though all nodes answer.
        offline: shares that only nodes can have that do not answer.
        consistent: False: every share verifies alone, and they are not of one content.
    """

    name: BlobName
    live: int
    damaged: int
    missing: int
    offline: int
    consistent: bool = True


class BlobChecker(Protocol):
    """Asks the nodes for blobs; the verify right is enough."""

    async def check_blobs(self, names: Sequence[BlobName], *, verify: bool) -> Sequence[BlobCondition]:
        """The condition of each blob, in order.

        Args:
            names: any number.
            verify: read every share and hold it against the BlobId instead of believing the nodes.
        Raises: RosterEmpty.
        """
        ...
