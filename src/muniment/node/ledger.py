"""The node's books: which shares it holds, for whom, how long, and how many bytes that is.

One SQLite file in the node folder, in WAL mode with synchronous=FULL: what a method changed survives power
loss when it returns.  Sums are kept by triggers in the same transaction as the rows they count, so capacity
and usage are exact after any crash and cost one row to read.  The file is an index: it can be rebuilt from
the store by `reconcile`, all but the owners of shares (docs/node.md section 7).

Blocking; every method may be called from any thread.  One connection writes under a lock, another reads, so
that readers never wait for a flush.  Writers that arrive while a flush is under way share the next one.

Invariants: a share row has at least one lease row; a lease's size is its share's; `usage` and `totals` are
the sums over `leases`, `shares` and `quarantine`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from muniment.ids import AccountId, BlobId, ShareKey, ShareNumber, id_text
from muniment.node.ledger_schema import LEDGER
from muniment.ports import StoredShare
from muniment.spec.wire import ShareLease, ShareQuarantined
from muniment.sqlite_file import Row, SqliteFile

OWNERLESS: Final = AccountId(b"")
"""Owner of shares found in the store without a lease: no key has an empty public key, so no token names it.
(32 zero bytes would not do: they encode a point of small order, for which signatures can be forged.)"""

_T = TypeVar("_T")
_DUE_ROWS: Final = 1000
"""Rows changed in one transaction of the background tasks, so that uploads never wait long for them."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole node: shares held, what is in quarantine (once for each owner it had), and leases
    that are not in the trash (each account's own, those without an owner too).
    """

    used_bytes: int
    share_count: int
    quarantined_count: int
    leased_bytes: int
    leased_count: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over one account's leases, trash included: what its quota is compared with."""

    used_bytes: int
    share_count: int


@dataclass(slots=True)
class _Job:
    """One write waiting for its turn; several are committed together."""

    work: Callable[[sqlite3.Connection], Any]
    done: bool = False
    result: Any = None
    error: Exception | None = None


class Ledger:
    """The books of one node.

    Args:
        path: the SQLite file; made if missing.

    Raises:
        UnknownVersion: a later version of this program wrote it.
        StoreFailed: it is not a ledger, or is damaged; moving it away makes the node rebuild it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()
        self._queue_lock = threading.Lock()
        self._queue: list[_Job] = []
        self._writer = SqliteFile(path, LEDGER)
        try:
            self._reader = SqliteFile(path, LEDGER)
        except BaseException:
            self._writer.close()
            raise

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._path

    def close(self) -> None:
        """End both connections; what is written stays."""
        self._reader.close()
        self._writer.close()

    # --- sums ---------------------------------------------------------------------------------

    def totals(self) -> Totals:
        """What the whole node holds.  Cost: one row."""
        sql = "SELECT used_bytes, share_count, quarantined_count, leased_bytes, leased_count FROM totals"
        return Totals(*self._rows(sql)[0])

    def usage(self, account: AccountId) -> Usage:
        """What one account holds.  Cost: one row."""
        rows = self._rows("SELECT used_bytes, share_count FROM usage WHERE account = ?", account)
        return Usage(*rows[0]) if rows else Usage(0, 0)

    # --- shares and leases --------------------------------------------------------------------

    def held(self, keys: Iterable[ShareKey]) -> dict[ShareKey, int]:
        """Those of `keys` that are held, with their sizes in bytes."""
        found = {}
        with self._reader.reading() as reader:
            for key in keys:
                sql = "SELECT size_bytes FROM shares WHERE blob = ? AND number = ?"
                if row := reader.execute(sql, (key.blob, key.number)).fetchone():
                    found[key] = int(row[0])
        return found

    def leased(self, account: AccountId, keys: Iterable[ShareKey]) -> set[ShareKey]:
        """Those of `keys` on which the account has a lease, in trash or not."""
        found = set()
        with self._reader.reading() as reader:
            for key in keys:
                sql = "SELECT 1 FROM leases WHERE account = ? AND blob = ? AND number = ?"
                if reader.execute(sql, (account, key.blob, key.number)).fetchone():
                    found.add(key)
        return found

    def numbers(self, blobs: Sequence[BlobId]) -> list[list[int]]:
        """The share numbers held of each blob, in order."""
        sql = "SELECT number FROM shares WHERE blob = ? ORDER BY number"
        with self._reader.reading() as reader:
            return [[row[0] for row in reader.execute(sql, (blob,))] for blob in blobs]

    def store(
        self, account: AccountId, shares: Sequence[StoredShare], *, expires_s: float, now_s: float
    ) -> None:
        """Record shares that the store has made durable, and the account's lease on each."""
        self._write(lambda writer: _store(writer, account, shares, expires_s=expires_s, now_s=now_s))

    def adopt(self, share: StoredShare, *, expires_s: float, now_s: float) -> None:
        """Record a share found in the store with a lease of nobody's; one that is recorded already keeps its
        owners, and has its size set right.
        """

        def work(writer: sqlite3.Connection) -> None:
            at = (share.key.blob, share.key.number)
            sql = "UPDATE shares SET size_bytes = ? WHERE blob = ? AND number = ?"
            if not writer.execute(sql, (share.size_bytes, *at)).rowcount:
                _store(writer, OWNERLESS, [share], expires_s=expires_s, now_s=now_s)

        self._write(work)

    def lease(self, account: AccountId, keys: Sequence[ShareKey], *, expires_s: float) -> list[bool]:
        """Give the account a lease on each share, or extend it and take it out of the trash.

        A lease is never shortened.  Quota is the caller's to check.
        Returns: for each key whether the share is held.
        """
        return self._write(lambda writer: _lease(writer, account, keys, expires_s))

    def trash(self, account: AccountId, keys: Sequence[ShareKey], *, now_s: float) -> list[bool]:
        """Put the account's leases in the trash; also forget what is in quarantine for it.

        Returns: for each key whether the account has a lease on it (in the trash already counts).
        """

        def work(writer: sqlite3.Connection) -> list[bool]:
            done = []
            for key in keys:
                at = (account, key.blob, key.number)
                sql = "UPDATE leases SET trashed_s = ? WHERE account = ? AND blob = ? AND number = ?"
                where = " AND trashed_s = 0"
                changed = writer.execute(sql + where, (now_s, *at)).rowcount
                sql = "DELETE FROM quarantine WHERE account = ? AND blob = ? AND number = ?"
                changed += writer.execute(sql, at).rowcount
                sql = "SELECT 1 FROM leases WHERE account = ? AND blob = ? AND number = ?"
                done.append(bool(changed) or writer.execute(sql, at).fetchone() is not None)
            return done

        return self._write(work)

    def page(self, account: AccountId, *, after: ShareKey | None, limit: int) -> list[ShareLease]:
        """The account's leases behind `after` in key order, at most `limit`."""
        rows = self._rows(
            "SELECT blob, number, size_bytes, expires_s, trashed_s FROM leases"
            " WHERE account = ? AND (blob, number) > (?, ?) ORDER BY blob, number LIMIT ?",
            *(account, *_behind(after), limit),
        )
        return [
            ShareLease(
                blob=id_text(row[0]), number=row[1], size_bytes=row[2], expires_s=row[3], trashed=row[4] > 0
            )
            for row in rows
        ]

    # --- what ends ----------------------------------------------------------------------------

    def trash_expired(self, now_s: float) -> int:
        """Put up to a thousand expired leases in the trash, as of now; returns how many."""

        def work(writer: sqlite3.Connection) -> int:
            due = writer.execute(
                "SELECT account, blob, number FROM leases WHERE trashed_s = 0 AND expires_s <= ? LIMIT ?",
                (now_s, _DUE_ROWS),
            ).fetchall()
            sql = "UPDATE leases SET trashed_s = ? WHERE account = ? AND blob = ? AND number = ?"
            writer.executemany(sql, [(now_s, *row) for row in due])
            return len(due)

        return self._write(work)

    def purgeable(self, trashed_before_s: float) -> list[ShareKey]:
        """Up to a thousand shares with a lease that is in the trash since before this time."""
        rows = self._rows(
            "SELECT DISTINCT blob, number FROM leases WHERE trashed_s > 0 AND trashed_s <= ? LIMIT ?",
            *(trashed_before_s, _DUE_ROWS),
        )
        return [share_key(*row) for row in rows]

    def purge(self, keys: Sequence[ShareKey], *, trashed_before_s: float) -> list[StoredShare]:
        """End these shares' leases that are in the trash since before this time.

        Returns: the shares that have no lease left and are no longer held; their files are the caller's to
        delete.  A crash before that leaves files that the next reconciliation adopts.
        """

        def work(writer: sqlite3.Connection) -> list[StoredShare]:
            gone = []
            for key in keys:
                at = (key.blob, key.number)
                sql = "DELETE FROM leases WHERE blob = ? AND number = ? AND trashed_s > 0 AND trashed_s <= ?"
                writer.execute(sql, (*at, trashed_before_s))
                sql = "SELECT 1 FROM leases WHERE blob = ? AND number = ? LIMIT 1"
                if writer.execute(sql, at).fetchone() is None:
                    sql = "DELETE FROM shares WHERE blob = ? AND number = ? RETURNING size_bytes"
                    gone += [StoredShare(key, row[0]) for row in writer.execute(sql, at).fetchall()]
            return gone

        return self._write(work)

    # --- what is damaged ----------------------------------------------------------------------

    def lose(self, keys: Sequence[ShareKey], *, reason: str, now_s: float) -> None:
        """Record that these shares are damaged or gone: no longer held, listed for those who had leases."""

        def work(writer: sqlite3.Connection) -> None:
            for key in keys:
                at = (key.blob, key.number)
                owners = writer.execute("SELECT account FROM leases WHERE blob = ? AND number = ?", at)
                rows = [(row[0], *at, reason, now_s) for row in owners.fetchall() or [(OWNERLESS,)]]
                writer.executemany("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?)", rows)
                writer.execute("DELETE FROM leases WHERE blob = ? AND number = ?", at)
                writer.execute("DELETE FROM shares WHERE blob = ? AND number = ?", at)

        self._write(work)

    def quarantined(
        self, account: AccountId, *, after: ShareKey | None, limit: int
    ) -> list[ShareQuarantined]:
        """What was found damaged or missing among this account's shares and not stored again since: those
        behind `after` in key order, at most `limit`.
        """
        rows = self._rows(
            "SELECT blob, number, reason, found_s FROM quarantine"
            " WHERE account = ? AND (blob, number) > (?, ?) ORDER BY blob, number LIMIT ?",
            *(account, *_behind(after), limit),
        )
        return [
            ShareQuarantined(blob=id_text(row[0]), number=row[1], reason=row[2], found_s=row[3])
            for row in rows
        ]

    # --- connections --------------------------------------------------------------------------

    def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in a transaction, together with whatever else waits, and flush."""
        job = _Job(work)
        with self._queue_lock:
            self._queue.append(job)
        with self._turn:
            if not job.done:
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                self._commit(batch)
        if job.error is not None:
            raise job.error
        result: _T = job.result
        return result

    def _commit(self, batch: list[_Job]) -> None:
        try:
            with self._writer.transaction() as writer:
                for job in batch:
                    job.result = job.work(writer)
        except Exception as error:  # noqa: BLE001 - handed to the thread whose job it is
            if len(batch) > 1:  # one bad job must not fail its neighbours
                for job in batch:
                    self._commit([job])
                return
            batch[0].error = error
        for job in batch:
            job.done = True

    def _rows(self, sql: str, *args: object) -> list[Row]:
        return self._reader.rows(sql, args)


def _store(
    writer: sqlite3.Connection,
    account: AccountId,
    shares: Sequence[StoredShare],
    *,
    expires_s: float,
    now_s: float,
) -> None:
    writer.executemany(
        "INSERT INTO shares VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET size_bytes = excluded.size_bytes, stored_s = excluded.stored_s",
        [(share.key.blob, share.key.number, share.size_bytes, now_s) for share in shares],
    )
    for share in shares:
        writer.execute(
            "DELETE FROM quarantine WHERE blob = ? AND number = ?", (share.key.blob, share.key.number)
        )
    _lease(writer, account, [share.key for share in shares], expires_s)


def _lease(
    writer: sqlite3.Connection, account: AccountId, keys: Sequence[ShareKey], expires_s: float
) -> list[bool]:
    held = []
    for key in keys:
        at = (key.blob, key.number)
        row = writer.execute("SELECT size_bytes FROM shares WHERE blob = ? AND number = ?", at).fetchone()
        held.append(row is not None)
        if row is None:
            continue
        writer.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE"
            " SET expires_s = max(expires_s, excluded.expires_s), trashed_s = 0",
            (account, *at, row[0], expires_s),
        )
        if account != OWNERLESS:
            writer.execute(
                "DELETE FROM leases WHERE account = ? AND blob = ? AND number = ?", (OWNERLESS, *at)
            )
    return held


def _behind(after: ShareKey | None) -> tuple[bytes, int]:
    """Where a page begins, as the two columns in its condition."""
    return (after.blob, after.number) if after else (b"", -1)


def share_key(blob: bytes, number: int) -> ShareKey:
    """A share's key from the two columns that name it."""
    return ShareKey(BlobId(blob), ShareNumber(number))
