"""Locks on files: of ranges (`fcntl`) and of whole files (`flock`); the two do not meet.

They are advisory, as POSIX has them: who does not ask for one is not held up.  A table for each file says who
has what; who waits looks again, in the order of waiting, whenever a lock on the file is given up.

They hold within this file system, or across all mounts of the volume: then what all owners here have of a
file is claimed together (`shared_locks`), and an owner gets what is free here and was claimed.

Belongs to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from muniment.core.lock_ranges import TO_END, Lock, LockRanges
from muniment.errors import FileRefused, MunimentError
from muniment.fs.deadlines import within
from muniment.fs.errnos import Because
from muniment.fs.locking.across import Across
from muniment.fs.locking.shared_locks import LEASE_S
from muniment.spec.lock_attributes import Claim, Claims

_LOCKS_MAX: Final = 16_384
"""On one file: each is looked at for each that is wanted."""

_LOOK_S: Final = 1.0
"""Who waits for another mount looks so often whether that is alive."""

_RENEWALS: Final = 4
"""In the time of a lease."""

_log = logging.getLogger(__name__)


class Locks:
    """See the module.  `whole` says of each method that `flock`'s locks are meant, not those of ranges.

    Args:
        across: None: they hold within this file system.
    """

    def __init__(self, across: Across | None = None) -> None:
        self.across = across
        self._tables: dict[tuple[int, bool], LockRanges] = {}
        self._given_up: dict[int, asyncio.Event] = {}  # by inode, while somebody waits
        self._waits_for: dict[int, int] = {}  # owners
        self._turn = asyncio.Lock()  # held while claims change
        self._lost: set[int] = set()  # inodes whose locks others may have
        self._claimed: dict[int, int] = {}  # inodes, with their numbers in the volume
        self._unsure: set[int] = set()  # those of them of which others may be told too much
        self._tasks: set[asyncio.Task[None]] = set()
        if across is not None:
            across.shared.lost = self._lose

    async def find(self, ino: int, wanted: Lock, *, whole: bool = False) -> Lock | None:
        """A lock because of which this one cannot be had now; None: it can (F_GETLK)."""
        table = self._tables.get((ino, whole))
        blocker = None if table is None else table.conflict(wanted)
        if blocker is None and self.across is not None and (number := await self.across.number(ino)):
            async with within("lock", self.across.patience):
                claim = await self.across.shared.find(number, (_claim(wanted, whole),))
            return None if claim is None else _elsewhere(claim)
        return blocker

    async def set(self, ino: int, lock: Lock, *, whole: bool = False, wait: bool = False) -> None:
        """Take a lock (F_SETLK, F_SETLKW, LOCK_SH, LOCK_EX).

        `flock` gives up the lock that its owner has before it waits for another kind, as on Linux: so two
        who read and both want to write do not wait for each other.

        Args:
            wait: until it can be had.  Cancelled, nothing was taken.
        Raises: FileRefused: somebody else has it; he waits for this owner; too many locks; those of this
            mount were lost.  Across mounts also what keeps an entry from being made.
        """
        if not 0 <= lock.start < lock.stop <= TO_END:
            raise FileRefused(why=Because.BAD_RANGE, reason="not a range of a file")
        if whole and any(one.exclusive != lock.exclusive for one in self._held(ino, lock.owner)):
            await self.clear(ino, lock.owner, whole=True)
        while True:
            given_up = self._given_up.setdefault(ino, asyncio.Event()) if wait else None
            blocker = await self._take(ino, lock, whole)
            if blocker is None:
                self._tell(ino)  # it may be less than what the owner had
                return
            if given_up is None:
                raise FileRefused(why=Because.LOCKED, reason="somebody else has a lock there")
            self._check_deadlock(lock.owner, blocker.owner)
            self._waits_for[lock.owner] = blocker.owner
            try:
                async with asyncio.timeout(_LOOK_S if self.across is not None else None):
                    await given_up.wait()
            except TimeoutError:
                pass
            finally:
                self._waits_for.pop(lock.owner, None)

    async def clear(
        self, ino: int, owner: int, start: int = 0, stop: int = TO_END, *, whole: bool = False
    ) -> None:
        """Give up what an owner has in [start, stop) (F_UNLCK, LOCK_UN; all when he closes the file).

        Other mounts can have it when what was written to the file is in the log, which may be later.
        """
        table = self._tables.get((ino, whole))
        if table is None or not table.clear(owner, start, stop):
            return
        if not len(table):
            self._tables.pop((ino, whole), None)
        if not self._is_locked(ino):
            self._lost.discard(ino)
        if ino in self._claimed:
            self._unsure.add(ino)
        self._tell(ino)
        if self.across is not None and ino not in self._lost:
            await self._give_up(self.across, ino)

    def check(self, ino: int) -> None:
        """Raises: FileRefused: a lock of the file was lost while somebody here counted on it."""
        if self.across is not None and (self._tables or self._claimed):
            self.across.shared.check()
            if ino in self._lost:
                raise FileRefused(why=Because.LOCK_LOST, reason="the lock on it was lost")

    # --- within this file system --------------------------------------------------------------

    def _held(self, ino: int, owner: int) -> list[Lock]:
        return [one for one in self._tables.get((ino, True), ()) if one.owner == owner]

    def _is_locked(self, ino: int) -> bool:
        return (ino, True) in self._tables or (ino, False) in self._tables

    async def _take(self, ino: int, lock: Lock, whole: bool) -> Lock | None:
        """Set a lock; returns what is in the way."""
        async with self._turn_of("lock"):
            table = self._tables.get((ino, whole)) or LockRanges()
            blocker = table.conflict(lock)
            if blocker is None and len(table) >= _LOCKS_MAX:
                raise FileRefused(why=Because.TOO_MANY_LOCKS, reason="the file has too many locks")
            if blocker is None and self.across is not None:
                self.check(ino)
                blocker = await self._claim(self.across, ino, lock, whole)
            if blocker is None:
                self._tables.setdefault((ino, whole), LockRanges()).set(lock)
            return blocker

    @contextlib.asynccontextmanager
    async def _turn_of(self, call: str) -> AsyncIterator[None]:
        """Claims are changed one after the other; without any there is nothing to wait for."""
        if self.across is None:
            yield
            return
        async with within(call, self.across.patience), self._turn:
            yield

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

    # --- across mounts ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to renew what is claimed."""
        if self.across is not None:
            self._tasks = {
                asyncio.create_task(self._keep(self.across), name="renew locks"),
                asyncio.create_task(self._catch_up(self.across), name="give up locks"),
            }

    async def aclose(self) -> None:
        """Let other mounts have everything; if they cannot be told in time, the lease's end tells them."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.across is not None:
            try:
                async with within("unlock", self.across.patience):
                    await self.across.shared.aclose()
            except MunimentError as error:
                _log.warning("other mounts have this one's locks when its lease ends: %s", error)

    def look(self) -> None:
        """The log has something new: other mounts may have given up locks."""
        if self.across is not None:
            self.across.shared.look()
            for ino in list(self._given_up):
                self._tell(ino)

    def _lose(self) -> None:
        """Others may have what was claimed here: owners are refused the files until they give up."""
        assert self.across is not None
        self._lost = {ino for ino, _ in self._tables}
        for ino in self._lost | self._claimed.keys():
            self.across.drop(ino, tell=ino not in self._lost)
        self._claimed = {ino: number for ino, number in self._claimed.items() if ino in self._lost}
        self._unsure &= self._lost

    async def _claim(self, across: Across, ino: int, lock: Lock, whole: bool) -> Lock | None:
        number = await across.number(ino)
        if not number:
            return None
        claims = self._claims(ino, lock, whole)
        if claims == across.shared.claims(number) and ino not in self._unsure:
            return None
        self._claimed[ino] = number
        self._unsure.add(ino)  # until it is known what came of it
        blocker = await across.shared.set(number, claims)
        self._unsure.discard(ino)
        if blocker is not None:
            return _elsewhere(blocker)
        await across.enter(ino)
        return None

    async def _give_up(self, across: Across, ino: int) -> None:
        """Claim no more than owners here have, when what was written is saved; a task tries it again."""
        if ino not in self._unsure:
            return
        try:
            await across.save(ino)
            async with self._turn_of("unlock"):
                if ino in self._unsure:
                    claims = self._claims(ino)
                    await across.shared.set(self._claimed[ino], claims)
                    self._unsure.discard(ino)
                    if not claims:
                        del self._claimed[ino]
        except MunimentError as error:
            _log.warning("other mounts cannot have a lock yet that was given up here: %s", error)

    async def _keep(self, across: Across) -> None:
        while True:
            await asyncio.sleep(min(LEASE_S / _RENEWALS, across.shared.left_s))
            await self.renew(across)
            across.shared.check()

    async def _catch_up(self, across: Across) -> None:
        while True:
            await asyncio.sleep(LEASE_S / _RENEWALS)
            await self.give_up_again(across)

    async def renew(self, across: Across) -> None:
        """Tell other mounts that this one is alive; a task does so regularly."""
        try:
            async with asyncio.timeout(min(across.patience.left_s, across.shared.left_s)):
                await across.shared.renew()
        except (MunimentError, TimeoutError) as error:
            why = str(error) or "no answer"
            _log.warning("the locks of this mount cannot be renewed at present: %s", why)

    async def give_up_again(self, across: Across) -> None:
        """Tell other mounts what could not be given up before; a task does so regularly."""
        for ino in self._unsure - self._lost:
            await self._give_up(across, ino)

    def _claims(self, ino: int, lock: Lock | None = None, whole: bool = False) -> Claims:
        """What all owners here have of a file, and this one."""
        found = set()
        for kind in (False, True):
            table = self._tables.get((ino, kind))
            if lock is not None and kind == whole:
                table = LockRanges() if table is None else table.copy()
                table.set(lock)
            found |= {_claim(one, kind) for one in table or ()}
        return tuple(sorted(found))


def _claim(lock: Lock, whole: bool) -> Claim:
    return Claim(whole, lock.exclusive, lock.start, lock.stop)


def _elsewhere(claim: Claim) -> Lock:
    return Lock(0, claim.start, claim.stop, claim.exclusive)
