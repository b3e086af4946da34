"""Whether other processes use a home's account beside this one.

Shares lie under the account, and of two processes that store the same content the second finds the first
one's: what the first gives up because it failed, the second would lose.  So only who was alone from the
beginning gives anything up.

`uploads` in the home grows by a byte for each client that begins, which holds a shared lock on it as long as
it lives.  Who has the exclusive lock, and nobody's byte behind his own, was alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE: Final = "uploads"
_log = logging.getLogger(__name__)


class Beside:
    """One client of a home's account, until `close` or the end of the process.

    Waits while another one is giving up what it stored, some seconds at most.
    In a home that cannot be written it never counts as alone.
    """

    def __init__(self, home: Path) -> None:
        self._descriptor, self._own, self._alone = -1, 0, False
        try:
            self._descriptor = os.open(
                home / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            before = os.fstat(self._descriptor).st_size
            alone = self._locks_out()
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            os.write(self._descriptor, b".")
            self._own = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            self._alone = alone and self._own == before + 1
        except OSError as error:
            _log.info("%s cannot be used: %s", home / FILE, error)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Tells whether nobody else was there since this began; if so, nobody else begins while inside."""
        alone = self._alone and os.fstat(self._descriptor).st_size == self._own and self._locks_out()
        # Who began while the lock was changed has written its byte.
        self._alone = alone and os.fstat(self._descriptor).st_size == self._own
        try:
            yield self._alone
        finally:
            if alone:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Be there no more.  Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _locks_out(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # a change of lock that fails loses the old one
            return False
        return True
