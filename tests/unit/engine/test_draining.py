"""A node that is drained gets nothing new, gives what it has, and is emptied by a repair that moves."""

from __future__ import annotations

from pathlib import Path

from tests.unit.engine.support import CHUNK, PLAIN, content

from muniment.core.capabilities import weaken
from muniment.errors import NodeDraining
from muniment.ports import Refused, ShareClaim
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual


def test_nothing_new_goes_to_a_draining_node() -> None:
    async def main() -> None:
        grid = FakeGrid(7)
        grid.nodes[3].draining = True
        async with grid.client(PLAIN) as client:
            await client.put(content(4 * CHUNK))
            summaries = {one.node: one for one in await client.status()}
        assert not grid.nodes[3].shares
        assert grid.nodes[3].calls["reserve"] == 0
        assert [summaries[node.node].draining for node in grid.nodes] == [at == 3 for at in range(7)]

    run_virtual(main())


def test_a_client_that_has_not_heard_yet_is_refused_and_goes_elsewhere() -> None:
    async def main() -> None:
        grid = FakeGrid(7)
        roster = grid.roster()
        grid.nodes[3].draining = True
        async with grid.client(PLAIN, roster=roster) as client:
            result = await client.put(content(6 * CHUNK))
        calls = grid.nodes[3].calls
        assert calls["reserve"] + calls["put"] > 0  # by a put, where the first blob was alone
        assert not grid.nodes[3].shares
        assert {len(numbers) for numbers in grid.holders().values()} == {6}
        assert result.cap is not None
        blob = next(iter(grid.holders()))
        key = next(key for node in grid.nodes for key in node.shares if key.blob == blob)
        (outcome,) = await grid.nodes[3].connect(b"x" * 32).reserve([ShareClaim(key, 1)])  # type: ignore[arg-type]
        assert isinstance(outcome, Refused)
        assert isinstance(outcome.error, NodeDraining)

    run_virtual(main())


def test_a_repair_that_moves_empties_it_and_copies_without_rebuilding(tmp_path: Path) -> None:
    async def main() -> None:
        grid, data = FakeGrid(7), content(5 * CHUNK + 3)
        roster = grid.roster()
        async with grid.client(PLAIN, roster=roster) as client:
            cap = (await client.put(data)).cap
            leaving = max(grid.nodes, key=lambda node: len(node.shares))
            held = len(leaving.shares)
            assert held
            leaving.draining = True
            roster.add(leaving.record)
            await client.get(cap, tmp_path / "meanwhile")
            assert (tmp_path / "meanwhile").read_bytes() == data
            result = await client.repair(weaken(cap), seed=b"s" * 32, move=True)
            assert (result.moved, result.rebuilt, result.failed) == (held, 0, 0)
            assert all(lease.trashed for leases in leaving.leases.values() for lease in leases.values())
            leaving.faults.down = "stopped"
            roster.remove(leaving.node)
            await client.get(cap, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == data
            rest = {
                blob: {
                    share for share, nodes in held_by.items() if any(node is not leaving for node in nodes)
                }
                for blob, held_by in grid.holders().items()
            }
            assert {len(shares) for shares in rest.values()} == {6}

    run_virtual(main())
