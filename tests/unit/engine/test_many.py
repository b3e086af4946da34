"""Many files at once: one capability each, few requests, and one bad file does not stop the others."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, SMALL, content, got, our_threads

from muniment.engine.policy import Limits, Policy
from muniment.engine.results import FilePut
from muniment.erasure.codec import Coding
from muniment.errors import CapacityFull, FileFailed, InvalidRequest, NotHappy, RosterEmpty
from muniment.spec.cap import BlobFile, LiteralFile, ManifestFile
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import LoopClock, run_virtual


def write_files(folder: Path, sizes: list[int]) -> list[Path]:
    paths = [folder / f"{at:04}" for at in range(len(sizes))]
    for at, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        path.write_bytes(content(size, at))
    return paths


def test_every_size_gets_the_capability_that_put_gives(tmp_path: Path) -> None:
    paths = write_files(tmp_path, [0, 1, 128, 129, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            told: list[FilePut] = []
            stored = await client.put_many(paths, told=told.append)
            assert [result.path for result in stored] == [str(path) for path in paths]
            assert sorted(told, key=lambda result: result.path) == stored
            kinds = [LiteralFile] * 3 + [BlobFile] * 4 + [ManifestFile] * 2
            for path, result, kind in zip(paths, stored, kinds, strict=True):
                assert isinstance(result.cap, kind)
                assert result.error is None
                assert result.size_bytes == len(path.read_bytes())
                assert (await client.put(path)).cap == result.cap
                assert await got(client, result.cap) == path.read_bytes()
        assert our_threads() == []

    run_virtual(main())


def test_requests_are_few(tmp_path: Path) -> None:
    paths = write_files(tmp_path, [1000] * 300)

    async def main() -> None:
        grid = FakeGrid(6, clock=LoopClock(asyncio.get_running_loop()))
        for node in grid.nodes:
            node.faults.delay_s[""] = 0.01
        async with grid.client(SMALL) as client:
            stored = await client.put_many(iter(paths))
            assert all(result.cap for result in stored)
            calls = grid.calls()
            assert calls["put"] <= 6 * 12
            assert calls["reserve"] <= 6 * 12

    run_virtual(main())


def test_files_that_cannot_be_read_do_not_stop_the_others(tmp_path: Path) -> None:
    good = write_files(tmp_path, [1000, 2000])
    (tmp_path / "folder").mkdir()

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            first, absent, folder, last = await client.put_many(
                [good[0], tmp_path / "absent", tmp_path / "folder", good[1]]
            )
            assert first.cap
            assert last.cap
            assert absent.cap is folder.cap is None
            assert isinstance(absent.error, FileFailed)
            assert isinstance(folder.error, InvalidRequest)

    run_virtual(main())


def test_a_file_that_is_not_happy_has_an_error(tmp_path: Path) -> None:
    paths = write_files(tmp_path, [50, 1000, 3 * CHUNK])

    async def main() -> None:
        grid = FakeGrid(6)
        for node in grid.nodes[:2]:
            node.faults.refuse = CapacityFull(wanted_bytes=1, free_bytes=0)
        async with grid.client(SMALL) as client:
            literal, blob, large = await client.put_many(paths)
            assert isinstance(literal.cap, LiteralFile)
            assert isinstance(blob.error, NotHappy)
            assert isinstance(large.error, NotHappy)
            assert grid.reserved_bytes == 0

    run_virtual(main())


def test_batches_that_need_all_the_memory_take_turns(tmp_path: Path) -> None:
    """Several batches, each larger than the window: none may wait for what another holds."""
    paths = write_files(tmp_path, [CHUNK - at for at in range(200)])
    policy = Policy(coding=Coding.from_text("3/10"), happy=6, chunk_bytes=CHUNK)
    limits = Limits(share_bytes=7 * CHUNK * 10 // 3)

    async def main() -> None:
        grid = FakeGrid(6, clock=LoopClock(asyncio.get_running_loop()))
        for node in grid.nodes:
            node.faults.delay_s[""] = 0.01
        async with grid.client(policy, limits=limits) as client:
            stored, other = await asyncio.gather(
                client.put_many(paths), client.put(io.BytesIO(content(20 * CHUNK)))
            )
            assert all(result.cap for result in stored)
            assert other.placed == 6
            assert client._sender.pool.peak_bytes <= limits.share_bytes

    run_virtual(main())


@pytest.mark.parametrize("at_ms", range(0, 300, 30))
def test_cancelling_leaves_nothing_reserved(tmp_path: Path, at_ms: int) -> None:
    paths = write_files(tmp_path, [3000] * 150)

    async def main() -> None:
        grid = FakeGrid(6, clock=LoopClock(asyncio.get_running_loop()))
        for at, node in enumerate(grid.nodes):
            node.faults.delay_s[""] = 0.05 + at / 100
        async with grid.client(SMALL) as client:
            putting = asyncio.ensure_future(client.put_many(paths))
            await asyncio.sleep(at_ms / 1000)
            if putting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await putting
            assert grid.reserved_bytes == 0
            assert client._sender.pool.used_bytes == 0
            assert not [name for name in our_threads() if "read" in name]

    run_virtual(main())


def test_no_files_and_no_nodes(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(3)
        roster = grid.roster()
        async with grid.client(SMALL, roster=roster) as client:
            assert await client.put_many([]) == []
            for node in grid.nodes:
                roster.remove(node.node)
            await asyncio.sleep(1)
            with pytest.raises(RosterEmpty):
                await client.put_many([tmp_path])

    run_virtual(main())
