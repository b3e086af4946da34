"""The view's SQLite file: how it is made, opened and locked, and what its errors become.

Foreign errors are translated here; nothing above sees `sqlite3.Error`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from muniment.core.state_hash import initial
from muniment.core.tree_state import FIRST_INODE, ROOT_INODE
from muniment.errors import DiskFull, FileFailed, MunimentError, StoreFailed, UnknownVersion
from muniment.views.recording import EMPTY_AT
from muniment.views.sqlite_rows import INSERT_INODE, Row, inode_columns
from muniment.views.sqlite_schema import APPLICATION_ID, OPEN, SCHEMA, SCHEMA_VERSION

_CACHE_KIB: Final = 32 * 1024
_WAL_PAGES: Final = 8192
"""Moved to the database at once; more than SQLite's 1000, as batches are large."""

FOREIGN: Final = (sqlite3.Error, UnicodeDecodeError)
"""What `sqlite3` raises; the second where a message quotes a damaged table."""

Values = Sequence[object] | Mapping[str, object]


class SqliteFile:
    """One connection that any thread may use, one at a time.

    In WAL mode with synchronous=FULL a committed transaction survives power loss, and one connection reads
    while another writes.

    Attributes:
        lock: held during each call; hold it to make several calls one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lock = threading.RLock()
        try:
            # No implicit transactions: batches say where they begin.
            self._sqlite = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        except sqlite3.Error as error:
            raise translated(error, path) from error
        try:
            self.run("PRAGMA synchronous = FULL")
            self.run("PRAGMA journal_size_limit = 67108864")  # a burst must not keep the disk
            self.run(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            self.run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        except BaseException:
            self._sqlite.close()
            raise

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        """All rows of a query."""
        try:
            with self.lock:
                return self._sqlite.execute(sql, values).fetchall()
        except FOREIGN as error:
            raise translated(error, self._path) from error

    def row(self, sql: str, values: Values = ()) -> Row | None:
        """The first row of a query."""
        try:
            with self.lock:
                row: Row | None = self._sqlite.execute(sql, values).fetchone()
                return row
        except FOREIGN as error:
            raise translated(error, self._path) from error

    def run(self, sql: str, values: Values = ()) -> None:
        """One statement."""
        self.row(sql, values)

    def run_many(self, sql: str, values: Iterable[Values]) -> None:
        """One statement for each of many rows; several run as one only within a transaction."""
        try:
            with self.lock:
                self._sqlite.executemany(sql, values)
        except FOREIGN as error:
            raise translated(error, self._path) from error

    def roll_back(self) -> None:
        """Forget the transaction under way, if there is one; never raises for a medium that has failed."""
        try:
            with self.lock:
                if self._sqlite.in_transaction:
                    self._sqlite.rollback()
        except sqlite3.Error:
            pass  # what made the caller roll back tells more; the next start recovers the file

    def prepare(self) -> None:
        """Make the tables of a new file; refuse a file of another program or version, and leave it as it is.

        Raises: UnknownVersion; StoreFailed: not a view.
        """
        self._is_made()
        self.run("PRAGMA journal_mode = WAL")  # stays with the file
        self.run("BEGIN IMMEDIATE")
        try:
            if not self._is_made():  # no other process did meanwhile
                self._make()
            self.run("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def _is_made(self) -> bool:
        """Whether the tables are there."""
        (application,) = self.row("PRAGMA application_id") or (0,)
        (version,) = self.row("PRAGMA user_version") or (0,)
        if (application, version) == (0, 0) and self.row("SELECT 1 FROM sqlite_master") is None:
            return False
        if application != APPLICATION_ID:
            raise StoreFailed(where=str(self._path), reason="this is not a view; move it away")
        if version != SCHEMA_VERSION:
            raise UnknownVersion(format="view", version=version)
        return True

    def _make(self) -> None:
        for statement in SCHEMA.split(";\n"):
            if statement.strip():
                self.run(statement)
        self.run("INSERT INTO meta VALUES (0, ?, ?)", (initial().lanes, FIRST_INODE))
        self.run(INSERT_INODE, (*inode_columns(ROOT_INODE), EMPTY_AT, OPEN))
        self.run(f"PRAGMA application_id = {APPLICATION_ID}")
        self.run(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """End the connection after what runs on it."""
        with self.lock:
            self._sqlite.close()


def make_private(path: Path) -> None:
    """Make the file if it is missing, and let nobody but its owner open it; SQLite's companions follow it.

    Raises: FileFailed.
    """
    try:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # Never opened here: closing it would drop the locks of another view of this process.
            path.chmod(0o600)
    except OSError as error:
        raise FileFailed(path=str(path), reason=error.strerror or str(error)) from error


def translated(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> MunimentError:
    """The leaf that says the same."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return DiskFull(where=str(path))
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return StoreFailed(where=str(path), reason=f"{error}; move it away to have it folded anew")
    return StoreFailed(where=str(path), reason=f"the view failed: {error}")
