"""Uploading a folder: the reader's steps become blobs, rows and manifests.

One task for each chunk under way, children of the caller's task, and one thread that reads.  A leaf manifest
is stored when all its rows are known; the index above the leaves at the end.
"""

from __future__ import annotations

import asyncio
import mmap
from pathlib import Path
from typing import Final

from muniment.core.manifesting import content_row, nested_row
from muniment.engine.blobs import BlobWriter, Expect, FileRows
from muniment.engine.groups import task_group
from muniment.engine.results import Progress, ProgressCallback, Skipped
from muniment.engine.threads import Threads
from muniment.engine.tree_item import TreeItem, manifest_entry
from muniment.engine.tree_reader import Chunk, FileEnd, Leaf, NeedBuffer, TreeReader, folder_bytes
from muniment.errors import FileFailed, InvalidRequest
from muniment.ports import Clock
from muniment.spec.blob import BlobRef
from muniment.spec.cap import TreeReadCap
from muniment.spec.manifest import ROWS_MAX, Manifest, ManifestKind, Row

_BUFFERS: Final = 4
"""Chunks of plaintext in memory: the open pack, one being filled, one sealed in each kernel thread."""


class TreeUpload:
    """The upload of one folder.

    Args:
        folder: read once.
        writer: stores its blobs.
        clock: measures reading.
        progress: told after each chunk that is stored.

    Attributes:
        read_s: busy seconds of reading.
    """

    def __init__(
        self, folder: Path, writer: BlobWriter, clock: Clock, progress: ProgressCallback | None
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._progress = progress
        self._reader = TreeReader(folder, writer.policy.chunk_bytes)
        self._thread = Threads("read", 1, clock)
        self._buffers: asyncio.Queue[memoryview] = asyncio.Queue()
        for _ in range(_BUFFERS):
            self._buffers.put_nowait(memoryview(mmap.mmap(-1, writer.policy.chunk_bytes)))
        self._rows: dict[int, asyncio.Future[Row]] = {}
        self._large: dict[int, FileRows] = {}
        self._leaves: list[Row] = []
        self._done_bytes = 0
        self._total_bytes: int | None = None
        self.read_s = 0.0

    @property
    def files(self) -> int:
        """Regular files stored."""
        return self._reader.files

    @property
    def size_bytes(self) -> int:
        """Content of those."""
        return self._reader.size_bytes

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What could not be read."""
        return tuple(self._reader.skipped)

    async def run(self) -> TreeReadCap:
        """Store it.

        Cancelled or failed, it returns when everything that was reserved is released.
        Raises: NotHappy, InvalidCoding; FileFailed, InvalidRequest: the folder itself cannot be listed.
        """
        try:
            if self._progress is not None:
                self._total_bytes, _ = await self._thread.run(folder_bytes, self._folder)
            async with task_group() as group:
                await self._take_steps(group)
        finally:
            self._thread.close()
            self._reader.close()
        return TreeReadCap((await self._index(self._leaves)).ref)

    async def _take_steps(self, group: asyncio.TaskGroup) -> None:
        buffer: memoryview | None = None
        while True:
            try:
                step, busy_s = await self._thread.run(self._reader.step, buffer)
            except NotADirectoryError as error:
                raise InvalidRequest(reason=f"{self._folder} is not a folder") from error
            except OSError as error:
                raise FileFailed(path=str(self._folder), reason=error.strerror or str(error)) from error
            self.read_s += busy_s
            buffer = None
            match step:
                case NeedBuffer():
                    buffer = await self._buffers.get()
                case Chunk(row, nested=nested):
                    if nested:
                        rows = self._large.setdefault(row, FileRows(self._writer))
                        group.create_task(self._store(step, rows.expect()))
                        await rows.collect()
                    else:
                        group.create_task(self._store(step, self._expect(row)))
                case FileEnd(row):
                    self._row(row).set_result(await self._large.pop(row).finish())
                case Leaf(entries, count):
                    await self._end_leaf(entries, count)
                case None:
                    return

    async def _end_leaf(self, entries: tuple[TreeItem, ...], count: int) -> None:
        rows = [await self._row(at) for at in range(count)]
        self._rows.clear()
        leaf = Manifest(ManifestKind.TREE, tuple(rows), tuple(map(manifest_entry, entries)))
        self._leaves.append(await self._store_tree(leaf))
        self._advance(sum(len(entry.inline) for entry in entries if entry.is_file))

    async def _index(self, rows: list[Row]) -> Row:
        """Indexes above the leaves until one manifest is left; returns its row."""
        while len(rows) > 1:
            groups = [tuple(rows[at : at + ROWS_MAX]) for at in range(0, len(rows), ROWS_MAX)]
            rows = [await self._store_tree(Manifest(ManifestKind.TREE_INDEX, group)) for group in groups]
        return rows[0]

    async def _store_tree(self, manifest: Manifest) -> Row:
        """Store a manifest of a tree; as a row it has no span of its own."""
        row = await self._writer.store_manifest(manifest)
        return nested_row(row.ref, 0)

    async def _store(self, chunk: Chunk, expect: Expect) -> None:
        def sealed(ref: BlobRef) -> None:
            self._buffers.put_nowait(chunk.buffer)
            expect(ref)

        await self._writer.store(chunk.buffer[: chunk.size_bytes], chunk.size_bytes, sealed=sealed)
        self._advance(chunk.size_bytes)

    def _advance(self, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        if self._progress is not None:
            self._progress(Progress(self._done_bytes, self._total_bytes))

    def _expect(self, row: int) -> Expect:
        coming = self._row(row)
        return lambda ref: coming.set_result(content_row(ref))

    def _row(self, at: int) -> asyncio.Future[Row]:
        if at not in self._rows:
            self._rows[at] = asyncio.get_running_loop().create_future()
        return self._rows[at]
