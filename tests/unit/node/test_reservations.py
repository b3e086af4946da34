"""Every byte is promised once, and comes back once, whatever the order of calls."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.thoroughness import times

from muniment.errors import CapacityFull, MunimentError, Overloaded, QuotaFull
from muniment.ids import AccountId, BlobId, ShareKey, ShareNumber
from muniment.node.reservations import Promise, Reservations, Room

ALICE, BOB = AccountId(b"a" * 32), AccountId(b"b" * 32)
WIDE = Room(1 << 40, None)


def key(number: int) -> ShareKey:
    return ShareKey(BlobId(b"k" * 32), ShareNumber(number))


def test_two_accounts_are_never_promised_the_same_bytes() -> None:
    table, room = Reservations(10, 100), Room(100, None)
    table.reserve(ALICE, key(0), 60, now_s=0, room=room)
    with pytest.raises(CapacityFull) as full:
        table.reserve(BOB, key(1), 60, now_s=0, room=room)
    assert (full.value.wanted_bytes, full.value.free_bytes) == (60, 40)
    table.reserve(BOB, key(1), 40, now_s=0, room=room)
    assert table.reserved_bytes == 100


def test_quota_counts_what_is_promised_and_only_the_accounts_own() -> None:
    table, room = Reservations(10, 100), Room(1000, 50)
    table.reserve(ALICE, key(0), 30, now_s=0, room=room)
    with pytest.raises(QuotaFull) as full:
        table.reserve(ALICE, key(1), 30, now_s=0, room=room)
    assert full.value.free_bytes == 20
    table.reserve(BOB, key(1), 30, now_s=0, room=room)
    assert (table.account_bytes(ALICE), table.account_bytes(BOB)) == (30, 30)


def test_asking_again_promises_nothing_more_and_moves_the_expiry() -> None:
    table, room = Reservations(10, 100), Room(100, 100)
    table.reserve(ALICE, key(0), 100, now_s=0, room=room)
    table.reserve(ALICE, key(0), 100, now_s=5, room=room)
    assert table.reserved_bytes == 100
    assert table.expire(10) == 0
    assert table.expire(15) == 1
    assert table.reserved_bytes == 0


def test_asking_again_with_another_size_replaces_the_promise() -> None:
    table = Reservations(10, 100)
    table.reserve(ALICE, key(0), 100, now_s=0, room=Room(100, None))
    table.reserve(ALICE, key(0), 70, now_s=0, room=Room(100, None))
    assert table.reserved_bytes == 70


def test_expiry_stops_at_the_first_that_still_waits() -> None:
    table = Reservations(10, 100)
    for now_s in range(5):
        table.reserve(ALICE, key(now_s), 1, now_s=now_s, room=WIDE)
    assert table.expire(12) == 3
    assert table.count == 2


def test_a_taken_promise_does_not_expire_and_is_given_back_once() -> None:
    table = Reservations(10, 100)
    table.reserve(ALICE, key(0), 7, now_s=0, room=WIDE)
    promise = table.take(ALICE, key(0), 7, room=lambda: WIDE)
    assert promise is not None
    assert table.expire(1000) == 0
    table.release(ALICE, key(0))
    assert table.reserved_bytes == 7
    table.finish(promise)
    assert (table.reserved_bytes, table.account_bytes(ALICE)) == (0, 0)


def test_nothing_is_taken_without_a_promise_of_that_size_and_account() -> None:
    table = Reservations(10, 100)
    table.reserve(ALICE, key(0), 7, now_s=0, room=WIDE)
    assert table.take(BOB, key(0), 7, room=lambda: WIDE) is None
    assert table.take(ALICE, key(1), 7, room=lambda: WIDE) is None
    assert table.take(ALICE, key(0), 8, room=lambda: WIDE) is None
    assert table.take(ALICE, key(0), 7, room=lambda: WIDE) is not None


def test_a_second_upload_of_the_same_share_needs_space_of_its_own() -> None:
    table = Reservations(10, 100)
    table.reserve(ALICE, key(0), 60, now_s=0, room=WIDE)
    first = table.take(ALICE, key(0), 60, room=lambda: WIDE)
    with pytest.raises(CapacityFull):
        table.take(ALICE, key(0), 60, room=lambda: Room(100, None))
    second = table.take(ALICE, key(0), 60, room=lambda: WIDE)
    assert first is not None
    assert second is not None
    assert table.reserved_bytes == 120
    table.finish(first)
    table.finish(second)
    assert table.reserved_bytes == 0
    assert table.take(ALICE, key(0), 60, room=lambda: WIDE) is None


def test_a_share_is_never_promised_and_removed_at_the_same_time() -> None:
    table = Reservations(10, 100)
    assert table.lock(key(0))
    assert not table.lock(key(0))
    with pytest.raises(Overloaded):
        table.reserve(ALICE, key(0), 1, now_s=0, room=WIDE)
    table.unlock(key(0))
    table.reserve(ALICE, key(0), 1, now_s=0, room=WIDE)
    assert not table.lock(key(0))
    promise = table.take(ALICE, key(0), 1, room=lambda: WIDE)
    assert not table.lock(key(0))
    assert promise is not None
    table.finish(promise)
    assert table.lock(key(0))


def test_the_number_of_promises_is_bounded() -> None:
    table = Reservations(10, 2)
    table.reserve(ALICE, key(0), 1, now_s=0, room=WIDE)
    table.reserve(ALICE, key(1), 1, now_s=0, room=WIDE)
    with pytest.raises(Overloaded):
        table.reserve(ALICE, key(2), 1, now_s=0, room=WIDE)
    table.reserve(ALICE, key(1), 1, now_s=0, room=WIDE)


def test_capacity_lowered_below_what_is_stored_promises_nothing() -> None:
    with pytest.raises(CapacityFull) as full:
        Reservations(10, 2).reserve(ALICE, key(0), 1, now_s=0, room=Room(-50, None))
    assert full.value.free_bytes == 0


class AnyOrder(RuleBasedStateMachine):
    """All calls in any order against sums kept the plain way."""

    capacity, quota = 100, 60
    owners = st.tuples(st.sampled_from([ALICE, BOB]), st.integers(0, 3))

    def __init__(self) -> None:
        super().__init__()
        self.table = Reservations(10, 5)
        self.now_s = 0.0
        self.room = Room(self.capacity, self.quota)
        self.waiting: dict[tuple[AccountId, int], Promise] = {}
        self.taken: list[Promise] = []
        self.locked: set[int] = set()

    @rule(owner=owners, size=st.integers(1, 70))
    def reserve(self, owner: tuple[AccountId, int], size: int) -> None:
        account, number = owner
        old = self.waiting.get(owner)
        try:
            promise = self.table.reserve(account, key(number), size, now_s=self.now_s, room=self.room)
        except MunimentError:
            if old is not None and old.size_bytes != size:
                del self.waiting[owner]
            return
        assert number not in self.locked
        self.waiting[owner] = promise

    @rule(owner=owners, size=st.integers(1, 70))
    def take(self, owner: tuple[AccountId, int], size: int) -> None:
        account, number = owner
        if owner in self.waiting:
            size = self.waiting[owner].size_bytes
        try:
            promise = self.table.take(account, key(number), size, room=lambda: self.room)
        except (CapacityFull, QuotaFull):
            return
        if promise is not None:
            self.waiting.pop(owner, None)
            self.taken.append(promise)

    @rule(which=st.integers(0, 10))
    def finish(self, which: int) -> None:
        if self.taken:
            self.table.finish(self.taken.pop(which % len(self.taken)))

    @rule(owner=owners)
    def release(self, owner: tuple[AccountId, int]) -> None:
        self.table.release(owner[0], key(owner[1]))
        self.waiting.pop(owner, None)

    @rule(step_s=st.integers(0, 12))
    def pass_time(self, step_s: int) -> None:
        self.now_s += step_s
        self.table.expire(self.now_s)
        self.waiting = {owner: p for owner, p in self.waiting.items() if p.expires_s > self.now_s}

    @rule(number=st.integers(0, 3))
    def lock(self, number: int) -> None:
        busy = number in self.locked or any(p.key.number == number for p in self.everything())
        assert self.table.lock(key(number)) is not busy
        if not busy:
            self.locked.add(number)

    @rule(number=st.integers(0, 3))
    def unlock(self, number: int) -> None:
        self.table.unlock(key(number))
        self.locked.discard(number)

    def everything(self) -> list[Promise]:
        return [*self.waiting.values(), *self.taken]

    @invariant()
    def sums_are_exact_and_within_limits(self) -> None:
        assert self.table.reserved_bytes == sum(p.size_bytes for p in self.everything()) <= self.capacity
        for account in (ALICE, BOB):
            own = sum(p.size_bytes for p in self.everything() if p.account == account)
            assert self.table.account_bytes(account) == own <= self.quota
        assert self.table.count == len(self.waiting)


AnyOrder.TestCase.settings = settings(max_examples=times(30), stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase
