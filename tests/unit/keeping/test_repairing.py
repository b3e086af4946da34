"""Repair of files and trees on a grid of nodes that lose, damage, hide and lie about shares."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, content

from muniment.core.capabilities import weaken
from muniment.core.keeping.repair import Condition
from muniment.errors import AccountRefused, MalformedRecord, MunimentError, StoreFailed, UnavailableError
from muniment.ids import ShareKey, ShareNumber
from muniment.spec.cap import ManifestFile
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual

SEED = b"s" * 32


def spread(grid: FakeGrid) -> set[tuple[int, int]]:
    """For each blob: distinct shares, and distinct nodes that hold any."""
    return {
        (len(holders), len({node.node for nodes in holders.values() for node in nodes}))
        for holders in grid.holders().values()
    }


def test_lost_shares_come_back_on_nodes_that_had_none_and_the_file_reads_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        data = content(5 * CHUNK + 17)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            for node in grid.nodes[:2]:
                node.shares.clear()
            result = await client.repair(weaken(cap), seed=SEED)
            assert result.failed == 0
            assert result.rebuilt > 0
            assert spread(grid) == {(6, 6)}
            for node in grid.nodes[2:4]:  # what is left must do, rebuilt shares among it
                node.faults.down = "off"
            again = await client.repair(weaken(cap), seed=SEED)
            assert again.failed == 0
            await client.get(cap, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == data

    run_virtual(main())


def test_a_whole_file_costs_one_proof_for_each_share_and_nothing_is_sent() -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(3 * CHUNK))).cap
            before = grid.calls()["put"]
            result = await client.repair(cap, seed=SEED)
            assert result.conditions == {Condition.WHOLE: 4}
            assert (result.rebuilt, result.moved) == (0, 0)
            assert grid.calls()["put"] == before
            assert sum(node.items["prove"] for node in grid.nodes) == 24

    run_virtual(main())


@pytest.mark.parametrize("verify", [False, True])
def test_damage_is_found_and_replaced(verify: bool) -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(5000))).cap  # one leaf for each share: every challenge hits it
            assert grid.damage(lambda key: key.number == 1) == 1
            result = await client.repair(cap, seed=SEED, verify=verify)
            assert result.conditions == {Condition.DUE: 1}
            assert result.rebuilt == 1
            assert (await client.check(cap, verify=True)).degraded == 0

    run_virtual(main())


def test_above_the_threshold_nothing_is_rebuilt() -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(CHUNK))).cap
            ((_, holders),) = grid.holders().items()
            holders[0 if 0 in holders else 1][0].shares.clear()  # type: ignore[index]
            result = await client.repair(cap, seed=SEED, below=5)
            assert result.conditions == {Condition.DEGRADED: 1}
            assert result.rebuilt == 0

    run_virtual(main())


def test_what_is_lost_is_told_and_stops_nothing_else() -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(6 * CHUNK))).cap
            assert isinstance(cap, ManifestFile)
            blobs = [blob for blob in grid.holders() if blob != cap.ref.name.blob]
            for node in grid.nodes:
                for key in list(node.shares):
                    if key.blob == blobs[0] or (key.blob == blobs[1] and key.number == 0):
                        del node.shares[key]
            result = await client.repair(cap, seed=SEED)
            assert result.conditions[Condition.LOST] == 1
            assert [blob for blob, _ in result.troubles] == [blobs[0]]
            assert result.rebuilt == 1
            assert result.lost == 1

    run_virtual(main())


def test_with_no_node_left_that_takes_it_the_trouble_is_told() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(CHUNK))).cap
            grid.nodes[0].shares.clear()
            grid.nodes[0].faults.down = "gone"
            for node in grid.nodes[1:]:
                node.faults.refuse = UnavailableError()
            result = await client.repair(cap, seed=SEED)
            assert result.failed == 1
            assert grid.reserved_bytes == 0

    run_virtual(main())


def test_shares_move_to_a_node_that_joins_and_wins_the_blob_and_none_else_do() -> None:
    async def main() -> None:
        grid = FakeGrid(12)
        roster = grid.roster()
        late = grid.nodes[:3]
        for node in late:
            roster.remove(node.node)
        async with grid.client(PLAIN, roster=roster) as client:
            cap = (await client.put(content(8 * CHUNK))).cap
            for node in late:
                roster.add(node.record)
            await asyncio.sleep(0)  # the client hears of them
            result = await client.repair(cap, seed=SEED, move=True)
            won = sum(len(node.shares) for node in late)
            assert 0 < result.moved == won
            assert sum(node.items["trash"] for node in grid.nodes) == won
            assert (await client.repair(cap, seed=SEED, move=True)).moved == 0

    run_virtual(main())


def test_a_copy_too_many_is_given_up_where_it_is_not_wanted() -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(CHUNK))).cap
            ((blob, holders),) = grid.holders().items()
            key = ShareKey(blob, next(iter(holders)))
            here = holders[key.number][0]
            other = next(node for node in grid.nodes if key not in node.shares and not node.shares)
            other.shares[key] = here.shares[key]
            await client.repair(cap, seed=SEED, move=True)
            assert sum(node.calls["trash"] for node in grid.nodes) == 1
            assert spread(grid) == {(6, 7)}  # given up is not deleted: that is the node's, after its grace

    run_virtual(main())


SAID = [
    AccountRefused(account=b"a" * 32, reason="not invited"),
    MalformedRecord(format="share", reason="no"),
    StoreFailed(where="its store", reason="its disk is broken"),
]


@pytest.mark.parametrize("said", SAID, ids=lambda error: error.code)
def test_whatever_a_node_says_instead_of_its_share_the_share_is_moved_from_it(said: MunimentError) -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        roster = grid.roster()
        async with grid.client(PLAIN, roster=roster) as client:
            cap = (await client.put(content(CHUNK))).cap
            leaving = next(node for node in grid.nodes if node.shares)
            leaving.draining = True
            roster.add(leaving.record)
            await asyncio.sleep(0)  # the client hears of it
            leaving.faults.fail["get"] = [said] * 9
            result = await client.repair(cap, seed=SEED, move=True)
            assert (result.moved, result.failed) == (1, 0)
            assert all(lease.trashed for leases in leaving.leases.values() for lease in leases.values())

    run_virtual(main())


@pytest.mark.parametrize("call", ["lease", "trash"])
@pytest.mark.parametrize("said", SAID, ids=lambda error: error.code)
def test_whatever_a_node_says_of_a_second_copy_the_others_are_given_up(
    said: MunimentError, call: str
) -> None:
    async def main() -> None:
        grid = FakeGrid(9)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(3 * CHUNK))).cap
            copies = 0
            for blob, holders in grid.holders().items():
                key = ShareKey(blob, ShareNumber(0))
                other = next(node for node in grid.nodes if not any(one.blob == blob for one in node.shares))
                other.shares[key] = holders[key.number][0].shares[key]
                copies += 1
            for node in grid.nodes:
                node.faults.fail[call] = [said]
            result = await client.repair(cap, seed=SEED, move=True)
            assert (result.blobs, result.failed) == (copies, 0)
            for node in grid.nodes:
                node.faults.fail.clear()
            before = grid.calls()["trash"]
            await client.repair(cap, seed=SEED, move=True)
            assert grid.calls()["trash"] - before == copies  # fakes list what was given up as held

    run_virtual(main())
