"""A client's grid, opened from its home, over real nodes: by roster file and by introducer."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from tests.e2e.node_processes import running_introducer, running_node

from muniment.node.compose import open_grid
from muniment.node.config import NodeConfig
from muniment.node.home import join_grid


async def test_a_file_stored_by_one_way_to_the_grid_is_read_by_the_other(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(9_000_000)
    with contextlib.ExitStack() as stack:
        introducer = stack.enter_context(running_introducer(tmp_path / "i"))
        config = NodeConfig(capacity_bytes=100 << 20, introducers=[str(introducer.address)])
        nodes = [stack.enter_context(running_node(tmp_path / f"n{number}", config)) for number in range(6)]
        roster = tmp_path / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        async with open_grid(tmp_path / "home", str(roster)) as grid:
            stored = await grid.put(content)
        nodes[0].kill()
        join_grid(tmp_path / "other", str(introducer.address))
        async with open_grid(tmp_path / "other", None) as grid:
            with (tmp_path / "copy").open("wb") as copy:
                await grid.get(stored.cap, copy)
        assert (tmp_path / "copy").read_bytes() == content
