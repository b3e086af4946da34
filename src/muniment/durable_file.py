"""Files that are whole or not there, also after power loss; and what a failed call on them becomes.

For what is kept beside the drivers: settings, keys, notes, a folder's names.  Shares have `stores.disk`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from muniment.errors import DiskFull, StoreFailed


def write_whole(path: Path, content: bytes | Iterable[bytes], *, mode: int = 0o644) -> None:
    """Replace a file durably: after a crash it has the old or the new content, never a part.

    Failed, it leaves nothing new; killed, a part as `NAME.new`, which the next one replaces.

    Args:
        content: whole or in parts.
    Raises: DiskFull, StoreFailed; what making the parts raises.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk needs the room
                new.unlink()
            raise
        flush(path.parent)
    except OSError as error:
        raise failed(path, error) from error


def flush(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive power loss.  Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """Flush the whole file system that holds a folder: one call instead of one for each of its files.

    Raises: OSError: not all of it could be written.
    """
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    except AttributeError:  # a C library without it
        os.sync()
    finally:
        os.close(descriptor)


def failed(where: Path | str, error: OSError) -> DiskFull | StoreFailed:
    """The leaf for a failed system call."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(where=str(where))
    return StoreFailed(where=str(where), reason=error.strerror or str(error))
