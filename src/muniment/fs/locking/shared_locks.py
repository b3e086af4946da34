"""Locks that hold across all mounts of a volume, through leases on its log.

What a mount has locked of a file stands in an attribute of it, by the rules of `core/shared_locks`, for
as long as the mount has a lease: an attribute of the root, which each of its changes of locks, and a task
while it has any, replace by a newer one.

Nobody's clock is believed.  A mount trusts its lease for `LEASE_S` from the moment when it began to renew it;
others take it for dead when they have seen one and the same lease for so long, which began later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Callable
from typing import Final

from muniment.core.shared_locks import (
    Held,
    LeaseGone,
    NothingToDo,
    Wanted,
    claims_on,
    in_the_way,
    leases,
    plan,
)
from muniment.errors import FileRefused, Overtaken
from muniment.fs.errnos import Because
from muniment.fs.store import Store
from muniment.ports import Clock
from muniment.spec.lock_attributes import MOUNT_BYTES, NONCE_BYTES, Claim, Claims

LEASE_S: Final = 30.0
_MESSAGE: Final = "locks of a mount"
_CLAIMS_MAX: Final = 1024
"""On one file by one mount: all mounts' together must fit an attribute."""

_log = logging.getLogger(__name__)


class SharedLocks:
    """See the module.

    Args:
        store: has the log.
        clock: of this machine.

    Attributes:
        lost: called when the lease has run out, or was taken: others may have what was locked here.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.lost: Callable[[], None] = lambda: None
        self._mount = secrets.token_bytes(MOUNT_BYTES)
        self._claims: dict[int, Claims] = {}  # by the volume's numbers, as the log has them
        self._renewed_s: tuple[float, float] | None = None
        self._seen_s: dict[bytes, float] = {}  # leases of others, since when
        self._leaves_traces = False  # the log may have a lease of this mount
        self._is_sure = True  # what came of the last change is known
        self._turn = asyncio.Lock()

    async def aclose(self) -> None:
        """Let others have everything.  Raises: as `Volume.commit`; then they learn it when the lease ends."""
        self._claims.clear()
        with contextlib.suppress(LeaseGone):
            await self._change(0, ())

    # --- locking ------------------------------------------------------------------------------

    def claims(self, inode: int) -> Claims:
        """What this mount has of a file, by its number in the volume, as far as others know."""
        return self._claims.get(inode, ())

    async def find(self, inode: int, wanted: Claims) -> Claim | None:
        """What another mount has because of which these cannot be had now.  Raises: as `LogClient`."""
        await self._store.follow()
        return self._blocker(inode, wanted)

    def _blocker(self, inode: int, wanted: Claims) -> Claim | None:
        self.look()
        state = self._store.state(self._store.newest)
        expired = self._expired()
        alive = {mount for mount, (name, _) in leases(state).items() if name not in expired}
        held = claims_on(state.xattrs(inode), alive - {self._mount})
        return in_the_way(wanted, held.values())

    async def set(self, inode: int, claims: Claims) -> Claim | None:
        """Let this mount have exactly these locks of a file; returns what another has that is in the way.

        On return the log has it, and this mount's view.  Where others are faster each time, one of these
        themselves is in the way: who waits tries again.
        Raises: FileRefused: too many; the lease was lost; as `Volume.commit`.
        """
        if len(claims) > _CLAIMS_MAX:
            raise FileRefused(why=Because.TOO_MANY_LOCKS, reason="this mount has too many locks of the file")
        try:
            blocker = self._blocker(inode, claims) or await self._try(inode, claims)
            if blocker is None:
                return None
            await self._store.follow()  # it may have been given up before this was called
            self.look()
            return await self._try(inode, claims)
        except Overtaken:
            if not claims:
                raise
            return claims[0]
        except LeaseGone as error:
            self._lose("others have taken this mount for dead")
            raise FileRefused(why=Because.LOCK_LOST, reason="the locks of this mount were lost") from error

    async def _try(self, inode: int, claims: Claims) -> Claim | None:
        """As `set`, but what is known here of others may be old."""
        try:
            await self._change(inode, claims)
        except Held as held:
            self.look()  # its lease counts from now at the latest
            return held.claim
        return None

    async def renew(self) -> None:
        """Renew the lease, if there is one.  Raises: as `Volume.commit`."""
        if self._claims:
            try:
                await self._change(0, ())
            except LeaseGone:
                self._lose("others have taken this mount for dead")

    async def _change(self, inode: int, claims: Claims) -> None:
        async with self._turn:
            now = {**self._claims, **({inode: claims} if inode else {})}
            stays = any(now.values())
            if not stays and not self._leaves_traces:
                return
            if not self._is_sure:
                await self._store.follow()  # the last change may be in the log
            began_s, is_alive = self._now_s(), self._renewed_s is not None
            nonce = secrets.token_bytes(NONCE_BYTES)
            wanted = Wanted(self._mount, is_alive, stays, inode, claims, self._expired(), nonce)
            self._leaves_traces, self._is_sure = True, False
            with contextlib.suppress(NothingToDo):
                await self._store.change(lambda state: plan(state, wanted), _MESSAGE)
            self._leaves_traces, self._is_sure = stays, True
            self._renewed_s = began_s if stays else None
            self._claims = {ino: held for ino, held in now.items() if held}

    # --- leases -------------------------------------------------------------------------------

    def look(self) -> None:
        """Take in which leases there are now."""
        now_s = self._clock.monotonic_s()
        names = [name for name, _ in leases(self._store.state(self._store.newest)).values()]
        self._seen_s = {name: self._seen_s.get(name, now_s) for name in names}

    def _expired(self) -> frozenset[bytes]:
        past_s = self._clock.monotonic_s() - LEASE_S
        return frozenset(name for name, seen_s in self._seen_s.items() if seen_s <= past_s)

    @property
    def left_s(self) -> float:
        """So long the lease is trusted; without one there is no end to that."""
        if self._renewed_s is None:
            return math.inf
        # The one clock stands still while a machine sleeps, the other can be set.
        passed_s = max(now - then for now, then in zip(self._now_s(), self._renewed_s, strict=True))
        return max(0.0, LEASE_S - passed_s)

    def check(self) -> None:
        """Notice that the lease has run out."""
        if not self.left_s:
            self._lose(f"they could not be renewed for {LEASE_S:.0f} s")

    def _now_s(self) -> tuple[float, float]:
        return self._clock.monotonic_s(), self._clock.now_s()

    def _lose(self, reason: str) -> None:
        _log.error(
            "the locks of this mount are lost: %s; what they were for fails until they are given up", reason
        )
        self._mount, self._renewed_s = secrets.token_bytes(MOUNT_BYTES), None
        self._leaves_traces = False
        self._claims.clear()
        self.lost()
