"""What a transaction does to one file's extents, without touching those it does not overlap.

The stored extents of a range are taken over once, when the range is first needed; from then on only the
working copy counts.  So a transaction costs what it touches: neither the size of the file nor how often
the same range is written again matters.  Source: docs/spec/view.md section 2.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence

from muniment.core.tree_state import ExtentChange, StoredExtent

Stored = Callable[[int, int], Sequence[StoredExtent]]
"""The extents of the state that have a byte in [start, stop)."""


class ContentEdit:
    """The working copy of one file's extents.

    Args:
        inode: of the file.
        stored: what the state has.

    Invariant: within the ranges taken over, the working copy is the file's content; it has no overlaps.
    """

    def __init__(self, inode: int, stored: Stored) -> None:
        self._inode = inode
        self._stored = stored
        self._before: dict[int, StoredExtent] = {}
        self._now: dict[int, StoredExtent] = {}
        self._offsets: list[int] = []  # of `_now`, ascending
        self._starts: list[int] = []  # of the ranges taken over: ascending, with gaps between them
        self._stops: list[int] = []

    def cut(self, start: int, stop: int) -> None:
        """Leave nothing in [start, stop); what reaches over an end keeps its part outside."""
        if start >= stop:
            return
        self._take_over(start, stop)
        first = bisect_right(self._offsets, start)
        if first and self._now[self._offsets[first - 1]].stop > start:
            first -= 1
        last = bisect_left(self._offsets, stop)
        touched = self._offsets[first:last]
        del self._offsets[first:last]
        for offset in touched:
            extent = self._now.pop(offset)
            if offset < start:
                self._add(_part(extent, offset, start))
            if stop < extent.stop:
                self._add(_part(extent, stop, extent.stop))

    def put(self, extents: Sequence[StoredExtent]) -> None:
        """Add extents in order where `cut` has made room, or a new file has nothing.

        Those between two that are there go in as one: each alone would move all behind it.
        """
        offsets = [extent.offset for extent in extents]
        at = 0
        while at < len(offsets):
            place = bisect_left(self._offsets, offsets[at])
            stop = len(offsets)
            if place < len(self._offsets):
                stop = bisect_left(offsets, self._offsets[place], at)
            self._offsets[place:place] = offsets[at:stop]
            at = stop
        self._now.update(zip(offsets, extents, strict=True))

    @property
    def pieces(self) -> int:
        """Extents that are kept here, as found and as they are now."""
        return len(self._before) + len(self._now)

    def extents(self, start: int, stop: int) -> Sequence[StoredExtent]:
        """The extents as they are now that have a byte in [start, stop), whole, in order of their offsets."""
        if start >= stop:
            return ()
        self._take_over(start, stop)
        first = bisect_right(self._offsets, start)
        if first and self._now[self._offsets[first - 1]].stop > start:
            first -= 1
        return [self._now[offset] for offset in self._offsets[first : bisect_left(self._offsets, stop)]]

    def changes(self) -> list[ExtentChange]:
        """What differs from the state, in order of offsets."""
        offsets = sorted(self._before.keys() | self._now.keys()) if self._before else self._offsets
        found = []
        for offset in offsets:
            before, now = self._before.get(offset), self._now.get(offset)
            if before is not now and before != now:
                found.append(ExtentChange(self._inode, before, now))
        return found

    def _add(self, extent: StoredExtent) -> None:
        insort(self._offsets, extent.offset)
        self._now[extent.offset] = extent

    def _take_over(self, start: int, stop: int) -> None:
        """Copy what the state has in those parts of [start, stop) that were not taken over before."""
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        at = start
        for begin, end in zip(self._starts[first:last], self._stops[first:last], strict=True):
            self._copy(at, begin)
            at = end
        self._copy(at, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]

    def _copy(self, start: int, stop: int) -> None:
        if start < stop:
            for extent in self._stored(start, stop):
                if extent.offset not in self._before:  # one may reach into two ranges
                    self._before[extent.offset] = extent
                    self._add(extent)


def _part(extent: StoredExtent, start: int, stop: int) -> StoredExtent:
    """The bytes [start, stop) of the file, which lie within the extent."""
    skip = start - extent.offset
    if isinstance(extent.source, bytes):
        return StoredExtent(start, stop - start, extent.source[skip:][: stop - start])
    return StoredExtent(start, stop - start, extent.source, extent.source_offset + skip)
