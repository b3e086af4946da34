"""Pieces of a volume's files in one buffer, each blob fetched once: for what has to be stored anew."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial

from muniment.core.tree_state import StoredExtent
from muniment.engine.download import Part
from muniment.engine.grid import Grid
from muniment.engine.results import DownloadTally
from muniment.engine.spans import Span
from muniment.engine.threads import Threads
from muniment.spec.blob import BlobRef


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes `offset` to `offset + length` of a file, wanted at `to` of a buffer.

    Attributes:
        extents: of the file, in order.
    """

    extents: Sequence[StoredExtent]
    offset: int
    length: int
    to: int


async def gather(grid: Grid, thread: Threads, uses: Sequence[Use], size: int) -> memoryview:
    """A new buffer of `size` bytes with all of them; what no extent covers is zeros.

    Raises: TooFewShares, BlobCorrupt.
    """
    buffer = memoryview(bytearray(size))
    wanted: dict[BlobRef, list[tuple[int, int, int]]] = {}
    for use in uses:
        for one in use.extents:
            first, last = max(one.offset, use.offset), min(one.stop, use.offset + use.length)
            if first >= last:
                continue
            to, skip = use.to + first - use.offset, first - one.offset
            if isinstance(one.source, bytes):
                buffer[to : to + last - first] = one.source[skip : skip + last - first]
            else:
                wanted.setdefault(one.source, []).append((one.source_offset + skip, to, last - first))
    if wanted:
        await grid.read_parts(_parts(wanted, buffer), thread, DownloadTally(), size, None)
    return buffer


async def _parts(
    wanted: dict[BlobRef, list[tuple[int, int, int]]], buffer: memoryview
) -> AsyncGenerator[Part, None]:
    for ref, places in wanted.items():
        start = min(source for source, _, _ in places)
        stop = max(source + length for source, _, length in places)
        yield Part(Span(ref, start, stop), partial(_place, buffer, places, start))


def _place(buffer: memoryview, places: list[tuple[int, int, int]], start: int, data: memoryview) -> None:
    for source, to, length in places:
        buffer[to : to + length] = data[source - start : source - start + length]
