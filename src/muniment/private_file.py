"""Files that only their owner can read: keys, capabilities, passphrases, and what SQLite keeps."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from muniment.errors import ConfigInvalid

SECRET_BYTES_MAX: Final = 4096
"""Longest file of a secret that is read; the longest there are have some hundred bytes."""

_OTHERS: Final = 0o077


def make_private(path: Path) -> None:
    """Make a file if it is missing, for its owner only.  Raises: OSError."""
    # An existing one is never opened here: closing it would drop the locks that SQLite has on it elsewhere in
    # this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def read_private(path: Path, *, where: str = "") -> bytes:
    """A secret.

    Args:
        where: what to call it in an error.
    Raises: ConfigInvalid: others can read it, or it is longer than SECRET_BYTES_MAX; OSError.
    """
    where = where or str(path)
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OTHERS:
            raise ConfigInvalid(where=where, reason="it is readable by others; run chmod 600 on it")
        data = file.read(SECRET_BYTES_MAX + 1)
    if len(data) > SECRET_BYTES_MAX:
        raise ConfigInvalid(where=where, reason=f"it is longer than {SECRET_BYTES_MAX} bytes")
    return data
