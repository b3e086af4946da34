"""The queue of a home: what a keeper of this home has to do, and what people see of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from muniment.durable_file import failed
from muniment.ports import VisibleQueue
from muniment.queues.memory import MemoryQueue
from muniment.queues.sqlite import SqliteQueue

QUEUE_FILE: Final = "queue.sqlite"


@contextlib.contextmanager
def open_queue(home: Path, *, make: bool = False) -> Iterator[VisibleQueue]:
    """The queue of a home, also while another process works on it.

    Args:
        make: make it if there is none; else one that nobody has made is empty, and stays unmade.
    Raises: UnknownVersion, StoreFailed: its file cannot be used; DiskFull.
    """
    path = home / QUEUE_FILE
    if not make and not path.exists():
        yield MemoryQueue()
        return
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise failed(home, error) from error
    with contextlib.closing(SqliteQueue(path)) as queue:
        yield queue
