"""Draining: a node that is to leave gives its shares away first (docs/node.md section 9).

The wish is an empty file in the node's folder, so it is the operator's alone, needs no signal or secret, and
outlives restarts.  A running node looks for it every second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from muniment.durable_file import failed, flush, write_whole
from muniment.errors import ConfigInvalid, FolderBusy
from muniment.node.config import load_node_config
from muniment.node.folder import FolderLock

DRAINING_FILE: Final = "draining"
_LOOK_S: Final = 1.0


def is_draining(folder: Path) -> bool:
    """Whether the node of this folder is to be drained."""
    return (folder / DRAINING_FILE).exists()


def set_draining(folder: Path, *, draining: bool) -> None:
    """Tell the running node of this folder; durable on return.  Idempotent.

    Raises: ConfigInvalid: no node's folder, or its node does not run; DiskFull, StoreFailed.
    """
    load_node_config(folder)
    with contextlib.suppress(FolderBusy):
        FolderLock(folder).close()
        raise ConfigInvalid(
            where=str(folder), reason=f"its node does not run; start it first with 'muni node run {folder}'"
        )
    file = folder / DRAINING_FILE
    if draining:
        write_whole(file, b"")
        return
    try:
        file.unlink(missing_ok=True)
        flush(folder)
    except OSError as error:
        raise failed(file, error) from error


async def follow(folder: Path, tell: Callable[[bool], None]) -> None:
    """Tell what is wished, now and whenever it changes, until cancelled."""
    told = None
    while True:
        wished = is_draining(folder)
        if wished != told:
            told = wished
            tell(wished)
        await asyncio.sleep(_LOOK_S)
