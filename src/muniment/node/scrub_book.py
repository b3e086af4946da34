"""What the scrub needs of the ledger file: the shares to read next, and where it was when the node stopped.

On a connection of its own, as the survey, so that paging never waits for uploads.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

from muniment.node.ledger import share_key
from muniment.node.ledger_schema import LEDGER
from muniment.ports import StoredShare
from muniment.sqlite_file import SqliteFile


@dataclass(slots=True)
class ScrubRound:
    """The columns of the table `scrub`, which says what each means."""

    started_s: float
    blob: bytes
    number: int
    shares: int
    bytes: int
    damaged: int
    missing: int
    unreadable: int
    whole_s: float
    found: int


class ScrubBook:
    """Blocking; one thread.

    Args:
        path: `Ledger.path`; the ledger is open, so the file is of this version.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, LEDGER)

    def load(self) -> ScrubRound:
        """The round as it was noted last."""
        return ScrubRound(*self._file.rows("SELECT * FROM scrub")[0])

    def note(self, scrub: ScrubRound) -> None:
        """Keep it durably."""
        self._file.run(
            "UPDATE scrub SET started_s = ?, blob = ?, number = ?, shares = ?, bytes = ?, damaged = ?,"
            " missing = ?, unreadable = ?, whole_s = ?, found = ?",
            astuple(scrub),
        )

    def due(self, after: tuple[bytes, int], before: bytes | None, limit: int) -> list[StoredShare]:
        """The next shares held, in key order: behind `after`, and of blobs before `before`."""
        sql = "SELECT blob, number, size_bytes FROM shares WHERE (blob, number) > (?, ?)"
        end = () if before is None else (before,)
        sql += "" if before is None else " AND blob < ?"
        rows = self._file.rows(f"{sql} ORDER BY blob, number LIMIT ?", (*after, *end, limit))
        return [StoredShare(share_key(row[0], row[1]), row[2]) for row in rows]

    def close(self) -> None:
        """End the connection."""
        self._file.close()
