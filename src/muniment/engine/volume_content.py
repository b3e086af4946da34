"""Content of a volume's files: from a stream to blobs and extents, and from extents to bytes in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from muniment.core.tree_state import StoredExtent
from muniment.engine.download import Part
from muniment.engine.epoch_writer import EpochWriter
from muniment.engine.groups import task_group
from muniment.engine.results import Progress, ProgressCallback
from muniment.engine.source import BUFFERS, Piece, Source
from muniment.engine.spans import Span
from muniment.engine.stored_content import StoredContent
from muniment.errors import InvalidRequest
from muniment.spec.blob import BlobRef
from muniment.spec.manifest import ROWS_MAX
from muniment.spec.operation import INLINE_BYTES_MAX, Extent

_ZEROS: Final = bytes(1 << 20)


async def store_stream(
    source: Source, writer: EpochWriter, progress: ProgressCallback | None
) -> StoredContent:
    """Store one stream in constant memory; what is small enough lives in the entry and needs no node.

    Cancelled or failed, it returns when everything that was reserved is released.
    Raises: NotHappy, InvalidCoding; FileFailed; InvalidRequest: too long for one entry.
    """
    unsealed, done_bytes = asyncio.Semaphore(BUFFERS), 0
    tasks: list[asyncio.Task[BlobRef]] = []
    extents: list[Extent] = []
    offset = 0

    async def store(piece: Piece) -> BlobRef:
        nonlocal done_bytes
        size = len(piece.plain)

        def sealed(_: BlobRef) -> None:
            unsealed.release()
            piece.free()

        ref = await writer.store(piece.plain, size, sealed=sealed)
        done_bytes += size
        if progress is not None:
            progress(Progress(done_bytes, source.total_bytes))
        return ref

    piece = await source.next()
    if piece is None:
        return StoredContent((), (), 0)
    if len(piece.plain) <= INLINE_BYTES_MAX and piece.offset is None:  # only a last piece is that short
        content = bytes(piece.plain)
        piece.free()
        return StoredContent((Extent(0, len(content), content),), (), len(content))
    async with task_group() as group:
        while piece is not None:
            offset = offset if piece.offset is None else piece.offset
            size = len(piece.plain)
            if size:
                if len(tasks) == ROWS_MAX:
                    largest = ROWS_MAX * writer.policy.chunk_bytes
                    raise InvalidRequest(reason=f"a file of more than {largest} bytes needs larger chunks")
                for start, stop in ((0, size),) if piece.spans is None else piece.spans:
                    extents.append(Extent(offset + start, stop - start, len(tasks), start))
                await unsealed.acquire()
                tasks.append(group.create_task(store(piece)))
            offset += size
            piece = await source.next()
    return StoredContent(tuple(extents), tuple(task.result() for task in tasks), offset)


class OrderedContent:
    """Bytes `start` to `stop` of a file, written in order: blobs, inline bytes and holes.

    Args:
        extents: those with a byte in the range, in order.
        write: takes the bytes; runs in a thread.
        skip: takes lengths of holes; None: they are written as zeros.
    """

    def __init__(
        self,
        extents: Sequence[StoredExtent],
        start: int,
        stop: int,
        write: Callable[[memoryview], None],
        skip: Callable[[int], None] | None = None,
    ) -> None:
        self._skip = skip
        self._extents, self._at, self._stop, self._write = extents, start, stop, write
        self._start = start

    async def parts(self) -> AsyncGenerator[Part, None]:
        """What is to be fetched; what lies before a blob's bytes is written with them."""
        before: list[StoredExtent] = []
        for extent in self._extents:
            if isinstance(extent.source, bytes):
                before.append(extent)
                continue
            first, last = max(extent.offset, self._start), min(extent.stop, self._stop)
            skip = extent.source_offset - extent.offset
            yield Part(Span(extent.source, first + skip, last + skip), self._writer(tuple(before), first))
            before.clear()
        self._rest = tuple(before)

    def finish(self) -> None:
        """Write what lies behind the last blob's bytes; in a thread, after all parts."""
        self._small(self._rest)
        self._zeros(self._stop)

    def _writer(self, before: tuple[StoredExtent, ...], first: int) -> Callable[[memoryview], None]:
        def write(data: memoryview) -> None:
            self._small(before)
            self._zeros(first)
            self._write(data)
            self._at += len(data)

        return write

    def _small(self, extents: Sequence[StoredExtent]) -> None:
        for extent in extents:
            assert isinstance(extent.source, bytes)
            first, last = max(extent.offset, self._start), min(extent.stop, self._stop)
            self._zeros(first)
            self._write(memoryview(extent.source)[first - extent.offset : last - extent.offset])
            self._at = last

    def _zeros(self, to: int) -> None:
        if self._skip is not None and self._at < to:
            self._skip(to - self._at)
            self._at = to
        while self._at < to:
            count = min(len(_ZEROS), to - self._at)
            self._write(memoryview(_ZEROS)[:count])
            self._at += count
