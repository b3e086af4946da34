"""Copying from one volume into another: content is read, and stored again under the other's keys and policy.

A blob opens as a whole and may hold other files too, so what one volume has stored is never named by another.
Leaves are as those of an upload from disk: small files share a pack, chunks are cut at the same places, holes
stay holes.  One chunk or pack is under way at a time; its blobs are sent in parallel as always.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from muniment.core.tree_state import StoredExtent, TreeReading
from muniment.engine.epoch_writer import EpochWriter
from muniment.engine.grid import Grid
from muniment.engine.policy import SMALL_FILE_BYTES
from muniment.engine.stored_content import StoredLeaf
from muniment.engine.threads import Threads
from muniment.engine.tree_item import TreeItem
from muniment.engine.volume_gather import Use, gather
from muniment.engine.volume_restore import item_of
from muniment.engine.volume_tree import Listed, walk
from muniment.errors import InvalidRequest
from muniment.spec.blob import BlobRef
from muniment.spec.limits import MIB
from muniment.spec.manifest import ENTRIES_MAX, ROWS_MAX
from muniment.spec.operation import INLINE_BYTES_MAX, Extent, Kind

_LEAF_BYTES_MAX: Final = 2 * MIB
_EXTENTS_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Found:
    """Something that is to be copied, and where its content lies."""

    item: TreeItem
    extents: tuple[StoredExtent, ...] = ()


def found(state: TreeReading, listed: Listed) -> list[Found]:
    """A file, link or other thing alone under its path, or all that is in a folder."""
    shared: dict[int, bytes] = {}
    folder = listed.inode.kind is Kind.FOLDER
    return [_found(state, one, shared) for one in (walk(state, listed.inode) if folder else [listed])]


def _found(state: TreeReading, one: Listed, shared: dict[int, bytes]) -> Found:
    inode = one.inode
    if inode.kind is Kind.FOLDER or inode.links == 1:
        item = item_of(state, one)
    else:
        first = shared.setdefault(inode.inode, one.path)
        item = replace(item_of(state, one, b"" if first == one.path else first), shared=True)
    if inode.kind is not Kind.FILE or item.same_as:
        return Found(item)
    return Found(item, tuple(state.extents(inode.inode, 0, inode.size)))


class Across:
    """One copy.

    Args:
        grid: has the content, and takes it.
        writer: of the volume that is copied into.

    Attributes:
        files: copied, every name of one.
        size_bytes: of those.
    """

    def __init__(self, grid: Grid, writer: EpochWriter) -> None:
        self._grid, self._writer = grid, writer
        self._chunk_bytes = writer.policy.chunk_bytes
        self._leaf = _Leaf()
        self.files = 0
        self.size_bytes = 0

    async def leaves(self, everything: Sequence[Found]) -> AsyncGenerator[StoredLeaf, None]:
        """Store the content, leaf by leaf.  Raises: NotHappy; TooFewShares, BlobCorrupt; InvalidRequest."""
        thread = Threads("across", 1, self._grid.clock)
        try:
            for one in everything:
                if one.item.is_file:
                    self.files += 1
                    self.size_bytes += 0 if one.item.same_as else one.item.size_bytes
                pieces = list(_slots(one, self._chunk_bytes))
                if len(pieces) > ROWS_MAX - 1:
                    most = (ROWS_MAX - 1) * self._chunk_bytes
                    raise InvalidRequest(reason=f"a file of more than {most} bytes needs larger chunks")
                if not self._leaf.has_room(one, len(pieces)):
                    yield await self._end(thread)
                await self._add(one, pieces, thread)
            if self._leaf.items:
                yield await self._end(thread)
        finally:
            thread.close()

    async def _add(self, one: Found, pieces: list[tuple[int, int]], thread: Threads) -> None:
        item, leaf = one.item, self._leaf
        if not item.is_file or not pieces:
            leaf.add(item)
        elif item.size_bytes <= INLINE_BYTES_MAX:
            content = await gather(self._grid, thread, [_use(one, 0, item.size_bytes, 0)], item.size_bytes)
            leaf.add(replace(item, inline=bytes(content)))
        elif item.size_bytes < SMALL_FILE_BYTES:
            if leaf.pack_bytes + item.size_bytes > self._chunk_bytes:
                await self._end_pack(thread)
            row, to = leaf.pack(_use(one, 0, item.size_bytes, leaf.pack_bytes))
            leaf.add(replace(item, extents=_extents(one, 0, item.size_bytes, row, to)))
        else:
            extents: list[Extent] = []
            for start, stop in pieces:
                size = stop - start
                plain = await gather(self._grid, thread, [_use(one, start, size, 0)], size)
                leaf.rows.append(await self._writer.store(plain, size))
                extents += _extents(one, start, stop, len(leaf.rows) - 1, 0)
            leaf.add(replace(item, extents=tuple(extents)))

    async def _end_pack(self, thread: Threads) -> None:
        uses, size, row = self._leaf.take_pack()
        if uses:
            plain = await gather(self._grid, thread, uses, size)
            self._leaf.rows[row] = await self._writer.store(plain, size)

    async def _end(self, thread: Threads) -> StoredLeaf:
        await self._end_pack(thread)
        leaf, self._leaf = self._leaf, _Leaf()
        return StoredLeaf(tuple(leaf.items), tuple(row for row in leaf.rows if row is not None))


class _Leaf:
    """What becomes one entry of the log."""

    def __init__(self) -> None:
        self.items: list[TreeItem] = []
        self.rows: list[BlobRef | None] = []
        self.pack_bytes = 0
        self._bytes = self._extents = 0
        self._pack: list[Use] = []
        self._pack_row = -1

    def has_room(self, one: Found, pieces: int) -> bool:
        """Each piece needs a row, and the open pack one."""
        if not self.items:
            return True
        few = len(self.items) < ENTRIES_MAX and len(self.rows) + pieces + 1 <= ROWS_MAX
        return few and self._bytes < _LEAF_BYTES_MAX and self._extents < _EXTENTS_MAX

    def add(self, item: TreeItem) -> None:
        self.items.append(item)
        self._bytes += item.cost_bytes
        self._extents += len(item.extents)

    def pack(self, use: Use) -> tuple[int, int]:
        """Take a small file into the open pack; returns its row, and where in it the file begins."""
        if not self._pack:
            self.rows.append(None)
            self._pack_row = len(self.rows) - 1
        self._pack.append(use)
        self.pack_bytes += use.length
        return self._pack_row, use.to

    def take_pack(self) -> tuple[list[Use], int, int]:
        taken = self._pack, self.pack_bytes, self._pack_row
        self._pack, self.pack_bytes = [], 0
        return taken


def _slots(one: Found, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """The chunks of a file that have a byte of data."""
    at = 0
    for extent in one.extents:
        first = max(at, extent.offset // chunk_bytes * chunk_bytes)
        for start in range(first, extent.stop, chunk_bytes):
            at = start + chunk_bytes
            yield start, min(at, one.item.size_bytes)


def _use(one: Found, offset: int, length: int, to: int) -> Use:
    return Use(one.extents, offset, length, to)


def _extents(one: Found, start: int, stop: int, row: int, to: int) -> tuple[Extent, ...]:
    """What of [start, stop) is no hole, neighbours joined; byte `start` lies at `to` of the row."""
    spans: list[tuple[int, int]] = []
    for extent in one.extents:
        first, last = max(extent.offset, start), min(extent.stop, stop)
        if first >= last:
            continue
        if spans and spans[-1][1] == first:
            spans[-1] = spans[-1][0], last
        else:
            spans.append((first, last))
    return tuple(Extent(a, b - a, row, to + a - start) for a, b in spans)
