"""Put, get, prove and quarantine over a memory store."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.node.support import ALICE, BOB, Bench, framed, make_bench, make_blob, on_disk, reasons

from muniment.errors import (
    DiskFull,
    InvalidRequest,
    MalformedRecord,
    MunimentError,
    RangeOutOfBounds,
    ShareCorrupt,
    ShareUnknown,
    StoreFailed,
    UnknownVersion,
)
from muniment.ids import ShareKey
from muniment.merkle.share_tree import check_proof
from muniment.node.config import Policy
from muniment.node.serving import VerifiedShares
from muniment.ports import Held, ShareReader, ShareWriter
from muniment.spec.limits import LEAF_BYTES
from muniment.stores.memory import MemoryStore

SIZE = len(make_blob().records[0])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Bench]:
    bench = make_bench(tmp_path)
    yield bench
    bench.ledger.close()
    bench.store.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def build(**how: object) -> Bench:
        made.append(make_bench(tmp_path, **how))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for bench in made:
        bench.ledger.close()


def damaged(record: bytes, at: int) -> bytes:
    return record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]


# --- put --------------------------------------------------------------------------------------


def test_what_is_put_is_got_and_listed(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(), 0, 2)
    assert node.service.get(blob.key(2)) == blob.records[2]
    assert node.books.have([blob.name.blob]) == [[0, 2]]
    assert [row.number for row in node.books.shares(ALICE, None, 10)] == [0, 2]


@pytest.mark.parametrize("step", [1, 7, 55, 56, 57, 1000, 1 << 20])
def test_a_body_may_arrive_in_pieces_of_any_size(node: Bench, step: int) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0, 1, 2)
    receiver, body = node.service.begin_put(ALICE, 3), framed(blob, 0, 1, 2)
    for at in range(0, len(body), step):
        receiver.feed([body[at : at + step]])
    assert receiver.finish() == [Held()] * 3
    assert [node.read(blob.key(n)) for n in range(3)] == list(blob.records)


def test_a_share_without_a_reservation_is_refused_and_its_neighbours_are_stored(node: Bench) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0, 2)
    node.reserve(BOB, blob, 1)
    assert reasons(node.put(ALICE, blob, 0, 1, 2)) == ["held", "reservation-missing", "held"]
    assert node.sums() == (2 * SIZE, SIZE, 2)


def test_a_reservation_of_another_size_does_not_serve(node: Bench) -> None:
    blob, longer = make_blob(), make_blob(length=4000)
    node.reserve(ALICE, blob, 0)
    receiver = node.service.begin_put(ALICE, 1)
    receiver.feed([blob.name.blob + longer.records[0]])
    assert reasons(receiver.finish()) == ["reservation-missing"]


@pytest.mark.parametrize("at", [30, 100, 24 + 96 + 31, 24 + 96 + 32, SIZE - 1])
def test_a_wrong_byte_refuses_that_share_alone_and_gives_its_space_back(node: Bench, at: int) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0, 1)
    wrong = damaged(blob.records[0], at)
    receiver = node.service.begin_put(ALICE, 2)
    receiver.feed([blob.name.blob + wrong + framed(blob, 1)])
    assert reasons(receiver.finish()) == ["share-corrupt", "held"]
    assert node.sums() == (SIZE, 0, 1)
    assert node.read(blob.key(0)) is None


def test_a_true_share_of_another_blob_is_refused(node: Bench) -> None:
    blob, other = make_blob(), make_blob(seed=1)
    node.reserve(ALICE, blob, 0)
    receiver = node.service.begin_put(ALICE, 1)
    receiver.feed([blob.name.blob + other.records[0]])
    assert reasons(receiver.finish()) == ["share-corrupt"]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"NOTSHARE", MalformedRecord),
        (b"MUNSHARE\x09", UnknownVersion),
        (b"MUNSHARE\x01\x63", MalformedRecord),
    ],
)
def test_a_head_that_cannot_be_read_ends_the_request_and_leaves_nothing(
    node: Bench, head: bytes, error: type[MunimentError]
) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0, 1)
    receiver = node.service.begin_put(ALICE, 2)
    with pytest.raises(error):
        receiver.feed([framed(blob, 0) + blob.name.blob + head + bytes(24)])
    receiver.abort()
    assert node.sums() == (0, SIZE, 0)  # the second share's reservation was never reached
    assert node.read(blob.key(0)) is None


@pytest.mark.parametrize("cut", [1, 40, 60, 500, SIZE + 31, SIZE + 33, SIZE + 100])
def test_a_truncated_body_stores_nothing_and_reserves_nothing_it_touched(node: Bench, cut: int) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0, 1)
    receiver = node.service.begin_put(ALICE, 2)
    receiver.feed([framed(blob, 0, 1)[:cut]])
    with pytest.raises(InvalidRequest):
        receiver.finish()
    touched = (cut >= 56) + (cut >= SIZE + 32 + 56)
    assert node.sums() == (0, (2 - touched) * SIZE, 0)


def test_fewer_or_more_shares_than_announced_are_refused(node: Bench) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0, 1)
    short = node.service.begin_put(ALICE, 2)
    short.feed([framed(blob, 0)])
    with pytest.raises(InvalidRequest, match="announced were 2"):
        short.finish()
    node.reserve(ALICE, blob, 0)
    long = node.service.begin_put(ALICE, 1)
    with pytest.raises(InvalidRequest, match="more than"):
        long.feed([framed(blob, 0, 1)])
    assert node.sums() == (0, SIZE, 0)


def test_a_client_that_vanishes_leaves_nothing_reserved_or_written(node: Bench) -> None:
    blob = make_blob(length=200_000)
    node.reserve(ALICE, blob, 0)
    receiver = node.service.begin_put(ALICE, 1)
    receiver.feed([framed(blob, 0)[:50_000]])
    assert node.sums()[1] == len(blob.records[0])
    receiver.abort()
    receiver.abort()
    assert node.sums() == (0, 0, 0)
    assert list(node.store.scan()) == []
    receiver.feed([framed(blob, 0)[50_000:]])  # a piece that was on its way changes nothing
    assert list(node.store.scan()) == []


def test_the_same_share_from_two_clients_at_once_is_held_once(node: Bench) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0)
    node.reserve(BOB, blob, 0)
    first, second = node.service.begin_put(ALICE, 1), node.service.begin_put(BOB, 1)
    first.feed([framed(blob, 0)])
    second.feed([framed(blob, 0)])
    assert first.finish() == second.finish() == [Held()]
    assert node.sums() == (SIZE, 0, 1)
    assert (node.books.usage(ALICE).used_bytes, node.books.usage(BOB).used_bytes) == (SIZE, SIZE)


def test_a_share_that_another_stored_meanwhile_is_skipped_and_leased(node: Bench) -> None:
    blob = make_blob()
    node.reserve(BOB, blob, 0)
    node.stored(ALICE, blob, 0)
    assert node.put(BOB, blob, 0) == [Held()]
    assert node.sums() == (SIZE, 0, 1)
    assert node.books.usage(BOB).share_count == 1


def test_the_same_share_twice_in_one_body(node: Bench) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0)
    assert node.put(ALICE, blob, 0, 0) == [Held(), Held()]
    assert node.sums() == (SIZE, 0, 1)


def test_sending_a_held_share_again_needs_no_reservation(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    assert node.put(ALICE, blob, 0) == [Held()]
    assert reasons(node.put(BOB, blob, 0)) == ["reservation-missing"]


def test_more_shares_than_one_group_are_committed_on_the_way(make: Callable[..., Bench]) -> None:
    node = make(capacity_bytes=10_000_000)
    blob = make_blob(length=400, k=2, n=200)
    numbers = range(200)
    node.reserve(ALICE, blob, *numbers)
    receiver, body = node.service.begin_put(ALICE, 200), framed(blob, *numbers)
    receiver.feed([body[: len(body) * 3 // 4]])
    assert len(node.books.have([blob.name.blob])[0]) == 128
    receiver.abort()
    used, reserved, count = node.sums()
    assert (count, used) == (128, 128 * len(blob.records[0]))
    assert reserved == 50 * len(blob.records[0])  # those the body had not come to


class FailingStore(MemoryStore):
    """Fails when told, as a disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_at: str | None = None
        self.error: MunimentError = DiskFull(where="test")

    def create(self, key: ShareKey, size_bytes: int) -> ShareWriter:
        self._maybe("create")
        return super().create(key, size_bytes)

    def commit(self, writers: object) -> None:
        self._maybe("commit")
        super().commit(writers)  # type: ignore[arg-type]

    def open(self, key: ShareKey) -> ShareReader:
        self._maybe("open")
        return super().open(key)

    def free_bytes(self) -> int | None:
        return 2 * SIZE if self.fail_at == "free" else None

    def _maybe(self, step: str) -> None:
        if self.fail_at == step:
            raise self.error


@pytest.mark.parametrize("step", ["create", "commit"])
def test_a_full_disk_refuses_and_gives_the_space_back(make: Callable[..., Bench], step: str) -> None:
    store = FailingStore()
    node = make(store=store)
    blob = make_blob()
    node.reserve(ALICE, blob, 0, 1)
    store.fail_at = step
    assert reasons(node.put(ALICE, blob, 0, 1)) == ["disk-full", "disk-full"]
    assert node.sums() == (0, 0, 0)


def test_a_disk_smaller_than_the_capacity_is_told_at_reserve(make: Callable[..., Bench]) -> None:
    store = FailingStore()
    store.fail_at = "free"
    node = make(store=store)
    assert reasons(node.reserve(ALICE, make_blob(), 0, 1, 2)) == ["accepted", "accepted", "capacity-full"]
    assert reasons(node.reserve(ALICE, make_blob(length=40_000), 0)) == ["disk-full"]


def test_a_ledger_that_fails_after_the_store_does_not_answer_held(node: Bench) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0)
    receiver = node.service.begin_put(ALICE, 1)
    receiver.feed([framed(blob, 0)])
    node.ledger._writer._sqlite.execute("DROP TABLE leases")
    assert reasons(receiver.finish()) == ["store-failed"]
    assert node.service.info().reserved_bytes == 0


def ledger_takes_nothing(node: Bench) -> sqlite3.Connection:
    sqlite: sqlite3.Connection = node.ledger._writer._sqlite
    sqlite.execute(
        "CREATE TRIGGER fails BEFORE INSERT ON shares BEGIN SELECT RAISE(ABORT, 'no space left'); END"
    )
    return sqlite


def test_what_the_ledger_cannot_take_does_not_stay_on_disk(node: Bench) -> None:
    blob = make_blob()
    node.service.reconciled = True
    node.reserve(ALICE, blob, 0, 1)
    node.reserve(BOB, blob, 1)
    sqlite = ledger_takes_nothing(node)
    assert reasons(node.put(ALICE, blob, 0, 1)) == ["store-failed", "store-failed"]
    assert node.read(blob.key(0)) is None
    sqlite.execute("DROP TRIGGER fails")
    assert node.put(BOB, blob, 1) == [Held()]  # what another upload concerns was left alone
    assert node.service.get(blob.key(1)) == blob.records[1]


def test_what_others_have_stays_though_a_ledger_that_is_made_anew_does_not_know_it_yet(node: Bench) -> None:
    blob = make_blob()
    node.write(blob.key(0), blob.records[0])  # held for others until the ledger was lost
    node.reserve(ALICE, blob, 0)
    sqlite = ledger_takes_nothing(node)
    assert reasons(node.put(ALICE, blob, 0)) == ["store-failed"]
    assert node.read(blob.key(0)) == blob.records[0]
    sqlite.execute("DROP TRIGGER fails")
    assert node.service.adopt(on_disk(blob, 0))  # as the comparison does that is under way


# --- get --------------------------------------------------------------------------------------


def test_an_unknown_share_is_said_to_be_unknown(node: Bench) -> None:
    key = make_blob().key(0)
    with pytest.raises(ShareUnknown):
        node.service.get(key)
    with pytest.raises(ShareUnknown):
        node.service.get_span(key, 0, 1)
    with pytest.raises(ShareUnknown):
        node.service.leaves(key, 0, 1)


@given(start=st.integers(0, 70_000), length=st.integers(1, 70_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # reading changes nothing
def test_any_range_is_that_part_of_the_record(node: Bench, start: int, length: int) -> None:
    blob = make_blob(length=100_000)
    record = blob.records[1]
    if node.read(blob.key(1)) is None:
        node.stored(ALICE, blob, 1)
    first = start % len(record)
    data, offset, size = node.service.get_span(blob.key(1), first, first + length)
    assert (data, offset, size) == (record[first : first + length], first, len(record))


def test_a_range_may_count_from_the_end_or_be_open(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    key, record = blob.key(0), blob.records[0]
    assert node.service.get_span(key, -5, None)[:2] == (record[-5:], SIZE - 5)
    assert node.service.get_span(key, -10 * SIZE, None)[:2] == (record, 0)
    assert node.service.get_span(key, 100, None)[0] == record[100:]


@pytest.mark.parametrize(("start", "stop"), [(SIZE, SIZE + 1), (10, 10), (10, 5), (10**12, None)])
def test_a_range_outside_the_record_is_refused(node: Bench, start: int, stop: int | None) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    with pytest.raises(RangeOutOfBounds):
        node.service.get_span(blob.key(0), start, stop)


def test_several_records_at_once_with_gaps(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(), 0, 2)
    keys = [blob.key(n) for n in range(3)]
    assert list(node.service.get_many(keys)) == [blob.records[0], None, blob.records[2]]


# --- prove ------------------------------------------------------------------------------------


def test_leaves_come_with_a_path_that_proves_them(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(length=5 * LEAF_BYTES, k=2), 1)
    proofs = node.service.leaves(blob.key(1), 0, 3)
    for leaf, proof in enumerate(proofs):
        check_proof(blob.name, 1, leaf, proof.header, proof.data, proof.path)
    with pytest.raises(RangeOutOfBounds):
        node.service.leaves(blob.key(1), 2, 2)


def test_challenges_are_answered_one_by_one(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(length=5 * LEAF_BYTES, k=2), 1)
    held, missing = blob.key(1), blob.key(0)
    answers = list(node.service.prove([(held, 2), (missing, 0), (held, 3), (held, 0)]))
    assert [answer.leaf if answer else None for answer in answers] == [2, None, None, 0]


# --- quarantine -------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 9, 30, 24 + 96 + 5, SIZE - 1])
def test_a_damaged_share_is_not_served_but_put_into_quarantine(node: Bench, at: int) -> None:
    blob = node.stored(ALICE, make_blob(), 0, 1)
    key = blob.key(0)
    node.write(key, damaged(blob.records[0], at))
    with pytest.raises(ShareCorrupt):
        node.service.get(key)
    with pytest.raises(ShareUnknown):
        node.service.get(key)
    assert node.books.have([blob.name.blob]) == [[1]]
    assert [row.number for row in node.books.quarantined(ALICE, None, 10)] == [0]
    assert node.sums() == (SIZE, 0, 1)
    assert node.service.info().quarantined_count == 1


@pytest.mark.parametrize(
    "content", [b"", b"short", make_blob().records[0][:-1], make_blob().records[0] + b"x"]
)
def test_a_share_of_the_wrong_length_is_put_into_quarantine(node: Bench, content: bytes) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    node.write(blob.key(0), content)
    assert list(node.service.get_many([blob.key(0)])) == [None]
    assert [row.number for row in node.books.quarantined(ALICE, None, 10)] == [0]


def test_a_range_checks_the_leaves_it_touches_and_no_others(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(length=6 * LEAF_BYTES, k=2), 0)
    key, head = blob.key(0), blob.name.shape.head_bytes
    node.write(key, damaged(blob.records[0], head + 2 * LEAF_BYTES + 5))
    assert (
        node.service.get_span(key, head, head + 2 * LEAF_BYTES)[0] == blob.records[0][head:][: 2 * LEAF_BYTES]
    )
    with pytest.raises(ShareCorrupt):
        node.service.get_span(key, head + 2 * LEAF_BYTES, None)
    assert node.read(key) is None


@pytest.mark.parametrize("at", [0, 8, 9, 15, 23, 24, 24 + 96 + 5])
def test_a_range_checks_the_head_wherever_it_lies(node: Bench, at: int) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    node.write(blob.key(0), damaged(blob.records[0], at))
    with pytest.raises(ShareCorrupt):
        node.service.get_span(blob.key(0), SIZE - 1, None)
    assert node.read(blob.key(0)) is None


def test_a_head_longer_than_the_first_read_is_read_to_its_end(make: Callable[..., Bench]) -> None:
    node = make(capacity_bytes=10_000_000)
    blob = node.stored(ALICE, make_blob(length=3000, k=2, n=200), 0)
    assert node.service.get_span(blob.key(0), 6000, None)[0] == blob.records[0][6000:]


def test_shares_larger_than_the_usual_are_served_too(make: Callable[..., Bench]) -> None:
    node = make(capacity_bytes=10_000_000)
    blob = node.stored(ALICE, make_blob(length=3_000_000, k=1, n=1), 0)
    assert node.service.get(blob.key(0)) == blob.records[0]


@pytest.mark.parametrize("kept", [10, 24 + 96 + 20, SIZE - 5])
def test_a_file_that_shrinks_while_it_is_read_is_damage(kept: int) -> None:
    store, blob = ShrinkingStore(), make_blob()
    writer = store.create(blob.key(0), SIZE)
    writer.write(blob.records[0])
    store.commit([writer])
    verified = VerifiedShares(store)
    assert verified.record(blob.key(0)) == blob.records[0]
    store.kept_bytes = kept
    with pytest.raises(ShareCorrupt, match="not as long as its file"):
        verified.record(blob.key(0))
    with pytest.raises(ShareCorrupt, match="not as long as its file"):
        verified.span(blob.key(0), SIZE - 1, SIZE)


class ShrinkingStore(MemoryStore):
    """Its files end before the size they had when they were opened."""

    kept_bytes = SIZE

    def open(self, key: ShareKey) -> ShareReader:
        return _Shrinking(super().open(key), self.kept_bytes)


class _Shrinking:
    def __init__(self, reader: ShareReader, kept_bytes: int) -> None:
        self._reader, self._kept_bytes = reader, kept_bytes
        self.size_bytes = reader.size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> int:
        kept = memoryview(buffer)[: max(0, self._kept_bytes - offset)]
        return self._reader.read_into(offset, kept)

    def close(self) -> None:
        self._reader.close()


def test_a_challenge_on_a_damaged_leaf_is_not_answered(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(length=6 * LEAF_BYTES, k=2), 0)
    key = blob.key(0)
    node.write(key, damaged(blob.records[0], len(blob.records[0]) - 1))
    assert [bool(answer) for answer in node.service.prove([(key, 0), (key, 2), (key, 0)])] == [
        True,
        False,
        False,
    ]


def test_a_share_in_quarantine_can_be_stored_again(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    key = blob.key(0)
    node.write(key, damaged(blob.records[0], 200))
    assert list(node.service.get_many([key])) == [None]
    node.stored(ALICE, blob, 0)
    assert node.service.get(key) == blob.records[0]
    assert node.books.quarantined(ALICE, None, 10) == []


def test_a_failing_medium_says_nothing_about_the_share(make: Callable[..., Bench]) -> None:
    store = FailingStore()
    store.error = StoreFailed(where="test", reason="input/output error")
    node = make(store=store)
    blob = node.stored(ALICE, make_blob(), 0)
    store.fail_at = "open"
    with pytest.raises(StoreFailed):
        node.service.get(blob.key(0))
    store.fail_at = None
    assert node.service.get(blob.key(0)) == blob.records[0]


def test_a_good_share_that_replaced_a_damaged_one_is_not_condemned_for_it(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    key = blob.key(0)
    node.service._condemn(key, ShareCorrupt(blob=key.blob, share=0, reason="seen before it was mended"))
    assert node.service.get(key) == blob.records[0]


def test_a_damaged_share_is_left_while_an_upload_replaces_it(node: Bench) -> None:
    blob = make_blob()
    key = blob.key(0)
    node.write(key, damaged(blob.records[0], 200))  # in the store, not in the ledger
    node.reserve(ALICE, blob, 0)
    with pytest.raises(ShareCorrupt):
        node.service.get(key)
    assert node.put(ALICE, blob, 0) == [Held()]
    assert node.service.get(key) == blob.records[0]


def test_readers_and_writers_at_once(make: Callable[..., Bench]) -> None:
    node = make(capacity_bytes=100_000_000, policy=Policy())
    blobs = [make_blob(length=3000, seed=seed) for seed in range(12)]
    wrong: list[object] = []

    def work(offset: int) -> None:
        for step in range(12):
            blob = blobs[(offset + step) % 12]
            node.reserve(ALICE, blob, 0, 1)
            if not all(isinstance(outcome, Held) for outcome in node.put(ALICE, blob, 0, 1)):
                wrong.append("put")
            if node.service.get(blob.key(1)) != blob.records[1]:
                wrong.append("get")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert node.sums() == (24 * SIZE, 0, 24)
