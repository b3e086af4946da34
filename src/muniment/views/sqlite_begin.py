"""A view's newest state as rows, and a new view made of such rows (docs/spec/view_snapshot.md).

A view that begins with the state after `size` entries has them all valid from the entry `size` - 1 on, and of
that entry a row that says no more than the counter and the latest time: earlier states are not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from muniment.core.state_hash import EMPTY, row_of_extent, row_of_inode, row_of_name
from muniment.core.state_rows import (
    CounterRow,
    ExtentRow,
    SnapshotRow,
    StateRow,
    XattrRow,
    opened_rows,
)
from muniment.core.tree_state import Inode, Name
from muniment.errors import InternalError, MalformedRecord
from muniment.ids import ID_BYTES
from muniment.spec.blob import BlobRef
from muniment.spec.view_row import next_inode_row, snapshot_row, xattr_row
from muniment.sqlite_file import SqliteFile
from muniment.views.sqlite_rows import (
    BLOB_COLUMNS,
    INSERT_INODE,
    KINDS,
    Row,
    blob_columns,
    extent_of,
    inode_columns,
    inode_of,
)
from muniment.views.sqlite_schema import OPEN

_PAGE: Final = 2000
_INODES: Final = (
    "SELECT inode, kind, mode, uid, gid, atime_ns, mtime_ns, ctime_ns, size, links, entries, rdev, version,"  # noqa: S608
    f" parent FROM inodes WHERE inode > ? AND valid_to = {OPEN} ORDER BY inode LIMIT {_PAGE}"
)
_NAMES: Final = (
    "SELECT parent, name, inode, kind FROM names INDEXED BY names_open"  # noqa: S608
    f" WHERE (parent, name) > (?, ?) AND valid_to = {OPEN} ORDER BY parent, name LIMIT {_PAGE}"
)
_EXTENTS: Final = (
    f"SELECT e.inode, e.offset, e.length, e.source_offset, i.data, {BLOB_COLUMNS}"  # noqa: S608
    " FROM extents e INDEXED BY extents_open"
    " LEFT JOIN inlines i ON i.id = e.inline LEFT JOIN blobs b ON b.id = e.blob"
    f" WHERE (e.inode, e.offset) > (?, ?) AND e.valid_to = {OPEN} ORDER BY e.inode, e.offset LIMIT {_PAGE}"
)
_XATTRS: Final = (
    "SELECT inode, name, value FROM xattrs INDEXED BY xattrs_open"  # noqa: S608
    f" WHERE (inode, name) > (?, ?) AND valid_to = {OPEN} ORDER BY inode, name LIMIT {_PAGE}"
)
_INSERT_BLOB: Final = "INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BLOB_IDS_MAX: Final = 100_000
_FIND_BLOB: Final = (
    "SELECT id FROM blobs WHERE blob = ? AND codec = ? AND k = ? AND n = ? AND length = ? AND key = ?"
    " AND plain_bytes = ? AND compression = ?"
)


def state_rows(file: SqliteFile) -> Iterator[bytes]:
    """See the port `ViewStart`.  Cost: O(rows), and of inodes all versions are passed."""
    yield from (row_of_inode(inode_of(row)) for row in _pages(file, _INODES, (0,)))
    for row in _pages(file, _NAMES, (0, b"")):
        yield row_of_name(Name(row[0], row[1], row[2], KINDS[row[3]]))
    yield from (row_of_extent(row[0], extent_of(row[1:])) for row in _pages(file, _EXTENTS, (0, -1)))
    yield from (xattr_row(*row) for row in _pages(file, _XATTRS, (0, b"")))
    yield from (snapshot_row(*row) for row in file.rows("SELECT name, idx FROM snapshots ORDER BY name"))
    yield from (next_inode_row(row[0]) for row in file.rows("SELECT next_inode FROM meta"))


def _pages(file: SqliteFile, sql: str, key: tuple[object, ...]) -> Iterator[Row]:
    """All rows of a query that is told behind which key it goes on: the first columns."""
    while rows := file.rows(sql, key):
        yield from rows
        key = tuple(rows[-1][: len(key)])


def begin(file: SqliteFile, size: int, time_ns: int, rows: Iterator[bytes], digest: bytes) -> None:
    """See the port `ViewStart`; within a transaction, which an error undoes."""
    if (file.row("SELECT size FROM meta") or (0,))[0]:
        raise InternalError(reason="a view that has entries cannot begin with a snapshot")
    file.run("DELETE FROM inodes")  # the root as it is before all entries
    writer, total = _Writer(file, size - 1), EMPTY
    opened = opened_rows(rows, size)
    while some := list(islice(opened, _PAGE)):
        total = total.changed((), (row for row, _ in some))
        writer.write([row for _, row in some])
    if total.digest() != digest:
        raise MalformedRecord(format="view snapshot", reason="its state is not the one that was signed")
    file.run(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, 0, '', 0, '', -1, '', ?, ?)",
        (size - 1, bytes(ID_BYTES), bytes(ID_BYTES), time_ns, time_ns, writer.next_inode, b""),
    )
    values = (size, total.lanes, writer.next_inode)
    file.run("UPDATE meta SET size = ?, lanes = ?, next_inode = ?", values)


class _Writer:
    """Rows on their way into the tables, all valid from one entry on."""

    def __init__(self, file: SqliteFile, since: int) -> None:
        self._file = file
        self._valid = (since, OPEN)
        self._blob_ids: dict[BlobRef, int] = {}
        self._last_blob = self._last_inline = 0
        self.next_inode = 0

    def write(self, rows: list[StateRow]) -> None:
        tables: dict[str, list[Row]] = {}
        columns: Row
        for row in rows:
            match row:
                case Inode():
                    insert, columns = INSERT_INODE, (*inode_columns(row), *self._valid)
                case Name():
                    insert = "INSERT INTO names VALUES (?, ?, ?, ?, ?, ?)"
                    columns = (row.parent, row.name, row.inode, int(row.kind), *self._valid)
                case ExtentRow():
                    insert = "INSERT INTO extents VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                    columns = self._extent(row, tables)
                case XattrRow():
                    insert = "INSERT INTO xattrs VALUES (?, ?, ?, ?, ?)"
                    columns = (row.inode, row.name, row.value, *self._valid)
                case SnapshotRow():
                    insert, columns = "INSERT INTO snapshots VALUES (?, ?)", (row.name, row.index)
                case CounterRow():
                    self.next_inode = row.next_inode
                    continue
            tables.setdefault(insert, []).append(columns)
        for insert, values in tables.items():
            self._file.run_many(insert, values)

    def _extent(self, row: ExtentRow, tables: dict[str, list[Row]]) -> Row:
        one, blob, inline = row.extent, 0, 0
        if isinstance(one.source, bytes):
            inline = self._last_inline = self._last_inline + 1
            tables.setdefault("INSERT INTO inlines VALUES (?, ?)", []).append((inline, one.source))
        else:
            blob = self._blob(one.source, tables)
        return (row.inode, one.offset, one.length, blob, inline, one.source_offset, *self._valid)

    def _blob(self, ref: BlobRef, tables: dict[str, list[Row]]) -> int:
        found = self._blob_ids.get(ref)
        if found is None:
            columns = blob_columns(ref)
            if self._last_blob > len(self._blob_ids):  # some ids were forgotten
                row = self._file.row(_FIND_BLOB, columns)
                found = None if row is None else int(row[0])
            if found is None:
                found = self._last_blob = self._last_blob + 1
                tables.setdefault(_INSERT_BLOB, []).append((found, *columns))
            if len(self._blob_ids) >= _BLOB_IDS_MAX:
                self._blob_ids.clear()
                self._file.run_many(_INSERT_BLOB, tables.pop(_INSERT_BLOB, []))
            self._blob_ids[ref] = found
        return found
