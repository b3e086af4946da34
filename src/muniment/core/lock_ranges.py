"""The locks on one file: ranges of owners, with the semantics of POSIX's `fcntl`.

Reading locks (`exclusive` False) of several owners may overlap; an exclusive one overlaps no other owner's.
An owner's own locks never conflict: the newer replaces the older where they overlap, which splits, shortens,
upgrades or downgrades that; neighbours of one kind merge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

TO_END: Final = 1 << 63
"""The `stop` of a range that has none: every byte that the file may ever have."""


class Lock(NamedTuple):
    """A lock, held or wanted.

    Attributes:
        owner: whoever may overlap himself: for `fcntl` a process, for `flock` an open file.
        start: the first byte.
        stop: behind the last byte.
        exclusive: for writing; else for reading.
        pid: of a process that has it; nothing depends on it, 0 if it is not on this machine.
    """

    owner: int
    start: int = 0
    stop: int = TO_END
    exclusive: bool = True
    pid: int = 0


class LockRanges:
    """See the module.  Cost of each method: O(locks of all owners) on one file, which are few."""

    def __init__(self) -> None:
        self._of: dict[int, list[Lock]] = {}  # by owner, ascending, without overlaps

    def __iter__(self) -> Iterator[Lock]:
        for held in self._of.values():
            yield from held

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def conflict(self, wanted: Lock) -> Lock | None:
        """A lock of another owner because of which this one cannot be had now."""
        for owner, held in self._of.items():
            if owner != wanted.owner:
                for lock in held:
                    overlaps = lock.start < wanted.stop and wanted.start < lock.stop
                    if overlaps and (lock.exclusive or wanted.exclusive):
                        return lock
        return None

    def set(self, lock: Lock) -> None:
        """Let the owner have it; there is no conflict."""
        self.clear(lock.owner, lock.start, lock.stop)
        held = self._of.setdefault(lock.owner, [])
        merged = lock
        for one in list(held):
            touches = one.stop == merged.start or merged.stop == one.start
            if touches and one.exclusive == lock.exclusive:
                merged = merged._replace(start=min(one.start, merged.start), stop=max(one.stop, merged.stop))
                held.remove(one)
        held.append(merged)
        held.sort(key=_start)

    def clear(self, owner: int, start: int = 0, stop: int = TO_END) -> bool:
        """The owner gives up what he has in [start, stop); returns whether he had anything there."""
        held = self._of.get(owner, [])
        left = []
        for one in held:
            if one.start < min(start, one.stop):
                left.append(one._replace(stop=min(start, one.stop)))
            if max(stop, one.start) < one.stop:
                left.append(one._replace(start=max(stop, one.start)))
        self._of[owner] = left
        if not left:
            del self._of[owner]
        return left != held

    def copy(self) -> LockRanges:
        """The same, to try something on."""
        other = LockRanges()
        other._of = {owner: list(held) for owner, held in self._of.items()}
        return other


def _start(lock: Lock) -> int:
    return lock.start
