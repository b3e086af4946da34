"""The blocking face: the same results and errors, from any thread, interrupted cleanly."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, SMALL, content, our_threads

from muniment.engine.results import Progress
from muniment.engine.sync import SyncGrid
from muniment.errors import InvalidRequest, NotHappy, RosterEmpty
from muniment.testing.fake_grid import FakeGrid


@pytest.fixture
def fakes() -> FakeGrid:
    return FakeGrid(6)


@pytest.fixture
def grid(fakes: FakeGrid) -> Iterator[SyncGrid]:
    with SyncGrid(lambda: fakes.client(SMALL)) as opened:
        yield opened
    assert our_threads() == []


def test_all_methods_give_what_the_asynchronous_ones_give(grid: SyncGrid, tmp_path: Path) -> None:
    data = content(3 * CHUNK)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(data)
    stored = grid.put(data)
    target = io.BytesIO()
    assert grid.get(stored.cap, target, start=5, stop=CHUNK + 5).size_bytes == CHUNK
    assert target.getvalue() == data[5 : CHUNK + 5]
    assert grid.put_many([source / "file"])[0].cap == stored.cap
    tree = grid.put_tree(source)
    grid.get_tree(tree.cap, tmp_path / "target")
    assert (tmp_path / "target" / "file").read_bytes() == data
    assert grid.check(tree.cap, verify=True).healthy
    assert [node.reachable for node in grid.status()] == [True] * 6


def test_errors_are_the_same(grid: SyncGrid, fakes: FakeGrid) -> None:
    for node in fakes.nodes[:2]:
        node.faults.down = "off"
    with pytest.raises(NotHappy):
        grid.put(content(1000))


def test_several_threads_may_call_at_once(grid: SyncGrid) -> None:
    found: dict[int, bytes] = {}

    def work(seed: int) -> None:
        target = io.BytesIO()
        grid.get(grid.put(content(2 * CHUNK, seed)).cap, target)
        found[seed] = target.getvalue()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: content(2 * CHUNK, seed) for seed in range(5)}


def test_it_cannot_be_called_from_its_own_callbacks(grid: SyncGrid) -> None:
    refused: list[str] = []

    def progress(_: Progress) -> None:
        try:
            grid.status()
        except InvalidRequest as error:
            refused.append(error.reason)

    grid.put(content(1000), progress=progress)
    assert "callbacks" in refused[0]


def test_an_interrupt_cancels_and_cleans_up(grid: SyncGrid, fakes: FakeGrid) -> None:
    interrupted = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def pieces() -> Iterator[bytes]:
        yield content(CHUNK)
        signal.pthread_kill(main, signal.SIGINT)  # who waits in `put`
        interrupted.wait()

    class Source:
        def __init__(self) -> None:
            self._pieces = pieces()

        def read(self, size: int = -1, /) -> bytes:
            return next(self._pieces, b"")

    def handler(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            grid.put(Source())
    finally:
        signal.signal(signal.SIGINT, before)
    assert fakes.reserved_bytes == 0
    assert grid.put(content(1000)).placed == 6  # and it is good for more


def test_a_grid_that_does_not_start_leaves_no_thread() -> None:
    with pytest.raises(RosterEmpty):
        SyncGrid(lambda: FakeGrid(0).client(SMALL))
    assert our_threads() == []


def test_closing_twice_is_closing_once(fakes: FakeGrid) -> None:
    opened = SyncGrid(lambda: fakes.client(SMALL))
    opened.close()
    opened.close()
    assert our_threads() == []
