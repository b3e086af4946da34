"""The audit of a view: the log folded anew, and everything the view keeps compared (docs/audit.md section 4).

The stored view may be of a damaged file, where any value may stand in any place; nothing of it is believed.
Three comparisons, each for what the others do not see:

- entries: hash, author, time, epoch, message and outcome of each, one by one;
- rows: every version of every row with the time of its validity, as two sums over all of them, in constant
  memory; where they differ, a second fold says which rows;
- states: the newest and some past ones read back row by row through the questions that readers ask.

The sums are MSet-Add-Hash (Clarke et al. 2003): keyed BLAKE3 of each row, added modulo 2^256.  The key is
drawn for each audit, so no view can have been made to fit.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

from blake3 import blake3

from muniment.audit.report import AuditReport
from muniment.audit.tree_oracle import TreeOracle
from muniment.core.entries import open_transaction
from muniment.core.fold import apply
from muniment.core.history import EntryMeta, FoldedEntry, touched_by
from muniment.core.key_ring import KeyRing
from muniment.core.state_hash import added_rows, initial, removed_rows
from muniment.core.tree_state import Changes, Rejection, TreeReading
from muniment.crypto.entries import SignedEntry
from muniment.errors import (
    MalformedRecord,
    MunimentError,
    NotCapable,
    OperationRejected,
    UnknownVersion,
)
from muniment.ids import id_text
from muniment.ports import AuditedView, RowVersion, ViewEntry
from muniment.spec.blob import BlobName
from muniment.spec.operation import SIZE_MAX, SNAPSHOT_LAG_MAX, Kind, ViewSnapshot

UNREADABLE: Final = "unreadable"
"""Code of the rejection of a transaction that no member can read (docs/spec/entry.md section 4)."""

_BUCKETS: Final = 256
_SUM_MASK: Final = (1 << 256) - 1
_TIMES: Final = struct.Struct(">qq")
_PAGE: Final = 512
_TOLD_ROWS: Final = 64
_TABLES: Final = ("no row", "inode", "name in folder", "extent of inode", "attribute of inode", "snapshot at")
_ANEW: Final = "the view shows what is not in the log; move it away to have it folded anew"
_ANY: Final = (MunimentError, TypeError, ValueError, IndexError, OverflowError, AttributeError, struct.error)
"""What a view may raise whose file is damaged: it may hold a value of any type wherever it keeps one."""

_T = TypeVar("_T")


class Refold:
    """The fold of a log by the holder of some keys, entry by entry.

    Args:
        ring: of the holder; followed by the caller.
        report: counts and what cannot be folded go there; None: a second fold, which tells nothing.

    Attributes:
        state: after the entries folded.
        size: entries folded.
        stopped: keys are missing: nothing more is folded.
    """

    def __init__(self, ring: KeyRing, report: AuditReport | None = None) -> None:
        self.state = TreeOracle()
        self.size = 0
        self.stopped = False
        self._ring = ring
        self._report = report
        self._reached_ns: int | None = None
        self._hash = initial()
        self._digests = deque([self._hash.digest()], maxlen=SNAPSHOT_LAG_MAX + 1)  # of the last states

    def take(
        self, signed: SignedEntry
    ) -> tuple[ViewEntry, tuple[RowVersion, ...], tuple[BlobName, ...]] | None:
        """Fold the next entry.

        Returns: what a view keeps of it, the rows that went, and the blobs it names; None if the fold stops.
        """
        if self.stopped:
            return None
        entry, index = signed.entry, self.size
        message, outcome, names = "", None, tuple[BlobName, ...]()
        if entry.act is None:
            try:
                message, outcome, names = self._folded(signed, index)
            except (NotCapable, UnknownVersion) as error:
                self.stopped = True
                if self._report is not None:
                    self._report.content = f"from entry {index} on: {error}"
                return None
        gone = tuple(self.state.apply(outcome)) if isinstance(outcome, Changes) else ()
        if self._report is not None:
            if isinstance(outcome, Changes):
                self._hash = self._hash.changed(removed_rows(outcome), added_rows(outcome))
            self._digests.append(self._hash.digest())
        reached = self._reached_ns
        self._reached_ns = entry.time_ns if reached is None else max(reached, entry.time_ns)
        meta = EntryMeta(signed.hash, entry.author, entry.time_ns, entry.epoch, message)
        rejection = outcome if isinstance(outcome, Rejection) else None
        inodes, touched = touched_by(outcome) if isinstance(outcome, Changes) else ([], [])
        self.size += 1
        if self._report is not None and entry.act is None:
            self._report.transactions += 1
            self._report.rejected += rejection is not None
        folded = FoldedEntry(index, meta, isinstance(outcome, Changes), rejection)
        kept = ViewEntry(folded, self._reached_ns, self.state.next_inode, tuple(inodes), tuple(touched))
        return kept, gone, names

    def _folded(
        self, signed: SignedEntry, index: int
    ) -> tuple[str, Changes | Rejection, tuple[BlobName, ...]]:
        entry = signed.entry
        try:
            transaction = open_transaction(entry, self._ring)
        except MalformedRecord as error:
            return "", Rejection(UNREADABLE, None, str(error)), ()
        names = tuple(ref.name for ref in transaction.blobs)
        try:
            changes = apply(self.state, transaction, index=index, time_ns=entry.time_ns)
        except OperationRejected as error:
            return transaction.message, Rejection.of(error), names
        if self._report is not None:
            for operation in transaction.operations:
                if isinstance(operation, ViewSnapshot):
                    self._check_snapshot(operation, signed, index)
        return transaction.message, changes, names

    def _check_snapshot(self, operation: ViewSnapshot, signed: SignedEntry, index: int) -> None:
        """Hold what the author of a view snapshot signed against the state that the log yields."""
        assert self._report is not None
        self._report.snapshots += 1
        back = index - operation.size  # the fold has seen to it that so many are remembered
        if self._digests[-1 - back] != operation.state_hash:
            self._report.forged(
                f"entry {index}",
                f"its author, {id_text(signed.entry.author)}, signed a view snapshot of another state than "
                f"{operation.size} entries lead to",
                "he lies, or his machine is broken: who began with this snapshot may see files that never "
                "were; let them run 'muni volume fetch', and remove him",
            )


class RowSums:
    """A sum over many row versions, in parts, so that a difference says where to look.

    Args:
        key: 32 unpredictable bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._hasher = blake3(key=key)
        self.sums = [0] * _BUCKETS
        self.count = 0

    def add(self, version: RowVersion) -> None:
        """One more."""
        digest = self.digest(version)
        at = digest[0]
        self.sums[at] = (self.sums[at] + int.from_bytes(digest, "big")) & _SUM_MASK
        self.count += 1

    def digest(self, version: RowVersion) -> bytes:
        """Of one row with its times."""
        hasher = self._hasher.copy()
        until = -1 if version.until is None else version.until
        hasher.update(_TIMES.pack(version.since, until))
        hasher.update(version.row)
        return hasher.digest()

    def differing(self, other: RowSums) -> frozenset[int]:
        """The parts in which they differ."""
        return frozenset(at for at in range(_BUCKETS) if self.sums[at] != other.sums[at])


class ViewAudit:
    """One stored view under audit.

    Args:
        view: nothing is written to it.
        report: what is found goes there.
        key: 32 unpredictable bytes.
        samples: how many past states are read back.
    """

    def __init__(self, view: AuditedView, report: AuditReport, key: bytes, samples: int) -> None:
        self._view = view
        self._report = report
        self._key = key
        self._expected = RowSums(key)
        self._pending: list[ViewEntry] = []
        self._done = False
        self._compared = False  # the sum of what is expected is complete
        self._sums = RowSums(key)
        self._samples = frozenset[int]()
        self._sound = False  # the file is readable, so its rows were summed up
        size = self._read("the view", lambda: view.size)
        self.size = size if type(size) is int else 0
        if size is None:
            self._done = True
            return
        report.view = None
        past = frozenset(self.size * at // (samples + 1) for at in range(1, samples + 1))
        self._samples = past - {0, self.size}
        self._sound = self._inspect()
        if self._sound:
            self._sound = self._read("rows of the view", self._sum) is not None

    def _inspect(self) -> bool:
        lines = self._read("the view's file", self._view.inspect)
        for line in lines or ():
            self._report.damaged("the view's file", line, _ANEW)
        return lines is not None and not lines

    def _sum(self) -> bool:
        for version in self._view.row_versions():
            self._sums.add(version)
        return True

    def take(self, kept: ViewEntry, gone: Iterable[RowVersion], state: TreeOracle) -> None:
        """Compare with what the view has of the entry that was folded last."""
        if self._done:
            return
        for version in gone:
            self._expected.add(version)
        self._pending.append(kept)
        folded = kept.folded.index + 1
        if len(self._pending) == _PAGE or folded == self.size:
            self._compare_entries()
        if folded in self._samples:
            self._compare_state(state, folded - 1)
        if folded == self.size:
            self._compare_newest(state)

    def start(self, state: TreeOracle) -> None:
        """Before the first entry: a view may be empty."""
        if self.size == 0 and not self._done:
            self._compare_newest(state)

    def end(self, folded: int, *, whole: bool) -> None:
        """No more entries are folded; `whole`: all of the log's were that the holder's keys open."""
        if self._compared and self.size < folded:
            self._report.view = f"from entry {self.size} on: it is not folded yet"
        if self._done:
            return
        self._done = True
        self._compare_entries()
        if not whole:
            self._report.view = f"from entry {folded} on, as the log cannot be judged there"
        else:
            self._report.damaged(
                "the view",
                f"it has {self.size} entries, and {folded} of the log can be folded",
                f"the log was cut, or this is another volume's view; {_ANEW}",
            )

    def differing_rows(self, versions: Callable[[int], Iterable[RowVersion]]) -> None:
        """Say which rows differ.

        Args:
            versions: folds again, and gives all versions of rows of the log's first entries, so many.
        Cost: as the audit, if they differ at all; memory: a part of the rows.
        """
        parts = self._sums.differing(self._expected) if self._sound and self._compared else frozenset()
        if not parts:
            return
        wanted: dict[bytes, RowVersion] = {}
        for version in versions(self.size):
            digest = self._sums.digest(version)
            if digest[0] in parts:
                wanted[digest] = version
        told = 0
        for version in self._view.row_versions():
            digest = self._sums.digest(version)
            if digest[0] in parts and wanted.pop(digest, None) is None:
                told += 1
                if told <= _TOLD_ROWS:
                    self._tell(version, "it has a row that the log does not yield")
        for version in list(wanted.values())[:_TOLD_ROWS]:
            self._tell(version, "it lacks a row that the log yields, or has it otherwise")

    # --- comparing ----------------------------------------------------------------------------

    def _tell(self, version: RowVersion, what: str) -> None:
        until = "now" if version.until is None else f"entry {version.until}"
        self._report.damaged(
            f"view: {_named(version.row)}, valid from entry {version.since} to {until}", what, _ANEW
        )

    def _compare_entries(self) -> None:
        expected, self._pending = self._pending, []
        if not expected:
            return
        start = expected[0].folded.index
        try:
            stored = list(self._view.entry_rows(start, start + len(expected)))
        except _ANY:
            # One by one, to tell which of them cannot be read.
            stored = []
            for one in expected:
                at = one.folded.index
                stored += self._read(f"view: entry {at}", partial(self._view.entry_rows, at, at + 1)) or ()
        by_index = {one.folded.index: one for one in stored}
        for one in expected:
            index = one.folded.index
            self._report.view_entries += 1
            if by_index.pop(index, None) != one:
                self._report.damaged(
                    f"view: entry {index}",
                    "author, time, message, outcome or what it touched are not as in the log",
                    f"the history that is shown is wrong there; {_ANEW}",
                )
        for index in by_index:
            self._report.damaged(f"view: entry {index}", "it stands there twice or under no place", _ANEW)

    def _compare_newest(self, state: TreeOracle) -> None:
        self._done = True
        self._report.view_rows = self._sums.count
        if self._read("the view's state hash", lambda: self._view.state_hash().digest()) != (
            state.state_hash().digest()
        ):
            self._report.damaged(
                "the view's state hash", f"it is not that of the state after entry {self.size - 1}", _ANEW
            )
        if self._read("the view", lambda: self._view.reading().next_inode) != state.next_inode:
            self._report.damaged("the view", "the number of the next inode is wrong", _ANEW)
        if self._read("the view", lambda: list(self._view.snapshots())) != [
            (name, index - 1) for name, index in sorted(state.snapshots.items())
        ]:
            self._report.damaged("the view", "its snapshots are not those of the log", _ANEW)
        for version in state.open_rows():
            self._expected.add(version)
        self._compared = True
        beyond = self._read("the view", lambda: self._view.entry_rows(self.size, self.size + _PAGE))
        for one in beyond or ():
            self._report.damaged(f"view: entry {one.folded.index}", "it stands behind the last one", _ANEW)
        self._compare_state(state, None)
        self._compare_state(state, self.size - 1)

    def _compare_state(self, state: TreeOracle, at: int | None) -> None:
        """Ask the view for every row of a state, as its readers do."""
        when = "now" if at is None else f"as of entry {at}"
        wrong = self._read(f"the view {when}", lambda: _first_difference(state, self._view.reading(at)))
        if wrong:
            self._report.damaged(f"the view {when}", wrong, _ANEW)
        elif wrong is not None:
            self._report.view_samples += 1

    def _read(self, place: str, work: Callable[[], _T]) -> _T | None:
        try:
            return work()
        except _ANY as error:
            self._report.damaged(place, f"it cannot be read: {error}", _ANEW)
            return None


def _first_difference(state: TreeOracle, view: TreeReading) -> str:
    """Where the view answers otherwise than the state has it; empty if nowhere."""
    if view.next_inode != state.next_inode:
        return "the number of the next inode is wrong"
    for ino, (inode, _) in state.inodes.items():
        if view.inode(ino) != inode:
            return f"inode {ino} differs"
        if dict(view.xattrs(ino)) != dict(state.xattrs(ino)):
            return f"the attributes of inode {ino} differ"
        if inode.kind is not Kind.FOLDER:
            if list(view.extents(ino, 0, SIZE_MAX)) != list(state.extents(ino, 0, SIZE_MAX)):
                return f"the content of inode {ino} differs"
            continue
        after = b""
        while True:
            names = list(state.children(ino, after, _PAGE))
            if list(view.children(ino, after, _PAGE)) != names:
                return f"the names in folder {ino} differ"
            if any(view.child(ino, name.name) != name for name in names):
                return f"a name in folder {ino} leads elsewhere"
            if len(names) < _PAGE:
                break
            after = names[-1].name
    if not all(map(view.has_snapshot, state.snapshots)):
        return "a snapshot is missing"
    return ""


def _named(row: bytes) -> str:
    """What a row is of, for people."""
    if len(row) < 9 or row[0] >= len(_TABLES):
        return "what is no row"
    return f"{_TABLES[row[0]]} {int.from_bytes(row[1:9], 'big')}"
