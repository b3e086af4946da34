"""A state of the volume in the numbers of this file system, with what only open handles still know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from muniment.core.tree_state import Inode, Name, StoredExtent, TreeReading
from muniment.fs.names.numbers import PAST_FIRST, Numbers
from muniment.fs.names.shown_times import Times
from muniment.spec.operation import INODE_MAX, ROOT

if TYPE_CHECKING:  # it stands on the store, which plans entries on readings
    from muniment.fs.names.past import Past

_ROWS_KEPT: Final = 1024
"""Inodes that were looked at last: the folder of each name, the file of each block."""

_VALUES_KEPT: Final = 8
"""Of so few all extended attributes: programs ask for several of one file, one by one."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """What has no name any more, as it was when it lost the last one, for those who have it open."""

    row: Inode
    extents: Sequence[StoredExtent]
    xattrs: Mapping[bytes, bytes]


class HereReading:
    """See `TreeReading`.

    Args:
        state: of the volume, in its numbers; it stays as it is.
        orphans: by their numbers here.
        times: by numbers here.
        past: has the numbers from `PAST_FIRST` on.
    """

    def __init__(
        self,
        state: TreeReading,
        numbers: Numbers,
        orphans: Mapping[int, Orphan] | None = None,
        times: Mapping[int, Times] | None = None,
        past: Past | None = None,
    ) -> None:
        self._state, self._numbers, self._past = state, numbers, past
        self._row, self._values = lru_cache(_ROWS_KEPT)(state.inode), lru_cache(_VALUES_KEPT)(state.xattrs)
        self._orphans = {} if orphans is None else orphans
        self._times = {} if times is None else times

    @property
    def next_inode(self) -> int:
        """Behind all numbers: what is made says itself which one it takes."""
        return INODE_MAX

    def inode(self, ino: int) -> Inode | None:
        orphan = self._orphans.get(ino)
        if orphan is not None:
            return orphan.row
        if ino >= PAST_FIRST:
            return None if self._past is None else self._past.inode(ino)
        volume = self._numbers.in_volume(ino)
        row = self._row(volume) if volume else None
        return None if row is None else self._here(row)

    def _here(self, row: Inode) -> Inode:
        numbers = self._numbers
        ino, parent = numbers.here(row.inode), numbers.here(row.parent)
        if ino != row.inode or parent != row.parent:
            row = row._replace(inode=ino, parent=parent)
        times = self._times.get(ino)
        if times is not None and times.there_ns == row.ctime_ns:
            row = row._replace(atime_ns=times.atime_ns, mtime_ns=times.mtime_ns, ctime_ns=times.ctime_ns)
        return row

    def child(self, parent: int, name: bytes) -> Name | None:
        volume = self._numbers.in_volume(parent)
        found = self._state.child(volume, name) if volume else None
        if found is None and self._past is not None and (parent == ROOT or parent >= PAST_FIRST):
            return self._past.child(parent, name)
        return None if found is None else found._replace(parent=parent, inode=self._numbers.here(found.inode))

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        volume = self._numbers.in_volume(parent)
        if not volume:
            past = self._past if parent >= PAST_FIRST else None
            return [] if past is None else past.children(parent, after, limit)
        here = self._numbers.here
        found = self._state.children(volume, after, limit)
        return [Name(parent, one.name, here(one.inode), one.kind) for one in found]

    def listing(self, parent: int, after: bytes, limit: int) -> Sequence[tuple[bytes, Inode]]:
        volume = self._numbers.in_volume(parent)
        if not volume:
            return []
        return [(name, self._here(row)) for name, row in self._state.listing(volume, after, limit)]

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        orphan = self._orphans.get(ino)
        if orphan is not None:
            return [one for one in orphan.extents if one.offset < stop and one.stop > start]
        if ino >= PAST_FIRST and self._past is not None:
            return self._past.extents(ino, start, stop)
        volume = self._numbers.in_volume(ino)
        return self._state.extents(volume, start, stop) if volume else ()

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        orphan = self._orphans.get(ino)
        if orphan is not None:
            return orphan.xattrs
        if ino >= PAST_FIRST and self._past is not None:
            return self._past.xattrs(ino)
        volume = self._numbers.in_volume(ino)
        return self._values(volume) if volume else {}

    def has_snapshot(self, name: bytes) -> bool:
        return self._state.has_snapshot(name)
