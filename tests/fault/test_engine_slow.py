"""Slow, hanging, dying, full and forgetful nodes, in virtual time: who is waited for, and for how long."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.engine.support import CHUNK, IMPATIENT, PLAIN, content, got, got_with_result

from muniment.engine.policy import Limits, Policy
from muniment.erasure.codec import Coding
from muniment.errors import (
    CapacityFull,
    DeadlineExceeded,
    NotHappy,
    Overloaded,
    QuotaFull,
    TooFewShares,
)
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.fake_node import FakeNode
from muniment.testing.virtual_time import LoopClock, run_virtual

FIVE_OF_SIX = PLAIN
ALL_SIX = Policy(coding=Coding.from_text("4/6"), happy=6, chunk_bytes=CHUNK, compress=False)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def virtual_grid(count: int = 6) -> FakeGrid:
    grid = FakeGrid(count, clock=LoopClock(asyncio.get_running_loop()))
    for node in grid.nodes:
        node.faults.delay_s[""] = 0.01
    return grid


def hang(node: FakeNode) -> asyncio.Event:
    node.faults.gate = asyncio.Event()
    return node.faults.gate


# --- uploads


def test_one_hanging_node_of_six_does_not_stop_an_upload() -> None:
    data = content(30 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        gate = hang(grid.nodes[2])
        async with grid.client(FIVE_OF_SIX, limits=IMPATIENT) as client:
            stored = await client.put(data)
            assert stored.placed == 5
            assert stored.missing > 0
            assert now_s() < 10
            gate.set()
            grid.nodes[2].faults.gate = None
            assert await got(client, stored.cap) == data
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_a_slow_node_is_finished_in_the_background() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        slow = grid.nodes[0]
        slow.faults.delay_s["put"] = 3.0
        async with grid.client(FIVE_OF_SIX, limits=IMPATIENT) as client:
            stored = await client.put(data)
            assert now_s() < 2
            assert (stored.placed, stored.missing) == (5, 1)
            assert not slow.shares
            await asyncio.sleep(3)
            assert len(slow.shares) == 1  # it got there all the same
            assert client._sender.pool.used_bytes == 0
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_closing_waits_a_while_for_the_background() -> None:
    async def main() -> None:
        grid = virtual_grid()
        slow = grid.nodes[0]
        slow.faults.delay_s["put"] = 4.0
        async with grid.client(FIVE_OF_SIX, limits=IMPATIENT) as client:
            await client.put(content(CHUNK))
        assert len(slow.shares) == 1
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_closing_gives_up_on_a_node_that_never_answers() -> None:
    async def main() -> None:
        grid = virtual_grid()
        slow = grid.nodes[0]
        slow.faults.delay_s["put"] = 1000.0
        async with grid.client(FIVE_OF_SIX, limits=IMPATIENT) as client:
            await client.put(content(CHUNK))
        assert now_s() < 15
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_the_background_does_not_hold_all_memory() -> None:
    """Sixty chunks, one node that hangs for puts: the window must not fill with its stragglers."""
    data = content(60 * CHUNK)
    limits = Limits(
        put_patience_s=1.0, get_patience_s=0.5, first_patience_s=2.0, share_bytes=8 * CHUNK * 6 // 4
    )

    async def main() -> None:
        grid = virtual_grid()
        grid.nodes[3].faults.delay_s["put"] = 1e6
        async with grid.client(FIVE_OF_SIX, limits=limits) as client:
            stored = await client.put(data)
            assert stored.placed == 5
            assert now_s() < 30
            assert client._sender.pool.peak_bytes <= limits.share_bytes
            assert await got(client, stored.cap) == data
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_a_late_share_is_raced_at_a_spare_node() -> None:
    """With a seventh node even `happy = n` is reached in time."""
    data = content(10 * CHUNK)

    async def main() -> None:
        grid = virtual_grid(7)
        grid.nodes[1].faults.delay_s["put"] = 1000.0
        async with grid.client(ALL_SIX, limits=IMPATIENT) as client:
            stored = await client.put(data)
            assert stored.placed == 6
            assert now_s() < 6
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_a_dead_node_is_replaced_by_a_spare_at_once() -> None:
    async def main() -> None:
        grid = virtual_grid(7)
        grid.nodes[4].faults.down = "connection refused"
        async with grid.client(ALL_SIX, limits=IMPATIENT) as client:
            stored = await client.put(content(10 * CHUNK))
            assert (stored.placed, stored.missing) == (6, 0)
            assert now_s() < 1
            assert grid.nodes[4].calls["reserve"] < 5  # after the first failures it comes last

    run_virtual(main())


@pytest.mark.parametrize("how", ["down", "full", "quota", "account", "deadline"])
def test_two_nodes_that_refuse_make_an_upload_unhappy_with_reasons(how: str) -> None:
    async def main() -> None:
        grid = virtual_grid()
        for node in grid.nodes[:2]:
            match how:
                case "down":
                    node.faults.down = "no route"
                case "full":
                    node.faults.refuse = CapacityFull(wanted_bytes=9, free_bytes=1)
                case "quota":
                    node.faults.refuse = QuotaFull(wanted_bytes=9, free_bytes=1)
                case "account":
                    node.faults.refuse_account = True
                case "deadline":
                    for call in ("reserve", "put"):
                        late = DeadlineExceeded(node=node.node, call=call, deadline_s=15)
                        node.faults.fail[call] = [late] * 50
        async with grid.client(FIVE_OF_SIX, limits=IMPATIENT) as client:
            with pytest.raises(NotHappy) as caught:
                await client.put(content(5 * CHUNK))
            assert caught.value.happy == 5
            assert caught.value.placed <= 4
            assert len(caught.value.reasons) == 2
            assert grid.reserved_bytes == 0
            assert client._sender.pool.used_bytes == 0

    run_virtual(main())


def test_nodes_that_fill_up_in_the_middle_are_replaced() -> None:
    data = content(20 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(9, clock=LoopClock(asyncio.get_running_loop()), capacity_bytes=14 * 20_000)
        async with grid.client(FIVE_OF_SIX, limits=IMPATIENT) as client:
            stored = await client.put(data)
            assert stored.placed >= 5
            assert await got(client, stored.cap) == data
            assert all(node.used_bytes <= 14 * 20_000 for node in grid.nodes)
            assert any(node.used_bytes > 11 * 20_000 for node in grid.nodes)
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_a_connection_that_breaks_in_the_middle_of_a_put_costs_that_node_only() -> None:
    data = content(8 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        grid.nodes[0].faults.break_put_after = 1
        async with grid.client(FIVE_OF_SIX, limits=IMPATIENT) as client:
            stored = await client.put(data)
            assert stored.placed >= 5
            assert await got(client, stored.cap) == data
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_a_node_that_forgot_its_reservations_is_asked_again() -> None:
    """A node restarted between reserve and put; happiness needs every node."""

    async def main() -> None:
        grid = virtual_grid()
        grid.nodes[5].faults.lose_reservations = True
        async with grid.client(ALL_SIX, limits=IMPATIENT) as client:
            stored = await client.put(content(CHUNK))
            assert (stored.placed, stored.missing) == (6, 0)
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_an_overloaded_node_is_waited_for() -> None:
    async def main() -> None:
        grid = virtual_grid()
        for node in grid.nodes:
            node.faults.fail["put"] = [Overloaded(limit="50 requests")] * 2
        async with grid.client(ALL_SIX, limits=IMPATIENT) as client:
            stored = await client.put(content(CHUNK))
            assert stored.placed == 6

    run_virtual(main())


def test_a_node_that_dies_in_the_middle_is_survived() -> None:
    data = content(40 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        for node in grid.nodes:
            node.faults.delay_s["put"] = 0.2
        async with grid.client(FIVE_OF_SIX, limits=Limits(share_bytes=8 * CHUNK * 6 // 4)) as client:
            put = asyncio.ensure_future(client.put(data))
            await asyncio.sleep(0.5)
            grid.nodes[0].faults.down = "killed"
            stored = await put
            assert stored.placed == 5
            assert 0 < len(grid.nodes[0].shares) < 41
            found, result = await got_with_result(client, stored.cap)
            assert found == data
            assert result.liars == {}
        assert sum(node.reserved_bytes for node in grid.nodes[1:]) == 0

    run_virtual(main())


# --- downloads


def test_one_dead_node_of_six() -> None:
    data = content(20 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            cap = (await client.put(data)).cap
            begun_s = now_s()
            grid.nodes[0].faults.down = "killed"
            assert await got(client, cap) == data
            assert now_s() - begun_s < 1

    run_virtual(main())


@pytest.mark.parametrize("hanging", [1, 2])
def test_a_hanging_node_costs_one_patience_and_then_nothing(hanging: int) -> None:
    data = content(20 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            cap = (await client.put(data)).cap
            begun_s = now_s()
            for node in grid.nodes[:hanging]:
                hang(node)
            assert await got(client, cap) == data
            assert now_s() - begun_s < 2.5 * IMPATIENT.get_patience_s
            assert client._fetcher.pool.used_bytes == 0  # what hangs was broken off

    run_virtual(main())


def test_a_slow_node_is_raced_and_not_waited_for() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            cap = (await client.put(data)).cap
            ((_, shares),) = grid.holders().items()
            slow = next(node for number, (node,) in shares.items() if number == 0)
            slow.faults.delay_s["get"] = slow.faults.delay_s["get_many"] = 60.0
            begun_s = now_s()
            found, result = await got_with_result(client, cap)
            assert found == data
            assert result.decoded == 1
            assert now_s() - begun_s < 1

    run_virtual(main())


def test_when_all_are_slow_everybody_is_waited_for() -> None:
    data = content(3 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            cap = (await client.put(data)).cap
            for node in grid.nodes:
                node.faults.delay_s["get"] = node.faults.delay_s["get_many"] = 20.0
            assert await got(client, cap) == data
            assert all(node.calls["get"] + node.items["get_many"] <= 5 for node in grid.nodes)

    run_virtual(main())


def test_three_dead_nodes_are_too_many_and_it_says_so_at_once() -> None:
    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            cap = (await client.put(content(CHUNK))).cap
            for node in grid.nodes[:3]:
                node.faults.down = "killed"
            begun_s = now_s()
            with pytest.raises(TooFewShares) as caught:
                await got(client, cap)
            assert caught.value.found == 3
            assert now_s() - begun_s < 1

    run_virtual(main())


def test_a_late_duplicate_of_the_same_share_never_spoils_the_winner() -> None:
    """Two copies of each share; the slow copy arrives while the fast one is being opened, and after."""
    policy = Policy(coding=Coding.from_text("4/4"), happy=4, chunk_bytes=CHUNK, placement="pairs")
    data = content(6 * CHUNK)

    async def main() -> None:
        grid = virtual_grid(4)
        async with grid.client(policy, limits=IMPATIENT) as client:
            cap = (await client.put(data)).cap
            for node, delay_s in ((grid.nodes[0], 0.53), (grid.nodes[2], 0.6)):
                node.faults.delay_s["get"] = node.faults.delay_s["get_many"] = delay_s
                node.faults.tamper = lambda key, record: bytes(len(record))  # and what comes late is false
            assert await got(client, cap) == data

    run_virtual(main())
