"""SQLite in WAL mode: several processes that write one database through shared memory."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.programs.place import Failed, Place

_WRITERS: Final = 3
_ROWS: Final = 200
_PAUSE_S: Final = 0.05
_WRITER: Final = """
import hashlib, sqlite3, sys
path, who, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
base = sqlite3.connect(path, timeout=60, isolation_level=None)
base.execute("PRAGMA synchronous = NORMAL")
base.execute("PRAGMA wal_autocheckpoint = 300")
for number in range(rows):
    text = hashlib.sha256(b"%d %d" % (who, number)).hexdigest() * 20
    base.execute("BEGIN IMMEDIATE")
    base.execute("INSERT INTO rows VALUES (?, ?, ?)", (who, number, text))
    base.execute("UPDATE sums SET count = count + 1, bytes = bytes + ?", (len(text),))
    if number % 7 == 3:
        base.execute("DELETE FROM rows WHERE who = ? AND number = ?", (who, number - 1))
        base.execute("UPDATE sums SET count = count - 1, bytes = bytes - ?", (len(text),))
    base.execute("COMMIT")
    if number % 100 == 50:
        assert base.execute("PRAGMA quick_check").fetchone() == ("ok",)
base.close()
"""


def sqlite(place: Place) -> str:
    """Writers beside each other, readers meanwhile; whole at the end, and when it is mounted again."""
    with place.mounted() as mount:
        path = mount / "rows.sqlite"
        base = sqlite3.connect(path, isolation_level=None)
        mode = base.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise Failed(f"SQLite refuses WAL: it stays in mode {mode}")
        base.execute("CREATE TABLE rows (who, number, text, PRIMARY KEY (who, number))")
        base.execute("CREATE TABLE sums (count, bytes)")
        base.execute("INSERT INTO sums VALUES (0, 0)")
        writers = [_writer(path, who) for who in range(_WRITERS)]
        looks = 0
        while any(writer.poll() is None for writer in writers):
            _check(base)
            looks += 1
            time.sleep(_PAUSE_S)  # a reader that never rests keeps the log of changes from being taken in
        for writer in writers:
            if writer.wait():
                assert writer.stderr is not None
                raise Failed(f"a writer ended: {writer.stderr.read().decode()[-500:]}")
        _check(base)
        rows = base.execute("SELECT count(*) FROM rows").fetchone()[0]
        base.close()
    with place.mounted() as mount:
        again = sqlite3.connect(mount / "rows.sqlite")
        _check(again)
        if again.execute("SELECT count(*) FROM rows").fetchone()[0] != rows:
            raise Failed("rows are missing when it is mounted again")
        again.close()
    return f"{_WRITERS} writers of {_ROWS} transactions, {looks} looks of a reader, {rows} rows"


def _writer(path: Path, who: int) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-c", _WRITER, str(path), str(who), str(_ROWS)]
    return subprocess.Popen(line, stderr=subprocess.PIPE)


def _check(base: sqlite3.Connection) -> None:
    """One moment of the database agrees with itself."""
    query = """SELECT (SELECT count(*) FROM rows), (SELECT coalesce(sum(length(text)), 0) FROM rows),
        count, bytes FROM sums"""
    count, size, said_count, said_size = base.execute(query).fetchone()
    if (count, size) != (said_count, said_size):
        raise Failed(
            f"{count} rows of {size} bytes are there, and {said_count} of {said_size} are said to be"
        )
    if base.execute("PRAGMA quick_check").fetchone() != ("ok",):
        raise Failed("quick_check finds the database damaged")
