"""A view in memory: for tests, and for tools that fold a log once and look.

Every row has the list of its versions, each with the index from which it is valid.  Readers look no further
than the last whole batch, so a batch under way is invisible to them, and undoing one removes its versions.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from muniment.core.history import (
    Difference,
    EntryMeta,
    FileVersion,
    FoldedEntry,
    difference,
    touched_by,
)
from muniment.core.state_hash import (
    EMPTY,
    StateHash,
    added_rows,
    initial,
    removed_rows,
    row_of_extent,
    row_of_inode,
    row_of_name,
)
from muniment.core.state_rows import (
    CounterRow,
    ExtentRow,
    SnapshotRow,
    StateRow,
    XattrRow,
    opened_rows,
)
from muniment.core.tree_state import (
    FIRST_INODE,
    ROOT_INODE,
    Changes,
    Inode,
    Name,
    Rejection,
    StoredExtent,
    TreeReading,
)
from muniment.errors import HistoryMissing, InternalError, MalformedRecord
from muniment.ids import ID_BYTES, EntryHash, MemberId
from muniment.ports import RowVersion, ViewBatch, ViewEntry
from muniment.spec.blob import BlobRef
from muniment.spec.limits import CHUNK_BYTES_MAX
from muniment.spec.operation import ROOT
from muniment.spec.view_row import next_inode_row, snapshot_row, xattr_row
from muniment.views.recording import EMPTY_AT, check_at, check_between, check_next

_K = TypeVar("_K", bound=Hashable)
_R = TypeVar("_R")


class _Table(Generic[_K, _R]):
    """Rows by key, each as the list of its versions."""

    def __init__(self) -> None:
        self._versions: dict[_K, tuple[list[int], list[_R | None]]] = {}

    def put(self, key: _K, index: int, row: _R | None) -> None:
        """The row is this from the entry `index` on; None: it is not there."""
        indexes, rows = self._versions.setdefault(key, ([], []))
        indexes.append(index)
        rows.append(row)

    def undo(self, key: _K) -> None:
        """Take back the last `put`."""
        indexes, rows = self._versions[key]
        indexes.pop()
        rows.pop()

    def get(self, key: _K, at: int) -> _R | None:
        """The row after the entry `at`."""
        indexes, rows = self._versions.get(key, ([], []))
        found = bisect_right(indexes, at)
        return rows[found - 1] if found else None

    def newest(self, at: int) -> Iterator[tuple[_K, _R]]:
        """All rows after the entry `at`."""
        for key in self._versions:
            if (row := self.get(key, at)) is not None:
                yield key, row

    def versions(self, key: _K, at: int) -> list[tuple[int, _R | None]]:
        """All up to the entry `at`."""
        return [pair for pair in zip(*self._versions.get(key, ([], [])), strict=True) if pair[0] <= at]

    def row_versions(self, at: int, encoded: Callable[[_K, _R], bytes]) -> Iterator[RowVersion]:
        """Every version up to the entry `at`, from when to when it was valid."""
        for key in self._versions:
            found = self.versions(key, at)
            ends = [index for index, _ in found[1:]]
            for (since, row), until in zip(found, [*ends, None], strict=True):
                if row is not None:
                    yield RowVersion(encoded(key, row), since, until)


_S = TypeVar("_S", bytes, int)


class _Order(Generic[_S]):
    """What ever stood under a number, in order: the names in a folder, the offsets in a file."""

    def __init__(self) -> None:
        self.known: dict[int, list[_S]] = {}

    def add(self, number: int, item: _S) -> None:
        """Note an item; a batch that is undone may leave some that lead to nothing."""
        items = self.known.setdefault(number, [])
        at = bisect_left(items, item)
        if at == len(items) or items[at] != item:
            items.insert(at, item)

    def of(self, number: int) -> list[_S]:
        """All under a number."""
        return self.known.get(number, [])


@dataclass(slots=True)
class _Entry:
    """An entry and what came of it."""

    folded: FoldedEntry
    reached_ns: int
    changes: Changes | None
    next_inode: int
    hash: StateHash


class _Tables:
    """All that the view has, and its lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: list[_Entry] = []
        self.inodes: _Table[int, Inode] = _Table()
        self.names: _Table[tuple[int, bytes], Name] = _Table()
        self.extents: _Table[tuple[int, int], StoredExtent] = _Table()
        self.xattrs: _Table[tuple[int, bytes], bytes] = _Table()
        self.names_in: _Order[bytes] = _Order()
        self.offsets_in: _Order[int] = _Order()
        self.xattrs_of: _Order[bytes] = _Order()
        self.snapshots: dict[bytes, int] = {}
        self.inodes.put(ROOT, EMPTY_AT, ROOT_INODE)

    def enter(self, row: StateRow, since: int) -> None:
        """Put a row that is valid from an entry on."""
        match row:
            case Inode():
                self.inodes.put(row.inode, since, row)
            case Name():
                self.names_in.add(row.parent, row.name)
                self.names.put((row.parent, row.name), since, row)
            case ExtentRow():
                self.offsets_in.add(row.inode, row.extent.offset)
                self.extents.put((row.inode, row.extent.offset), since, row.extent)
            case XattrRow():
                self.xattrs_of.add(row.inode, row.name)
                self.xattrs.put((row.inode, row.name), since, row.value)
            case SnapshotRow():
                self.snapshots[row.name] = row.index

    def newest_rows(self, at: int) -> Iterator[tuple[tuple[object, ...], bytes]]:
        """The rows after the entry `at`, but for the counter, each with its place in the order."""
        yield from (((1, ino), row_of_inode(row)) for ino, row in self.inodes.newest(at))
        yield from (((2, *key), row_of_name(row)) for key, row in self.names.newest(at))
        yield from (((3, *key), row_of_extent(key[0], row)) for key, row in self.extents.newest(at))
        yield from (((4, *key), xattr_row(*key, value)) for key, value in self.xattrs.newest(at))
        for name, index in self.snapshots.items():
            if index <= at:
                yield (5, name), snapshot_row(name, index)

    def row_versions(self, at: int) -> Iterator[RowVersion]:
        """All rows that were valid at some time up to the entry `at`."""
        yield from self.inodes.row_versions(at, lambda _, row: row_of_inode(row))
        yield from self.names.row_versions(at, lambda _, row: row_of_name(row))
        yield from self.extents.row_versions(at, lambda key, row: row_of_extent(key[0], row))
        yield from self.xattrs.row_versions(at, lambda key, value: xattr_row(*key, value))
        for name, index in self.snapshots.items():
            if index <= at:
                yield RowVersion(snapshot_row(name, index), index, None)


class MemoryView:
    """See the port `VolumeView`."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._tables = _Tables()
        self._size = self._start = 0

    @property
    def size(self) -> int:
        return self._size

    @property
    def start(self) -> int:
        return self._start

    def state_rows(self) -> Iterator[bytes]:
        with self._tables.lock:
            at = self._size - 1
            rows = list(self._tables.newest_rows(at))
            counter = next_inode_row(self.reading().next_inode)
        yield from (row for _, row in sorted(rows))
        yield counter

    def begin(self, size: int, time_ns: int, rows: Iterator[bytes], digest: bytes) -> None:
        if self._size:
            raise InternalError(reason="a view that has entries cannot begin with a snapshot")
        tables, total = _Tables(), EMPTY
        tables.inodes = _Table()
        next_inode = 0
        for encoded, row in opened_rows(rows, size):
            total = total.changed((), [encoded])
            tables.enter(row, size - 1)
            if isinstance(row, CounterRow):
                next_inode = row.next_inode
        if total.digest() != digest:
            raise MalformedRecord(format="view snapshot", reason="its state is not the one that was signed")
        nobody = EntryMeta(EntryHash(bytes(ID_BYTES)), MemberId(bytes(ID_BYTES)), time_ns, 0)
        before = _Entry(FoldedEntry(size - 1, nobody, False, None), time_ns, None, next_inode, total)
        tables.entries = [before] * size
        with self._turn:
            self._tables, self._size, self._start = tables, size, size

    def state_hash(self) -> StateHash:
        with self._tables.lock:
            return self._tables.entries[self._size - 1].hash if self._size else initial()

    @contextmanager
    def batch(self) -> Iterator[ViewBatch]:
        with self._turn:
            batch = _Batch(self._tables, self._size)
            try:
                yield batch
            except BaseException:
                batch.undo()
                raise
            self._size = batch.size

    def reading(self, at: int | None = None) -> TreeReading:
        if at is None:
            return _Reading(self._tables, lambda: self._size - 1)
        check_at(at, self._size, self._start)
        return _Reading(self._tables, lambda: at)

    def lookup(self, parts: Sequence[bytes], at: int | None = None) -> Inode | None:
        reading, ino = self.reading(self._size - 1 if at is None else at), ROOT
        for part in parts:
            child = reading.child(ino, part)
            if child is None:
                return None
            ino = child.inode
        return reading.inode(ino)

    def snapshots(self) -> Sequence[tuple[bytes, int]]:
        with self._tables.lock:
            found = sorted(self._tables.snapshots.items())
            return [(name, index - 1) for name, index in found if index < self._size]

    def blobs(self, at: int | None = None) -> Iterator[BlobRef]:
        if at is not None:
            check_at(at, self._size, self._start)
        found: dict[BlobRef, None] = {}
        with self._tables.lock:
            for ino, offsets in self._tables.offsets_in.known.items():
                for offset in offsets:
                    versions = self._tables.extents.versions(
                        (ino, offset), self._size - 1 if at is None else at
                    )
                    for _, extent in versions if at is None else versions[-1:]:
                        if extent is not None and not isinstance(extent.source, bytes):
                            found[extent.source] = None
        return iter(found)

    def close(self) -> None:
        """Nothing to release."""

    # --- audit --------------------------------------------------------------------------------

    def inspect(self) -> Sequence[str]:
        """There is nothing below what it keeps."""
        return ()

    def row_versions(self) -> Iterator[RowVersion]:
        with self._tables.lock:
            found = list(self._tables.row_versions(self._size - 1))
        return iter(found)

    def entry_rows(self, start: int, stop: int) -> Sequence[ViewEntry]:
        with self._tables.lock:
            some = self._tables.entries[max(start, self._start) : min(stop, self._size)]
        rows = []
        for one in some:
            inodes, names = touched_by(one.changes) if one.changes else ([], [])
            rows.append(ViewEntry(one.folded, one.reached_ns, one.next_inode, tuple(inodes), tuple(names)))
        return rows

    # --- history ------------------------------------------------------------------------------

    def index_at(self, time_ns: int) -> int:
        with self._tables.lock:
            reached = [entry.reached_ns for entry in self._tables.entries[: self._size]]
        if self._start and reached[self._start - 1] > time_ns:
            raise HistoryMissing(start=self._start)
        return bisect_right(reached, time_ns) - 1

    def entries(self, start: int, stop: int) -> Sequence[FoldedEntry]:
        with self._tables.lock:
            some = self._tables.entries[max(start, self._start) : min(stop, self._size)]
            return [entry.folded for entry in some]

    def history(self, ino: int) -> Sequence[FileVersion]:
        with self._tables.lock:
            rows = self._tables.inodes.versions(ino, self._size - 1)
            found = [
                (index, row.size)
                for index, row in rows
                if row is not None and row.version == index >= self._start
            ]
            metas = [self._tables.entries[index].folded.meta for index, _ in found]
        return [
            FileVersion(index, size, meta.author, meta.time_ns)
            for (index, size), meta in zip(found, metas, strict=True)
        ]

    def changed_between(self, before: int, after: int) -> Difference:
        check_between(before, after)
        old, new = self.reading(before), self.reading(after)
        inos: set[int] = set()
        names: set[tuple[int, bytes]] = set()
        with self._tables.lock:
            for entry in self._tables.entries[before + 1 : after + 1]:
                if entry.changes is not None:
                    touched = touched_by(entry.changes)
                    inos.update(touched[0])
                    names.update(touched[1])
        return difference(old, new, inos, names)


class _Reading:
    """The tree after the entry that `at` says, at the time of each call."""

    def __init__(self, tables: _Tables, at: Callable[[], int]) -> None:
        self._tables = tables
        self._at = at

    @property
    def next_inode(self) -> int:
        at = self._at()
        return self._tables.entries[at].next_inode if at >= 0 else FIRST_INODE

    def inode(self, ino: int) -> Inode | None:
        with self._tables.lock:
            return self._tables.inodes.get(ino, self._at())

    def child(self, parent: int, name: bytes) -> Name | None:
        with self._tables.lock:
            return self._tables.names.get((parent, name), self._at())

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        with self._tables.lock:
            at, found = self._at(), list[Name]()
            known = self._tables.names_in.of(parent)
            for name in known[bisect_right(known, after) :]:
                if len(found) == limit:
                    break
                if (row := self._tables.names.get((parent, name), at)) is not None:
                    found.append(row)
            return found

    def listing(self, parent: int, after: bytes, limit: int) -> Sequence[tuple[bytes, Inode]]:
        with self._tables.lock:
            found = [(one.name, self.inode(one.inode)) for one in self.children(parent, after, limit)]
        return [(name, inode) for name, inode in found if inode is not None]

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        with self._tables.lock:
            at = self._at()
            offsets = self._tables.offsets_in.of(ino)
            near = offsets[bisect_right(offsets, start - CHUNK_BYTES_MAX) : bisect_left(offsets, stop)]
            rows = [self._tables.extents.get((ino, offset), at) for offset in near]
            return [row for row in rows if row is not None and row.stop > start]

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        with self._tables.lock:
            at = self._at()
            names = self._tables.xattrs_of.of(ino)
            rows = {name: self._tables.xattrs.get((ino, name), at) for name in names}
            return {name: value for name, value in rows.items() if value is not None}

    def has_snapshot(self, name: bytes) -> bool:
        with self._tables.lock:
            return self._tables.snapshots.get(name, self._at() + 1) <= self._at()


class _Batch:
    """Entries being recorded: in the view at once, but behind what its readers look at."""

    def __init__(self, tables: _Tables, size: int) -> None:
        self._tables = tables
        self._undo: list[Callable[[], object]] = []
        self.size = size
        self.state: TreeReading = _Reading(tables, lambda: self.size - 1)

    def record(self, index: int, meta: EntryMeta, outcome: Changes | Rejection | None) -> None:
        check_next(index, self.size, outcome, self.state.next_inode)
        changes = outcome if isinstance(outcome, Changes) else None
        last = self._tables.entries[-1] if self.size else None
        entry = _Entry(
            FoldedEntry(
                index, meta, changes is not None, outcome if isinstance(outcome, Rejection) else None
            ),
            max(meta.time_ns, last.reached_ns if last else meta.time_ns),
            changes,
            changes.next_inode if changes else self.state.next_inode,
            last.hash if last else initial(),
        )
        with self._tables.lock:
            if changes is not None:
                self._apply(changes)
                entry.hash = entry.hash.changed(removed_rows(changes), added_rows(changes))
            self._tables.entries.append(entry)
            self._undo.append(self._tables.entries.pop)
            self.size += 1

    def _apply(self, changes: Changes) -> None:
        tables, index = self._tables, changes.index
        for inode in changes.inodes:
            if row := inode.before or inode.after:
                self._put(tables.inodes, row.inode, index, inode.after)
        for name in changes.names:
            if leads := name.before or name.after:
                tables.names_in.add(leads.parent, leads.name)
                self._put(tables.names, (leads.parent, leads.name), index, name.after)
        for extent in changes.extents:
            if piece := extent.before or extent.after:
                tables.offsets_in.add(extent.inode, piece.offset)
                self._put(tables.extents, (extent.inode, piece.offset), index, extent.after)
        for xattr in changes.xattrs:
            tables.xattrs_of.add(xattr.inode, xattr.name)
            self._put(tables.xattrs, (xattr.inode, xattr.name), index, xattr.after)
        for snapshot in changes.snapshots:
            tables.snapshots[snapshot] = index
            self._undo.append(partial(tables.snapshots.pop, snapshot))

    def _put(self, table: _Table[_K, _R], key: _K, index: int, row: _R | None) -> None:
        table.put(key, index, row)
        self._undo.append(partial(table.undo, key))

    def undo(self) -> None:
        """Take back all that was recorded."""
        with self._tables.lock:
            while self._undo:
                self._undo.pop()()
