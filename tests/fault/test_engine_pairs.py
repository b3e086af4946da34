"""The pair table end to end (rows L9, L19): four nodes, every subset of them up, all four turns."""

from __future__ import annotations

from itertools import combinations

import pytest
from tests.unit.engine.support import CHUNK, content, got, got_with_result

from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.errors import InvalidCoding, NotHappy, TooFewShares
from muniment.spec.cap import BlobFile
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual

PAIRS = Policy(coding=Coding.from_text("4/4"), happy=4, chunk_bytes=CHUNK, placement="pairs", compress=False)


def test_all_sixteen_subsets_of_nodes_in_all_four_turns() -> None:
    async def main() -> None:
        grid = FakeGrid(4)
        turns = set()
        async with grid.client(PAIRS) as client:
            files = [(data, (await client.put(data)).cap) for data in (content(CHUNK, s) for s in range(12))]
        for data, cap in files:
            assert isinstance(cap, BlobFile)
            turns.add(cap.ref.name.blob[-1] % 4)
            for count in range(5):
                for down in combinations(range(4), count):
                    for at, node in enumerate(grid.nodes):
                        node.faults.down = "down" if at in down else None
                    opposite = count == 2 and down[1] - down[0] == 2
                    async with grid.client(PAIRS) as client:
                        if count <= 1 or opposite:
                            assert await got(client, cap) == data
                        else:
                            with pytest.raises(TooFewShares):
                                await got(client, cap)
        assert turns == {0, 1, 2, 3}

    run_virtual(main())


def test_every_share_lies_on_two_nodes_and_each_byte_is_read_once() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(4)
        async with grid.client(PAIRS) as client:
            stored = await client.put(data)
            ((_, shares),) = grid.holders().items()
            assert {number: len(nodes) for number, nodes in shares.items()} == dict.fromkeys(range(4), 2)
            assert stored.new_bytes == grid.used_bytes
            found, result = await got_with_result(client, stored.cap)
            assert found == data
            assert (result.shares, result.decoded) == (4, 0)
            assert result.share_bytes == stored.new_bytes // 2
            assert [node.calls["get"] + node.items["get_many"] for node in grid.nodes] == [1, 1, 1, 1]

    run_virtual(main())


def test_a_put_with_a_node_down_is_refused_and_not_half_done() -> None:
    """The predecessor reported success with servers missing (row L6)."""

    async def main() -> None:
        grid = FakeGrid(4)
        grid.nodes[1].faults.down = "down"
        async with grid.client(PAIRS) as client:
            with pytest.raises(NotHappy):
                await client.put(content(CHUNK))
            assert grid.reserved_bytes == 0

    run_virtual(main())


def test_the_table_needs_four_nodes_to_write_and_finds_its_shares_in_any_grid() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        roster = grid.roster()
        for node in grid.nodes[4:]:
            roster.remove(node.node)
        async with grid.client(PAIRS, roster=roster) as client:
            cap = (await client.put(data)).cap
        async with grid.client(PAIRS) as client:
            with pytest.raises(InvalidCoding, match="exactly 4 nodes, not 6"):
                await client.put(content(CHUNK, 1))
            assert client._sender.pool.used_bytes == 0
            assert await got(client, cap) == data
        async with grid.client() as client:  # a reader that knows nothing of pairs
            assert await got(client, cap) == data

    run_virtual(main())
