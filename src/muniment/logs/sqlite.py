"""`LogStore` in one SQLite file (docs/drivers/log-sqlite.md).

WAL with synchronous=FULL: what `append` returned for survives power loss.  One connection appends under a
lock, another reads, so that readers never wait for a flush.  The file holds ciphertext, signatures and
membership acts; nothing in it is secret from members, and it is for the owner only all the same.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from muniment.durable_file import flush
from muniment.errors import InternalError, StoreFailed
from muniment.ids import EntryHash
from muniment.merkle.log_tree import Subtree
from muniment.ports import LoggedEntry
from muniment.private_file import make_private
from muniment.sqlite_file import FileKind, SqliteFile

_BEGUN_LATER: Final = 2
"""Version of a replica that lacks the log's first entries: who knows version 1 only leaves it alone."""

_SCHEMA: Final = """
CREATE TABLE entries (
    idx    INTEGER PRIMARY KEY, -- place in the log, from 0, without a gap
    hash   BLOB NOT NULL,       -- RFC 6962 leaf hash of `signed`, 32 bytes
    signed BLOB NOT NULL        -- the entry's signed form (docs/spec/entry.md)
) STRICT;
CREATE UNIQUE INDEX entries_by_hash ON entries (hash); -- the same entry sent twice is one entry
CREATE TABLE nodes (
    level INTEGER NOT NULL, -- from 1; level 0 are the entries' hashes
    idx   INTEGER NOT NULL, -- covers leaves idx << level to (idx + 1) << level, all of them there
    hash  BLOB NOT NULL,    -- RFC 6962 node hash, 32 bytes
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE head (
    id         INTEGER PRIMARY KEY CHECK (id = 0), -- one row
    checkpoint BLOB NOT NULL                       -- signed note of size max(entries.idx) + 1, cosigned
) STRICT;
"""
_LOG: Final = FileKind(
    "log file",
    0x4D554E4C,
    (_SCHEMA,),
    "move it away, and fetch it again from the log service, another member or a backup",
    settings=(),
    version_max=_BEGUN_LATER,
)
""""MUNL" tells it from any other file."""


class SqliteLog:
    """One log.

    Args:
        path: the file; made if missing, its folder must exist.

    Raises:
        UnknownVersion: a later version of this program wrote it.
        StoreFailed: it is not a log, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.Lock()
        self._writer = SqliteFile(path, _LOG)
        try:
            self._start, self._size = _range(self._writer)
            self._reader = SqliteFile(path, _LOG)
        except BaseException:
            self._writer.close()
            raise

    @property
    def size(self) -> int:
        return self._size

    @property
    def start(self) -> int:
        return self._start

    def append(self, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes) -> None:
        with self._write_lock:
            self._append(self._size, entries, nodes, checkpoint)

    def begin(
        self, start: int, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes
    ) -> None:
        with self._write_lock:
            if self._size or not entries:
                raise InternalError(reason="a log begins once, with an entry")
            self._append(start, entries, nodes, checkpoint, version=_BEGUN_LATER)
            self._start = start

    def _append(
        self,
        start: int,
        entries: Sequence[LoggedEntry],
        nodes: Sequence[Subtree],
        checkpoint: bytes,
        version: int = 0,
    ) -> None:
        with self._writer.transaction() as writer:
            writer.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)",
                [(start + at, entry.hash, entry.signed) for at, entry in enumerate(entries)],
            )
            writer.executemany(
                "INSERT INTO nodes VALUES (?, ?, ?)",
                [(node.level, node.index, node.hash) for node in nodes if node.level or node.index < start],
            )
            writer.execute("INSERT OR REPLACE INTO head VALUES (0, ?)", (checkpoint,))
            if version:
                writer.execute(f"PRAGMA user_version = {version}")
        self._size = start + len(entries)

    def read(self, start: int, stop: int, *, bytes_max: int) -> list[bytes]:
        stop = min(stop, self._size)
        found: list[bytes] = []
        total = 0
        with self._reader.reading() as reader:
            rows = reader.execute(
                "SELECT signed FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", (start, stop)
            )
            for (value,) in rows:
                signed = self._bytes(value)
                total += len(signed)
                if found and total > bytes_max:
                    rows.close()
                    break
                found.append(signed)
        if start < stop and (not found or start < self._start):
            raise StoreFailed(where=str(self._path), reason=f"entry {start} of {stop} is missing")
        return found

    def find(self, entry: EntryHash) -> int | None:
        row = self._reader.row("SELECT idx FROM entries WHERE hash = ?", (entry,))
        return None if row is None else int(row[0])

    def node(self, level: int, index: int) -> bytes:
        if level:
            row = self._reader.row("SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index))
        else:
            row = self._reader.row("SELECT hash FROM entries WHERE idx = ?", (index,))
        if row is None and level == 0:  # before the first entry of a replica that was begun later
            row = self._reader.row("SELECT hash FROM nodes WHERE level = 0 AND idx = ?", (index,))
        if row is None:
            raise StoreFailed(where=str(self._path), reason=f"tree node {level}/{index} is missing")
        return self._bytes(row[0])

    def checkpoint(self) -> bytes:
        row = self._reader.row("SELECT checkpoint FROM head")
        return b"" if row is None else self._bytes(row[0])

    def inspect(self) -> Sequence[str]:
        """See the port `Inspectable`: SQLite's integrity check, and whether the tables are the log's."""
        return self._reader.inspect()

    def replace_checkpoint(self, checkpoint: bytes) -> None:
        with self._write_lock:
            self._writer.run("UPDATE head SET checkpoint = ?", (checkpoint,))

    def backup(self, target: Path) -> None:
        """A copy of the log as it is now, made while appends go on; `target` appears whole or not at all.

        Raises: DiskFull, StoreFailed.
        """
        part = target.with_name(target.name + ".part")

        try:
            with self._reader.translating(OSError):
                part.unlink(missing_ok=True)
                make_private(part)
                copy = sqlite3.connect(part)
                try:
                    with self._reader.reading() as reader:
                        reader.backup(copy)
                finally:
                    copy.close()
                flush(part)
                part.replace(target)
                flush(target.parent)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        with self._write_lock:
            self._reader.close()
            self._writer.close()

    def _bytes(self, value: object) -> bytes:
        """A column's value; a damaged file may have one of any type there, whatever its table says."""
        if not isinstance(value, bytes):
            raise StoreFailed(where=str(self._path), reason="the log's file has a number or text for bytes")
        return value


def _range(file: SqliteFile) -> tuple[int, int]:
    """The first entry, and the index behind the last.

    Of a file of version 1 the first is 0, whatever is missing in it.
    """
    with file.reading() as sqlite:
        first, last = sqlite.execute("SELECT min(idx), max(idx) FROM entries").fetchone()
        later = sqlite.execute("PRAGMA user_version").fetchone()[0] == _BEGUN_LATER
    return (0, 0) if last is None else (int(first) if later else 0, int(last) + 1)
