"""`BlobBook` in one SQLite file (docs/drivers/blob-book.md).

Disposable: the log names the blobs again, and the nodes tell what they hold.  Pages are read in the order of
BlobIds, as nodes list shares, so that comparing a volume with a node is one walk along both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from muniment.core.placement import Slot
from muniment.errors import InternalError
from muniment.ids import BlobId, NodeId, ShareKey, ShareNumber
from muniment.ports import NamedBlobs, Sighting
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape
from muniment.sqlite_file import FileKind, SqliteFile

_SCHEMA: Final = """
-- How much of the log is in the book.
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 0), -- one row
    size INTEGER NOT NULL                  -- entries taken in
) STRICT;
INSERT INTO head VALUES (0, 0);

-- Every blob that an entry named.
CREATE TABLE blobs (
    blob BLOB PRIMARY KEY,                 -- BlobId, 32 bytes
    shape BLOB NOT NULL,                   -- codec, k, n, length as in the BlobId, 13 bytes
    named INTEGER NOT NULL,                -- index of the last entry that names it
    pruned INTEGER NOT NULL DEFAULT -1     -- last entry that a prune of it saw; -1: none.  Kept: < named
) STRICT, WITHOUT ROWID;

-- What was last seen of each share at each node; a row goes when the node says it has it not.
CREATE TABLE sightings (
    blob BLOB NOT NULL,
    number INTEGER NOT NULL,               -- of the share
    node BLOB NOT NULL,                    -- NodeId, 32 bytes
    held_s REAL NOT NULL,                  -- seconds since the epoch: when the node last said it holds it
    proven_s REAL NOT NULL,                -- when it last proved it, or was read; 0: never
    leased_s REAL NOT NULL DEFAULT 0,      -- until when the keeper's lease runs, as far as known; 0: none
    PRIMARY KEY (blob, number, node)
) STRICT, WITHOUT ROWID;

-- When each node last answered.
CREATE TABLE nodes (
    node BLOB PRIMARY KEY,
    answered_s REAL NOT NULL               -- seconds since the epoch
) STRICT, WITHOUT ROWID;
"""

_BOUND: Final = """
-- Which volume's log, and which history of it, the book was made from; empty: not known.
ALTER TABLE head ADD COLUMN bound BLOB NOT NULL DEFAULT x'';
"""

_ADVICE: Final = "move it away, and it is written anew from the log"
_KIND: Final = FileKind("blob book", 0x4D554E42, (_SCHEMA, _BOUND), _ADVICE)


class SqliteBlobBook:
    """One volume's book.

    Args:
        path: the file; made if missing, its folder must exist.
    Raises: as `sqlite_file.SqliteFile`.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _KIND)

    @property
    def size(self) -> int:
        with self._file.reading() as sqlite:
            return int(sqlite.execute("SELECT size FROM head").fetchone()[0])

    @property
    def bound(self) -> bytes:
        with self._file.reading() as sqlite:
            return bytes(sqlite.execute("SELECT bound FROM head").fetchone()[0])

    def clear(self) -> None:
        with self._file.transaction() as sqlite:
            for table in ("blobs", "sightings", "nodes"):
                sqlite.execute(f"DELETE FROM {table}")  # noqa: S608 - one of these three
            sqlite.execute("UPDATE head SET size = 0, bound = x''")

    def take_in(self, start: int, entries: Sequence[NamedBlobs], *, bound: bytes = b"") -> None:
        added = [
            (name.blob, name.shape.pack(), start + at)
            for at, entry in enumerate(entries)
            for name in entry.added
        ]
        pruned = [
            (start + at if entry.pruned_size is None else entry.pruned_size - 1, name.blob)
            for at, entry in enumerate(entries)
            for name in entry.pruned
        ]
        with self._file.transaction() as sqlite:
            if sqlite.execute("SELECT size FROM head").fetchone()[0] != start:
                raise InternalError(reason=f"entries from {start} on do not follow in the blob book")
            sqlite.executemany(
                "INSERT INTO blobs (blob, shape, named) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET named = excluded.named",
                added,
            )
            sqlite.executemany("UPDATE blobs SET pruned = max(pruned, ?) WHERE blob = ?", pruned)
            sqlite.execute("UPDATE head SET size = ?, bound = ?", (start + len(entries), bound))

    def kept(self, after: BlobId | None, limit: int) -> list[BlobName]:
        with self._file.reading() as sqlite:
            rows = sqlite.execute(
                "SELECT blob, shape FROM blobs WHERE blob > ? AND pruned < named ORDER BY blob LIMIT ?",
                (after or b"", limit),
            ).fetchall()
        return [BlobName(BlobId(blob), BlobShape.unpack(shape)) for blob, shape in rows]

    def is_kept(self, blobs: Iterable[BlobId]) -> list[bool]:
        sql = "SELECT 1 FROM blobs WHERE blob = ? AND pruned < named"
        with self._file.reading() as sqlite:
            return [sqlite.execute(sql, (blob,)).fetchone() is not None for blob in blobs]

    def is_pruned(self, blobs: Iterable[BlobId]) -> list[bool]:
        sql = "SELECT 1 FROM blobs WHERE blob = ? AND pruned >= named"
        with self._file.reading() as sqlite:
            return [sqlite.execute(sql, (blob,)).fetchone() is not None for blob in blobs]

    def count(self) -> tuple[int, int]:
        with self._file.reading() as sqlite:
            row = sqlite.execute("SELECT count(*), coalesce(sum(pruned < named), 0) FROM blobs").fetchone()
        return int(row[0]), int(row[1])

    def note(
        self,
        held: Iterable[tuple[BlobId, Slot]],
        gone: Iterable[tuple[BlobId, Slot]],
        *,
        now_s: float,
        proven: bool,
    ) -> None:
        proven_s = now_s if proven else 0.0
        with self._file.transaction() as sqlite:
            sqlite.executemany(
                "INSERT INTO sightings VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET"
                " held_s = excluded.held_s, proven_s = max(proven_s, excluded.proven_s)",
                [(blob, slot.share, slot.node, now_s, proven_s) for blob, slot in held],
            )
            sqlite.executemany(
                "DELETE FROM sightings WHERE blob = ? AND number = ? AND node = ?",
                [(blob, slot.share, slot.node) for blob, slot in gone],
            )

    def leased(self, slots: Iterable[tuple[BlobId, Slot]], until_s: float) -> None:
        with self._file.transaction() as sqlite:
            sqlite.executemany(
                "UPDATE sightings SET leased_s = ? WHERE blob = ? AND number = ? AND node = ?",
                [(until_s, blob, slot.share, slot.node) for blob, slot in slots],
            )

    def listed(
        self, node: NodeId, after: ShareKey | None, last: ShareKey | None, ends: Mapping[ShareKey, float]
    ) -> None:
        sql = "SELECT blob, number, leased_s FROM sightings WHERE (blob, number) > (?, ?) AND node = ?"
        bounds = [b"", -1, node] if after is None else [after.blob, after.number, node]
        if last is not None:
            sql, bounds = f"{sql} AND (blob, number) <= (?, ?)", [*bounds, last.blob, last.number]
        with self._file.transaction() as sqlite:
            changed = []
            for blob, number, leased_s in sqlite.execute(sql, bounds):
                end_s = ends.get(ShareKey(BlobId(blob), ShareNumber(number)), 0.0)
                if (until_s := min(leased_s or end_s, end_s)) != leased_s:
                    changed.append((until_s, blob, number, node))
            sqlite.executemany(
                "UPDATE sightings SET leased_s = ? WHERE blob = ? AND number = ? AND node = ?", changed
            )

    def sightings(self, blobs: Iterable[BlobId]) -> list[list[Sighting]]:
        sql = (
            "SELECT number, node, held_s, proven_s, leased_s FROM sightings"
            " WHERE blob = ? ORDER BY number, node"
        )
        with self._file.reading() as sqlite:
            return [
                [
                    Sighting(Slot(ShareNumber(number), NodeId(node)), held_s, proven_s, leased_s)
                    for number, node, held_s, proven_s, leased_s in sqlite.execute(sql, (blob,))
                ]
                for blob in blobs
            ]

    def answered(self, nodes: Iterable[NodeId], now_s: float) -> None:
        with self._file.transaction() as sqlite:
            sqlite.executemany(
                "INSERT INTO nodes VALUES (?, ?) ON CONFLICT DO UPDATE SET answered_s = excluded.answered_s",
                [(node, now_s) for node in nodes],
            )

    def last_answers(self) -> Mapping[NodeId, float]:
        with self._file.reading() as sqlite:
            return {NodeId(node): when for node, when in sqlite.execute("SELECT * FROM nodes")}

    def close(self) -> None:
        self._file.close()
