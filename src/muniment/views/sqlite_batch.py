"""A batch of entries on its way into the view's tables.

Rows that the batch brings are kept in memory, with what they replace, and written when many have come
together, when a listing needs them, and at the end: a folder that a thousand entries change is then written a
thousand times by one statement, and hashed once.  Everything is in one SQLite transaction, so until the end
nobody else sees any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from muniment.core.history import EntryMeta, touched_by
from muniment.core.state_hash import StateHash, row_of_extent, row_of_inode, row_of_name
from muniment.core.tree_state import Changes, Inode, Name, Rejection, StoredExtent
from muniment.spec.blob import BlobRef
from muniment.spec.view_row import next_inode_row, snapshot_row, xattr_row
from muniment.sqlite_file import SqliteFile
from muniment.views.recording import check_next
from muniment.views.sqlite_reading import NOW, SqliteReading
from muniment.views.sqlite_rows import INSERT_INODE, Row, blob_columns, inode_columns
from muniment.views.sqlite_schema import OPEN

_K = TypeVar("_K", bound=Hashable)
_R = TypeVar("_R")

_PIECES_MAX: Final = 64
"""Extents of one file kept in memory before they are written: every look at that file goes over them."""

_NAMES_FOR_A_LOOK: Final = 8
"""Names that are read together in the time of one look-up.  Most look-ups find that a new name is free: in a
folder that was asked about for an eighth of its names, all are read, and it is asked no more."""

_BLOB_IDS_MAX: Final = 4096
"""Ids of blobs known without asking the table: entries that follow each other share packs."""


class _Rows(Generic[_K, _R]):
    """What the batch did to one table and has not written yet.

    Args:
        insert: statement for the columns of a row, valid_from and valid_to.
        close: statement for valid_to and the key of an open row.
        columns: of a row.

    Attributes:
        open: by key, rows to be written that are open, or None: the row is gone; with valid_from.
        net: by key, the row before and after everything since the state hash was last computed.
    """

    def __init__(self, insert: str, close: str, columns: Callable[[_K, _R], Row]) -> None:
        self._insert = insert
        self._close = close
        self._columns = columns
        self.open: dict[_K, tuple[_R | None, int]] = {}
        self.net: dict[_K, tuple[_R | None, _R | None]] = {}
        self._passed: list[Row] = []  # rows that came and went within the batch
        self._closed: list[Row] = []

    def change(self, key: _K, before: _R | None, after: _R | None, index: int) -> None:
        """From the entry `index` on it is `after` instead of `before`."""
        held = self.open.get(key)
        if held is not None and held[0] is not None:
            self._passed.append((*self._columns(key, held[0]), held[1], index))
        elif before is not None:
            self._closed.append((index, *key) if isinstance(key, tuple) else (index, key))
        self.open[key] = after, index
        net = self.net.get(key)
        self.net[key] = (before if net is None else net[0]), after

    def write(self, file: SqliteFile) -> None:
        """Write everything; the transaction stays open."""
        if not self.open:  # nothing else changes without it
            return
        file.run_many(self._close, self._closed)
        file.run_many(self._insert, self._passed)
        opened = (
            (*self._columns(key, row), since, OPEN)
            for key, (row, since) in self.open.items()
            if row is not None
        )
        file.run_many(self._insert, opened)
        self.open.clear()
        self._passed.clear()
        self._closed.clear()


_CLOSE_INODE: Final = (
    "UPDATE inodes SET valid_to = ?1 WHERE inode = ?2"
    " AND valid_from = (SELECT max(valid_from) FROM inodes WHERE inode = ?2)"
)
_INSERT_NAME: Final = "INSERT INTO names VALUES (?, ?, ?, ?, ?, ?)"
_CLOSE_NAME: Final = (
    "UPDATE names SET valid_to = ?1 WHERE parent = ?2 AND name = ?3"
    " AND valid_from = (SELECT max(valid_from) FROM names WHERE parent = ?2 AND name = ?3)"
)
_INSERT_EXTENT: Final = "INSERT INTO extents VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_CLOSE_EXTENT: Final = (
    "UPDATE extents SET valid_to = ?1 WHERE inode = ?2 AND offset = ?3"
    " AND valid_from = (SELECT max(valid_from) FROM extents WHERE inode = ?2 AND offset = ?3)"
)
_INSERT_XATTR: Final = "INSERT INTO xattrs VALUES (?, ?, ?, ?, ?)"
_CLOSE_XATTR: Final = (
    "UPDATE xattrs SET valid_to = ?1 WHERE inode = ?2 AND name = ?3"
    " AND valid_from = (SELECT max(valid_from) FROM xattrs WHERE inode = ?2 AND name = ?3)"
)
_INSERT_ENTRY: Final = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND_BLOB: Final = (
    "SELECT id FROM blobs WHERE blob = ? AND codec = ? AND k = ? AND n = ? AND length = ? AND key = ?"
    " AND plain_bytes = ? AND compression = ?"
)


class SqliteBatch:
    """See `ViewBatch`.

    Args:
        file: with a transaction begun.
        rows_kept: rows in memory before they are written.
    """

    def __init__(self, file: SqliteFile, rows_kept: int) -> None:
        self._file = file
        self._rows_kept = rows_kept
        self._rows = 0  # changed since rows were last written: no fewer than are kept
        meta = file.row("SELECT size, lanes, next_inode FROM meta") or (0, b"", 0)
        self._begun = self.size = int(meta[0])
        self._hash = StateHash(meta[1])
        self.next_inode = self._hashed_inode = int(meta[2])
        last = file.row("SELECT reached_ns FROM entries WHERE idx = ?", (self.size - 1,))
        self._reached_ns: int | None = last[0] if last else None
        self._blob_ids: dict[BlobRef, int] = {}
        self._blobs: list[Row] = []
        self._inlines: list[Row] = []
        self._last_blob = _last_id(file, "blobs")
        self._last_inline = _last_id(file, "inlines")
        self._entries: list[Row] = []
        self._snapshots: dict[bytes, int] = {}
        self._hashed_rows: list[bytes] = []  # of snapshots, to be added to the state hash
        self._pieces: dict[int, dict[int, StoredExtent | None]] = {}
        self._folders: set[int] = set()  # with names in memory
        self._marked: set[int] = set()  # inodes with attributes in memory
        self.inodes: Final = _Rows[int, Inode](INSERT_INODE, _CLOSE_INODE, lambda _, row: inode_columns(row))
        self.names: Final = _Rows[tuple[int, bytes], Name](
            _INSERT_NAME, _CLOSE_NAME, lambda key, row: (*key, row.inode, int(row.kind))
        )
        self._extents: Final = _Rows[tuple[int, int], StoredExtent](
            _INSERT_EXTENT, _CLOSE_EXTENT, self._extent_columns
        )
        self._xattrs: Final = _Rows[tuple[int, bytes], bytes](
            _INSERT_XATTR, _CLOSE_XATTR, lambda key, value: (*key, value)
        )
        self.state = _BatchReading(file, self)

    def record(self, index: int, meta: EntryMeta, outcome: Changes | Rejection | None) -> None:
        check_next(index, self.size, outcome, self.next_inode)
        touched, told = b"", (0, "", -1, "")
        if isinstance(outcome, Changes):
            self._apply(outcome)
            touched, told = msgspec.msgpack.encode(touched_by(outcome)), (1, "", -1, "")
        elif outcome is not None:
            operation = -1 if outcome.operation is None else outcome.operation
            told = (2, str(outcome.code), operation, outcome.reason)
        reached = self._reached_ns
        self._reached_ns = meta.time_ns if reached is None else max(reached, meta.time_ns)
        row = (index, meta.hash, meta.author, meta.time_ns, self._reached_ns, meta.epoch, meta.message)
        self._entries.append((*row, *told, self.next_inode, touched))
        self.size += 1
        if self._rows > self._rows_kept:
            self.write()
            self._hash_net()

    def finish(self) -> None:
        """Write all that is in memory, with the hash; the transaction stays open."""
        if self.size == self._begun:
            return
        self.write()
        self._hash_net()
        values = (self.size, self._hash.lanes, self.next_inode)
        self._file.run("UPDATE meta SET size = ?, lanes = ?, next_inode = ?", values)

    def write(self) -> None:
        """Write the rows that are in memory, so that queries find them."""
        self.inodes.write(self._file)
        self.names.write(self._file)
        self._extents.write(self._file)
        self._xattrs.write(self._file)
        self._write_blobs()
        self._file.run_many("INSERT INTO inlines VALUES (?, ?)", self._inlines)
        self._file.run_many("INSERT INTO snapshots VALUES (?, ?)", self._snapshots.items())
        self._file.run_many(_INSERT_ENTRY, self._entries)
        for kept in (self._inlines, self._snapshots, self._entries, self._pieces):
            kept.clear()
        self._folders.clear()
        self._marked.clear()
        self.state.forget()
        self._rows = 0

    # --- changes ------------------------------------------------------------------------------

    def _apply(self, changes: Changes) -> None:
        index = changes.index
        self._rows += len(changes.inodes) + len(changes.names) + len(changes.extents) + len(changes.xattrs)
        for inode in changes.inodes:
            if row := inode.before or inode.after:
                self.inodes.change(row.inode, inode.before, inode.after, index)
        for name in changes.names:
            if leads := name.before or name.after:
                self.names.change((leads.parent, leads.name), name.before, name.after, index)
                self._folders.add(leads.parent)
        for extent in changes.extents:
            if piece := extent.before or extent.after:
                self._extents.change((extent.inode, piece.offset), extent.before, extent.after, index)
                self._pieces.setdefault(extent.inode, {})[piece.offset] = extent.after
        for xattr in changes.xattrs:
            self._xattrs.change((xattr.inode, xattr.name), xattr.before, xattr.after, index)
            self._marked.add(xattr.inode)
        for snapshot in changes.snapshots:
            self._snapshots[snapshot] = index
            self._hashed_rows.append(snapshot_row(snapshot, index))
        self.next_inode = changes.next_inode

    def _extent_columns(self, key: tuple[int, int], row: StoredExtent) -> Row:
        if isinstance(row.source, bytes):
            self._last_inline += 1
            self._inlines.append((self._last_inline, row.source))
            return (*key, row.length, 0, self._last_inline, 0)
        return (*key, row.length, self._blob_id(row.source), 0, row.source_offset)

    def _blob_id(self, ref: BlobRef) -> int:
        found = self._blob_ids.get(ref)
        if found is None:
            columns = blob_columns(ref)
            row = self._file.row(_FIND_BLOB, columns)
            if row is None:
                self._last_blob += 1
                self._blobs.append((self._last_blob, *columns))
            if len(self._blob_ids) >= _BLOB_IDS_MAX:
                self._write_blobs()  # what is forgotten must be found there
                self._blob_ids.clear()
            found = self._blob_ids[ref] = self._last_blob if row is None else int(row[0])
        return found

    def _write_blobs(self) -> None:
        self._file.run_many("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._blobs)
        self._blobs.clear()

    # --- hash ---------------------------------------------------------------------------------

    def _hash_net(self) -> None:
        """Bring the state hash up to date: rows that came and went since the last time cost nothing."""
        rows = self._net_rows(0), self._net_rows(1)
        self._hash = self._hash.changed(*rows)
        for table in (self.inodes, self.names, self._extents, self._xattrs):
            table.net.clear()
        self._hashed_rows.clear()
        self._hashed_inode = self.next_inode

    def _net_rows(self, side: int) -> Iterator[bytes]:
        yield from (row_of_inode(row) for pair in self.inodes.net.values() if (row := pair[side]))
        yield from (row_of_name(name) for names in self.names.net.values() if (name := names[side]))
        for key, pieces in self._extents.net.items():
            if piece := pieces[side]:
                yield row_of_extent(key[0], piece)
        for (inode, attribute), values in self._xattrs.net.items():
            if (value := values[side]) is not None:
                yield xattr_row(inode, attribute, value)
        if side == 1:
            yield from self._hashed_rows
        yield next_inode_row(self.next_inode if side == 1 else self._hashed_inode)

    # --- what is in memory --------------------------------------------------------------------

    def pieces(self, ino: int) -> Mapping[int, StoredExtent | None]:
        """Of a file, the extents in memory by offset; None: the one in the table is gone."""
        found = self._pieces.get(ino, {})
        if len(found) > _PIECES_MAX:
            self.write()
            return {}
        return found

    def has_snapshot(self, name: bytes) -> bool:
        """Whether the name is given in memory."""
        return name in self._snapshots

    def write_names(self, parent: int) -> None:
        """Let queries find all names in a folder."""
        if parent in self._folders:
            self.write()

    def write_xattrs(self, ino: int) -> None:
        """Let queries find all attributes of an inode."""
        if ino in self._marked:
            self.write()


class _BatchReading:
    """The present with what the batch has in memory."""

    def __init__(self, file: SqliteFile, batch: SqliteBatch) -> None:
        self._written = SqliteReading(file, NOW)
        self._batch = batch
        self._known_names: dict[int, frozenset[bytes]] = {}  # in the table, of folders that many ask about
        self._looks: dict[int, int] = {}

    @property
    def next_inode(self) -> int:
        return self._batch.next_inode

    def inode(self, ino: int) -> Inode | None:
        held = self._batch.inodes.open.get(ino)
        return self._written.inode(ino) if held is None else held[0]

    def child(self, parent: int, name: bytes) -> Name | None:
        held = self._batch.names.open.get((parent, name))
        if held is not None:
            return held[0]
        known = self._known_names.get(parent)
        if known is None and self._looks_left(parent) == 0:
            names = self._written.children(parent, b"", 1 << 62)
            known = self._known_names[parent] = frozenset(one.name for one in names)
        return None if known is not None and name not in known else self._written.child(parent, name)

    def _looks_left(self, parent: int) -> int:
        """Names in a folder that are worth a look each, before all of them are read at once."""
        left = self._looks.get(parent)
        if left is None:
            folder = self._written.inode(parent)
            left = 0 if folder is None else folder.entries // _NAMES_FOR_A_LOOK
        self._looks[parent] = max(0, left - 1)
        return left

    def forget(self) -> None:
        """What was read of the tables is not what they have any more."""
        self._known_names.clear()
        self._looks.clear()

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        self._batch.write_names(parent)
        return self._written.children(parent, after, limit)

    def listing(self, parent: int, after: bytes, limit: int) -> Sequence[tuple[bytes, Inode]]:
        found = [(one.name, self.inode(one.inode)) for one in self.children(parent, after, limit)]
        return [(name, inode) for name, inode in found if inode is not None]

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        pieces = self._batch.pieces(ino)
        written = self._written.extents(ino, start, stop)
        if not pieces:
            return written
        rows = [row for row in written if row.offset not in pieces]
        rows += [row for row in pieces.values() if row and row.offset < stop and row.stop > start]
        return sorted(rows, key=lambda row: row.offset)

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        self._batch.write_xattrs(ino)
        return self._written.xattrs(ino)

    def has_snapshot(self, name: bytes) -> bool:
        return self._batch.has_snapshot(name) or self._written.has_snapshot(name)


def _last_id(file: SqliteFile, table: str) -> int:
    row = file.row(f"SELECT max(id) FROM {table}")  # noqa: S608 - a constant
    return int(row[0]) if row and row[0] is not None else 0
