"""What an upload that failed for good has newly stored is given up again, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, content, got

from muniment.errors import CapacityFull, NodeUnreachable, NotHappy
from muniment.ids import ShareKey
from muniment.spec.cap import BlobFile
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual

FULL = CapacityFull(wanted_bytes=1, free_bytes=0)


def wanted(grid: FakeGrid) -> set[ShareKey]:
    """Shares with a lease that is not in the trash."""
    return {
        key
        for node in grid.nodes
        for leases in node.leases.values()
        for key, lease in leases.items()
        if not lease.trashed
    }


def room_for(grid: FakeGrid, chunks: int) -> None:
    """Each node takes so many shares of a chunk."""
    for node in grid.nodes:
        node.capacity_bytes = chunks * (CHUNK // 4 + 4096)


@pytest.mark.parametrize("folder", [False, True])
def test_a_put_that_finds_too_little_space_leaves_nothing(tmp_path: Path, *, folder: bool) -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        (tmp_path / "large").write_bytes(content(9 * CHUNK))
        async with grid.client(PLAIN) as client:
            before = await client.put(content(CHUNK, seed=1))
            held = wanted(grid)
            room_for(grid, 4)
            with pytest.raises(NotHappy):
                await (client.put_tree(tmp_path) if folder else client.put(tmp_path / "large"))
            assert wanted(grid) == held
            assert grid.used_bytes > 0
            assert await got(client, before.cap) == content(CHUNK, seed=1)

    run_virtual(main())


def test_what_was_there_before_stays_and_the_next_put_finds_what_was_given_up() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        data = content(4 * CHUNK)
        async with grid.client(PLAIN) as client:
            first = await client.put(data[:CHUNK])
            held = wanted(grid)
            room_for(grid, 3)
            with pytest.raises(NotHappy):
                await client.put(data)  # its first chunk is there already
            assert wanted(grid) == held
            assert await got(client, first.cap) == data[:CHUNK]
            room_for(grid, 40)
            again = await client.put(data)
            assert again.present_bytes > len(data) // 2  # out of the trash
            assert await got(client, again.cap) == data

    run_virtual(main())


def test_what_another_put_has_asked_for_stays(tmp_path: Path) -> None:
    """The other one is done before the first one fails."""

    async def main() -> None:
        grid = FakeGrid(6)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield content(CHUNK)
            yield content(CHUNK, seed=5)
            begun.set()
            await go_on.wait()
            yield content(6 * CHUNK, seed=6)

        async with grid.client(PLAIN) as client:
            failing = asyncio.create_task(client.put(slowly()))
            await begun.wait()
            await asyncio.sleep(1.0)  # virtual: what was read before is stored
            other = await client.put(content(CHUNK))
            assert isinstance(other.cap, BlobFile)
            assert other.new_bytes == 0
            for node in grid.nodes:
                node.faults.refuse = FULL
            go_on.set()
            with pytest.raises(NotHappy):
                await failing
            assert {key.blob for key in wanted(grid)} == {other.cap.ref.name.blob}
            assert len(wanted(grid)) == 6

    run_virtual(main())


def test_one_of_many_that_fails_gives_up_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        paths = [tmp_path / str(at) for at in range(8)]
        for at, path in enumerate(paths):
            path.write_bytes(content(CHUNK, seed=at))
        room_for(grid, 3)
        async with grid.client(PLAIN) as client:
            results = await client.put_many(paths)
            caps = [one.cap for one in results if isinstance(one.cap, BlobFile)]
            assert 0 < len(caps) < len(paths)
            assert {key.blob for key in wanted(grid)} == {cap.ref.name.blob for cap in caps}

    run_virtual(main())


def test_what_was_broken_off_stays() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        stored = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield content(CHUNK)
            yield content(CHUNK, seed=1)
            stored.set()
            await asyncio.Event().wait()

        async with grid.client(PLAIN) as client:
            putting = asyncio.create_task(client.put(endless()))
            await stored.wait()
            await asyncio.sleep(1.0)  # virtual: what was read before is stored
            putting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await putting
            assert len(wanted(grid)) >= 6
            assert grid.calls()["trash"] == 0

    run_virtual(main())


def test_nothing_is_given_up_beside_another_client_of_the_account() -> None:
    @contextlib.contextmanager
    def beside() -> Iterator[bool]:
        yield False

    async def main() -> None:
        grid = FakeGrid(6)
        room_for(grid, 3)
        async with grid.client(PLAIN, alone=beside) as client:
            with pytest.raises(NotHappy):
                await client.put(content(9 * CHUNK))
            assert wanted(grid)
            assert grid.calls()["trash"] == 0

    run_virtual(main())


def test_nodes_that_do_not_answer_hold_nobody_up_for_long() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        room_for(grid, 3)
        for node in grid.nodes[:3]:
            node.faults.delay_s["trash"] = 3600.0
        grid.nodes[3].faults.fail["trash"] = [NodeUnreachable(node=grid.nodes[3].node, reason="gone")]
        async with grid.client(PLAIN) as client:
            with pytest.raises(NotHappy):
                await client.put(content(9 * CHUNK))
            assert asyncio.get_running_loop().time() < 60
            for node in grid.nodes:
                node.capacity_bytes = 1 << 40
            assert await got(client, (await client.put(content(9 * CHUNK))).cap) == content(9 * CHUNK)

    run_virtual(main())
