"""Looks that repairs share: who waits for one, who is asked, and what a node that was away loses by it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.support import CHUNK
from tests.unit.keeping.test_keeper import DAY_S, World, world

from muniment.core.keeping.repair import Condition, Plan
from muniment.engine.check import Check, Depth
from muniment.engine.keeping.duties import Duties
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.looking import Looking
from muniment.engine.keeping.work import Worker
from muniment.errors import MalformedRecord, MunimentError, NotCapable, StoreFailed
from muniment.ids import MemberId
from muniment.spec.blob import BlobName
from muniment.testing.fake_node import FakeNode
from muniment.testing.virtual_time import run_virtual

SEED = b"s" * 32


async def kept(w: World, chunks: int = 3) -> list[BlobName]:
    """Blobs whose shares a scan has seen."""
    cap = await w.put(chunks * CHUNK)
    await w.keeper.begin()
    await w.work()
    return await w.names(cap)


def holder(w: World) -> FakeNode:
    return max(w.grid.nodes, key=lambda node: len(node.shares))


# --- together -------------------------------------------------------------------------------------


def test_those_who_wait_look_together_when_the_one_before_them_is_cancelled_or_fails() -> None:
    async def main() -> None:
        async with world() as w:
            names = await kept(w)
            looking = w.keeper._looking
            gate = asyncio.Event()
            for node in w.grid.nodes:
                node.faults.gate = gate
            first, *others = (asyncio.create_task(looking.together(name, SEED)) for name in names)
            await asyncio.sleep(1)
            first.cancel()
            await asyncio.wait({first})
            asked = w.grid.calls()["prove"]
            gate.set()
            plans = await asyncio.gather(*others)
            assert [plan.condition for plan in plans] == [Condition.WHOLE] * len(others)
            assert w.grid.calls()["prove"] - asked <= len(w.grid.nodes)  # one look was for all of them
            assert first.cancelled()
            assert not looking._asked

    run_virtual(main())


def test_a_look_that_fails_fails_for_the_one_who_looked() -> None:
    async def main() -> None:
        async with world() as w:
            names = await kept(w)
            looking, look = w.keeper._looking, w.keeper._looking.look
            fails = [StoreFailed(where="the book", reason="it cannot be written")]

            async def failing(
                check: Check, names: list[BlobName], *, proven: bool
            ) -> list[tuple[BlobName, Plan]]:
                await asyncio.sleep(1)
                if fails:
                    raise fails.pop()
                return await look(check, names, proven=proven)

            looking.look = failing  # type: ignore[method-assign, assignment]  # a book that fails once
            found = await asyncio.gather(
                *(looking.together(name, SEED) for name in names), return_exceptions=True
            )
            assert isinstance(found[0], StoreFailed)
            assert all(isinstance(one, Plan) for one in found[1:])
            assert not looking._asked

    run_virtual(main())


# --- who was away ---------------------------------------------------------------------------------


def test_a_node_that_comes_back_while_others_are_asked_has_lost_nothing() -> None:
    async def main() -> None:
        async with world(offline_s=3 * DAY_S) as w:
            names = await kept(w)
            back, slow = sorted(w.grid.nodes, key=lambda node: -len(node.shares))[:2]
            w.roster.remove(back.node)
            slow.faults.delay_s["have"] = 5.0
            w.clock.advance(DAY_S)
            scan = asyncio.create_task(w.worker.flush())
            await asyncio.sleep(2)
            w.roster.add(back.record)
            await scan
            assert w.keeper.tally.scans == 2
            assert w.keeper.tally.conditions == {Condition.WHOLE: len(names)}
            assert w.keeper.repaired.rebuilt == 0

    run_virtual(main())


@pytest.mark.parametrize(("offline_s", "passed_s"), [(20.0, 25.0), (DAY_S, 30.0)])
def test_what_a_node_holds_is_not_rebuilt_because_repairs_have_not_asked_it(
    offline_s: float, passed_s: float
) -> None:
    async def main() -> None:
        async with world(offline_s=offline_s) as w:
            names = await kept(w)
            away = holder(w)
            looking: Looking = w.keeper._looking
            away.faults.down = "away"
            plans = [await looking.together(name, SEED) for name in names]
            assert all(plan.condition is Condition.WHOLE for plan in plans)
            away.faults.down = None
            w.clock.advance(passed_s)
            plans = [await looking.together(name, SEED) for name in names]
            assert [plan.rebuild for plan in plans] == [()] * len(names)

    run_virtual(main())


def test_a_node_that_is_gone_for_good_counts_as_live_no_longer_however_often_it_is_looked_for() -> None:
    async def main() -> None:
        async with world(scan_s=DAY_S / 24) as w:
            names = await kept(w)
            away = holder(w)
            away.faults.down = "away"
            for _ in range(25):
                w.clock.advance(DAY_S / 24)
                w.keeper._looking.round_s *= 4  # a scan that takes longer and longer
                for name in names:
                    await w.keeper._looking.together(name, SEED)
            due = [(await w.keeper._looking.together(name, SEED)).condition for name in names]
            assert due.count(Condition.DUE) == len({key.blob for key in away.shares})

    run_virtual(main())


def test_only_those_nodes_are_remembered_as_silent_that_are() -> None:
    async def main() -> None:
        async with world() as w:
            (name, *_) = await kept(w)
            w.grid.nodes[0].faults.down = "away"
            await w.keeper._looking.together(name, SEED)
            assert set(w.keeper._looking._silent_until_s) == {w.grid.nodes[0].node}
            w.roster.remove(w.grid.nodes[0].node)
            await asyncio.sleep(1)
            w.clock.advance(DAY_S)
            await w.keeper._looking.look(w.keeper._grid.checker(Depth.PROVEN, SEED), [name], proven=True)
            assert not w.keeper._looking._silent_until_s

    run_virtual(main())


def test_a_scan_that_a_restart_broke_off_has_begun_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a node that falls silent for a moment then keeps what the pages before were long ago."""
    monkeypatch.setattr("muniment.engine.keeping.keeper._PAGE", 1)

    async def main() -> None:
        async with world() as w:
            await w.put(3 * CHUNK)
            looking, second_page = w.keeper._looking, asyncio.Event()
            looks = 0
            look = looking.look

            async def broken_off(check: Check, names: list[BlobName], **how: Any) -> object:
                nonlocal looks
                looks += bool(names)
                if looks == 2:
                    second_page.set()
                    await asyncio.Event().wait()
                return await look(check, names, **how)

            looking.look = broken_off  # type: ignore[method-assign, assignment]  # where it is killed
            await w.keeper.follow()
            await w.keeper.begin()
            killed = asyncio.create_task(w.worker.flush())
            await second_page.wait()
            killed.cancel()
            await asyncio.wait({killed})
            assert w.keeper.tally.scans == 0
            w.clock.advance(5 * DAY_S)
            worker = Worker(w.worker._queue, clock=w.clock, chance=lambda: 0.5)
            keeper = Keeper(w.log, w.keeper._grid, w.book, worker, w.clock, MemberId(b"m" * 32), Duties())
            await worker.flush()
            assert keeper.tally.scans == 1
            assert keeper._looking.round_s == 6 * DAY_S

    run_virtual(main())


# --- leases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        MalformedRecord(format="lease", reason="no"),
        NotCapable(needed="lease", given="nothing"),
        StoreFailed(where="its store", reason="its disk is broken"),
    ],
    ids=lambda error: error.code,
)
def test_whatever_one_node_says_of_leases_the_others_give_theirs(said: MunimentError) -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(CHUNK)
            holder(w).faults.fail["lease"] = [said] * 9
            await w.keeper.begin()
            await w.work()
            assert w.keeper.tally.scans == 1
            assert w.keeper.tally.unpaid == {said.code: 1}
            assert w.leases() == 5

    run_virtual(main())
