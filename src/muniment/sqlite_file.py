"""A SQLite file of one kind: how it is made, told from others, opened and locked, and what its errors become.

What every driver that keeps its data in SQLite has in common.  Foreign errors are translated here; nothing
above sees `sqlite3.Error`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from muniment.durable_file import flush
from muniment.errors import DiskFull, MunimentError, StoreFailed, UnknownVersion
from muniment.private_file import make_private

_BUSY_S: Final = 60
"""How long one process waits for another; transactions take milliseconds."""

_FOREIGN: Final = (sqlite3.Error, UnicodeDecodeError)
"""What `sqlite3` raises; the second where a message quotes a damaged table."""

_TABLES: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"

Row = tuple[Any, ...]
Values = Sequence[object] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FileKind:
    """What makes a file this and no other.

    Attributes:
        name: for messages: "work queue".
        application_id: four bytes that tell it from any other SQLite file.
        steps: statements; `steps[v]` lead from version v of the schema to the next.  A new file takes all of
            them, an older one those that it lacks, so that both end alike.
        advice: what to do about a damaged one: "move it away".
        settings: pragmas of each connection, beyond WAL and synchronous=FULL.
        version_max: the last version that can be read, where the driver itself raises it beyond the last
            step's; a later one is refused.
        fill: adds the rows that a new file begins with, in the transaction that makes its tables.
    """

    name: str
    application_id: int
    steps: Sequence[str]
    advice: str
    settings: Sequence[str] = ("journal_size_limit = 16777216",)  # a burst must not keep the disk
    version_max: int = 0
    fill: Callable[[sqlite3.Connection], object] = lambda _: None


class SqliteFile:
    """One connection that any thread may use, one at a time.

    In WAL mode with synchronous=FULL: a transaction that has ended survives power loss, and one connection
    reads while another writes, of this process or another.

    Args:
        path: made if missing, for its owner only; its folder must exist.
        kind: what it must be.

    Attributes:
        lock: held during each call; hold it to make several calls one.

    Raises:
        UnknownVersion: a later version of this program wrote it.
        StoreFailed: it is something else, or damaged; it is left as it is.
    """

    def __init__(self, path: Path, kind: FileKind) -> None:
        self._path, self._kind = path, kind
        self.lock = threading.RLock()
        with self.translating(OSError):
            make_private(path)
            # No implicit transactions: whoever uses it says where they begin.
            self._sqlite = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S
            )
            try:
                version = self._version()  # before anything is written into what is something else
                for setting in ("journal_mode = WAL", "synchronous = FULL", *kind.settings):
                    self._sqlite.execute(f"PRAGMA {setting}")
                if version < len(kind.steps):
                    self._take_steps()
            except BaseException:
                self._sqlite.close()
                raise

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        """All rows of a query."""
        try:
            with self.lock:
                return self._sqlite.execute(sql, values).fetchall()
        except _FOREIGN as error:
            raise self._translated(error) from error

    def row(self, sql: str, values: Values = ()) -> Row | None:
        """The first row of a query."""
        try:
            with self.lock:
                row: Row | None = self._sqlite.execute(sql, values).fetchone()
                return row
        except _FOREIGN as error:
            raise self._translated(error) from error

    def run(self, sql: str, values: Values = ()) -> None:
        """One statement."""
        self.row(sql, values)

    def run_many(self, sql: str, values: Iterable[Values]) -> None:
        """One statement for each of many rows; several run as one only within a transaction."""
        try:
            with self.lock:
                self._sqlite.executemany(sql, values)
        except _FOREIGN as error:
            raise self._translated(error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done in it; durable when it has ended."""
        with self.lock, self.translating():
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
        with self.lock, self.translating():
            self._sqlite.execute("BEGIN")
            try:
                yield self._sqlite
            finally:
                self._roll_back()

    @contextlib.contextmanager
    def translating(self, *others: type[OSError]) -> Iterator[None]:
        """For what is done with SQLite, or to its files, beside the calls of this class."""
        foreign: tuple[type[Exception], ...] = (*_FOREIGN, *others)
        try:
            yield
        except foreign as error:
            raise self._translated(error) from error

    def inspect(self) -> list[str]:
        """What SQLite's own check finds in the whole file, and whether its tables are those of the kind."""
        found = [str(line) for (line,) in self.rows("PRAGMA integrity_check") if line != "ok"]
        fresh = sqlite3.connect(":memory:")
        try:
            for step in self._kind.steps:
                fresh.executescript(step)
            tables = fresh.execute(_TABLES).fetchall()
        finally:
            fresh.close()
        if self.rows(_TABLES) != tables:
            found.append(f"the tables are not those of a {self._kind.name}")
        return found

    def close(self) -> None:
        """End the connection after what runs on it."""
        with self.lock:
            self._sqlite.close()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # what made it fail tells more
            if self._sqlite.in_transaction:
                self._sqlite.execute("ROLLBACK")

    def _take_steps(self) -> None:
        """In one transaction: a crash leaves the file as it was."""
        self._sqlite.execute("BEGIN IMMEDIATE")
        try:
            version, newest = self._version(), len(self._kind.steps)
            for step in self._kind.steps[version:]:  # none if another process took them meanwhile
                for statement in _statements(step):
                    self._sqlite.execute(statement)
            if version == 0:
                self._kind.fill(self._sqlite)
            if version < newest:
                self._sqlite.execute(f"PRAGMA application_id = {self._kind.application_id}")
                self._sqlite.execute(f"PRAGMA user_version = {newest}")
            self._sqlite.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        flush(self._path.parent)

    def _version(self) -> int:
        """Of its tables; 0: there are none.

        Raises: UnknownVersion; StoreFailed: they are another program's.
        """
        kind = self._kind
        application = self._sqlite.execute("PRAGMA application_id").fetchone()[0]
        version = int(self._sqlite.execute("PRAGMA user_version").fetchone()[0])
        empty = self._sqlite.execute("SELECT 1 FROM sqlite_schema").fetchone() is None
        if (application, version) == (0, 0) and empty:
            return 0
        if application != kind.application_id:
            raise StoreFailed(where=str(self._path), reason=self._advised(f"this is not a {kind.name}"))
        if not 0 < version <= max(len(kind.steps), kind.version_max):
            raise UnknownVersion(format=kind.name, version=version)
        return version

    def _translated(self, error: Exception) -> MunimentError:
        name = getattr(error, "sqlite_errorname", "")
        where = str(self._path)
        if name == "SQLITE_FULL":
            return DiskFull(where=where)
        if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return StoreFailed(where=where, reason=self._advised(str(error)))
        return StoreFailed(where=where, reason=f"the {self._kind.name} failed: {error}")

    def _advised(self, reason: str) -> str:
        return f"{reason}; {self._kind.advice}"


def _statements(script: str) -> Iterator[str]:
    """Each begins on a line of its own."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):  # the end of a trigger's, not of what is in it
            yield statement
            statement = ""
    if statement.strip():
        yield statement
