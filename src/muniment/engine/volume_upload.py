"""Uploading a folder into a volume: the reader's leaves become blobs and the entries that refer to them.

As `tree_upload`, but nothing is nested and no manifest is stored: what a leaf's manifest would hold goes into
a transaction.  One task for each chunk under way, children of the caller's task, and one thread that reads.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Final

from muniment.engine.epoch_writer import EpochWriter
from muniment.engine.file_facts import LeftOut
from muniment.engine.results import Progress, ProgressCallback, Skipped
from muniment.engine.stored_content import StoredLeaf
from muniment.engine.threads import Threads
from muniment.engine.tree_item import TreeItem
from muniment.engine.tree_reader import (
    Chunk,
    FileListReader,
    Leaf,
    LeafPlan,
    NeedBuffer,
    TreeReader,
    folder_bytes,
)
from muniment.errors import FileFailed, InvalidRequest
from muniment.ports import Clock
from muniment.spec.blob import BlobRef
from muniment.spec.limits import MIB
from muniment.spec.manifest import ROWS_MAX
from muniment.spec.operation import INLINE_BYTES_MAX

_BUFFERS: Final = 4
_PLAN: Final = LeafPlan(ROWS_MAX, INLINE_BYTES_MAX, 2 * MIB, whole=True)
"""No file has a manifest of its own, and a leaf fits in one log entry beside its blobs."""


class VolumeUpload:
    """The upload of one folder, or of files as if they were one.

    Args:
        source: the folder, read once; or files by the names that they are to have.
        writer: stores its blobs.
        clock: measures reading.
        progress: told after each chunk that is stored.
    """

    def __init__(
        self,
        source: Path | Mapping[bytes, Path],
        writer: EpochWriter,
        clock: Clock,
        progress: ProgressCallback | None,
    ) -> None:
        self._source = source
        self._writer = writer
        self._progress = progress
        reader = TreeReader if isinstance(source, Path) else FileListReader
        self._reader: TreeReader = reader(source, writer.policy.chunk_bytes, _PLAN)  # type: ignore[arg-type]
        self._thread = Threads("read", 1, clock)
        self._buffers: asyncio.Queue[memoryview] = asyncio.Queue()
        for _ in range(_BUFFERS):
            self._buffers.put_nowait(memoryview(mmap.mmap(-1, writer.policy.chunk_bytes)))
        self._rows: dict[int, asyncio.Task[BlobRef]] = {}  # the open pack has its row before it is stored
        self._done_bytes = 0
        self._total_bytes: int | None = None

    @property
    def files(self) -> int:
        """Regular files read."""
        return self._reader.files

    @property
    def size_bytes(self) -> int:
        """Content of those."""
        return self._reader.size_bytes

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What could not be read."""
        return tuple(self._reader.skipped)

    @property
    def left_out(self) -> LeftOut:
        """Of what was read, the facts that could not be."""
        return self._reader.left_out

    async def leaves(self) -> AsyncGenerator[StoredLeaf, None]:
        """Store the folder, leaf by leaf; close the generator when done with it.

        Cancelled, failed or closed, it returns when everything that was reserved is released.
        Raises: NotHappy, InvalidCoding; FileFailed, InvalidRequest: the folder itself cannot be listed.
        """
        try:
            if self._progress is not None:
                self._total_bytes, _ = await self._thread.run(_total_bytes, self._source)
            buffer: memoryview | None = None
            while (step := await self._step(buffer)) is not None:
                buffer = None
                match step:
                    case NeedBuffer():
                        buffer = await self._next_buffer()
                    case Chunk():
                        self._rows[step.row] = asyncio.create_task(self._store(step))
                    case Leaf(entries, count):
                        blobs = tuple([await self._rows[row] for row in range(count)])
                        self._rows.clear()
                        self._advance(sum(map(_not_in_blobs, entries)))
                        yield StoredLeaf(entries, blobs)
        finally:
            for row in self._rows.values():
                row.cancel()
            if self._rows:
                await asyncio.wait(self._rows.values())
            self._thread.close()
            self._reader.close()

    async def _step(self, buffer: memoryview | None) -> Chunk | NeedBuffer | Leaf | None:
        try:
            step, busy_s = await self._thread.run(self._reader.step, buffer)
        except NotADirectoryError as error:
            raise InvalidRequest(reason=f"{self._source} is not a folder") from error
        except OSError as error:
            raise FileFailed(path=str(self._source), reason=error.strerror or str(error)) from error
        self._writer.tally.stages.read_s += busy_s
        if isinstance(step, Chunk | NeedBuffer | Leaf) and not (isinstance(step, Chunk) and step.nested):
            return step
        if step is None:
            return None
        largest = ROWS_MAX * self._writer.policy.chunk_bytes
        raise InvalidRequest(reason=f"a file of more than {largest} bytes needs larger chunks")

    async def _next_buffer(self) -> memoryview:
        """An empty buffer, or the error of a blob that will not give its buffer back."""
        getting = asyncio.create_task(self._buffers.get())
        try:
            while not getting.done():
                running = [row for row in self._rows.values() if not row.done()]
                await asyncio.wait([getting, *running], return_when=asyncio.FIRST_COMPLETED)
                for row in self._rows.values():
                    if row.done():
                        row.result()
            return getting.result()
        finally:
            getting.cancel()

    async def _store(self, chunk: Chunk) -> BlobRef:
        give_back: Callable[[BlobRef], None] = lambda _: self._buffers.put_nowait(chunk.buffer)  # noqa: E731
        ref = await self._writer.store(chunk.buffer[: chunk.size_bytes], chunk.size_bytes, sealed=give_back)
        self._advance(chunk.data_bytes)
        return ref

    def _advance(self, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        if self._progress is not None:
            self._progress(Progress(self._done_bytes, self._total_bytes))


def _total_bytes(source: Path | Mapping[bytes, Path]) -> int:
    """For progress."""
    if isinstance(source, Path):
        return folder_bytes(source)
    return sum(path.stat().st_size for path in source.values() if path.exists())


def _not_in_blobs(item: TreeItem) -> int:
    """Bytes of a file's content that no chunk has told of: inline ones and holes."""
    return item.size_bytes - sum(extent.length for extent in item.extents)
