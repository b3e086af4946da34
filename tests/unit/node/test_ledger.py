"""Books that are exact, durable, and say so when they cannot be read."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.thoroughness import times

from muniment.errors import DiskFull, InternalError, StoreFailed, UnknownVersion
from muniment.ids import AccountId, BlobId, ShareKey, ShareNumber, id_text
from muniment.node.ledger import OWNERLESS, Ledger, Totals, Usage, _Job, _store
from muniment.node.survey import Survey
from muniment.ports import StoredShare

ALICE, BOB = AccountId(b"a" * 32), AccountId(b"b" * 32)


def key(number: int, blob: bytes = b"k") -> ShareKey:
    return ShareKey(BlobId(blob * 32), ShareNumber(number))


def share(number: int, size_bytes: int = 100, blob: bytes = b"k") -> StoredShare:
    return StoredShare(key(number, blob), size_bytes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path)
    yield ledger
    ledger.close()


def test_sums_follow_every_change(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0), share(1, 50)], expires_s=10, now_s=1)
    assert ledger.totals() == Totals(150, 2, 0, 150, 2)
    assert ledger.usage(ALICE) == Usage(150, 2)
    ledger.store(ALICE, [share(0)], expires_s=20, now_s=2)  # stored again: counted once
    ledger.lease(BOB, [key(0), key(7)], expires_s=20)
    assert ledger.totals() == Totals(150, 2, 0, 250, 3)
    assert ledger.usage(BOB) == Usage(100, 1)
    ledger.lose([key(0)], reason="bad", now_s=3)
    assert ledger.totals() == Totals(50, 1, 2, 50, 1)
    assert (ledger.usage(ALICE), ledger.usage(BOB)) == (Usage(50, 1), Usage(0, 0))


def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    first = Ledger(path)
    first.store(ALICE, [share(3)], expires_s=10, now_s=1)
    first.close()
    second = Ledger(path)
    assert second.held([key(3), key(4)]) == {key(3): 100}
    assert second.totals() == Totals(100, 1, 0, 100, 1)
    second.close()


def test_numbers_held_are_listed_in_order_for_each_blob(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(5), share(2), share(1, blob=b"z")], expires_s=10, now_s=1)
    assert ledger.numbers([key(0).blob, BlobId(b"?" * 32), key(0, b"z").blob]) == [[2, 5], [], [1]]


def test_a_lease_is_extended_and_never_shortened(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0)], expires_s=100, now_s=1)
    assert ledger.lease(ALICE, [key(0), key(1)], expires_s=50) == [True, False]
    assert ledger.page(ALICE, after=None, limit=10)[0].expires_s == 100
    ledger.lease(ALICE, [key(0)], expires_s=150)
    assert ledger.page(ALICE, after=None, limit=10)[0].expires_s == 150


def test_trash_counts_until_it_is_purged_and_a_lease_brings_it_back(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0), share(1)], expires_s=100, now_s=1)
    assert ledger.trash(ALICE, [key(0), key(1), key(2)], now_s=5) == [True, True, False]
    assert ledger.trash(ALICE, [key(0)], now_s=6) == [True]
    assert [row.trashed for row in ledger.page(ALICE, after=None, limit=10)] == [True, True]
    assert ledger.usage(ALICE) == Usage(200, 2)
    ledger.lease(ALICE, [key(1)], expires_s=100)
    assert ledger.purgeable(5) == [key(0)]
    assert ledger.purge([key(0), key(1)], trashed_before_s=5) == [share(0)]
    assert ledger.held([key(0), key(1)]) == {key(1): 100}
    assert ledger.usage(ALICE) == Usage(100, 1)


def test_another_accounts_share_cannot_be_trashed(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0)], expires_s=100, now_s=1)
    assert ledger.trash(BOB, [key(0)], now_s=5) == [False]
    assert not ledger.page(ALICE, after=None, limit=1)[0].trashed


def test_a_share_is_kept_while_anybody_wants_it(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0)], expires_s=100, now_s=1)
    ledger.store(BOB, [share(0)], expires_s=100, now_s=1)
    ledger.trash(ALICE, [key(0)], now_s=5)
    assert ledger.purge([key(0)], trashed_before_s=10) == []
    assert ledger.usage(ALICE) == Usage(0, 0)
    ledger.trash(BOB, [key(0)], now_s=6)
    assert ledger.purge([key(0)], trashed_before_s=10) == [share(0)]
    assert ledger.totals() == Totals(0, 0, 0, 0, 0)


def test_expired_leases_go_to_the_trash_first(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0)], expires_s=100, now_s=1)
    assert ledger.trash_expired(99) == 0
    assert ledger.trash_expired(100) == 1
    assert ledger.trash_expired(101) == 0
    assert ledger.purgeable(99) == []
    assert ledger.purgeable(100) == [key(0)]


def test_pages_follow_each_other_in_key_order(ledger: Ledger) -> None:
    shares = [share(n, blob=b) for b in (b"a", b"b") for n in (0, 1, 200)]
    ledger.store(ALICE, list(reversed(shares)), expires_s=10, now_s=1)
    ledger.store(BOB, [share(9)], expires_s=10, now_s=1)
    seen, after = [], None
    while page := ledger.page(ALICE, after=after, limit=2):
        seen += [(row.blob, row.number) for row in page]
        after = ShareKey(
            shares[[id_text(s.key.blob) for s in shares].index(page[-1].blob)].key.blob,
            ShareNumber(page[-1].number),
        )
    assert seen == [(id_text(s.key.blob), s.key.number) for s in shares]


def test_what_is_lost_is_listed_for_its_owners_until_mended_or_given_up(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0), share(1)], expires_s=10, now_s=1)
    ledger.lose([key(0), key(1), key(9)], reason="leaf 3 is damaged", now_s=7)
    rows = ledger.quarantined(ALICE, after=None, limit=10)
    assert [(row.number, row.reason, row.found_s) for row in rows] == [
        (0, "leaf 3 is damaged", 7),
        (1, "leaf 3 is damaged", 7),
    ]
    assert [row.number for row in ledger.quarantined(OWNERLESS, after=None, limit=10)] == [9]
    ledger.store(ALICE, [share(0)], expires_s=10, now_s=8)
    assert ledger.trash(ALICE, [key(1)], now_s=9) == [True]
    assert ledger.quarantined(ALICE, after=None, limit=10) == []
    assert ledger.totals() == Totals(100, 1, 1, 100, 1)


def test_an_adopted_share_has_no_owner_until_somebody_claims_it(ledger: Ledger) -> None:
    ledger.adopt(share(0), expires_s=50, now_s=1)
    assert ledger.usage(OWNERLESS) == Usage(100, 1)
    ledger.lease(ALICE, [key(0)], expires_s=60)
    assert ledger.usage(OWNERLESS) == Usage(0, 0)
    assert ledger.usage(ALICE) == Usage(100, 1)


def test_adopting_a_share_that_is_recorded_sets_its_size_right_and_keeps_its_owners(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0, 70)], expires_s=10, now_s=1)
    ledger.adopt(share(0, 100), expires_s=50, now_s=2)
    assert ledger.totals() == Totals(100, 1, 0, 100, 1)
    assert (ledger.usage(ALICE), ledger.usage(OWNERLESS)) == (Usage(100, 1), Usage(0, 0))


def test_a_survey_finds_what_either_side_lacks(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0), share(1), share(2)], expires_s=10, now_s=1)
    ledger.store(ALICE, [share(3)], expires_s=10, now_s=99)  # stored since the survey began
    survey = Survey(ledger.path)
    assert survey.unknown([share(0), share(1, 55), share(7)]) == [share(1, 55), share(7)]
    assert list(survey.unseen(50)) == [[key(2)]]
    survey.close()


def test_a_survey_pages_through_many(ledger: Ledger) -> None:
    shares = [share(n % 250, blob=bytes([n // 250])) for n in range(2500)]
    ledger.store(ALICE, shares, expires_s=10, now_s=1)
    survey = Survey(ledger.path)
    survey.unknown(shares[::2])
    batches = list(survey.unseen(50))
    survey.close()
    assert [len(batch) for batch in batches] == [1000, 250]
    assert sorted(k for batch in batches for k in batch) == [s.key for s in shares[1::2]]


def test_a_ledger_of_a_later_version_is_refused(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 3")
    raw.close()
    with pytest.raises(UnknownVersion):
        Ledger(path)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\x00" + bytes(4000)])
def test_a_file_that_is_no_ledger_is_refused_with_advice(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreFailed, match="move it away"):
        Ledger(path)


def test_another_programs_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    with pytest.raises(StoreFailed, match="not a ledger"):
        Ledger(path)


def test_only_its_owner_may_read_it(path: Path) -> None:
    Ledger(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_writers_that_wait_share_one_transaction(ledger: Ledger) -> None:
    begun: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow(writer: sqlite3.Connection) -> None:
        writer.set_trace_callback(lambda sql: begun.append(sql) if sql.startswith("BEGIN") else None)
        inside.set()
        assert go_on.wait(10)

    def store(number: int) -> None:
        ledger.store(ALICE, [share(number)], expires_s=1, now_s=1)

    first = threading.Thread(target=ledger._write, args=(slow,))
    first.start()
    assert inside.wait(10)
    others = [threading.Thread(target=store, args=(number,)) for number in range(3)]
    for thread in others:
        thread.start()
    while len(ledger._queue) < 3:
        go_on.wait(0.001)
    go_on.set()
    for thread in (first, *others):
        thread.join()
    assert len(begun) == 1
    assert ledger.totals() == Totals(300, 3, 0, 300, 3)


def test_a_group_with_a_bad_job_is_repeated_without_it(ledger: Ledger) -> None:
    def bad(writer: sqlite3.Connection) -> None:
        raise InternalError(reason="on purpose")

    good = _Job(lambda writer: _store(writer, ALICE, [share(0)], expires_s=1, now_s=1))
    failing = _Job(bad)
    ledger._commit([good, failing])
    assert isinstance(failing.error, InternalError)
    assert good.error is None
    assert ledger.totals() == Totals(100, 1, 0, 100, 1)


def test_a_full_disk_is_told_and_leaves_the_books_as_they_were(ledger: Ledger) -> None:
    ledger.store(ALICE, [share(0)], expires_s=1, now_s=1)
    ((pages,),) = ledger._writer.rows("PRAGMA page_count")
    ledger._writer.run(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DiskFull):
        ledger.store(ALICE, [share(n, blob=bytes([n])) for n in range(250)], expires_s=1, now_s=1)
    assert ledger.totals() == Totals(100, 1, 0, 100, 1)
    ledger.lease(ALICE, [key(0)], expires_s=5)
    assert ledger.page(ALICE, after=None, limit=5)[0].expires_s == 5


class SumsMatchRows(RuleBasedStateMachine):
    """Any order of changes leaves the sums equal to what the rows add up to."""

    accounts = st.sampled_from([ALICE, BOB])
    numbers = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "ledger.sqlite")
        self.now_s = 1.0

    @rule(account=accounts, numbers=numbers, life_s=st.integers(1, 5))
    def store(self, account: AccountId, numbers: list[int], life_s: int) -> None:
        shares = [share(n, 10 + n) for n in numbers]
        self.ledger.store(account, shares, expires_s=self.now_s + life_s, now_s=self.now_s)

    @rule(account=accounts, numbers=numbers)
    def lease(self, account: AccountId, numbers: list[int]) -> None:
        self.ledger.lease(account, [key(n) for n in numbers], expires_s=self.now_s + 3)

    @rule(account=accounts, numbers=numbers)
    def trash(self, account: AccountId, numbers: list[int]) -> None:
        self.ledger.trash(account, [key(n) for n in numbers], now_s=self.now_s)

    @rule(numbers=numbers)
    def lose(self, numbers: list[int]) -> None:
        self.ledger.lose([key(n) for n in numbers], reason="r", now_s=self.now_s)

    @rule(number=st.integers(0, 4), size=st.integers(1, 20))
    def adopt(self, number: int, size: int) -> None:
        self.ledger.adopt(share(number, size), expires_s=self.now_s + 2, now_s=self.now_s)

    @rule(step_s=st.integers(1, 3))
    def purge(self, step_s: int) -> None:
        self.now_s += step_s
        self.ledger.trash_expired(self.now_s)
        self.ledger.purge(self.ledger.purgeable(self.now_s - 1), trashed_before_s=self.now_s - 1)

    @invariant()
    def sums_are_those_of_the_rows(self) -> None:
        rows = self.ledger._rows
        used, count = rows("SELECT coalesce(sum(size_bytes), 0), count(*) FROM shares")[0]
        bad = rows("SELECT count(*) FROM quarantine")[0][0]
        leased = rows("SELECT coalesce(sum(size_bytes), 0), count(*) FROM leases WHERE trashed_s = 0")[0]
        assert self.ledger.totals() == Totals(used, count, bad, *leased)
        sums = rows("SELECT account, sum(size_bytes), count(*) FROM leases GROUP BY account ORDER BY account")
        assert rows("SELECT * FROM usage ORDER BY account") == sums
        orphans = (
            "SELECT 1 FROM shares s WHERE NOT EXISTS (SELECT 1 FROM leases l WHERE (l.blob, l.number) = "
        )
        assert rows(orphans + "(s.blob, s.number))") == []
        strays = "SELECT 1 FROM leases l WHERE NOT EXISTS (SELECT 1 FROM shares s WHERE (l.blob, l.number, "
        assert rows(strays + "l.size_bytes) = (s.blob, s.number, s.size_bytes))") == []
        both = "SELECT 1 FROM quarantine q JOIN shares s ON (q.blob, q.number) = (s.blob, s.number)"
        assert rows(both) == []

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


SumsMatchRows.TestCase.settings = settings(max_examples=times(13), stateful_step_count=25)
TestSumsMatchRows = SumsMatchRows.TestCase
