"""Downloading a folder: manifests are walked in order, blobs fetched ahead, content written as it comes.

A blob is fetched once, whatever number of files has a part in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial

from muniment.engine.download import Part
from muniment.engine.fetcher import Fetcher
from muniment.engine.results import DownloadTally
from muniment.engine.spans import DEPTH_MAX, Span, row_spans
from muniment.engine.threads import Threads
from muniment.engine.tree_item import manifest_item
from muniment.engine.tree_writer import RestoredFile, TreeWriter
from muniment.errors import BlobCorrupt, MalformedRecord
from muniment.spec.blob import BlobRef
from muniment.spec.manifest import Manifest, ManifestKind
from muniment.spec.tree_entry import Extent, TreeEntry


@dataclass(frozen=True, slots=True)
class _Use:
    """Part of a row that belongs into a file at `offset`."""

    file: RestoredFile
    offset: int
    extent: Extent


class TreeParts:
    """What is to be fetched and where it is written, for a whole tree.

    Args:
        fetcher: gets manifests.
        thread: the one that makes entries and writes content.
        tally: counts.
        writer: makes and writes files.

    Attributes:
        total_bytes: content of the files met so far.
    """

    def __init__(self, fetcher: Fetcher, thread: Threads, tally: DownloadTally, writer: TreeWriter) -> None:
        self._fetcher = fetcher
        self._thread = thread
        self._tally = tally
        self._writer = writer
        self.total_bytes = 0

    async def parts(self, ref: BlobRef, *, depth: int = 0) -> AsyncGenerator[Part, None]:
        """All parts under a tree's manifest, in order.

        Raises: as `Fetcher.manifest`; BlobCorrupt: it is not the manifest of a tree.
        """
        if depth >= DEPTH_MAX:
            raise MalformedRecord(format="manifest", reason="nested too deep")
        manifest = await self._fetcher.manifest(ref, self._tally)
        match manifest.kind:
            case ManifestKind.TREE:
                async for part in self._leaf(manifest):
                    yield part
            case ManifestKind.TREE_INDEX:
                for row in manifest.rows:
                    async for part in self.parts(row.ref, depth=depth + 1):
                        yield part
            case _:
                raise BlobCorrupt(blob=ref.name.blob)

    async def _leaf(self, manifest: Manifest) -> AsyncGenerator[Part, None]:
        uses, _ = await self._thread.run(self._make_entries, manifest.entries)
        self.total_bytes += sum(entry.size_bytes for entry in manifest.entries)
        for at in sorted(uses):
            row = manifest.rows[at]
            if not row.nested:
                yield Part(Span(row.ref, 0, row.span_bytes), partial(self._write_row, uses[at]))
                continue
            first = 0
            async for span in row_spans(self._fetcher, self._tally, row, 0, row.span_bytes):
                yield Part(span, self._slice_writer(uses[at], first))
                first += span.stop - span.start

    def _make_entries(self, entries: tuple[TreeEntry, ...]) -> dict[int, list[_Use]]:
        """In a thread: make all entries of a leaf; returns which row's content goes where."""
        uses: dict[int, list[_Use]] = {}
        for entry in entries:
            file = self._writer.add(manifest_item(entry))
            offset = 0
            for extent in entry.extents if file is not None else ():
                assert file is not None
                uses.setdefault(extent.row, []).append(_Use(file, offset, extent))
                offset += extent.length
        return uses

    def _write_row(self, uses: list[_Use], data: memoryview) -> None:
        """In a thread: a row's whole content."""
        for use in uses:
            extent = use.extent
            self._writer.write(use.file, use.offset, data[extent.offset : extent.offset + extent.length])

    def _slice_writer(self, uses: list[_Use], first: int) -> Callable[[memoryview], None]:
        """Writes what of a nested row's content begins at byte `first` of it."""

        def write(data: memoryview) -> None:
            for use in uses:
                extent = use.extent
                lo = max(extent.offset, first)
                hi = min(extent.offset + extent.length, first + len(data))
                if lo < hi:
                    self._writer.write(
                        use.file, use.offset + lo - extent.offset, data[lo - first : hi - first]
                    )

        return write
