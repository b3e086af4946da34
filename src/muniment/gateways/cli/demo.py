"""`muni demo`: the whole story in one command, on this machine, with real processes and real faults."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.errors import ConfigInvalid
from muniment.gateways.cli import demo_data
from muniment.gateways.cli.context import Context, pass_context
from muniment.gateways.cli.demo_grid import DemoGrid
from muniment.gateways.cli.show import bytes_text, progress_bar, rate_text
from muniment.ids import NodeId
from muniment.spec.address import parse_node
from muniment.spec.cap import cap_text


@dataclass(slots=True)
class _Story:
    """What happened, for the table and for --json."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def tell(self, what: str, result: str, **facts: Any) -> None:
        self.rows.append((what, result))
        self.facts |= facts


@click.command()
@click.option("--keep", is_flag=True, help="Leave the grid running and say how to use it.")
@click.option("--nodes", type=click.IntRange(6, 32), default=6, show_default=True, help="Node processes.")
@click.option("--size-mb", type=click.IntRange(1, 10_000), default=200, show_default=True, help="To store.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to work.  [default: a temporary folder, removed at the end]",
)
@pass_context
def demo(context: Context, keep: bool, nodes: int, size_mb: int, folder: Path | None) -> None:
    """Start a grid, store a real tree, break two nodes, and read everything back.

    Starts an introducer and six nodes as processes on this machine, stores the Python library and media-size
    files 4-of-6, kills one node, damages another's disk and lets it lie, reads all back and compares.
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigInvalid(where=str(folder), reason="the folder is not empty")
    work = folder or Path(tempfile.mkdtemp(prefix="muniment-demo-"))
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        with DemoGrid(work, nodes, keep=keep, say=context.remark) as grid:
            story = context.run(lambda: _tell(context, grid, work, size_mb * 1_000_000))
            story.tell(
                "whole demo", f"{time.monotonic() - started:.1f} s", total_s=time.monotonic() - started
            )
            grid.detached = keep
            context.emit({**story.facts, **_kept(grid, work, keep)}, _text(story.rows))
            if keep:
                context.remark(_how_to(grid, work))
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


async def _tell(context: Context, processes: DemoGrid, work: Path, size_bytes: int) -> _Story:
    """All steps after the start of the processes."""
    story = _Story()
    source, back = work / "original", work / "back"
    context.remark(f"making a tree of at least {bytes_text(size_bytes)}")
    demo_data.make_tree(source, size_bytes)
    original = demo_data.fingerprint(source)
    async with context.composition.open_grid(work / "home", processes.address, Policy()) as grid:
        await _wait_nodes(grid, len(processes.nodes))
        story.tell(
            "grid", f"1 introducer, {len(processes.nodes)} nodes, coding 4 of 6", nodes=len(processes.nodes)
        )
        context.remark("storing it: encrypted here, any 4 of 6 shares restore it")
        before = time.monotonic()
        with progress_bar(context, "storing") as progress:
            put = await grid.put_tree(source, progress=progress)
        took = time.monotonic() - before
        story.tell(
            "stored",
            f"{put.files} files, {rate_text(put.size_bytes, took)}",
            put_bytes=put.size_bytes,
            put_s=took,
            files=put.files,
        )
        cap_file = work / "cap"
        cap_file.touch(mode=0o600)
        cap_file.write_text(cap_text(put.cap) + "\n")

        killed, liar = processes.nodes[0], processes.nodes[1]
        context.remark(f"killing {killed.name} (SIGKILL); damaging half the shares on {liar.name}'s disk")
        killed.kill()
        damaged = demo_data.corrupt(liar.folder / "store", 0.5)
        story.tell("killed", killed.name, killed=killed.name)
        story.tell("damaged on disk", f"{damaged} shares of {liar.name}", damaged_shares=damaged)

        context.remark("reading everything back")
        before = time.monotonic()
        with progress_bar(context, "reading") as progress:
            got = await grid.get_tree(put.cap, back, progress=progress)
        took = time.monotonic() - before
        story.tell("read back", rate_text(got.size_bytes, took), get_bytes=got.size_bytes, get_s=took)
        same = demo_data.fingerprint(back) == original
        story.tell("identical", "yes, every byte, mode and link" if same else "NO", identical=same)
        _tell_liars(story, processes, got.liars)
        health = await grid.check(put.cap)
        story.tell("check", str(health.summary()), check=health.to_json()["summary"])
        status = {summary.node: summary for summary in await grid.status()}
        held_back = status[parse_node(liar.address).node].quarantined_count
        story.tell("quarantined", f"{held_back} damaged shares, by {liar.name} itself", quarantined=held_back)
        if not same:
            raise ConfigInvalid(where=str(back), reason="what came back differs from what was stored")
    return story


async def _wait_nodes(grid: Grid, count: int) -> None:
    """Nodes announce themselves a moment after they serve."""
    await grid.wait_nodes(count, timeout_s=20)


def _tell_liars(story: _Story, processes: DemoGrid, liars: dict[NodeId, int]) -> None:
    names = {parse_node(node.address).node: node.name for node in processes.nodes}
    found = {names.get(node, "?"): count for node, count in liars.items()}
    told = ", ".join(f"{name}: {count} false shares, all replaced" for name, count in found.items())
    story.tell("caught lying", told or "nobody", liars=found)


def _kept(grid: DemoGrid, work: Path, keep: bool) -> dict[str, Any]:
    if not keep:
        return {}
    return {"folder": str(work), "grid": grid.address, "processes": [node.pid for node in grid.nodes]}


def _how_to(grid: DemoGrid, work: Path) -> str:
    assert grid.introducer is not None
    pids = " ".join(str(process.pid) for process in (*grid.nodes[1:], grid.introducer))
    return f"""
The grid goes on (node1 is dead, node2 lies).  To use it:
  export MUNIMENT_GRID={grid.address}
  export MUNIMENT_HOME={work / "home"}
  muni grid status
  muni put README.md
  muni get @{work / "cap"} restored-tree
To bring node1 back:  muni node run {work / "node1"}
To end it all:        kill {pids}; rm -r {work}"""


def _text(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:<{width}}  {result}" for what, result in rows)
