"""What a node does by itself, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.node.support import ALICE, Bench, make_bench, make_blob

from muniment.errors import StoreFailed
from muniment.ids import ShareKey
from muniment.node.config import Limits, NodeConfig, Times
from muniment.node.housekeeping import Housekeeping
from muniment.ports import ForeignObject, StoredShare
from muniment.stores.memory import MemoryStore
from muniment.testing.virtual_time import run_virtual

TIMES = Times(reservation_s=40, lease_s=100, trash_grace_s=200)


class ShakyStore(MemoryStore):
    """Cannot be listed or deleted from as often as told."""

    failing_scans = 0
    failing_deletes = 0

    def scan(self) -> Iterator[StoredShare | ForeignObject]:
        self.failing_scans -= 1
        if self.failing_scans >= 0:
            raise StoreFailed(where="test", reason="input/output error")
        return super().scan()

    def delete(self, key: ShareKey) -> None:
        self.failing_deletes -= 1
        if self.failing_deletes >= 0:
            raise StoreFailed(where="test", reason="input/output error")
        super().delete(key)


class LoopTime:
    """The loop's virtual time as the node's clock."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def now_s(self) -> float:
        return 1_000_000.0 + self.monotonic_s()

    def monotonic_s(self) -> float:
        return self.loop.time() if self.loop else 0.0


def keep_house(bench: Bench, clock: LoopTime, *, for_s: float) -> None:
    """Let the background work run for a while, then end it; nothing of it may be left."""

    async def main() -> None:
        clock.loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            housekeeping = Housekeeping(bench.config, bench.service, bench.store, bench.ledger, clock, pool)
            task = asyncio.create_task(housekeeping.run())
            await asyncio.sleep(for_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run_virtual(main())


@pytest.fixture
def store() -> ShakyStore:
    return ShakyStore()


@pytest.fixture
def clock() -> LoopTime:
    return LoopTime()


@pytest.fixture
def node(tmp_path: Path, store: ShakyStore, clock: LoopTime) -> Iterator[Bench]:
    bench = make_bench(tmp_path, times=TIMES, store=store, clock=clock)  # type: ignore[arg-type]
    yield bench
    bench.ledger.close()


def test_reservations_leases_and_trash_end_in_their_turn(node: Bench, clock: LoopTime) -> None:
    node.stored(ALICE, make_blob(), 0)
    node.reserve(ALICE, make_blob(seed=1), 0)
    keep_house(node, clock, for_s=51)
    assert node.sums()[1:] == (0, 1)
    assert node.service.info().reconciled
    keep_house(node, clock, for_s=130)  # the clock begins anew; the lease ends after 100 s
    assert node.books.shares(ALICE, None, 10)[0].trashed
    assert node.read(make_blob().key(0)) is not None
    keep_house(node, clock, for_s=400)
    assert node.read(make_blob().key(0)) is None
    assert node.sums() == (0, 0, 0)


def test_a_disk_that_fails_for_a_while_ends_nothing(
    node: Bench, clock: LoopTime, store: ShakyStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.failing_scans = 2
    with caplog.at_level(logging.ERROR):
        keep_house(node, clock, for_s=59)
        assert not node.service.info().reconciled
        keep_house(node, clock, for_s=61)
    assert node.service.info().reconciled
    assert caplog.text.count("could not be compared") == 2


def test_what_cannot_be_deleted_stays_counted_until_it_can(
    node: Bench, clock: LoopTime, store: ShakyStore, caplog: pytest.LogCaptureFixture
) -> None:
    blob = node.stored(ALICE, make_blob(), 0, 1)
    node.books.trash(ALICE, [blob.key(0), blob.key(1)])
    store.failing_deletes = 1
    with caplog.at_level(logging.ERROR):
        keep_house(node, clock, for_s=241)
    assert "housekeeping: test: input/output error" in caplog.text
    assert node.books.usage(ALICE).share_count == 0
    assert node.sums() == (2 * len(blob.records[0]), 0, 2)
    keep_house(node, clock, for_s=700)  # a lease, and then the trash, as of anything nobody owns
    assert node.sums() == (0, 0, 0)
    assert list(store.scan()) == []


def test_a_comparison_ends_with_the_node(node: Bench, clock: LoopTime) -> None:
    for number in range(3):
        node.write(make_blob().key(number), make_blob().records[number])
    adopted = threading.Event()
    adopt = node.service.adopt

    def noted(share: StoredShare) -> bool:
        try:
            return adopt(share)
        finally:
            adopted.set()

    node.service.adopt = noted  # type: ignore[method-assign]

    async def main() -> None:
        clock.loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            config = NodeConfig(capacity_bytes=10**6, limits=Limits(reconcile_bytes_per_s=1))
            housekeeping = Housekeeping(config, node.service, node.store, node.ledger, clock, pool)
            task = asyncio.create_task(housekeeping.run())
            await asyncio.to_thread(adopted.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run_virtual(main())
    assert not node.service.info().reconciled
    assert len(node.books.have([make_blob().name.blob])[0]) == 1
