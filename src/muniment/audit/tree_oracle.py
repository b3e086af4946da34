"""The state of a volume as an audit folds it: what is valid now, in dictionaries, and nothing of the past.

Its memory is that of the present tree, however long the log is.  Every row knows the entry that brought it,
so a row that goes is handed out with the whole time of its validity.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from muniment.core.state_hash import EMPTY, StateHash, row_of_extent, row_of_inode, row_of_name
from muniment.core.tree_state import FIRST_INODE, ROOT_INODE, Changes, Inode, Name, StoredExtent
from muniment.ports import RowVersion
from muniment.spec.limits import CHUNK_BYTES_MAX
from muniment.spec.operation import ROOT
from muniment.spec.view_row import next_inode_row, snapshot_row, xattr_row

_K = TypeVar("_K", bytes, int)
_R = TypeVar("_R")
_EMPTY_AT = -1


class _Ordered(Generic[_K, _R]):
    """Rows under a number and a key, the keys in order; each row with the entry that brought it."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[_K, tuple[_R, int]]] = {}
        self._keys: dict[int, list[_K]] = {}

    def put(self, number: int, key: _K, row: _R | None, index: int) -> tuple[_R, int] | None:
        """Set or (None) remove; returns what stood there."""
        rows = self.rows.setdefault(number, {})
        keys = self._keys.setdefault(number, [])
        before = rows.pop(key, None)
        if row is not None:
            rows[key] = row, index
            if before is None:
                insort(keys, key)
        elif before is not None:
            del keys[bisect_left(keys, key)]
            if not rows:
                del self.rows[number], self._keys[number]
        return before

    def keys(self, number: int) -> list[_K]:
        """In order."""
        return self._keys.get(number, [])

    def get(self, number: int, key: _K) -> _R | None:
        """The row, or None."""
        found = self.rows.get(number, {}).get(key)
        return None if found is None else found[0]


class TreeOracle:
    """The newest state; `core.tree_state.TreeReading`."""

    def __init__(self) -> None:
        self.next_inode = FIRST_INODE
        self.inodes: dict[int, tuple[Inode, int]] = {ROOT: (ROOT_INODE, _EMPTY_AT)}
        self._names = _Ordered[bytes, Name]()
        self._extents = _Ordered[int, StoredExtent]()
        self._xattrs = _Ordered[bytes, bytes]()
        self.snapshots: dict[bytes, int] = {}

    # --- TreeReading --------------------------------------------------------------------------

    def inode(self, ino: int) -> Inode | None:
        found = self.inodes.get(ino)
        return None if found is None else found[0]

    def child(self, parent: int, name: bytes) -> Name | None:
        return self._names.get(parent, name)

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        keys, rows = self._names.keys(parent), self._names.rows.get(parent, {})
        start = bisect_right(keys, after)
        return [rows[name][0] for name in keys[start : start + limit]]

    def listing(self, parent: int, after: bytes, limit: int) -> Sequence[tuple[bytes, Inode]]:
        return [(child.name, self.inodes[child.inode][0]) for child in self.children(parent, after, limit)]

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        keys, rows = self._extents.keys(ino), self._extents.rows.get(ino, {})
        near = keys[bisect_right(keys, start - CHUNK_BYTES_MAX) : bisect_left(keys, stop)]
        return [row for offset in near if (row := rows[offset][0]).stop > start]

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        rows = self._xattrs.rows.get(ino, {})
        return {name: rows[name][0] for name in self._xattrs.keys(ino)}

    def has_snapshot(self, name: bytes) -> bool:
        return name in self.snapshots

    # --- folding ------------------------------------------------------------------------------

    def apply(self, changes: Changes) -> Iterator[RowVersion]:
        """Take over what a transaction changes; yields the rows that go, and must be read to its end."""
        index = changes.index
        for inode in changes.inodes:
            if row := inode.before or inode.after:
                gone = self.inodes.pop(row.inode, None)
                if inode.after is not None:
                    self.inodes[row.inode] = inode.after, index
                if gone is not None:
                    yield RowVersion(row_of_inode(gone[0]), gone[1], index)
        for name in changes.names:
            if leads := name.before or name.after:
                left = self._names.put(leads.parent, leads.name, name.after, index)
                if left is not None:
                    yield RowVersion(row_of_name(left[0]), left[1], index)
        for extent in changes.extents:
            if piece := extent.before or extent.after:
                cut = self._extents.put(extent.inode, piece.offset, extent.after, index)
                if cut is not None:
                    yield RowVersion(row_of_extent(extent.inode, cut[0]), cut[1], index)
        for xattr in changes.xattrs:
            old = self._xattrs.put(xattr.inode, xattr.name, xattr.after, index)
            if old is not None:
                yield RowVersion(xattr_row(xattr.inode, xattr.name, old[0]), old[1], index)
        for snapshot in changes.snapshots:
            self.snapshots[snapshot] = index
        self.next_inode = changes.next_inode

    def open_rows(self) -> Iterator[RowVersion]:
        """All rows that are valid, but for the counter."""
        for inode, since in self.inodes.values():
            yield RowVersion(row_of_inode(inode), since, None)
        for names in self._names.rows.values():
            for name, since in names.values():
                yield RowVersion(row_of_name(name), since, None)
        for ino, extents in self._extents.rows.items():
            for extent, since in extents.values():
                yield RowVersion(row_of_extent(ino, extent), since, None)
        for ino, xattrs in self._xattrs.rows.items():
            for name_, (value, since) in xattrs.items():
                yield RowVersion(xattr_row(ino, name_, value), since, None)
        for snapshot, index in self.snapshots.items():
            yield RowVersion(snapshot_row(snapshot, index), index, None)

    def state_hash(self) -> StateHash:
        """Computed anew from all rows (docs/spec/view.md section 4).  Cost: O(rows)."""
        rows = (version.row for version in self.open_rows())
        return EMPTY.changed((), rows).changed((), [next_inode_row(self.next_inode)])
