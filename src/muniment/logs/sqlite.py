"""`LogStore` in one SQLite file (docs/drivers/log-sqlite.md).

WAL with synchronous=FULL: what `append` returned for survives power loss.  One connection appends under a
lock, another reads, so that readers never wait for a flush.  The file holds ciphertext, signatures and
membership acts; nothing in it is secret from members, and it is for the owner only all the same.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from muniment.errors import DiskFull, InternalError, MunimentError, StoreFailed, UnknownVersion
from muniment.ids import EntryHash
from muniment.merkle.log_tree import Subtree
from muniment.ports import LoggedEntry

_APPLICATION_ID: Final = 0x4D554E4C  # "MUNL"
_SCHEMA_VERSION: Final = 1
_BEGUN_LATER: Final = 2
"""Version of a replica that lacks the log's first entries: who knows version 1 only leaves it alone."""

_T = TypeVar("_T")

_SCHEMA: Final = f"""
BEGIN;
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
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""

_TABLES: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"


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
        self._read_lock = threading.Lock()
        self._writer = self._open()
        try:
            self._run(lambda: _prepare(self._writer, path))
            self._reader = self._open()
            self._start, self._size = self._run(lambda: _range(self._writer))
        except BaseException:
            self._writer.close()
            raise

    def _open(self) -> sqlite3.Connection:
        def connect() -> sqlite3.Connection:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            return connection

        return self._run(connect)

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
        def work() -> None:
            with _transaction(self._writer) as writer:
                writer.executemany(
                    "INSERT INTO entries VALUES (?, ?, ?)",
                    [(start + at, entry.hash, entry.signed) for at, entry in enumerate(entries)],
                )
                writer.executemany(
                    "INSERT INTO nodes VALUES (?, ?, ?)",
                    [
                        (node.level, node.index, node.hash)
                        for node in nodes
                        if node.level or node.index < start
                    ],
                )
                writer.execute("INSERT OR REPLACE INTO head VALUES (0, ?)", (checkpoint,))
                if version:
                    writer.execute(f"PRAGMA user_version = {version}")

        self._run(work)
        self._size = start + len(entries)

    def read(self, start: int, stop: int, *, bytes_max: int) -> list[bytes]:
        stop = min(stop, self._size)
        found: list[bytes] = []
        total = 0

        def work() -> None:
            nonlocal total
            rows = self._reader.execute(
                "SELECT signed FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", (start, stop)
            )
            for (value,) in rows:
                signed = self._bytes(value)
                total += len(signed)
                if found and total > bytes_max:
                    rows.close()
                    return
                found.append(signed)

        with self._read_lock:
            self._run(work)
        if start < stop and (not found or start < self._start):
            raise StoreFailed(where=str(self._path), reason=f"entry {start} of {stop} is missing")
        return found

    def find(self, entry: EntryHash) -> int | None:
        row = self._row("SELECT idx FROM entries WHERE hash = ?", entry)
        return None if row is None else int(row[0])

    def node(self, level: int, index: int) -> bytes:
        if level:
            row = self._row("SELECT hash FROM nodes WHERE level = ? AND idx = ?", level, index)
        else:
            row = self._row("SELECT hash FROM entries WHERE idx = ?", index)
        if row is None and level == 0:  # before the first entry of a replica that was begun later
            row = self._row("SELECT hash FROM nodes WHERE level = 0 AND idx = ?", index)
        if row is None:
            raise StoreFailed(where=str(self._path), reason=f"tree node {level}/{index} is missing")
        return self._bytes(row[0])

    def checkpoint(self) -> bytes:
        row = self._row("SELECT checkpoint FROM head")
        return b"" if row is None else self._bytes(row[0])

    def inspect(self) -> Sequence[str]:
        """See the port `Inspectable`: SQLite's integrity check, and whether the tables are the log's."""
        fresh = sqlite3.connect(":memory:")
        try:
            fresh.executescript(_SCHEMA)
            tables = fresh.execute(_TABLES).fetchall()
        finally:
            fresh.close()
        with self._read_lock:
            found = self._run(lambda: self._reader.execute("PRAGMA integrity_check").fetchall())
            same = self._run(lambda: self._reader.execute(_TABLES).fetchall()) == tables
        problems = [str(line) for (line,) in found if line != "ok"]
        return problems if same else [*problems, "the tables are not those of a log"]

    def replace_checkpoint(self, checkpoint: bytes) -> None:
        with self._write_lock:
            self._run(lambda: self._writer.execute("UPDATE head SET checkpoint = ?", (checkpoint,)))

    def backup(self, target: Path) -> None:
        """A copy of the log as it is now, made while appends go on; `target` appears whole or not at all.

        Raises: DiskFull, StoreFailed.
        """
        part = target.with_name(target.name + ".part")

        def work() -> None:
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            copy = sqlite3.connect(part)
            try:
                with self._read_lock:
                    self._reader.backup(copy)
            finally:
                copy.close()
            _flush(part)
            part.replace(target)
            _flush(target.parent)

        try:
            self._run(work)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()

    def _row(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        with self._read_lock:
            row: tuple[Any, ...] | None = self._run(lambda: self._reader.execute(sql, values).fetchone())
            return row

    def _bytes(self, value: object) -> bytes:
        """A column's value; a damaged file may have one of any type there, whatever its table says."""
        if not isinstance(value, bytes):
            raise StoreFailed(where=str(self._path), reason="the log's file has a number or text for bytes")
        return value

    def _run(self, work: Callable[[], _T]) -> _T:
        """Foreign errors are translated here; nothing above sees `sqlite3.Error`.

        A message that quotes a damaged table does not even decode.
        """
        try:
            return work()
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error | OSError | UnicodeDecodeError) -> MunimentError:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return DiskFull(where=str(self._path))
        return StoreFailed(where=str(self._path), reason=f"the log's file failed: {error}")


class _transaction:  # noqa: N801 - reads as the statement it is
    """`with _transaction(connection)`: committed at the end, rolled back at an error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if empty:
        connection.executescript(_SCHEMA)
        _flush(path.parent)
    elif application != _APPLICATION_ID:
        raise StoreFailed(where=str(path), reason="this is not a log")
    elif version not in (_SCHEMA_VERSION, _BEGUN_LATER):
        raise UnknownVersion(format="log file", version=version)


def _range(connection: sqlite3.Connection) -> tuple[int, int]:
    """The first entry, and the index behind the last.

    Of a file of version 1 the first is 0, whatever is missing in it.
    """
    first, last = connection.execute("SELECT min(idx), max(idx) FROM entries").fetchone()
    if last is None:
        return 0, 0
    later = connection.execute("PRAGMA user_version").fetchone()[0] == _BEGUN_LATER
    return int(first) if later else 0, int(last) + 1


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
