"""The tree in the view's tables, as of an entry or as it is now.

The present is `at` = OPEN - 1, behind every entry: the same conditions hold, and only listings take another
index.  Whoever looks while a batch ends sees, call by call, the state before or the state after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from muniment.core.tree_state import FIRST_INODE, Inode, Name, StoredExtent
from muniment.errors import StoreFailed
from muniment.spec.limits import CHUNK_BYTES_MAX
from muniment.spec.operation import SIZE_MAX
from muniment.sqlite_file import SqliteFile
from muniment.views.sqlite_rows import BLOB_COLUMNS, KINDS, extent_of, inode_of
from muniment.views.sqlite_schema import OPEN

NOW: Final = OPEN - 1
_INODE: Final = (
    "SELECT inode, kind, mode, uid, gid, atime_ns, mtime_ns, ctime_ns, size, links, entries, rdev, version,"
    " parent, valid_to FROM inodes WHERE inode = ? AND valid_from <= ? ORDER BY valid_from DESC LIMIT 1"
)
_CHILD: Final = (
    "SELECT inode, kind, valid_to FROM names WHERE parent = ? AND name = ? AND valid_from <= ?"
    " ORDER BY valid_from DESC LIMIT 1"
)
_CHILDREN_NOW: Final = (
    "SELECT name, inode, kind FROM names INDEXED BY names_open"  # noqa: S608 - a constant
    f" WHERE parent = ? AND name > ? AND valid_to = {OPEN} ORDER BY name LIMIT ?"
)
_CHILDREN_THEN: Final = (
    "SELECT name, inode, kind FROM names"
    " WHERE parent = ? AND name > ? AND valid_from <= ? AND valid_to > ? ORDER BY name LIMIT ?"
)
_LISTING: Final = (
    "SELECT i.inode, i.kind, i.mode, i.uid, i.gid, i.atime_ns, i.mtime_ns, i.ctime_ns, i.size, i.links,"
    " i.entries, i.rdev, i.version, i.parent, n.name FROM names n {index} LEFT JOIN inodes i"
    " ON i.inode = n.inode AND i.valid_from ="
    " (SELECT max(valid_from) FROM inodes WHERE inode = n.inode AND valid_from <= :at)"
    " WHERE n.parent = :parent AND n.name > :after AND {valid} ORDER BY n.name LIMIT :limit"
)
_LISTING_NOW: Final = _LISTING.format(index="INDEXED BY names_open", valid=f"n.valid_to = {OPEN}")
_LISTING_THEN: Final = _LISTING.format(index="", valid="n.valid_from <= :at AND n.valid_to > :at")
_EXTENTS: Final = (
    # No two valid extents overlap: of those that begin before the range, the last alone can reach into it.
    "SELECT e.offset, e.length, e.source_offset, i.data, {columns} FROM extents e {index}"
    " LEFT JOIN inlines i ON i.id = e.inline LEFT JOIN blobs b ON b.id = e.blob"
    " WHERE e.inode = :ino AND e.offset < :stop AND e.offset + e.length > :start AND {valid}"
    " AND e.offset >= coalesce((SELECT e.offset FROM extents e {index} WHERE e.inode = :ino"
    " AND e.offset <= :start AND e.offset > :start - {longest} AND {valid}"
    " ORDER BY e.offset DESC LIMIT 1), :start) ORDER BY e.offset"
)
_EXTENTS_NOW: Final = _EXTENTS.format(
    columns=BLOB_COLUMNS,
    index="INDEXED BY extents_open",
    valid=f"e.valid_to = {OPEN}",
    longest=CHUNK_BYTES_MAX,
)
_EXTENTS_THEN: Final = _EXTENTS.format(
    columns=BLOB_COLUMNS,
    index="",
    valid="e.valid_from <= :at AND e.valid_to > :at",
    longest=CHUNK_BYTES_MAX,
)
_XATTRS_NOW: Final = (
    "SELECT name, value FROM xattrs INDEXED BY xattrs_open"  # noqa: S608 - a constant
    f" WHERE inode = ? AND valid_to = {OPEN} ORDER BY name"
)
_XATTRS_THEN: Final = (
    "SELECT name, value FROM xattrs WHERE inode = ? AND valid_from <= ? AND valid_to > ? ORDER BY name"
)
_SNAPSHOT: Final = "SELECT 1 FROM snapshots WHERE name = ? AND idx <= ?"


class SqliteReading:
    """See `TreeReading`.

    Args:
        file: where to look.
        at: an entry that is folded; -1: before all; NOW.
    """

    def __init__(self, file: SqliteFile, at: int) -> None:
        self._file = file
        self._at = at

    @property
    def next_inode(self) -> int:
        if self._at == NOW:
            row = self._file.row("SELECT next_inode FROM meta")
        else:
            row = self._file.row("SELECT next_inode FROM entries WHERE idx = ?", (self._at,))
        return row[0] if row else FIRST_INODE

    def inode(self, ino: int) -> Inode | None:
        row = self._file.row(_INODE, (ino, self._at))
        return None if row is None or row[-1] <= self._at else inode_of(row)

    def child(self, parent: int, name: bytes) -> Name | None:
        row = self._file.row(_CHILD, (parent, name, self._at))
        return None if row is None or row[2] <= self._at else Name(parent, name, row[0], KINDS[row[1]])

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        if self._at == NOW:
            rows = self._file.rows(_CHILDREN_NOW, (parent, after, limit))
        else:
            rows = self._file.rows(_CHILDREN_THEN, (parent, after, self._at, self._at, limit))
        return [Name(parent, name, inode, KINDS[kind]) for name, inode, kind in rows]

    def listing(self, parent: int, after: bytes, limit: int) -> Sequence[tuple[bytes, Inode]]:
        values = {"parent": parent, "after": after, "limit": limit, "at": self._at}
        rows = self._file.rows(_LISTING_NOW if self._at == NOW else _LISTING_THEN, values)
        if any(row[0] is None for row in rows):
            raise StoreFailed(where="the view", reason="a name leads to nothing; remove it to fold anew")
        return [(row[14], inode_of(row)) for row in rows]

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        values = {"ino": ino, "start": start, "stop": min(stop, SIZE_MAX), "at": self._at}
        rows = self._file.rows(_EXTENTS_NOW if self._at == NOW else _EXTENTS_THEN, values)
        return [extent_of(row) for row in rows]

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        if self._at == NOW:
            return dict(self._file.rows(_XATTRS_NOW, (ino,)))
        return dict(self._file.rows(_XATTRS_THEN, (ino, self._at, self._at)))

    def has_snapshot(self, name: bytes) -> bool:
        return self._file.row(_SNAPSHOT, (name, self._at)) is not None
