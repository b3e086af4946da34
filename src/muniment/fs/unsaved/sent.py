"""Blobs that were sent for saves and that no entry names: what a mount that was killed leaves leased.

Each is written down before it is sent, in a file of the mount's own (docs/spec/unsaved.md, section 2), and
crossed out when an entry names it.  What stands there when a mount begins was left by an earlier one: it was
killed, or the bytes were replaced or removed before they were saved.  `Store` gives up the leases on it.

Nothing is flushed: a killed process leaves to the kernel what it wrote.  What a power loss takes of the list
stays leased until its leases end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from muniment.ids import ID_BYTES, BlobId
from muniment.spec.unsaved import split_sent

_SLACK_BYTES: Final = 4096 * ID_BYTES
_log = logging.getLogger(__name__)


class SentBlobs:
    """See the module.

    Args:
        path: of the file; None: nothing is written down.

    Attributes:
        left: what earlier mounts have sent and nothing has asked for since.
    """

    def __init__(self, path: Path | None) -> None:
        self.left: set[BlobId] = set()
        self._unnamed: set[BlobId] = set()
        self._path, self._descriptor, self._size_bytes = path, -1, 0
        if path is not None:
            try:
                self._open(path)
                found = split_sent(path.read_bytes())
                self.left.update(found)
                self._size_bytes = len(found) * ID_BYTES
                os.ftruncate(
                    self._descriptor, self._size_bytes
                )  # the rest of a torn one would shift all behind
            except OSError as error:
                self._failed(error)

    def sending(self, blob: BlobId) -> None:
        """It is sent next."""
        if blob in self._unnamed:
            return
        self.left.discard(blob)
        self._unnamed.add(blob)
        self._write(blob)

    def needed(self, blobs: Iterable[BlobId]) -> None:
        """An entry is going to name these, whoever has sent them."""
        for blob in blobs:
            self.sending(blob)

    def named(self, blobs: Iterable[BlobId]) -> None:
        """An entry names these now, or their leases were given up."""
        for blob in blobs:
            self._unnamed.discard(blob)
            self.left.discard(blob)
        if not self.left and not self._unnamed:
            self._empty()
        elif self._size_bytes > 2 * (len(self.left) + len(self._unnamed)) * ID_BYTES + _SLACK_BYTES:
            self._rewrite()

    def close(self) -> None:
        """What no entry names stays written down."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0:
            return
        try:
            self._size_bytes += os.write(self._descriptor, data)
        except OSError as error:
            self._failed(error)

    def _empty(self) -> None:
        if self._descriptor < 0 or not self._size_bytes:
            return
        try:
            os.ftruncate(self._descriptor, 0)
            self._size_bytes = 0
        except OSError as error:
            self._failed(error)

    def _rewrite(self) -> None:
        if self._descriptor < 0 or self._path is None:
            return
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._open(new)
            self._size_bytes = 0
            self._write(b"".join((*self.left, *self._unnamed)))
            new.replace(self._path)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        _log.warning("what is sent is not written down: %s; killed, this mount leaves it leased", error)
        self.close()
