"""All that a view's file holds, as it stands there: what an audit compares with the fold of the log.

Reads only, and shares nothing with `sqlite_batch`, which writes.  A damaged file may have values of any type
in any column: what cannot be read as a row is handed out as one that equals no other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from muniment.core.history import EntryMeta, FoldedEntry
from muniment.core.state_hash import row_of_extent, row_of_inode, row_of_name
from muniment.core.tree_state import Name, Rejection
from muniment.errors import MalformedRecord, StoreFailed
from muniment.ids import EntryHash, MemberId
from muniment.ports import RowVersion, ViewEntry
from muniment.spec.view_row import snapshot_row, xattr_row
from muniment.sqlite_file import SqliteFile
from muniment.views.sqlite_rows import BLOB_COLUMNS, KINDS, Row, extent_of, inode_of
from muniment.views.sqlite_schema import OPEN

_PAGE: Final = 2000
_TOUCHED: Final = msgspec.msgpack.Decoder(tuple[list[int], list[tuple[int, bytes]]])
_UNREADABLE: Final = (
    TypeError,
    ValueError,
    IndexError,
    OverflowError,
    AttributeError,
    struct.error,
    MalformedRecord,
)
"""What decoding a row of wrong types or values raises."""


def inspect(file: SqliteFile) -> Sequence[str]:
    """What SQLite's own check finds, and whether the tables are those of a view."""
    found = file.inspect()
    if [type(value) for row in file.rows("SELECT * FROM meta") for value in row] != [int, bytes, int]:
        found.append("the row for the state as a whole is not one")
    return found


def row_versions(file: SqliteFile) -> Iterator[RowVersion]:
    """See the port `AuditedView`.  Cost: O(rows), some 5 us each."""
    columns = (
        "inode, kind, mode, uid, gid, atime_ns, mtime_ns, ctime_ns, size, links, entries, rdev, version,"
        " parent, valid_from, valid_to"
    )
    yield from _versions(
        _pages(file, f"SELECT {columns} FROM inodes WHERE (inode, valid_from) > (?, ?)"  # noqa: S608
                     " ORDER BY inode, valid_from LIMIT ?", (0, 14), (0, -2)),
        lambda row: row_of_inode(inode_of(row)),
    )  # fmt: skip
    yield from _versions(
        _pages(file, "SELECT parent, name, inode, kind, valid_from, valid_to FROM names"
                     " WHERE (parent, name, valid_from) > (?, ?, ?)"
                     " ORDER BY parent, name, valid_from LIMIT ?", (0, 1, 4), (0, b"", -2)),
        lambda row: row_of_name(Name(row[0], row[1], row[2], KINDS[row[3]])),
    )  # fmt: skip
    extents = (
        f"SELECT e.inode, e.offset, e.length, e.source_offset, i.data, {BLOB_COLUMNS},"  # noqa: S608
        " e.valid_from, e.valid_to FROM extents e LEFT JOIN inlines i ON i.id = e.inline"
        " LEFT JOIN blobs b ON b.id = e.blob WHERE (e.inode, e.offset, e.valid_from) > (?, ?, ?)"
        " ORDER BY e.inode, e.offset, e.valid_from LIMIT ?"
    )
    yield from _versions(
        _pages(file, extents, (0, 1, 13), (0, -1, -2)),
        lambda row: row_of_extent(row[0], extent_of(row[1:-2])),
    )
    yield from _versions(
        _pages(file, "SELECT inode, name, value, valid_from, valid_to FROM xattrs"
                     " WHERE (inode, name, valid_from) > (?, ?, ?)"
                     " ORDER BY inode, name, valid_from LIMIT ?", (0, 1, 3), (0, b"", -2)),
        lambda row: xattr_row(*row[:3]),
    )  # fmt: skip
    for name, index in file.rows("SELECT name, idx FROM snapshots"):
        yield _version((name, index, index, OPEN), lambda row: snapshot_row(row[0], row[1]))


def entry_rows(file: SqliteFile, start: int, stop: int) -> Sequence[ViewEntry]:
    """See the port `AuditedView`."""
    rows = file.rows(
        "SELECT idx, hash, author, time_ns, epoch, message, outcome, code, operation, reason, reached_ns,"
        " next_inode, touched FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx",
        (start, stop),
    )
    try:
        return [_entry(row) for row in rows]
    except _UNREADABLE as error:
        raise StoreFailed(where="the view", reason=f"what stands among entries is none: {error}") from error


def _pages(file: SqliteFile, sql: str, key: tuple[int, ...], after: tuple[object, ...]) -> Iterator[Row]:
    """All rows of a table, by pages: `key` says which columns the next page begins behind."""
    last: tuple[object, ...] | None = after
    while last is not None:
        rows = file.rows(sql, (*last, _PAGE))
        yield from rows
        last = tuple(rows[-1][at] for at in key) if len(rows) == _PAGE else None


def _versions(rows: Iterator[Row], encoded: Callable[[Row], bytes]) -> Iterator[RowVersion]:
    return (_version(row, encoded) for row in rows)


def _version(row: Row, encoded: Callable[[Row], bytes]) -> RowVersion:
    since, until = row[-2:]
    if type(since) is not int or type(until) is not int:
        return RowVersion(b"", 0, None)
    try:
        found = encoded(row)
    except _UNREADABLE:
        found = b""
    return RowVersion(found, since, None if until == OPEN else until)


def _entry(row: Row) -> ViewEntry:
    index, entry_hash, author, time_ns, epoch, message, outcome, code, operation, reason = row[:10]
    reached_ns, next_inode, touched = row[10:]
    rejection = Rejection(code, None if operation == -1 else operation, reason) if outcome == 2 else None
    if outcome not in (0, 1, 2) or (rejection is None and (code, operation, reason) != ("", -1, "")):
        raise MalformedRecord(format="entry of a view", reason=f"outcome {outcome}")
    inodes, names = _TOUCHED.decode(touched) if touched else ([], [])
    meta = EntryMeta(EntryHash(entry_hash), MemberId(author), time_ns, epoch, message)
    folded = FoldedEntry(index, meta, outcome == 1, rejection)
    return ViewEntry(folded, reached_ns, next_inode, tuple(inodes), tuple(names))
