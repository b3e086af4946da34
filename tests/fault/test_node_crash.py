"""A node killed between any two calls of its store and ledger: after the next start both agree again.

Power loss inside a single call is the store's own test; here the process dies between the calls, at every
place, before and after each, and nothing of it runs afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node.support import ALICE, BOB, Bench, VirtualClock, make_bench, make_blob, on_disk

from muniment.ids import ShareKey
from muniment.node.books import Books
from muniment.node.config import Times
from muniment.node.reconcile import reconcile
from muniment.node.service import NodeService
from muniment.node.survey import Survey
from muniment.ports import ForeignObject, Held, PutOutcome, StoredShare
from muniment.stores.posix import PosixStore

BLOB = make_blob()
TIMES = Times(lease_s=100, trash_grace_s=100)


class Killed(BaseException):
    """The process is gone; no handler of `Exception` may outlive it."""


class Mortal:
    """Stands before a store or ledger and dies at a given call; everything sharing `life` dies with it."""

    def __init__(self, target: object, life: list[int]) -> None:
        self._target, self._life = target, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found) or name == "path":
            return found

        def call(*args: object, **named: object) -> object:
            self._step()
            result = found(*args, **named)
            self._step()
            return result

        return call

    def _step(self) -> None:
        self._life[0] -= 1
        if self._life[0] <= 0:
            raise Killed


def start(folder: Path, clock: VirtualClock, life: list[int]) -> Bench:
    bench = make_bench(folder, times=TIMES, store=PosixStore(folder / "store"), clock=clock)
    store, ledger = Mortal(bench.store, life), Mortal(bench.ledger, life)
    books = Books(bench.config, bench.admission, ledger, clock)  # type: ignore[arg-type]
    service = NodeService("0", 10**6, books, store, clock, lambda: "")
    return Bench(bench.config, bench.admission, clock, bench.store, bench.ledger, books, service)


def end(bench: Bench) -> None:
    bench.ledger.close()
    bench.store.close()


Scene = Callable[[Bench, list[ShareKey]], None]
"""What happens until the kill; notes what it was told is held."""


def put_three(bench: Bench, told: list[ShareKey]) -> None:
    bench.reserve(ALICE, BLOB, 0, 1, 2)
    note(told, bench.put(ALICE, BLOB, 0, 1, 2), [0, 1, 2])


def put_what_another_has(bench: Bench, told: list[ShareKey]) -> None:
    bench.reserve(ALICE, BLOB, 0)
    bench.reserve(BOB, BLOB, 0)
    note(told, bench.put(ALICE, BLOB, 0), [0])
    note(told, bench.put(BOB, BLOB, 0), [0])


def purge_one(bench: Bench, told: list[ShareKey]) -> None:
    bench.reserve(ALICE, BLOB, 0, 1)
    note(told, bench.put(ALICE, BLOB, 0, 1), [1])
    bench.books.trash(ALICE, [BLOB.key(0)])
    bench.clock.advance(100)
    bench.service.purge()


def condemn_one(bench: Bench, told: list[ShareKey]) -> None:
    bench.reserve(ALICE, BLOB, 0, 1)
    note(told, bench.put(ALICE, BLOB, 0, 1), [1])
    bench.write(BLOB.key(0), BLOB.records[0][:-1] + b"\0")
    assert list(bench.service.get_many([BLOB.key(0)])) == [None]


def adopt_one(bench: Bench, told: list[ShareKey]) -> None:
    bench.write(BLOB.key(2), BLOB.records[2])
    if bench.service.adopt(on_disk(BLOB, 2)):
        told.append(BLOB.key(2))


def note(told: list[ShareKey], outcomes: Sequence[PutOutcome], numbers: Sequence[int]) -> None:
    assert all(isinstance(outcome, Held) for outcome in outcomes)
    told += [BLOB.key(number) for number in numbers]


@pytest.mark.parametrize(
    "scene",
    [put_three, put_what_another_has, purge_one, condemn_one, adopt_one],
    ids=lambda scene: scene.__name__,
)
def test_killed_at_any_call(tmp_path: Path, scene: Scene) -> None:
    for steps in range(1, 500):
        folder, clock, told = tmp_path / str(steps), VirtualClock(), list[ShareKey]()
        folder.mkdir()
        bench = start(folder, clock, [steps])
        try:
            scene(bench, told)
            finished = True
        except Killed:
            finished = False
        end(bench)
        after(folder, clock, told)
        if finished:
            assert steps > 4
            return
    pytest.fail("the scene never ended")


def after(folder: Path, clock: VirtualClock, told: list[ShareKey]) -> None:
    """Start again, compare, and look at everything."""
    bench = make_bench(folder, times=TIMES, store=PosixStore(folder / "store"), clock=clock)
    for key in told:  # served at once, before anything is compared
        assert bench.service.get(key) == BLOB.records[key.number]
    survey = Survey(bench.ledger.path)
    reconcile(
        bench.service, bench.store, survey, now_s=clock.now_s() + 1, bytes_per_s=10**9, pause=lambda _: False
    )
    survey.close()
    for share in list(bench.store.scan()):
        assert isinstance(share, StoredShare)
        if list(bench.service.get_many([share.key])) == [None]:  # damaged, and killed before it was moved
            assert bench.read(share.key) is None
    found = list(bench.store.scan())
    assert not any(isinstance(item, ForeignObject) for item in found)
    keys = sorted(item.key for item in found if not isinstance(item, ForeignObject))
    assert set(told) <= set(keys)
    for key in keys:
        assert bench.service.get(key) == BLOB.records[key.number]
    assert bench.books.have([BLOB.name.blob]) == [[key.number for key in keys]]
    assert bench.sums() == (sum(item.size_bytes for item in found), 0, len(found))
    end(bench)
