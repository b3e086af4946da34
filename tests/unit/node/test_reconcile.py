"""Store and ledger after everything that can have happened to either: nothing deleted, nothing made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.node.support import ALICE, Bench, make_bench, make_blob, on_disk

from muniment.errors import StoreFailed
from muniment.ids import ShareKey
from muniment.node.ledger import OWNERLESS, Usage
from muniment.node.reconcile import Findings, reconcile
from muniment.node.survey import Survey
from muniment.ports import ForeignObject, ShareReader, StoredShare
from muniment.stores.memory import MemoryStore


class OddStore(MemoryStore):
    """A store in which strangers left things, and in which some shares cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[ForeignObject] = []
        self.unreadable: set[ShareKey] = set()
        self.set_aside: list[str] = []

    def scan(self) -> Iterator[StoredShare | ForeignObject]:
        yield from list(self.foreign)
        yield from super().scan()

    def open(self, key: ShareKey) -> ShareReader:
        if key in self.unreadable:
            raise StoreFailed(where="test", reason="input/output error")
        return super().open(key)

    def quarantine(self, found: ShareKey | ForeignObject) -> None:
        if isinstance(found, ForeignObject):
            self.foreign.remove(found)
            self.set_aside.append(found.name)
        super().quarantine(found)


@pytest.fixture
def store() -> OddStore:
    return OddStore()


@pytest.fixture
def node(tmp_path: Path, store: OddStore) -> Iterator[Bench]:
    bench = make_bench(tmp_path, store=store)
    yield bench
    bench.ledger.close()


def compare(node: Bench, *, pauses: list[float] | None = None, stop_after: int = 10**9) -> Findings:
    waited = [] if pauses is None else pauses

    def pause(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) > stop_after

    survey = Survey(node.ledger.path)
    try:
        return reconcile(
            node.service, node.store, survey, now_s=node.clock.now_s() + 1, bytes_per_s=1000, pause=pause
        )
    finally:
        survey.close()


def test_books_that_agree_are_left_alone_and_nothing_is_read(node: Bench, store: OddStore) -> None:
    blob = node.stored(ALICE, make_blob(), 0, 1, 2)
    store.unreadable = {blob.key(n) for n in range(3)}
    assert compare(node) == Findings(seen=3, finished=True)
    assert node.service.info().reconciled


def test_a_lost_ledger_is_rebuilt_without_owners_and_they_come_back(node: Bench) -> None:
    blob = make_blob()
    for number in range(3):
        node.write(blob.key(number), blob.records[number])
    assert node.service.get(blob.key(0)) == blob.records[0]  # served before that
    assert compare(node) == Findings(seen=3, adopted=3, finished=True)
    assert node.ledger.usage(OWNERLESS).share_count == 3
    assert node.books.have([blob.name.blob]) == [[0, 1, 2]]
    node.reserve(ALICE, blob, 0)
    node.books.lease(ALICE, [blob.key(1)], 10)
    assert node.books.usage(ALICE).share_count == 2
    assert node.ledger.usage(OWNERLESS).share_count == 1


def test_an_adopted_share_that_nobody_claims_ends_like_any_other(node: Bench) -> None:
    blob = make_blob()
    node.write(blob.key(0), blob.records[0])
    compare(node)
    node.clock.advance(1000)
    assert node.books.trash_expired() == 1
    node.clock.advance(7 * 86400)
    assert node.service.purge() == 1
    assert node.ledger.usage(OWNERLESS) == Usage(0, 0)


def test_a_damaged_share_that_nobody_knows_goes_to_quarantine(node: Bench, store: OddStore) -> None:
    blob = make_blob()
    node.write(blob.key(0), blob.records[1])
    node.write(blob.key(1), b"junk")
    assert compare(node) == Findings(seen=2, damaged=2, finished=True)
    assert set(store.quarantined) == {blob.key(0), blob.key(1)}
    assert node.service.info().quarantined_count == 2


def test_a_share_whose_size_changed_is_read_and_judged(node: Bench, store: OddStore) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    node.write(blob.key(0), blob.records[0][:-1])
    assert compare(node) == Findings(seen=1, damaged=1, finished=True)
    assert [row.number for row in node.books.quarantined(ALICE, None, 10)] == [0]


def test_what_is_not_a_share_goes_to_quarantine(
    node: Bench, store: OddStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.foreign = [ForeignObject("notes.txt", 10), ForeignObject("x", 0)]
    with caplog.at_level("INFO", "muniment.node.reconcile"):
        assert compare(node) == Findings(foreign=2, finished=True)
    assert "0 shares, 0 adopted, 0 damaged, 2 foreign" in caplog.text
    assert store.set_aside == ["notes.txt", "x"]


def test_a_share_that_is_gone_is_no_longer_counted_and_its_owner_is_told(node: Bench) -> None:
    blob = node.stored(ALICE, make_blob(), 0, 1)
    node.store.delete(blob.key(0))
    assert compare(node) == Findings(seen=1, missing=1, finished=True)
    assert node.sums() == (len(blob.records[1]), 0, 1)
    assert [(row.number, row.reason) for row in node.books.quarantined(ALICE, None, 10)] == [
        (0, "missing from the store")
    ]


def test_a_share_that_cannot_be_read_now_is_left_alone(node: Bench, store: OddStore) -> None:
    blob = make_blob()
    node.write(blob.key(0), blob.records[0])
    store.unreadable = {blob.key(0)}
    assert compare(node) == Findings(seen=1, unreadable=1, finished=True)
    store.unreadable = set()
    assert compare(node).adopted == 1


def test_a_share_stored_while_the_comparison_runs_is_not_missing(node: Bench) -> None:
    early = node.stored(ALICE, make_blob(), 0)
    node.clock.advance(100)
    late = make_blob(seed=1)

    class LateStore:
        """Yields what was there when the scan began, then a new share is put."""

        def scan(self) -> Iterator[StoredShare | ForeignObject]:
            yield on_disk(early, 0)
            node.stored(ALICE, late, 0)

    survey = Survey(node.ledger.path)
    findings = reconcile(
        node.service,
        LateStore(),  # type: ignore[arg-type]
        survey,
        now_s=node.clock.now_s(),
        bytes_per_s=1000,
        pause=lambda seconds: False,
    )
    survey.close()
    assert findings == Findings(seen=1, finished=True)


def test_a_share_the_scan_did_not_show_but_the_store_has_is_kept(node: Bench, store: OddStore) -> None:
    blob = node.stored(ALICE, make_blob(), 0)
    assert node.service.drop_missing([blob.key(0)]) == 0
    assert node.books.have([blob.name.blob]) == [[0]]


def test_reading_is_paced_and_can_be_stopped_between_any_two_shares(node: Bench) -> None:
    blob = make_blob()
    size_s = len(blob.records[0]) / 1000
    for number in range(3):
        node.write(blob.key(number), blob.records[number])
    pauses: list[float] = []
    stopped = compare(node, pauses=pauses, stop_after=2)
    assert (stopped.adopted, stopped.finished) == (2, False)
    assert pauses == [0.0, size_s, size_s]
    assert not node.service.info().reconciled
    assert compare(node) == Findings(seen=3, adopted=1, finished=True)


def test_adopting_while_the_owner_stores_the_same_share_keeps_the_owner(node: Bench) -> None:
    blob = make_blob()
    node.reserve(ALICE, blob, 0)
    node.write(blob.key(0), blob.records[0])  # the store has committed, the ledger not yet
    assert node.service.adopt(on_disk(blob, 0))
    assert node.put(ALICE, blob, 0)
    assert node.books.usage(ALICE).share_count == 1
    assert node.ledger.usage(OWNERLESS) == Usage(0, 0)
    assert node.service.adopt(on_disk(blob, 0))  # and the other way round
    assert node.ledger.usage(OWNERLESS) == Usage(0, 0)


def test_a_share_that_vanished_between_scan_and_reading_is_nothing(node: Bench) -> None:
    assert not node.service.adopt(on_disk(make_blob(), 0))
    assert node.service.info().quarantined_count == 0
