"""View snapshots on the grid: their bytes to blobs and back, as those of files."""

from __future__ import annotations

from typing import BinaryIO

from muniment.core.tree_state import StoredExtent
from muniment.engine.epoch_writer import EpochWriter
from muniment.engine.grid import Grid
from muniment.engine.results import DownloadTally, ProgressCallback
from muniment.engine.source import open_source
from muniment.engine.stored_content import StoredContent
from muniment.engine.threads import Threads
from muniment.engine.view_snapshot import FetchContent, StoreContent
from muniment.engine.volume_content import OrderedContent, store_stream
from muniment.errors import FileFailed
from muniment.ports import Clock


def storing(writer: EpochWriter, clock: Clock, progress: ProgressCallback | None) -> StoreContent:
    """Stores a snapshot like a file, under the writer's policy and convergence secret."""

    async def store(file: BinaryIO) -> StoredContent:
        source = open_source(file, writer.policy.chunk_bytes, clock)
        try:
            return await store_stream(source, writer, progress)
        finally:
            await source.aclose()

    return store


def fetching(grid: Grid) -> FetchContent:
    """Fetches a snapshot from the nodes, every share checked, in constant memory."""

    async def fetch(extents: tuple[StoredExtent, ...], file: BinaryIO) -> None:
        def write(data: memoryview) -> None:
            try:
                file.write(data)
            except OSError as error:
                raise FileFailed(path="a temporary file", reason=error.strerror or str(error)) from error

        size, thread = extents[-1].stop, Threads("view", 1, grid.clock)
        content = OrderedContent(extents, 0, size, write)
        try:
            await grid.read_parts(content.parts(), thread, DownloadTally(), size, None)
            await thread.run(content.finish)
        finally:
            thread.close()

    return fetch
