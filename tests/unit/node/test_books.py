"""Capacity, quota, leases and trash as accounts see them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.node.support import ALICE, BOB, START_S, Bench, make_bench, make_blob, on_disk, reasons

from muniment.errors import AccountRefused, QuotaFull, StoreFailed
from muniment.ids import AccountId, id_text
from muniment.node.admission import Admission
from muniment.node.config import InvitedAccount, Policy, Times
from muniment.ports import Accepted, Held, ShareClaim

SIZE = len(make_blob().records[0])


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def build(**settings: object) -> Bench:
        made.append(make_bench(tmp_path, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for bench in made:
        bench.ledger.close()
        bench.store.close()


def test_space_is_set_aside_counted_and_told_with_its_expiry(make: Callable[..., Bench]) -> None:
    node = make()
    blob = make_blob()
    assert node.reserve(ALICE, blob, 0, 1) == [Accepted(START_S + 600)] * 2
    assert node.sums() == (0, 2 * SIZE, 0)
    assert node.books.usage(ALICE).reserved_bytes == 2 * SIZE
    node.books.release(ALICE, [blob.key(0), blob.key(2)])
    assert node.sums() == (0, SIZE, 0)


def test_what_is_stored_counts_once_and_nothing_stays_promised(make: Callable[..., Bench]) -> None:
    node = make()
    node.stored(ALICE, make_blob(), 0, 2)
    assert node.sums() == (2 * SIZE, 0, 2)


def test_reservations_expire_by_the_monotonic_clock(make: Callable[..., Bench]) -> None:
    node = make()
    node.reserve(ALICE, make_blob(), 0)
    node.clock.now += 100_000  # setting the wall clock loses no promise
    assert node.books.expire() == 0
    node.clock.advance(600)
    assert node.books.expire() == 1
    assert node.sums() == (0, 0, 0)


def test_an_expired_reservation_makes_room_for_the_next_request(make: Callable[..., Bench]) -> None:
    node = make(capacity_bytes=SIZE)
    node.reserve(ALICE, make_blob(seed=1), 0)
    assert reasons(node.reserve(BOB, make_blob(seed=2), 0)) == ["capacity-full"]
    node.clock.advance(600)
    assert reasons(node.reserve(BOB, make_blob(seed=2), 0)) == ["accepted"]


def test_a_full_node_refuses_each_share_that_does_not_fit(make: Callable[..., Bench]) -> None:
    node = make(capacity_bytes=2 * SIZE + 10)
    assert reasons(node.reserve(ALICE, make_blob(), 0, 1, 2)) == ["accepted", "accepted", "capacity-full"]
    node.put(ALICE, make_blob(), 0, 1)
    assert reasons(node.reserve(BOB, make_blob(seed=9), 0)) == ["capacity-full"]


def test_quota_counts_what_is_held_and_promised_together(make: Callable[..., Bench]) -> None:
    node = make(policy=Policy(quota_bytes=3 * SIZE))
    node.stored(ALICE, make_blob(), 0)
    assert reasons(node.reserve(ALICE, make_blob(seed=1), 0, 1, 2)) == ["accepted", "accepted", "quota-full"]
    assert reasons(node.reserve(BOB, make_blob(seed=2), 0)) == ["accepted"]
    usage = node.books.usage(ALICE)
    assert (usage.used_bytes, usage.reserved_bytes, usage.quota_bytes) == (SIZE, 2 * SIZE, 3 * SIZE)


def test_a_held_share_becomes_the_accounts_own_without_being_sent(make: Callable[..., Bench]) -> None:
    node = make()
    blob = node.stored(ALICE, make_blob(), 0)
    assert node.reserve(BOB, blob, 0) == [Held()]
    assert node.books.usage(BOB).used_bytes == SIZE
    assert node.sums() == (SIZE, 0, 1)


def test_a_reserve_that_fails_sets_nothing_aside(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make()
    node.stored(BOB, make_blob(), 0)

    def broken(*_: object, **__: object) -> list[bool]:
        raise StoreFailed(where="ledger", reason="Input/output error")

    monkeypatch.setattr(node.ledger, "lease", broken)
    for account in (ALICE, BOB):
        with pytest.raises(StoreFailed):
            node.reserve(account, make_blob(), 0, 1)
        assert node.sums() == (SIZE, 0, 1)


def test_a_held_share_that_would_break_the_quota_is_refused(make: Callable[..., Bench]) -> None:
    node = make(policy=Policy(quota_bytes=3 * SIZE))
    blob = node.stored(ALICE, make_blob(), 0, 1, 2)
    node.stored(BOB, make_blob(seed=1), 0)
    node.reserve(BOB, make_blob(seed=2), 0)
    assert reasons(node.reserve(BOB, blob, 0, 0, 1)) == ["held", "held", "quota-full"]
    assert node.books.usage(BOB).used_bytes == 2 * SIZE


def test_a_held_share_claimed_with_another_size_is_refused(make: Callable[..., Bench]) -> None:
    node = make()
    blob = node.stored(ALICE, make_blob(), 0)
    assert reasons(node.service.reserve(ALICE, [ShareClaim(blob.key(0), SIZE + 1)])) == ["invalid-request"]


def test_reserving_a_share_in_the_trash_brings_it_back(make: Callable[..., Bench]) -> None:
    node = make()
    blob = node.stored(ALICE, make_blob(), 0)
    node.books.trash(ALICE, [blob.key(0)])
    assert node.books.shares(ALICE, None, 10)[0].trashed
    assert node.reserve(ALICE, blob, 0) == [Held()]
    assert not node.books.shares(ALICE, None, 10)[0].trashed


def test_many_clients_at_once_are_never_promised_more_than_there_is(make: Callable[..., Bench]) -> None:
    node = make(capacity_bytes=20 * SIZE, policy=Policy(quota_bytes=7 * SIZE))
    accepted: list[str] = []

    def client(account: AccountId, seed: int) -> None:
        for number in range(3):
            accepted.extend(reasons(node.reserve(account, make_blob(seed=seed), number)))

    threads = [
        threading.Thread(target=client, args=(AccountId(bytes([account]) * 32), 10 * account + seed))
        for account in range(4)
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted.count("accepted") == 20
    assert node.sums() == (0, 20 * SIZE, 0)
    for account in range(4):
        assert node.books.usage(AccountId(bytes([account]) * 32)).reserved_bytes <= 7 * SIZE


def test_a_lease_extends_adds_and_tells_what_is_not_held(make: Callable[..., Bench]) -> None:
    node = make()
    blob = node.stored(ALICE, make_blob(), 0)
    keys = [blob.key(0), blob.key(1)]
    assert node.books.lease(ALICE, keys, 5000) == [True, False]
    assert node.books.shares(ALICE, None, 10)[0].expires_s == START_S + 5000
    assert node.books.lease(BOB, keys, 10) == [True, False]
    assert node.books.usage(BOB).share_count == 1


def test_a_lease_beyond_the_quota_changes_nothing(make: Callable[..., Bench]) -> None:
    node = make(policy=Policy(quota_bytes=2 * SIZE))
    blob = node.stored(ALICE, make_blob(), 0, 1)
    node.stored(BOB, make_blob(seed=1), 0)
    with pytest.raises(QuotaFull) as full:
        node.books.lease(BOB, [blob.key(0), blob.key(1)], 10)
    assert (full.value.wanted_bytes, full.value.free_bytes) == (2 * SIZE, SIZE)
    assert node.books.usage(BOB).share_count == 1


def test_trash_is_purged_after_its_grace_and_not_before(make: Callable[..., Bench]) -> None:
    node = make(times=Times(trash_grace_s=100))
    blob = node.stored(ALICE, make_blob(), 0, 1)
    assert node.books.trash(ALICE, [blob.key(0)]) == [True]
    assert node.books.trash(BOB, [blob.key(1)]) == [False]
    node.clock.advance(99)
    assert node.service.purge() == 0
    node.clock.advance(1)
    assert node.service.purge() == 1
    assert node.sums() == (SIZE, 0, 1)
    assert node.read(blob.key(0)) is None
    assert node.read(blob.key(1)) == blob.records[1]


def test_an_expired_lease_goes_to_the_trash_and_then_away(make: Callable[..., Bench]) -> None:
    node = make(times=Times(lease_s=50, trash_grace_s=100))
    blob = node.stored(ALICE, make_blob(), 0)
    node.clock.advance(50)
    assert node.books.trash_expired() == 1
    assert node.service.get(blob.key(0)) == blob.records[0]  # until it is purged
    node.clock.advance(100)
    assert node.service.purge() == 1
    assert node.books.have([blob.name.blob]) == [[]]


def test_a_share_that_is_being_removed_is_not_promised(make: Callable[..., Bench]) -> None:
    node = make()
    blob = make_blob()
    with node.books.removing([blob.key(0)]) as locked:
        assert locked == [blob.key(0)]
        assert reasons(node.reserve(ALICE, blob, 0, 1)) == ["overloaded", "accepted"]
        with node.books.removing([blob.key(0), blob.key(1)]) as second:
            assert second == []
    assert reasons(node.reserve(ALICE, blob, 0)) == ["accepted"]


def test_a_purge_leaves_alone_what_somebody_is_about_to_upload(make: Callable[..., Bench]) -> None:
    node = make(times=Times(trash_grace_s=0))
    blob = node.stored(ALICE, make_blob(), 0)
    node.books.trash(ALICE, [blob.key(0)])
    node.books.lose([blob.key(0)], "test")  # so that it is promised again
    node.reserve(BOB, blob, 0)
    node.books.adopt(on_disk(blob, 0))
    node.clock.advance(10_000)
    node.books.trash_expired()
    node.clock.advance(10_000)
    node.clock.monotonic -= 20_000
    assert node.service.purge() == 0
    assert node.read(blob.key(0)) == blob.records[0]


def test_invited_accounts_have_their_own_quota_and_others_are_refused() -> None:
    policy = Policy(mode="invited", accounts=[InvitedAccount(account=id_text(ALICE), quota_bytes=5)])
    admission = Admission(policy)
    assert admission.admit(ALICE) == ALICE
    assert admission.quota_bytes(ALICE) == 5
    with pytest.raises(AccountRefused):
        admission.admit(BOB)


def test_an_open_node_gives_the_default_quota_to_all_but_those_listed() -> None:
    policy = Policy(quota_bytes=9, accounts=[InvitedAccount(account=id_text(ALICE))])
    admission = Admission(policy)
    assert (admission.quota_bytes(ALICE), admission.quota_bytes(admission.admit(BOB))) == (None, 9)
