"""Where a file has bytes and where it has none: making room, making holes, finding both.

A hole is a place that no extent covers; it is as precise as a byte, reads as zeros and costs nothing.  Holes
are made in the tree and in what was written and is not saved yet alike.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from heapq import merge
from typing import Final

from muniment.errors import FileRefused
from muniment.fs.errnos import Because
from muniment.fs.space import Space
from muniment.fs.working_tree import WorkingTree
from muniment.spec.operation import SIZE_MAX, Extent, Truncate, Write

_WINDOW_CHUNKS: Final = 64
"""Extents are looked at for so many chunks at first, and for twice as many each time."""


class Allocate(enum.IntFlag):
    """What `fallocate` is to do, in Linux's numbers; 0: make room, and let the file be that long."""

    KEEP_SIZE = 0x01
    PUNCH_HOLE = 0x02
    ZERO_RANGE = 0x10


class Holes:
    """See the module; `FileSystem` hands its methods to gateways.

    Args:
        tree: whose files.
        space: knows how much room there is.
    """

    def __init__(self, tree: WorkingTree, space: Space) -> None:
        self._tree, self._space = tree, space

    async def allocate(self, number: int, mode: int, offset: int, length: int) -> None:
        """`fallocate` on an open file; durable when it is flushed or synced.

        0 and KEEP_SIZE look whether the grid has room now for what the range has no bytes for; it is promised
        to nobody.  PUNCH_HOLE (with KEEP_SIZE) and ZERO_RANGE leave a hole in the range, whose bytes cost
        nothing from then on.  Without KEEP_SIZE the file is at least `offset + length` bytes long then.

        Args:
            mode: Linux's FALLOC_FL_ bits, see `Allocate`.
            offset, length: in bytes.
        Raises: FileRefused: another mode, no proper range, not open for writing, or no room.
        """
        handle, stop = self._tree.handles.writable(number), offset + length
        if mode not in _MODES:
            raise FileRefused(why=Because.NOT_SUPPORTED, reason=f"fallocate cannot do {mode:#x} here")
        if offset < 0 or length <= 0:
            raise FileRefused(why=Because.BAD_RANGE, reason="not a range of a file")
        if stop > SIZE_MAX:
            raise FileRefused(why=Because.TOO_LARGE, reason="no file can be that long")
        ino = handle.inode
        await self._tree.admit(ino)
        self._tree.check_lock(ino)
        if not mode & (Allocate.PUNCH_HOLE | Allocate.ZERO_RANGE):
            await self._check_room(ino, offset, stop)
            if not mode & Allocate.KEEP_SIZE and stop > self._tree.inode(ino).size:
                handle.writes += 1
                await self._tree.apply(Truncate(ino, None, stop))
            return
        size = self._tree.inode(ino).size
        stop = min(stop, size) if mode & Allocate.KEEP_SIZE else stop
        if offset < stop and (stop > size or next(self._data(ino, offset, stop), None)):
            handle.writes += 1
            await self._punch(ino, offset, stop)

    async def _punch(self, ino: int, start: int, stop: int) -> None:
        """Let nothing be in [start, stop); the file ends at `stop` or later."""
        dirty = self._tree.dirty
        dirty.cut(ino, start, stop)
        left = dirty.get(ino)
        if left is not None:
            left.mtime_ns = self._tree.store.now_ns()
        await self._tree.apply(Write(ino, None, (Extent(start, stop - start, None),)))

    async def _check_room(self, ino: int, start: int, stop: int) -> None:
        whole, free = await self._space.room_bytes()
        wanted = stop - start
        if whole and wanted > free:
            wanted -= sum(last - first for first, last in self._data(ino, start, stop))
            if wanted > free:
                raise FileRefused(why=Because.NO_SPACE, reason="the grid has no room for that much")

    def seek(self, number: int, offset: int, whence: int) -> int:
        """Where the next byte (SEEK_DATA) or the next hole (SEEK_HOLE) of an open file is, from `offset` on.

        The end of the file is a hole.  Cost: O(extents passed).
        Raises: FileRefused: there is none, or `offset` is not in the file; another `whence`.
        """
        ino = self._tree.handles.get(number).inode
        size = self._tree.inode(ino).size
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise FileRefused(why=Because.BAD_RANGE, reason="it can seek for bytes and holes only")
        if not 0 <= offset < size:
            raise FileRefused(why=Because.BEHIND_THE_END, reason="the file ends before")
        if whence == os.SEEK_DATA:
            first = next(self._data(ino, offset, size), None)
            if first is None:
                raise FileRefused(why=Because.BEHIND_THE_END, reason="nothing but a hole is there")
            return first[0]
        for start, stop in self._data(ino, offset, size):
            if start > offset:
                break
            offset = max(offset, stop)
        return offset

    def _data(self, ino: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges in [start, stop) that have bytes, by their starts; neighbours may touch or overlap."""
        dirty = self._tree.dirty.get(ino)
        pieces = dirty.pieces.within(start, stop) if dirty is not None else []
        yield from merge(self._stored(ino, start, stop), ((one.start, one.stop) for one in pieces))

    def _stored(self, ino: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        window = _WINDOW_CHUNKS * self._tree.store.chunk_bytes
        while start < stop:
            end = min(stop, start + window)
            for one in self._tree.present.tree.extents(ino, start, end):
                yield max(one.offset, start), min(one.stop, end)
            start, window = end, 2 * window


_MODES: Final = {
    0,
    Allocate.KEEP_SIZE,
    Allocate.PUNCH_HOLE | Allocate.KEEP_SIZE,
    Allocate.ZERO_RANGE,
    Allocate.ZERO_RANGE | Allocate.KEEP_SIZE,
}
