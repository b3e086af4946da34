"""A keeper that hears of changes among the nodes: it looks soon, not at every change, and not for nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.unit.engine.support import CHUNK
from tests.unit.keeping.test_keeper import DAY_S, KEEPER, World, world

from muniment.core.keeping.change import is_material
from muniment.core.placement import Candidate
from muniment.ids import NodeId
from muniment.testing.fake_node import FakeNode
from muniment.testing.virtual_time import run_virtual


@contextlib.asynccontextmanager
async def watched(nodes: int = 9, **duties: float) -> AsyncIterator[World]:
    """A volume of nine blobs that was scanned once, and whose keeper watches the nodes."""
    async with world(nodes, **duties) as w:
        await w.put(8 * CHUNK)
        await w.keeper.begin()
        await w.work()
        watching = asyncio.create_task(w.keeper.watch())
        try:
            yield w
        finally:
            watching.cancel()
            await asyncio.wait({watching})


async def minutes(w: World, count: int) -> None:
    """So many minutes of keeping, looked at each minute, by the loop's time as well."""
    for _ in range(count):
        await asyncio.sleep(60)
        w.clock.advance(60)
        await w.worker.flush()


def drain(w: World) -> FakeNode:
    leaving = max(w.grid.nodes, key=lambda node: len(node.shares))
    leaving.draining = True
    w.roster.add(leaving.record)
    return leaving


def test_a_node_that_drains_is_empty_within_minutes() -> None:
    async def main() -> None:
        async with watched() as w:
            await minutes(w, 20)
            leaving = drain(w)
            assert leaving.leases[KEEPER]
            await minutes(w, 3)
            assert all(lease.trashed for lease in leaving.leases[KEEPER].values())
            assert w.keeper.repaired.moved == len(leaving.shares)
            assert w.keeper.tally.scans == 2

    run_virtual(main())


def test_a_node_that_joins_gets_its_part_within_minutes_and_one_that_left_is_looked_after() -> None:
    async def main() -> None:
        async with watched() as w:
            late = max(w.grid.nodes, key=lambda node: len(node.shares))
            await minutes(w, 20)
            w.roster.remove(late.node)
            await minutes(w, 3)
            assert w.keeper.tally.scans == 2
            w.roster.add(late.record)
            await minutes(w, 20)
            assert w.keeper.tally.scans == 3

    run_virtual(main())


def test_nodes_that_come_and_go_all_the_time_cost_a_scan_every_so_often() -> None:
    async def main() -> None:
        async with watched(soon_s=1800.0) as w:
            unsteady = w.grid.nodes[0]
            for _ in range(60):  # two hours
                w.roster.remove(unsteady.node)
                await minutes(w, 1)
                w.roster.add(unsteady.record)
                await minutes(w, 1)
            assert 3 <= w.keeper.tally.scans - 1 <= 4

    run_virtual(main())


def test_nodes_that_change_together_cost_one_scan() -> None:
    async def main() -> None:
        async with watched() as w:
            await minutes(w, 20)
            for node in w.grid.nodes[:4]:
                w.roster.add(replace(node.record, zone=f"zone of {node.node.hex()[:4]}"))
                await asyncio.sleep(1)
            await minutes(w, 40)
            assert w.keeper.tally.scans == 2

    run_virtual(main())


def test_a_record_that_is_renewed_or_a_disk_that_grows_a_little_costs_nothing() -> None:
    async def main() -> None:
        async with watched() as w:
            await minutes(w, 20)
            record = w.grid.nodes[0].record
            w.roster.add(record)
            w.roster.add(replace(record, capacity_bytes=record.capacity_bytes * 11 // 10))
            await minutes(w, 60)
            assert w.keeper.tally.scans == 1

    run_virtual(main())


def test_a_change_during_the_last_step_of_a_scan_is_not_lost() -> None:
    """What is added while a job's last step runs is that job, which ends."""

    async def main() -> None:
        async with watched() as w:
            await minutes(w, 20)

            def late() -> None:
                drain(w)
                w.keeper.scanned = lambda: None

            w.keeper.scanned = late
            w.clock.advance(DAY_S)
            await w.worker.flush()
            assert w.keeper.tally.scans == 2
            await minutes(w, 20)
            assert w.keeper.tally.scans == 3

    run_virtual(main())


A, B = (Candidate(NodeId(bytes([at]) * 32), 1000, "here") for at in (1, 2))


@pytest.mark.parametrize(
    ("now", "material"),
    [
        ((B, A), False),
        ((A,), True),
        ((A, B, Candidate(NodeId(bytes(32)), 1000)), True),
        ((A, replace(B, weight=0)), True),
        ((A, replace(B, zone="there")), True),
        ((A, replace(B, weight=1300)), False),
        ((A, replace(B, weight=1400)), True),
        ((A, replace(B, weight=740)), True),
    ],
)
def test_what_is_material(now: tuple[Candidate, ...], material: bool) -> None:
    assert is_material((A, B), now) == material
    assert is_material(now, (A, B)) == material
