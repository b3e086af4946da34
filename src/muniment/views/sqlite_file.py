"""What makes a SQLite file a view: its tables and first rows, its settings, and whose it is."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from muniment.core.state_hash import initial
from muniment.core.tree_state import FIRST_INODE, ROOT_INODE
from muniment.errors import FileFailed
from muniment.private_file import make_private
from muniment.sqlite_file import FileKind
from muniment.views.recording import EMPTY_AT
from muniment.views.sqlite_rows import INSERT_INODE, inode_columns
from muniment.views.sqlite_schema import APPLICATION_ID, OPEN, SCHEMA


def _fill(sqlite: sqlite3.Connection) -> None:
    """The state before all entries."""
    sqlite.execute("INSERT INTO meta VALUES (0, ?, ?)", (initial().lanes, FIRST_INODE))
    sqlite.execute(INSERT_INODE, (*inode_columns(ROOT_INODE), EMPTY_AT, OPEN))


VIEW: Final = FileKind(
    "view",
    APPLICATION_ID,
    (SCHEMA,),
    "move it away to have it folded anew",
    settings=(
        "journal_size_limit = 67108864",  # a burst must not keep the disk
        "wal_autocheckpoint = 8192",  # pages; more than SQLite's 1000, as batches are large
        "cache_size = -32768",  # KiB
        "synchronous = NORMAL",  # whole batches, but power loss may take the last: they are folded again
    ),
    fill=_fill,
)


def let_only_owner(path: Path) -> None:
    """Make the file if it is missing, and let nobody but its owner open it.

    Raises: FileFailed.
    """
    try:
        make_private(path)
        path.chmod(0o600)
    except OSError as error:
        raise FileFailed(path=str(path), reason=error.strerror or str(error)) from error
