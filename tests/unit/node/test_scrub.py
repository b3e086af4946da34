"""Every share is read again in time, and what rots is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.node.support import ALICE, BOB, Bench, make_bench, make_blob

from muniment.errors import StoreFailed
from muniment.ids import ShareKey
from muniment.node.ledger import Ledger
from muniment.node.ledger_schema import APPLICATION_ID, STEPS
from muniment.node.scrub import Scrub
from muniment.node.scrub_book import ScrubBook
from muniment.ports import ShareReader
from muniment.stores.memory import MemoryStore
from muniment.stores.posix import PosixStore

ROUND_S = 1000.0


class Reading:
    """The scrub of a bench, driven by its clock: waiting moves it."""

    def __init__(self, bench: Bench, *, bytes_per_s: int = 10**12) -> None:
        self.bench = bench
        self.book = ScrubBook(bench.ledger.path)
        self.scrub = Scrub(
            bench.service, self.book, round_s=ROUND_S, bytes_per_s=bytes_per_s, clock=bench.clock
        )
        self.waited_s = 0.0

    def run(self, *, for_s: float) -> None:
        until_s = self.bench.clock.now_s() + for_s
        while self.bench.clock.now_s() < until_s:
            wait_s = self.scrub.step()
            self.waited_s += wait_s
            self.bench.clock.advance(wait_s)


def test_a_round_reads_every_share_once(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    for seed in range(4):
        bench.stored(ALICE, make_blob(seed=seed), 0, 1, 2)
    reading = Reading(bench)
    began_s = bench.clock.now_s()
    reading.run(for_s=ROUND_S * 1.01)
    status = reading.scrub.status()
    assert status.whole_since_s == began_s
    assert status.found_count == 0
    reading.run(for_s=ROUND_S * 0.98)
    status = reading.scrub.status()
    assert (status.share_count, status.read_bytes) == (12, bench.sums()[0])
    assert 0.98 < status.done < 1.0


def test_the_hand_meets_each_share_at_its_time(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    blobs = sorted((make_blob(seed=seed) for seed in range(8)), key=lambda blob: blob.name.blob)
    for blob in blobs:
        bench.stored(ALICE, blob, 0)
    reading = Reading(bench)
    for count, blob in enumerate(blobs):
        due_s = ROUND_S * int.from_bytes(blob.name.blob[:8], "big") / 2**64
        began_s = reading.scrub.status().round_started_s or bench.clock.now_s()
        reading.run(for_s=began_s + due_s - 2 - bench.clock.now_s())
        assert reading.scrub.status().share_count == count
        reading.run(for_s=4)
        assert reading.scrub.status().share_count == count + 1


def test_a_flipped_bit_in_a_real_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    bench = make_bench(tmp_path, store=PosixStore(tmp_path / "store"))
    good, bad = bench.stored(ALICE, make_blob(), 0), bench.stored(ALICE, make_blob(seed=1), 1)
    bench.service.books.lease(BOB, [bad.key(1)], 100)
    (file,) = [
        path
        for path in (tmp_path / "store").rglob("*")
        if path.is_file() and path.read_bytes() == bad.records[1]
    ]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)

    reading = Reading(bench)
    reading.run(for_s=ROUND_S)
    assert reading.scrub.status().damaged_count == 1
    for owner in (ALICE, BOB):
        (row,) = bench.books.quarantined(owner, None, 10)
        assert (f"{row.blob}.{row.number}", row.reason) == (str(bad.key(1)), row.reason)
    assert bench.books.have([good.name.blob, bad.name.blob]) == [[0], []]
    assert bytes(content) in {path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}


def test_a_share_that_is_gone_is_listed_as_missing(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    blob = bench.stored(ALICE, make_blob(), 0, 1)
    bench.store.delete(blob.key(1))
    reading = Reading(bench)
    reading.run(for_s=ROUND_S)
    status = reading.scrub.status()
    assert (status.share_count, status.missing_count, status.damaged_count) == (2, 1, 0)
    (row,) = bench.books.quarantined(ALICE, None, 10)
    assert (row.number, "missing" in row.reason) == (1, True)


class EventfulStore(MemoryStore):
    """Does something when a share is opened for the first time."""

    then: Callable[[], object] | None = None

    def open(self, key: ShareKey) -> ShareReader:
        then, self.then = self.then, None
        if then is not None:
            then()
        return super().open(key)


def test_a_share_deleted_while_its_batch_is_read_is_not_missing(tmp_path: Path) -> None:
    store = EventfulStore()
    bench = make_bench(tmp_path, store=store)
    blob = bench.stored(ALICE, make_blob(), 0, 1)

    def give_up() -> None:
        bench.books.trash(ALICE, [blob.key(1)])
        bench.clock.advance(bench.config.times.trash_grace_s + 1)
        assert bench.service.purge() == 1

    reading = Reading(bench)
    reading.run(for_s=1)  # the round begins
    bench.clock.advance(ROUND_S)
    store.then = give_up
    reading.scrub.step()
    status = reading.scrub.status()
    assert (status.share_count, status.found_count) == (2, 0)
    assert bench.ledger.totals().quarantined_count == 0


class FailingStore(MemoryStore):
    """A medium that cannot read one share."""

    failing: ShareKey | None = None

    def open(self, key: ShareKey) -> ShareReader:
        if key == self.failing:
            raise StoreFailed(where="test", reason="input/output error")
        return super().open(key)


def test_a_medium_that_fails_costs_no_share_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FailingStore()
    bench = make_bench(tmp_path, store=store)
    blob = bench.stored(ALICE, make_blob(), 0, 1)
    store.failing = blob.key(0)
    reading = Reading(bench)
    reading.run(for_s=ROUND_S * 0.999)
    status = reading.scrub.status()
    assert (status.share_count, status.unreadable_count, status.found_count) == (2, 1, 0)
    assert "cannot be read: test: input/output error" in caplog.text
    assert bench.books.have([blob.name.blob]) == [[0, 1]]
    reading.run(for_s=2)
    assert reading.scrub.status().whole_since_s == 0, "a round with unread shares vouches for nothing"
    caplog.clear()


def test_a_restart_goes_on_where_the_scrub_was(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    for seed in range(8):
        bench.stored(ALICE, make_blob(seed=seed), 0)
    before = Reading(bench)
    before.run(for_s=ROUND_S * 0.5)
    read = before.scrub.status().share_count
    assert 0 < read < 8
    before.scrub.note()
    before.book.close()

    after = Reading(bench)
    assert after.scrub.status().share_count == read
    after.run(for_s=ROUND_S * 0.499)
    status = after.scrub.status()
    assert (status.share_count, status.round_started_s) == (8, before.scrub.status().round_started_s)


def test_a_node_that_was_off_catches_up_at_a_bounded_rate(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    for seed in range(8):
        bench.stored(ALICE, make_blob(seed=seed), 0)
    size_bytes = bench.sums()[0]
    first = Reading(bench)
    first.run(for_s=1)
    first.scrub.note()
    bench.clock.advance(5 * ROUND_S)
    reading = Reading(bench, bytes_per_s=100)
    reading.run(for_s=size_bytes / 100 / 2)
    behind = reading.scrub.status()
    assert 0 < behind.done < 1
    reading.run(for_s=size_bytes / 100 / 2 + 1)
    assert reading.waited_s >= size_bytes / 100
    assert reading.scrub.status().whole_since_s == behind.round_started_s


def test_a_clock_set_back_begins_the_round_anew(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.stored(ALICE, make_blob(), 0)
    reading = Reading(bench)
    reading.run(for_s=10)
    bench.clock.advance(-100 * ROUND_S)
    now_s = bench.clock.now_s()
    reading.run(for_s=ROUND_S * 0.99)
    status = reading.scrub.status()
    assert (status.round_started_s, status.share_count) == (now_s, 1)


def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as raw:
        raw.executescript(f"{STEPS[0]} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;")
        blob = bytes(32)
        raw.executemany("INSERT INTO shares VALUES (?, ?, 70, 1)", [(blob, 0), (blob, 1)])
        rows = [(b"a" * 32, blob, 0, 0), (b"b" * 32, blob, 0, 0), (b"a" * 32, blob, 1, 5)]
        raw.executemany("INSERT INTO leases VALUES (?, ?, ?, 70, 9, ?)", rows)
    raw.close()
    ledger = Ledger(path)
    totals = ledger.totals()
    assert (totals.share_count, totals.leased_count, totals.leased_bytes) == (2, 2, 140)
    book = ScrubBook(path)
    assert (book.load().started_s, book.load().found) == (0, 0)
    book.close()
    ledger.close()


def test_the_sum_of_live_leases_follows_every_change(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    blob = bench.stored(ALICE, make_blob(), 0, 1)
    size_bytes = len(blob.records[0])

    def leased() -> tuple[int, int]:
        totals = bench.ledger.totals()
        return totals.leased_count, totals.leased_bytes

    assert leased() == (2, 2 * size_bytes)
    bench.books.lease(BOB, [blob.key(0)], 100)
    assert leased() == (3, 3 * size_bytes)
    bench.books.trash(ALICE, [blob.key(0), blob.key(1)])
    assert leased() == (1, size_bytes)
    bench.books.lease(ALICE, [blob.key(1)], 5000)
    assert leased() == (2, 2 * size_bytes)
    bench.books.lose([blob.key(0)], "test")
    assert leased() == (1, size_bytes)
    bench.clock.advance(5001)
    bench.books.trash_expired()
    assert leased() == (0, 0)
