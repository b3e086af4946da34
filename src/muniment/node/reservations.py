"""Space promised to uploads that have not arrived: every byte is promised once (docs/node.md section 4).

Pure bookkeeping in memory, no I/O and no clock of its own; `NodeService` calls it under one lock.  It is not
durable on purpose: after a restart no upload is under way, so nothing is promised.

A promise goes `reserve -> take -> finish`.  `reserve` sets bytes aside until an expiry; `take` hands them to
one upload, which from then on holds them without expiry (its request has a deadline of its own); `finish`
gives them back, after the ledger counts the stored bytes or after the upload failed.  `release` and `expire`
give back what nobody took.

The same table says which shares are being removed (`lock`), so that a share is never written and purged or
quarantined at the same time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from muniment.errors import CapacityFull, Overloaded, QuotaFull
from muniment.ids import AccountId, ShareKey

_Owner = tuple[AccountId, ShareKey]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Room:
    """What the ledger counts at this moment, the frame for a promise.

    Attributes:
        node_bytes: the node's capacity minus all stored bytes; may be negative after capacity was lowered.
        account_bytes: the account's quota minus what it holds, or None without a quota.
    """

    node_bytes: int
    account_bytes: int | None


@dataclass(frozen=True, slots=True)
class Promise:
    """Bytes set aside for one share of one account; `expires_s` counts until an upload takes it."""

    account: AccountId
    key: ShareKey
    size_bytes: int
    expires_s: float

    @property
    def owner(self) -> _Owner:
        """What it is found by."""
        return (self.account, self.key)


class Reservations:
    """All promises of one node.

    Times are of a monotonic clock, and every promise has the same lifetime, so promises made later expire
    later: the table in its own order is the expiry queue.

    Invariant: `reserved_bytes` is the sum over waiting and taken promises, and so is each account's part.

    Args:
        lifetime_s: how long a promise waits for its upload.
        count_max: waiting promises kept at once, a bound on memory.
    """

    def __init__(self, lifetime_s: float, count_max: int) -> None:
        self._lifetime_s = lifetime_s
        self._count_max = count_max
        self._waiting: dict[_Owner, Promise] = {}
        self._uploading: Counter[_Owner] = Counter()
        self._promised: Counter[ShareKey] = Counter()
        self._locked: set[ShareKey] = set()
        self._by_account: Counter[AccountId] = Counter()
        self.reserved_bytes = 0

    def account_bytes(self, account: AccountId) -> int:
        """Bytes promised to this account."""
        return self._by_account[account]

    @property
    def count(self) -> int:
        """Promises nobody has taken yet."""
        return len(self._waiting)

    def reserve(
        self, account: AccountId, key: ShareKey, size_bytes: int, *, now_s: float, room: Room
    ) -> Promise:
        """Set `size_bytes` aside; asking again for the same only moves the expiry.

        Raises:
            CapacityFull, QuotaFull: not enough is left after what is promised already.
            Overloaded: too many promises wait, or the share is just being removed.
        """
        owner = (account, key)
        old = self._waiting.get(owner)
        if old is not None and old.size_bytes == size_bytes:
            del self._waiting[owner]  # and in again, at the end of the expiry queue
        else:
            self.release(account, key)
            if len(self._waiting) >= self._count_max:
                raise Overloaded(limit=f"{self._count_max} reservations")
            self._claim(owner, size_bytes, room)
        promise = Promise(account, key, size_bytes, now_s + self._lifetime_s)
        self._waiting[owner] = promise
        return promise

    def take(
        self, account: AccountId, key: ShareKey, size_bytes: int, *, room: Callable[[], Room]
    ) -> Promise | None:
        """Hand the promise to an upload, which must `finish` it; None where nothing of this size is promised.

        A second upload of the same share by the same account while the first is under way (two programs, or
        one file with equal chunks, reserved once) gets space of its own if there is any.

        Raises: CapacityFull, QuotaFull: for that second upload.
        """
        owner = (account, key)
        promise = self._waiting.get(owner)
        if promise is not None:
            if promise.size_bytes != size_bytes:
                return None
            del self._waiting[owner]
        elif self._uploading[owner]:
            self._claim(owner, size_bytes, room())
            promise = Promise(account, key, size_bytes, 0.0)
        else:
            return None
        self._uploading[owner] += 1
        return promise

    def finish(self, promise: Promise) -> None:
        """Give back the bytes of a taken promise; call exactly once for each `take`."""
        _decrease(self._uploading, promise.owner, 1)
        self._give_back(promise)

    def release(self, account: AccountId, key: ShareKey) -> None:
        """Give back a promise nobody took; without effect where there is none."""
        promise = self._waiting.pop((account, key), None)
        if promise is not None:
            self._give_back(promise)

    def expire(self, now_s: float) -> int:
        """Give back every waiting promise whose time is over; returns how many.  Cost: O(expired)."""
        expired = []
        for promise in self._waiting.values():
            if promise.expires_s > now_s:
                break
            expired.append(promise)
        for promise in expired:
            self.release(promise.account, promise.key)
        return len(expired)

    def lock(self, key: ShareKey) -> bool:
        """Keep uploads away from `key` while it is removed; False while one is promised or under way."""
        if key in self._locked or key in self._promised:
            return False
        self._locked.add(key)
        return True

    def unlock(self, key: ShareKey) -> None:
        """End what `lock` began."""
        self._locked.discard(key)

    def _claim(self, owner: _Owner, size_bytes: int, room: Room) -> None:
        account, key = owner
        if key in self._locked:
            raise Overloaded(limit="this share is just being removed")
        free = room.node_bytes - self.reserved_bytes
        if size_bytes > free:
            raise CapacityFull(wanted_bytes=size_bytes, free_bytes=max(0, free))
        if room.account_bytes is not None:
            left = room.account_bytes - self._by_account[account]
            if size_bytes > left:
                raise QuotaFull(wanted_bytes=size_bytes, free_bytes=max(0, left))
        self.reserved_bytes += size_bytes
        self._by_account[account] += size_bytes
        self._promised[key] += 1

    def _give_back(self, promise: Promise) -> None:
        self.reserved_bytes -= promise.size_bytes
        _decrease(self._by_account, promise.account, promise.size_bytes)
        _decrease(self._promised, promise.key, 1)


def _decrease(counter: Counter[_T], key: _T, by: int) -> None:
    """Subtract, and forget keys that reach zero, so that the table does not grow with history."""
    counter[key] -= by
    if not counter[key]:
        del counter[key]
