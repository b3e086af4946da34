"""Uploading one stream: chunks are read, sealed and sent at once, in constant memory.

One task for each chunk under way, all children of the caller's task; the number of chunks is bounded by the
buffers they need (`source.BUFFERS` of plaintext, `Limits.share_bytes` of shares).
"""

from __future__ import annotations

import asyncio

from muniment.engine.blobs import BlobWriter, Expect, FileRows
from muniment.engine.groups import task_group
from muniment.engine.results import Progress, ProgressCallback
from muniment.engine.source import BUFFERS, Piece, Source
from muniment.spec.blob import BlobRef
from muniment.spec.cap import BlobFile, FileReadCap, LiteralFile, ManifestFile
from muniment.spec.limits import LITERAL_BYTES_MAX


class StreamUpload:
    """The upload of one source.

    Args:
        source: read to its end; closed by the caller.
        writer: stores its blobs.
        progress: told after each chunk that is stored.
    """

    def __init__(self, source: Source, writer: BlobWriter, progress: ProgressCallback | None) -> None:
        self._source = source
        self._writer = writer
        self._progress = progress
        self._rows = FileRows(writer)
        self._done_bytes = 0
        self._unsealed = asyncio.Semaphore(BUFFERS)  # no source is read further ahead than that

    async def run(self) -> tuple[FileReadCap, int]:
        """Store it; returns its capability and size.

        Cancelled or failed, it returns when everything that was reserved is released.
        Raises: NotHappy, InvalidCoding; FileFailed, or what the source's own object raised.
        """
        piece = await self._source.next()
        if piece is None:
            return LiteralFile(b""), 0
        if len(piece.plain) <= LITERAL_BYTES_MAX:  # only a last piece is that short
            content = bytes(piece.plain)
            piece.free()
            return LiteralFile(content), len(content)
        async with task_group() as group:
            while piece is not None:
                await self._unsealed.acquire()
                group.create_task(self._store(piece, self._rows.expect()))
                piece = await self._source.next()
                await self._rows.collect()
        row = await self._rows.finish()
        if row.nested:
            return ManifestFile(row.ref, self._rows.size_bytes), self._rows.size_bytes
        return BlobFile(row.ref), self._rows.size_bytes

    async def _store(self, piece: Piece, expect: Expect) -> None:
        def sealed(ref: BlobRef) -> None:
            self._unsealed.release()
            piece.free()
            expect(ref)

        size = len(piece.plain)
        await self._writer.store(piece.plain, size, sealed=sealed)
        self._done_bytes += size
        if self._progress is not None:
            self._progress(Progress(self._done_bytes, self._source.total_bytes))
