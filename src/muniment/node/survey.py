"""Set difference between store and ledger in constant memory, for any number of shares.

What the scan of a store yields is noted in a temporary table, which SQLite keeps on disk when it grows;
what is in the ledger and not in that table is then a query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from muniment.ids import ShareKey
from muniment.node.ledger import share_key
from muniment.node.ledger_schema import LEDGER
from muniment.ports import StoredShare
from muniment.sqlite_file import SqliteFile

_BATCH_ROWS: Final = 1000


class Survey:
    """One comparison of a store with the ledger, on a connection of its own.

    Args:
        path: `Ledger.path`.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, LEDGER)
        self._file.run(
            "CREATE TEMP TABLE seen (blob BLOB, number INTEGER, PRIMARY KEY (blob, number)) WITHOUT ROWID"
        )

    def unknown(self, found: Sequence[StoredShare]) -> list[StoredShare]:
        """Note these as seen; returns those that the ledger does not have, or has with another size."""
        sql = "SELECT 1 FROM shares WHERE blob = ? AND number = ? AND size_bytes = ?"
        rows = [(share.key.blob, share.key.number) for share in found]
        self._file.run_many("INSERT OR IGNORE INTO seen VALUES (?, ?)", rows)
        return [
            share
            for share in found
            if self._file.row(sql, (share.key.blob, share.key.number, share.size_bytes)) is None
        ]

    def unseen(self, stored_before_s: float) -> Iterator[list[ShareKey]]:
        """Batches of shares in the ledger since before this time that were not seen."""
        after: tuple[bytes, int] = (b"", -1)
        while True:
            rows = self._file.rows(
                "SELECT blob, number FROM main.shares AS held WHERE (blob, number) > (?, ?)"
                " AND stored_s < ? AND NOT EXISTS (SELECT 1 FROM seen"
                " WHERE seen.blob = held.blob AND seen.number = held.number)"
                " ORDER BY blob, number LIMIT ?",
                (*after, stored_before_s, _BATCH_ROWS),
            )
            if not rows:
                return
            yield [share_key(*row) for row in rows]
            after = rows[-1][0], rows[-1][1]

    def close(self) -> None:
        """Forget what was seen."""
        self._file.close()
