"""Space and leases: who may keep how much, what is promised, and what is held for whom.

Joins the ledger (what is, durably) and the reservations (what is promised, in memory).  Blocking; any method
may be called from any thread.

Concurrency: `_lock` guards the reservations and, with them, every decision that compares sums with limits.
The ledger locks itself and never calls back; the order is `_lock`, then the ledger.  Sums are read under
`_lock`, and a promise is given back only after the ledger counts its bytes: so a byte may be counted twice
for a moment, and never not at all.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from muniment.errors import (
    CapacityFull,
    DiskFull,
    InvalidRequest,
    MunimentError,
    NodeDraining,
    Overloaded,
    QuotaFull,
)
from muniment.ids import AccountId, BlobId, ShareKey
from muniment.node.admission import Admission
from muniment.node.config import NodeConfig
from muniment.node.ledger import Ledger, Totals
from muniment.node.reservations import Promise, Reservations, Room
from muniment.ports import Accepted, Clock, Held, Refused, ReserveOutcome, ShareClaim, StoredShare
from muniment.spec.wire import AccountUsage, ShareLease, ShareQuarantined


class Books:
    """The books of one node.

    Args:
        config: capacity, times and limits.
        admission: quotas; whom the node serves at all is decided before the books are asked.
        ledger: what is held.
        clock: wall clock for leases, monotonic for reservations, so that setting the clock loses no promise.

    Attributes:
        draining: no new share is taken, and none that is here for an account that has no lease on it, unless
            it asks for the lease itself.
    """

    def __init__(self, config: NodeConfig, admission: Admission, ledger: Ledger, clock: Clock) -> None:
        self._config, self._admission, self._ledger, self._clock = config, admission, ledger, clock
        self.draining = False
        self._lock = threading.Lock()
        self._reservations = Reservations(config.times.reservation_s, config.limits.reservations)

    # --- space --------------------------------------------------------------------------------

    def reserve(
        self, account: AccountId, claims: Sequence[ShareClaim], medium_bytes: int | None
    ) -> list[ReserveOutcome]:
        """Say for each share whether it is held (then the account has a lease on it from now on), accepted
        (space is set aside), or refused and why.

        Args:
            medium_bytes: what the disk has room for, None where that is not known.

        Raises: DiskFull, StoreFailed: the leases could not be noted; then nothing is set aside either.
        """
        accepted: list[ShareKey] = []
        try:
            return self._reserve(account, claims, medium_bytes, accepted)
        except BaseException:  # nobody learns of what was set aside, so nobody would give it back
            self.release(account, accepted)
            raise

    def _reserve(
        self,
        account: AccountId,
        claims: Sequence[ShareClaim],
        medium_bytes: int | None,
        accepted: list[ShareKey],
    ) -> list[ReserveOutcome]:
        """As `reserve`; adds to `accepted` what is set aside, at once."""
        now_s, monotonic_s = self._clock.now_s(), self._clock.monotonic_s()
        expires_s = now_s + self._config.times.reservation_s
        keys = [claim.key for claim in claims]
        with self._lock:
            self._reservations.expire(monotonic_s)
            sizes = self._ledger.held(keys)
            leased = self._ledger.leased(account, sizes)
            room = self._room(account)
            outcomes: list[ReserveOutcome] = []
            fresh: set[ShareKey] = set()
            for claim in claims:
                try:
                    if self.draining and claim.key not in leased:
                        raise NodeDraining
                    if claim.key not in sizes:
                        _check_medium(claim, medium_bytes, self._reservations.reserved_bytes)
                        self._reservations.reserve(
                            account, claim.key, claim.size_bytes, now_s=monotonic_s, room=room
                        )
                        accepted.append(claim.key)
                        outcomes.append(Accepted(expires_s))
                        continue
                    _check_size(claim, sizes[claim.key])
                    if claim.key not in leased and claim.key not in fresh:
                        room = self._less(account, room, claim.size_bytes)
                        fresh.add(claim.key)
                    outcomes.append(Held())
                except MunimentError as error:
                    outcomes.append(Refused(error))
            # New leases count against the quota, so they are written before anybody else compares.
            granted = self._extend(account, fresh, now_s)
        granted |= self._extend(account, leased, now_s)
        return [
            Refused(Overloaded(limit="this share is just being removed"))
            if isinstance(outcome, Held) and claim.key not in granted
            else outcome
            for claim, outcome in zip(claims, outcomes, strict=True)
        ]

    def release(self, account: AccountId, keys: Sequence[ShareKey]) -> None:
        """Give promises back; those that are not there are ignored."""
        with self._lock:
            for key in keys:
                self._reservations.release(account, key)

    def take(self, account: AccountId, key: ShareKey, size_bytes: int) -> Promise | None:
        """Hand the promise for this share to an upload; None where there is none of this size.

        Raises: CapacityFull, QuotaFull: a second upload of the same share at the same time has no room.
        """
        with self._lock:
            self._reservations.expire(self._clock.monotonic_s())
            return self._reservations.take(account, key, size_bytes, room=lambda: self._room(account))

    def finish(self, promises: Sequence[Promise]) -> None:
        """Give taken promises back."""
        with self._lock:
            for promise in promises:
                self._reservations.finish(promise)

    def record(self, account: AccountId, stored: Sequence[StoredShare], held: Sequence[ShareKey]) -> None:
        """Durably note shares just stored, and a lease on these and on those held before."""
        now_s = self._clock.now_s()
        expires_s = now_s + self._config.times.lease_s
        if stored:
            self._ledger.store(account, stored, expires_s=expires_s, now_s=now_s)
        if held:
            self._ledger.lease(account, held, expires_s=expires_s)

    def adopt(self, share: StoredShare) -> None:
        """Durably note a share found in the store: without an owner, for as long as a lease lasts."""
        now_s = self._clock.now_s()
        self._ledger.adopt(share, expires_s=now_s + self._config.times.lease_s, now_s=now_s)

    # --- what is held -------------------------------------------------------------------------

    def is_held(self, key: ShareKey) -> bool:
        """Whether the ledger has the share."""
        return key in self._ledger.held([key])

    def is_leased(self, account: AccountId, key: ShareKey) -> bool:
        """Whether the account has a lease on it, in the trash or not."""
        return key in self._ledger.leased(account, [key])

    def have(self, blobs: Sequence[BlobId]) -> list[list[int]]:
        """The share numbers held of each blob."""
        return self._ledger.numbers(blobs)

    def totals(self) -> Totals:
        """Sums over the node."""
        return self._ledger.totals()

    @property
    def reserved_bytes(self) -> int:
        """Bytes promised and not yet stored."""
        with self._lock:
            return self._reservations.reserved_bytes

    # --- an account's shares ------------------------------------------------------------------

    def lease(self, account: AccountId, keys: Sequence[ShareKey], duration_s: int) -> list[bool]:
        """Extend the account's leases to now + duration and take them out of the trash; make held shares of
        others, or of nobody, the account's as well.

        Returns: for each key whether it is held.
        Raises: QuotaFull: what becomes the account's does not fit its quota; nothing is changed.
        """
        expires_s = self._clock.now_s() + duration_s
        with self._lock:
            sizes = self._ledger.held(keys)
            leased = self._ledger.leased(account, sizes)
            fresh_bytes = sum(size for key, size in sizes.items() if key not in leased)
            if fresh_bytes:
                self._less(account, self._room(account), fresh_bytes)
                return self._ledger.lease(account, keys, expires_s=expires_s)
        return self._ledger.lease(account, keys, expires_s=expires_s)

    def trash(self, account: AccountId, keys: Sequence[ShareKey]) -> list[bool]:
        """Give leases up; for each key whether the account had one."""
        return self._ledger.trash(account, keys, now_s=self._clock.now_s())

    def shares(self, account: AccountId, after: ShareKey | None, limit: int) -> list[ShareLease]:
        """A page of the account's shares in key order."""
        return self._ledger.page(account, after=after, limit=limit)

    def usage(self, account: AccountId) -> AccountUsage:
        """What the account holds and has promised."""
        usage = self._ledger.usage(account)
        quota = self._admission.quota_bytes(account)
        with self._lock:
            reserved_bytes = self._reservations.account_bytes(account)
        return AccountUsage(
            used_bytes=usage.used_bytes,
            reserved_bytes=reserved_bytes,
            share_count=usage.share_count,
            quota_bytes=-1 if quota is None else quota,
        )

    def quarantined(self, account: AccountId, after: ShareKey | None, limit: int) -> list[ShareQuarantined]:
        """A page of what was found damaged or missing among the account's shares, in key order."""
        return self._ledger.quarantined(account, after=after, limit=limit)

    # --- what ends ----------------------------------------------------------------------------

    def expire(self) -> int:
        """Give back the promises whose time is over; returns how many."""
        with self._lock:
            return self._reservations.expire(self._clock.monotonic_s())

    def trash_expired(self) -> int:
        """Put a batch of expired leases in the trash; returns how many."""
        return self._ledger.trash_expired(self._clock.now_s())

    def purgeable(self) -> list[ShareKey]:
        """A batch of shares with leases that are in the trash for longer than the grace."""
        return self._ledger.purgeable(self._clock.now_s() - self._config.times.trash_grace_s)

    def purge(self, keys: Sequence[ShareKey]) -> list[StoredShare]:
        """End these shares' leases that are in the trash for longer than the grace; returns those of them
        that nobody has a lease on any more, which are no longer held.
        """
        before_s = self._clock.now_s() - self._config.times.trash_grace_s
        return self._ledger.purge(keys, trashed_before_s=before_s)

    def lose(self, keys: Sequence[ShareKey], reason: str) -> None:
        """Durably note that these shares are damaged or gone."""
        self._ledger.lose(keys, reason=reason, now_s=self._clock.now_s())

    @contextlib.contextmanager
    def removing(self, keys: Sequence[ShareKey]) -> Iterator[list[ShareKey]]:
        """Keep uploads away from those of `keys` that none concerns now; yields these."""
        with self._lock:
            locked = [key for key in keys if self._reservations.lock(key)]
        try:
            yield locked
        finally:
            with self._lock:
                for key in locked:
                    self._reservations.unlock(key)

    # --- under the lock -----------------------------------------------------------------------

    def _room(self, account: AccountId) -> Room:
        quota = self._admission.quota_bytes(account)
        return Room(
            self._config.capacity_bytes - self._ledger.totals().used_bytes,
            None if quota is None else quota - self._ledger.usage(account).used_bytes,
        )

    def _less(self, account: AccountId, room: Room, size_bytes: int) -> Room:
        """What is left for the account after a lease of this size.  Raises: QuotaFull."""
        if room.account_bytes is None:
            return room
        free = room.account_bytes - self._reservations.account_bytes(account)
        if size_bytes > free:
            raise QuotaFull(wanted_bytes=size_bytes, free_bytes=max(0, free))
        return replace(room, account_bytes=room.account_bytes - size_bytes)

    def _extend(self, account: AccountId, keys: set[ShareKey], now_s: float) -> set[ShareKey]:
        """Leases of the usual length on these; returns those that are (still) held."""
        if not keys:
            return set()
        ordered = sorted(keys)
        done = self._ledger.lease(account, ordered, expires_s=now_s + self._config.times.lease_s)
        return {key for key, held in zip(ordered, done, strict=True) if held}


def _check_size(claim: ShareClaim, size_bytes: int) -> None:
    if claim.size_bytes != size_bytes:
        raise InvalidRequest(reason=f"share {claim.key} has {size_bytes} bytes, not {claim.size_bytes}")


def _check_medium(claim: ShareClaim, medium_bytes: int | None, reserved_bytes: int) -> None:
    """Refuse what the configuration allows but the disk does not have."""
    if medium_bytes is None:
        return
    if claim.size_bytes > medium_bytes:
        raise DiskFull(where="its store")
    if claim.size_bytes > medium_bytes - reserved_bytes:
        raise CapacityFull(wanted_bytes=claim.size_bytes, free_bytes=max(0, medium_bytes - reserved_bytes))
