"""A view in a SQLite file: the temporal tables of `sqlite_schema`, written in batches.

In WAL mode, on two connections: a batch holds the writing one, readers share the other and never wait for a
batch.  A batch is one SQLite transaction, and not flushed: whoever folds has the entries on disk already.
After a crash whole batches are there, of which power loss may take the last ones, and folding goes on at
`size`.  Several processes may have the file open: what a batch continues is read when it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from muniment.core.history import Difference, EntryMeta, FileVersion, FoldedEntry, difference
from muniment.core.state_hash import StateHash
from muniment.core.tree_state import Inode, Rejection, TreeReading
from muniment.errors import HistoryMissing
from muniment.ids import EntryHash, MemberId
from muniment.ports import RowVersion, ViewBatch, ViewEntry
from muniment.spec.blob import BlobRef
from muniment.spec.operation import ROOT
from muniment.sqlite_file import SqliteFile
from muniment.views.recording import check_at, check_between
from muniment.views.sqlite_batch import SqliteBatch
from muniment.views.sqlite_begin import begin, state_rows
from muniment.views.sqlite_content import entry_rows, inspect, row_versions
from muniment.views.sqlite_file import VIEW, let_only_owner
from muniment.views.sqlite_reading import NOW, SqliteReading
from muniment.views.sqlite_rows import BLOB_COLUMNS, Row, blob_of

_PAGE: Final = 1000
_TOUCHED: Final = msgspec.msgpack.Decoder(tuple[list[int], list[tuple[int, bytes]]])


class SqliteView:
    """See the port `VolumeView`.

    Args:
        path: the file; made if missing, mode 0600, since the keys of blobs are in it.
        rows_kept: rows that a batch keeps in memory before they are written; 20,000 are some 10 MB.

    Raises:
        UnknownVersion: another version of this program wrote it.
        FileFailed: it cannot be made.
        StoreFailed: it is not a view, or is damaged; without it the log is folded anew.
    """

    def __init__(self, path: Path, *, rows_kept: int = 20_000) -> None:
        self._rows_kept = rows_kept
        let_only_owner(path)
        self._writer = SqliteFile(path, VIEW)
        try:
            self._reader = SqliteFile(path, VIEW)
        except BaseException:
            self._writer.close()
            raise

    @property
    def size(self) -> int:
        row = self._reader.row("SELECT size FROM meta")
        return row[0] if row else 0

    @property
    def start(self) -> int:
        # The root is in every state, so its first version tells with which one the view began.
        row = self._reader.row(f"SELECT min(valid_from) FROM inodes WHERE inode = {ROOT}")  # noqa: S608
        return row[0] + 1 if row and type(row[0]) is int else 0

    def state_hash(self) -> StateHash:
        row = self._reader.row("SELECT lanes FROM meta")
        return StateHash(row[0] if row else b"")

    @contextmanager
    def batch(self) -> Iterator[ViewBatch]:
        with self._writer.transaction():
            batch = SqliteBatch(self._writer, self._rows_kept)
            yield batch
            batch.finish()

    def state_rows(self) -> Iterator[bytes]:
        return state_rows(self._reader)

    def begin(self, size: int, time_ns: int, rows: Iterator[bytes], digest: bytes) -> None:
        self._writer.run("PRAGMA synchronous = FULL")  # there are no entries to fold it again from
        try:
            with self._writer.transaction():
                begin(self._writer, size, time_ns, rows, digest)
        finally:
            self._writer.run("PRAGMA synchronous = NORMAL")

    def reading(self, at: int | None = None) -> TreeReading:
        if at is None:
            return SqliteReading(self._reader, NOW)
        check_at(at, self.size, self.start)
        return SqliteReading(self._reader, at)

    def lookup(self, parts: Sequence[bytes], at: int | None = None) -> Inode | None:
        reading, ino = self.reading(self.size - 1 if at is None else at), ROOT  # one state for all parts
        with self._reader.lock:
            for part in parts:
                child = reading.child(ino, part)
                if child is None:
                    return None
                ino = child.inode
            return reading.inode(ino)

    def snapshots(self) -> Sequence[tuple[bytes, int]]:
        return [
            (name, at) for name, at in self._reader.rows("SELECT name, idx - 1 FROM snapshots ORDER BY name")
        ]

    def blobs(self, at: int | None = None) -> Iterator[BlobRef]:
        if at is None:
            return self._all_blobs()
        check_at(at, self.size, self.start)
        return self._blobs_at(at)

    def _all_blobs(self) -> Iterator[BlobRef]:
        sql = f"SELECT id, {BLOB_COLUMNS} FROM blobs b WHERE id > ? ORDER BY id LIMIT {_PAGE}"  # noqa: S608
        last = 0
        while rows := self._reader.rows(sql, (last,)):
            yield from (blob_of(row[1:]) for row in rows)
            last = rows[-1][0]

    def _blobs_at(self, at: int) -> Iterator[BlobRef]:
        sql = "SELECT DISTINCT blob FROM extents WHERE blob > 0 AND valid_from <= ? AND valid_to > ?"
        ids = [row[0] for row in self._reader.rows(sql, (at, at))]
        for identifier in ids:
            sql = f"SELECT {BLOB_COLUMNS} FROM blobs b WHERE id = ?"  # noqa: S608 - constants
            row = self._reader.row(sql, (identifier,))
            if row is not None:
                yield blob_of(row)

    def close(self) -> None:
        """End both connections; what is recorded stays."""
        self._reader.close()
        self._writer.close()

    # --- audit --------------------------------------------------------------------------------

    def inspect(self) -> Sequence[str]:
        return inspect(self._reader)

    def row_versions(self) -> Iterator[RowVersion]:
        return row_versions(self._reader)

    def entry_rows(self, start: int, stop: int) -> Sequence[ViewEntry]:
        return entry_rows(self._reader, max(start, self.start), stop)

    # --- history ------------------------------------------------------------------------------

    def index_at(self, time_ns: int) -> int:
        start = self.start
        low, high = start - 1, self.size
        if start:
            row = self._reader.row("SELECT reached_ns FROM entries WHERE idx = ?", (low,))
            if row is not None and row[0] > time_ns:
                raise HistoryMissing(start=start)
        while high - low > 1:
            middle = (low + high) // 2
            row = self._reader.row("SELECT reached_ns FROM entries WHERE idx = ?", (middle,))
            if row is not None and row[0] <= time_ns:
                low = middle
            else:
                high = middle
        return low

    def entries(self, start: int, stop: int) -> Sequence[FoldedEntry]:
        rows = self._reader.rows(
            "SELECT idx, hash, author, time_ns, epoch, message, outcome, code, operation, reason FROM entries"
            " WHERE idx >= ? AND idx < ? ORDER BY idx",
            (max(start, self.start), stop),
        )
        return [_entry(row) for row in rows]

    def history(self, ino: int) -> Sequence[FileVersion]:
        rows = self._reader.rows(
            "SELECT i.valid_from, i.size, e.author, e.time_ns FROM inodes i JOIN entries e"
            " ON e.idx = i.valid_from WHERE i.inode = ? AND i.version = i.valid_from AND i.valid_from >= ?"
            " ORDER BY i.valid_from",
            (ino, self.start),
        )
        return [FileVersion(index, size, MemberId(author), time_ns) for index, size, author, time_ns in rows]

    def changed_between(self, before: int, after: int) -> Difference:
        check_between(before, after)
        old, new = self.reading(before), self.reading(after)
        inos: set[int] = set()
        names: set[tuple[int, bytes]] = set()
        for start in range(before + 1, after + 1, _PAGE):
            rows = self._reader.rows(
                "SELECT touched FROM entries WHERE idx >= ? AND idx < ? AND outcome = 1",
                (start, min(start + _PAGE, after + 1)),
            )
            for (touched,) in rows:
                some_inos, some_names = _TOUCHED.decode(touched)
                inos.update(some_inos)
                names.update(some_names)
        return difference(old, new, inos, names)


def _entry(row: Row) -> FoldedEntry:
    index, entry_hash, author, time_ns, epoch, message, outcome, code, operation, reason = row
    rejection = Rejection(code, None if operation < 0 else operation, reason) if outcome == 2 else None
    meta = EntryMeta(EntryHash(entry_hash), MemberId(author), time_ns, epoch, message)
    return FoldedEntry(index, meta, outcome == 1, rejection)
