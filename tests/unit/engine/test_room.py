"""Whether a large upload fits is asked before anything is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.support import PLAIN

from muniment.core.room import room_bytes
from muniment.engine.room import LARGE_BYTES, content_bytes
from muniment.errors import GridFull
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual


@given(free=st.lists(st.integers(0, 12), max_size=7), happy=st.integers(1, 6))
def test_the_room_is_the_largest_that_the_nodes_can_share_out(free: list[int], happy: int) -> None:
    fitting = [d for d in range(sum(free) + 1) if sum(min(one, d) for one in free) >= happy * d]
    assert room_bytes(free, happy) == max(fitting)


def grid_with(free_bytes: int, count: int = 6) -> FakeGrid:
    return FakeGrid(count, capacity_bytes=free_bytes)


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_what_fits_to_the_byte_and_what_does_not(more: int, *, fits: bool) -> None:
    async def main() -> None:
        share = LARGE_BYTES
        grid = grid_with(share)
        async with grid.client(PLAIN) as client:  # 4 of 6, happy on 5
            size = share * 6 // 5 * 4 + more * 8
            if fits:
                await client.require_room(size)
            else:
                with pytest.raises(GridFull, match="5 distinct nodes have room for"):
                    await client.require_room(size)
            assert grid.calls()["info"] == 6

    run_virtual(main())


def test_little_is_not_asked_for() -> None:
    async def main() -> None:
        grid = grid_with(1000)
        async with grid.client(PLAIN) as client:
            await client.require_room(LARGE_BYTES - 1)
            assert grid.calls()["info"] == 0

    run_virtual(main())


def test_nodes_that_do_not_answer_count_whole_and_those_that_are_drained_not() -> None:
    async def main() -> None:
        grid = grid_with(LARGE_BYTES, count=5)
        grid.nodes[0].faults.delay_s["info"] = 3600.0
        async with grid.client(PLAIN) as client:
            await client.require_room(LARGE_BYTES * 4)
            assert asyncio.get_running_loop().time() < 10
            grid.nodes[1].draining = True
            with pytest.raises(GridFull):
                await client.require_room(LARGE_BYTES * 4)

    run_virtual(main())


def test_holes_and_links_are_not_content(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "file").write_bytes(bytes(range(256)) * 400)
    with (tmp_path / "in" / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    (tmp_path / "in" / "link").symlink_to("deep/file")
    (tmp_path / "single").write_bytes(b"x" * 5000)
    assert content_bytes([tmp_path / "in", tmp_path / "single", tmp_path / "gone"]) == 107_400
