"""The ledger's SQLite file: how it is opened, prepared and locked, and what its errors become.

Foreign errors are translated here once; nothing above sees `sqlite3.Error`.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from muniment.errors import DiskFull, MunimentError, StoreFailed, UnknownVersion
from muniment.node.ledger_schema import APPLICATION_ID, SCHEMA_VERSION, STEPS


class LedgerConnection:
    """One connection that any thread may use, one at a time: `with connection as sqlite: ...`.

    In WAL mode with synchronous=FULL a committed transaction survives power loss, and one connection reads
    while another writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            # No implicit transactions: the ledger says where they begin.
            self._sqlite = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        except sqlite3.Error as error:
            raise translated(error, path) from error
        try:
            with self as sqlite:
                sqlite.execute("PRAGMA journal_mode = WAL")
                sqlite.execute("PRAGMA synchronous = FULL")
                sqlite.execute("PRAGMA journal_size_limit = 16777216")  # a burst must not keep the disk
        except BaseException:
            self._sqlite.close()
            raise

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        return self._sqlite

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise translated(error, self._path) from error

    def close(self) -> None:
        """End the connection after what runs on it."""
        with self._lock:
            self._sqlite.close()


def prepare(sqlite: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file, or bring one of an earlier version up to this; refuse any other.

    In one transaction: a crash leaves the file as it was.  Cost of the step from version 1: O(leases).
    Raises: UnknownVersion: a later version wrote it; StoreFailed: not a ledger.
    """
    application = sqlite.execute("PRAGMA application_id").fetchone()[0]
    version = sqlite.execute("PRAGMA user_version").fetchone()[0]
    is_new = (application, version) == (0, 0) and not sqlite.execute("SELECT 1 FROM sqlite_master").fetchone()
    if not is_new and application != APPLICATION_ID:
        raise StoreFailed(where=str(path), reason="this is not a ledger; move it away to have it rebuilt")
    if version > SCHEMA_VERSION:
        raise UnknownVersion(format="ledger", version=version)
    if version < SCHEMA_VERSION:
        sqlite.executescript(
            f"BEGIN IMMEDIATE; {''.join(STEPS[version:])}"
            f" PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )


def translated(error: sqlite3.Error, path: Path) -> MunimentError:
    """The leaf that says the same."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return DiskFull(where=str(path))
    if getattr(error, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return StoreFailed(where=str(path), reason=f"{error}; move it away to have it rebuilt")
    return StoreFailed(where=str(path), reason=f"the ledger failed: {error}")
