"""A queue's SQLite file: how it is made, opened and locked, and what its errors become.

Foreign errors are translated here; nothing above sees `sqlite3.Error`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from muniment.errors import DiskFull, MunimentError, StoreFailed, UnknownVersion
from muniment.queues.sqlite_schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

_BUSY_S: Final = 60
"""How long one process waits for another; transactions take milliseconds."""

_FOREIGN: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""The last where a message quotes a damaged table."""


class QueueFile:
    """One connection that any thread may use, one at a time.

    Raises: as `queues.sqlite.SqliteQueue`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._translating():
            _make_private(path)
            # No implicit transactions: the queue says where they begin.
            self._sqlite = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S
            )
            try:
                self._is_made()  # before anything is written into what is no queue
                self._sqlite.execute("PRAGMA journal_mode = WAL")
                self._sqlite.execute("PRAGMA synchronous = FULL")
                self._sqlite.execute("PRAGMA foreign_keys = ON")
                self._sqlite.execute("PRAGMA journal_size_limit = 16777216")  # a burst must not keep the disk
                self._make()
            except BaseException:
                self._sqlite.close()
                raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done in it; durable when it has ended."""
        with self._lock, self._translating():
            self._sqlite.execute("BEGIN IMMEDIATE")
            try:
                yield self._sqlite
                self._sqlite.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # what made it fail tells more
                    if self._sqlite.in_transaction:
                        self._sqlite.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several queries of one state; waits for no writer of another process."""
        with self._lock, self._translating():
            self._sqlite.execute("BEGIN")
            try:
                yield self._sqlite
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._sqlite.execute("ROLLBACK")

    def close(self) -> None:
        """End the connection after what runs on it."""
        with self._lock:
            self._sqlite.close()

    def _make(self) -> None:
        self._sqlite.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_made():  # no other process did meanwhile
                for statement in SCHEMA.split(";\n"):
                    if statement.strip():
                        self._sqlite.execute(statement)
                self._sqlite.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._sqlite.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._sqlite.execute("COMMIT")
        except BaseException:
            if self._sqlite.in_transaction:
                self._sqlite.execute("ROLLBACK")
            raise
        _flush_folder(self._path.parent)

    def _is_made(self) -> bool:
        """Whether the tables are there.  Raises: UnknownVersion; StoreFailed: they are another program's."""
        application = self._sqlite.execute("PRAGMA application_id").fetchone()[0]
        version = self._sqlite.execute("PRAGMA user_version").fetchone()[0]
        empty = self._sqlite.execute("SELECT 1 FROM sqlite_schema").fetchone() is None
        if (application, version) == (0, 0) and empty:
            return False
        if application != APPLICATION_ID:
            raise StoreFailed(where=str(self._path), reason="this is not a work queue; move it away")
        if version != SCHEMA_VERSION:
            raise UnknownVersion(format="work queue", version=version)
        return True

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except _FOREIGN as error:
            raise _translated(error, self._path) from error


def _translated(error: Exception, path: Path) -> MunimentError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return DiskFull(where=str(path))
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return StoreFailed(where=str(path), reason=f"{error}; move it away, and what is due is found anew")
    return StoreFailed(where=str(path), reason=f"the work queue failed: {error}")


def _make_private(path: Path) -> None:
    """Make the file if it is missing, for its owner only; SQLite's companions follow it."""
    # An existing one is never opened here: closing it would drop the locks of another queue of this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
