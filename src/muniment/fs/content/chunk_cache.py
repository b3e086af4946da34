"""Opened chunks in memory: the last that were used or written, up to a size, each fetched once for all.

The kernel forgets a file's pages when it sees that it has changed, also by writing through this same mount:
who reads what was just written (a linker, a database) would have to wait for the nodes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from muniment.errors import MunimentError
from muniment.ids import BlobId
from muniment.spec.blob import BlobRef
from muniment.spec.limits import MIB

_AHEAD_MAX: Final = 4
_WRITTEN_MAX: Final = MIB
"""Fresh memory for what a large file has cost more than all else the loop does while one is written."""


class ChunkCache:
    """Plaintext by BlobId.

    Args:
        fetch: gets what is not here.
        limit_bytes: kept at most; what is being read is kept by its readers as well.
    """

    def __init__(self, fetch: Callable[[BlobRef], Awaitable[memoryview]], limit_bytes: int) -> None:
        self._fetch, self._limit_bytes = fetch, limit_bytes
        self._kept: OrderedDict[BlobId, memoryview] = OrderedDict()
        self._coming: dict[BlobId, asyncio.Task[memoryview]] = {}
        self._ahead = 0
        self._bytes = 0

    async def get(self, ref: BlobRef) -> memoryview:
        """The whole chunk.  Raises: TooFewShares, BlobCorrupt."""
        blob = ref.name.blob
        kept = self._kept.get(blob)
        if kept is not None:
            self._kept.move_to_end(blob)
            return kept
        return await asyncio.shield(self._coming.get(blob) or self._begin(ref))

    def put(self, ref: BlobRef, plain: memoryview) -> None:
        """Keep a copy of a chunk that was written, if it is not large, for who reads it again."""
        if len(plain) <= min(_WRITTEN_MAX, self._limit_bytes):
            self._keep(ref.name.blob, memoryview(bytes(plain)))

    def ahead(self, ref: BlobRef) -> None:
        """Fetch a chunk that will be wanted soon, unless enough are coming; what fails, readers hear."""
        blob = ref.name.blob
        if blob in self._kept or blob in self._coming or self._ahead >= _AHEAD_MAX:
            return
        self._ahead += 1
        self._begin(ref).add_done_callback(self._ahead_done)

    def _ahead_done(self, _: asyncio.Task[memoryview]) -> None:
        self._ahead -= 1

    def _begin(self, ref: BlobRef) -> asyncio.Task[memoryview]:
        async def fetch() -> memoryview:
            plain = await self._fetch(ref)
            self._keep(ref.name.blob, plain)
            return plain

        blob = ref.name.blob
        task = self._coming[blob] = asyncio.create_task(fetch(), name="fetch chunk")
        task.add_done_callback(lambda done: self._came(blob, done))
        return task

    def _came(self, blob: BlobId, task: asyncio.Task[memoryview]) -> None:
        del self._coming[blob]
        if not task.cancelled() and not isinstance(task.exception(), MunimentError | None):
            task.get_loop().call_exception_handler({"message": "fetch chunk", "exception": task.exception()})

    def _keep(self, blob: BlobId, plain: memoryview) -> None:
        if blob in self._kept:
            return
        self._kept[blob] = plain
        self._bytes += len(plain)
        while self._bytes > self._limit_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)

    async def aclose(self) -> None:
        """End what is coming, and forget everything."""
        coming = list(self._coming.values())
        for task in coming:
            task.cancel()
        if coming:
            await asyncio.wait(coming)
        self._kept.clear()
        self._bytes = 0
