"""Locks on files: of ranges (`fcntl`) and of whole files (`flock`); the two do not meet.

They are advisory, as POSIX has them: who does not ask for one is not held up.  A table for each file says who
has what; who waits looks again, in the order of waiting, whenever a lock on the file is given up.

Belongs to the loop.
"""

from __future__ import annotations

import asyncio
from typing import Final

from muniment.core.lock_ranges import TO_END, Lock, LockRanges
from muniment.errors import FileRefused
from muniment.fs.errnos import Because

_LOCKS_MAX: Final = 16_384
"""On one file: each is looked at for each that is wanted."""


class Locks:
    """See the module.  `whole` says of each method that `flock`'s locks are meant, not those of ranges."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, bool], LockRanges] = {}
        self._given_up: dict[int, asyncio.Event] = {}  # by inode, while somebody waits
        self._waits_for: dict[int, int] = {}  # owners

    def find(self, ino: int, wanted: Lock, *, whole: bool = False) -> Lock | None:
        """A lock because of which this one cannot be had now; None: it can (F_GETLK)."""
        table = self._tables.get((ino, whole))
        return None if table is None else table.conflict(wanted)

    async def set(self, ino: int, lock: Lock, *, whole: bool = False, wait: bool = False) -> None:
        """Take a lock (F_SETLK, F_SETLKW, LOCK_SH, LOCK_EX).

        `flock` gives up the lock that its owner has before it waits for another kind, as on Linux: so two
        who read and both want to write do not wait for each other.

        Args:
            wait: until it can be had.  Cancelled, nothing was taken.
        Raises: FileRefused: somebody else has it; he waits for this owner; too many locks.
        """
        if not 0 <= lock.start < lock.stop <= TO_END:
            raise FileRefused(why=Because.BAD_RANGE, reason="not a range of a file")
        if whole and any(one.exclusive != lock.exclusive for one in self._held(ino, lock.owner)):
            await self.clear(ino, lock.owner, whole=True)
        while True:
            given_up = self._given_up.setdefault(ino, asyncio.Event())
            blocker = self._take(ino, lock, whole)
            if blocker is None:
                self._tell(ino)  # it may be less than what the owner had
                return
            if not wait:
                raise FileRefused(why=Because.LOCKED, reason="somebody else has a lock there")
            self._check_deadlock(lock.owner, blocker.owner)
            self._waits_for[lock.owner] = blocker.owner
            try:
                await given_up.wait()
            finally:
                self._waits_for.pop(lock.owner, None)

    async def clear(
        self, ino: int, owner: int, start: int = 0, stop: int = TO_END, *, whole: bool = False
    ) -> None:
        """Give up what an owner has in [start, stop) (F_UNLCK, LOCK_UN; all when he closes the file)."""
        table = self._tables.get((ino, whole))
        if table is not None and table.clear(owner, start, stop):
            if not len(table):
                del self._tables[ino, whole]
            self._tell(ino)

    def _held(self, ino: int, owner: int) -> list[Lock]:
        return [one for one in self._tables.get((ino, True), ()) if one.owner == owner]

    def _take(self, ino: int, lock: Lock, whole: bool) -> Lock | None:
        """Set a lock; returns what is in the way."""
        table = self._tables.get((ino, whole)) or LockRanges()
        blocker = table.conflict(lock)
        if blocker is None:
            if len(table) >= _LOCKS_MAX:
                raise FileRefused(why=Because.TOO_MANY_LOCKS, reason="the file has too many locks")
            table.set(lock)
            self._tables[ino, whole] = table
        return blocker

    def _check_deadlock(self, owner: int, blocker: int) -> None:
        """Raises: FileRefused: who is waited for waits, for others perhaps, for this owner."""
        for _ in range(len(self._waits_for)):
            if blocker == owner or blocker not in self._waits_for:
                break
            blocker = self._waits_for[blocker]
        if blocker == owner:
            raise FileRefused(why=Because.DEADLOCK, reason="its owner waits for a lock of this one")

    def _tell(self, ino: int) -> None:
        """Who waits for a lock on a file looks again."""
        given_up = self._given_up.pop(ino, None)
        if given_up is not None:
            given_up.set()
