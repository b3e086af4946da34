"""A SQLite file of one kind: how it is made, told from others, opened and locked, and what its errors become.

What every driver that keeps its data in SQLite has in common.  Foreign errors are translated here; nothing
above sees `sqlite3.Error`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.errors import DiskFull, MunimentError, StoreFailed, UnknownVersion

_BUSY_S: Final = 60
"""How long one process waits for another; transactions take milliseconds."""

_FOREIGN: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""The last where a message quotes a damaged table."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What makes a file this and no other.

    Attributes:
        name: for messages: "work queue".
        application_id: four bytes that tell it from any other SQLite file.
        version: of the schema; a later one is refused.
        schema: statements, each ended by a semicolon at the end of its line.
        advice: what to do about a damaged one, behind "move it away".
    """

    name: str
    application_id: int
    version: int
    schema: str
    advice: str


class SqliteFile:
    """One connection that any thread may use, one at a time.

    In WAL mode with synchronous=FULL: a transaction that has ended survives power loss, and one process reads
    while another writes.

    Args:
        path: made if missing, for its owner only; its folder must exist.
        kind: what it must be.

    Raises:
        UnknownVersion: a later version of this program wrote it.
        StoreFailed: it is something else, or damaged; it is left as it is.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        self._path, self._kind = path, kind
        self._lock = threading.RLock()
        with self._translating():
            _make_private(path)
            # No implicit transactions: whoever uses it says where they begin.
            self._sqlite = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S
            )
            try:
                self._is_made()  # before anything is written into what is something else
                for setting in (
                    "journal_mode = WAL",
                    "synchronous = FULL",
                    "foreign_keys = ON",
                    "journal_size_limit = 16777216",  # a burst must not keep the disk
                ):
                    self._sqlite.execute(f"PRAGMA {setting}")
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
                self._roll_back()
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several queries of one state; waits for no writer of another process."""
        with self._lock, self._translating():
            self._sqlite.execute("BEGIN")
            try:
                yield self._sqlite
            finally:
                self._roll_back()

    def close(self) -> None:
        """End the connection after what runs on it."""
        with self._lock:
            self._sqlite.close()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # what made it fail tells more
            if self._sqlite.in_transaction:
                self._sqlite.execute("ROLLBACK")

    def _make(self) -> None:
        self._sqlite.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_made():  # no other process did meanwhile
                for statement in self._kind.schema.split(";\n"):
                    if statement.strip():
                        self._sqlite.execute(statement)
                self._sqlite.execute(f"PRAGMA application_id = {self._kind.application_id}")
                self._sqlite.execute(f"PRAGMA user_version = {self._kind.version}")
            self._sqlite.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        _flush_folder(self._path.parent)

    def _is_made(self) -> bool:
        """Whether the tables are there.  Raises: UnknownVersion; StoreFailed: they are another program's."""
        application = self._sqlite.execute("PRAGMA application_id").fetchone()[0]
        version = self._sqlite.execute("PRAGMA user_version").fetchone()[0]
        empty = self._sqlite.execute("SELECT 1 FROM sqlite_schema").fetchone() is None
        if (application, version) == (0, 0) and empty:
            return False
        if application != self._kind.application_id:
            raise StoreFailed(where=str(self._path), reason=f"this is not a {self._kind.name}; move it away")
        if version != self._kind.version:
            raise UnknownVersion(format=self._kind.name, version=version)
        return True

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except _FOREIGN as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> MunimentError:
        name = getattr(error, "sqlite_errorname", "")
        where = str(self._path)
        if name == "SQLITE_FULL":
            return DiskFull(where=where)
        if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return StoreFailed(where=where, reason=f"{error}; move it away, {self._kind.advice}")
        return StoreFailed(where=where, reason=f"the {self._kind.name} failed: {error}")


def _make_private(path: Path) -> None:
    """Make the file if it is missing, for its owner only; SQLite's companions follow it."""
    # An existing one is never opened here: closing it would drop the locks of another one of this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
