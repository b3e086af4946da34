"""Files of a process that keeps a folder: its lock and its key.

A node, an introducer and a client's home each have one.  The lock is the folder itself (`flock`), so it ends
with the process, however that ends, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Final

from muniment.crypto.identity import Identity
from muniment.durable_file import failed, write_whole
from muniment.errors import ConfigInvalid, FolderBusy, InvalidRequest
from muniment.ids import id_from_text, secret_text
from muniment.private_file import read_private

_PAUSES_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


class FolderLock:
    """Exclusive use of a folder until `close` or the end of the process.

    Args:
        wait: for another process to let go, instead of refusing.

    Raises: FolderBusy: another process has it; StoreFailed: it cannot be opened.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise failed(folder, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(self._descriptor)
            raise FolderBusy(folder=str(folder)) from error

    def close(self) -> None:
        """Let others in.  Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def wait_lock(folder: Path) -> FolderLock:
    """Exclusive use of a folder, soon after others let it go.

    Asked for again and again: a thread that waits for it in the kernel could not be called back, and would
    keep a process from its other work and its end for as long as others have the folder.

    Raises: StoreFailed: it cannot be opened.
    """
    for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
        with contextlib.suppress(FolderBusy):
            return FolderLock(folder)
        await asyncio.sleep(pause_s)
    raise AssertionError


def read_identity(path: Path) -> Identity:
    """The key in a key file: the seed as 52 characters of text.

    Raises: ConfigInvalid: missing, readable by others, or not a key.
    """
    try:
        text = read_private(path).decode("ascii").strip()
    except FileNotFoundError as error:
        raise ConfigInvalid(where=str(path), reason="the key file is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(where=str(path), reason=f"the key file cannot be read: {error}") from error
    try:
        return Identity.from_seed(id_from_text(text))
    except InvalidRequest:
        # `from None`: the text of the cause must not carry a part of the key into a log.
        raise ConfigInvalid(where=str(path), reason="this is not a key file") from None


def make_identity(path: Path, entropy: Callable[[int], bytes]) -> Identity:
    """A new key, written with mode 0600; durable on return.  Raises: DiskFull, StoreFailed."""
    identity = Identity.generate(entropy)
    write_whole(path, f"{secret_text(identity.seed)}\n".encode(), mode=0o600)
    return identity
