"""Downloading: blobs are fetched, checked and opened ahead, and written in order.

One task for each blob under way and one that writes, all children of the caller's task.  Memory is bounded by
the fetcher's pool; earlier blobs get their memory first, so writing in order always goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from muniment.engine.fetcher import Fetcher, Opened
from muniment.engine.groups import task_group
from muniment.engine.results import DownloadTally, Progress, ProgressCallback
from muniment.engine.spans import Span
from muniment.engine.threads import Threads

_AHEAD: Final = 32
"""Blobs asked for ahead of the one being written; memory is the tighter bound for full chunks."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a blob, and where they go.

    Attributes:
        span: what to fetch.
        write: takes exactly those bytes, in a thread, after all earlier parts.
    """

    span: Span
    write: Callable[[memoryview], None]


_Entry = tuple[Part, asyncio.Task[Opened]]


class Download:
    """The download of a sequence of parts.

    Args:
        fetcher: gets blobs.
        thread: writes, one part at a time.
        tally: counts.
        total_bytes: for progress; known better and better where manifests nest.
        progress: told after each blob that is written.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        thread: Threads,
        tally: DownloadTally,
        total_bytes: Callable[[], int],
        progress: ProgressCallback | None,
    ) -> None:
        self._fetcher = fetcher
        self._thread = thread
        self._tally = tally
        self._total_bytes = total_bytes
        self._progress = progress
        self._entries: asyncio.Queue[_Entry | None] = asyncio.Queue(_AHEAD)
        self._under_way: set[asyncio.Task[Opened]] = set()
        self._done_bytes = 0

    async def run(self, parts: AsyncGenerator[Part, None]) -> int:
        """Fetch and write all parts in order; returns how many bytes.

        Only checked and opened bytes are written.  Cancelled or failed, nothing is under way on return.
        Raises: as `Fetcher.open`; what `parts` and their writers raise.
        """
        try:
            async with task_group() as group:
                group.create_task(self._write_all())
                async with contextlib.aclosing(parts):
                    async for part in parts:
                        task = group.create_task(self._fetcher.open(part.span.ref, self._tally))
                        self._under_way.add(task)
                        await self._entries.put((part, task))
                await self._entries.put(None)
        finally:
            for task in self._under_way:
                if not task.cancelled() and task.exception() is None:
                    self._fetcher.give_back(task.result())
        return self._done_bytes

    async def _write_all(self) -> None:
        while (entry := await self._entries.get()) is not None:
            part, task = entry
            span, opened = part.span, await task
            _, busy_s = await self._thread.run(part.write, opened.plain[span.start : span.stop])
            self._tally.stages.write_s += busy_s
            self._under_way.discard(task)
            self._fetcher.give_back(opened)
            self._done_bytes += span.stop - span.start
            if self._progress is not None:
                self._progress(Progress(self._done_bytes, self._total_bytes()))
