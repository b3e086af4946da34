"""Bytes of a file out of all places they can be in: written lately, in a chunk, in an entry, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from muniment.core.tree_state import StoredExtent
from muniment.fs.content.chunk_cache import ChunkCache
from muniment.fs.content.pieces import Piece
from muniment.spec.blob import BlobRef

_AHEAD_CHUNKS: Final = 4

Where = tuple[int, int, bytes | StoredExtent | None]
"""Bytes start to stop of the file: themselves, in an extent, or zeros."""


def places(start: int, stop: int, pieces: Sequence[Piece], stored: Sequence[StoredExtent]) -> list[Where]:
    """Where each byte in [start, stop) is; without gaps and in order.

    Bytes in memory are copied here: their buffers change while chunks are fetched.

    Args:
        pieces: newer bytes within the range, in order.
        stored: extents with a byte in the range, in order.
    """
    found: list[Where] = []
    at = start
    for piece in pieces:
        _gap(found, at, piece.start, stored)
        ref = piece.buffer.ref
        size = piece.stop - piece.start
        if piece.buffer.data is not None:
            held: bytes | StoredExtent = bytes(piece.buffer.view(piece.skip, piece.skip + size))
        else:
            assert ref is not None
            held = StoredExtent(piece.start, size, ref, piece.skip)
        found.append((piece.start, piece.stop, held))
        at = piece.stop
    _gap(found, at, stop, stored)
    return found


def _gap(found: list[Where], start: int, stop: int, stored: Sequence[StoredExtent]) -> None:
    at = start
    for extent in stored:
        first, last = max(extent.offset, at), min(extent.stop, stop)
        if first >= last:
            continue
        if at < first:
            found.append((at, first, None))
        found.append((first, last, extent))
        at = last
    if at < stop:
        found.append((at, stop, None))


async def gathered(where: Sequence[Where], cache: ChunkCache) -> bytes | memoryview:
    """The bytes themselves, not copied if one chunk has all of them.  Raises: TooFewShares, BlobCorrupt."""
    parts: list[bytes | memoryview] = []
    for start, stop, held in where:
        if held is None:
            parts.append(bytes(stop - start))
        elif isinstance(held, bytes):
            parts.append(held)
        else:
            skip = held.source_offset + start - held.offset
            source = held.source if isinstance(held.source, bytes) else await cache.get(held.source)
            parts.append(memoryview(source)[skip : skip + stop - start])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_ahead(stored: Sequence[StoredExtent], cache: ChunkCache) -> None:
    """Begin to fetch the first few chunks of these extents."""
    refs = dict.fromkeys(one.source for one in stored if isinstance(one.source, BlobRef))
    for ref in list(refs)[:_AHEAD_CHUNKS]:
        cache.ahead(ref)
