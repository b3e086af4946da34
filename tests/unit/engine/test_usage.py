"""What an account uses is what the nodes tell, summed up."""

from __future__ import annotations

from tests.unit.engine.support import CHUNK, PLAIN, content

from muniment.engine.usage import Holdings
from muniment.ids import ShareKey
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual


def test_usage_is_exact_for_every_node_and_account() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client, grid.client(PLAIN, account=b"other") as other:
            await client.put(content(5 * CHUNK))
            await other.put(content(3 * CHUNK))
            leaving = grid.nodes[0]
            own = leaving.leases[next(iter(leaving.leases))]
            trashed: list[ShareKey] = sorted(own)[:2]
            lane = client._nodes.lane(leaving.node)
            assert lane is not None
            await lane.connection.trash(trashed)
            grid.nodes[5].faults.down = "switched off"
            found = await client.usage()
        assert [usage.node for usage in found] == [node.node for node in grid.nodes]
        assert found[5].holdings == Holdings()
        assert "switched off" in found[5].error
        for node, usage in zip(grid.nodes[:5], found[:5], strict=True):
            leases = node.leases[next(iter(node.leases))]
            assert usage.error == ""
            assert usage.quota_bytes == -1
            assert usage.holdings.share_count == len(leases)
            assert usage.holdings.used_bytes == sum(len(node.shares[key]) for key in leases)
            live = [lease.expires_s for lease in leases.values() if not lease.trashed]
            assert usage.holdings.first_expiry_s == min(live)
        assert found[0].holdings.trashed_count == 2
        assert found[0].holdings.trashed_bytes == sum(len(leaving.shares[key]) for key in trashed)

    run_virtual(main())


def test_a_long_list_is_read_to_its_end() -> None:
    async def main() -> None:
        grid = FakeGrid(1)
        from dataclasses import replace

        policy = replace(PLAIN, coding=type(PLAIN.coding).from_text("1/1"), happy=1)
        async with grid.client(policy) as client:
            await client.put(content(2 * CHUNK))
            (node,) = grid.nodes
            account = next(iter(node.leases))
            key, lease = next(iter(node.leases[account].items()))
            for number in range(2500):
                more = ShareKey(type(key.blob)(number.to_bytes(32, "big")), key.number)
                node.shares[more] = b"x"
                node.leases[account][more] = replace(lease, trashed=number < 1500)
            (usage,) = await client.usage()
        assert usage.holdings.trashed_count == 1500
        assert usage.holdings.share_count == len(node.leases[account])

    run_virtual(main())
