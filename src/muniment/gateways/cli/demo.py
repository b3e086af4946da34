"""`muni demo`: the whole story in one command, on this machine, with real processes and real faults."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from muniment.core.capabilities import weaken
from muniment.engine.grid import Grid
from muniment.engine.health import ShareState
from muniment.engine.threads import wait_ended
from muniment.errors import InternalError, RosterEmpty
from muniment.gateways.cli import demo_tree
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.demo_grid import LIAR, DemoGrid
from muniment.gateways.cli.demo_keeping import play_keeping
from muniment.gateways.cli.demo_mount import play_mount
from muniment.gateways.cli.demo_volume import play_volume
from muniment.gateways.cli.show import bytes_text, count_text, progress_bar, rate_text, table
from muniment.spec.cap import TreeReadCap, cap_text

_ANNOUNCED_S: Final = 20.0
_LOOK_S: Final = 0.1
_ROOM: Final = 4
"""Disk needed, in sizes of the tree: itself, 1.5 times as shares, and what is read back."""


@dataclass(slots=True)
class _Story:
    """What happened: rows for the table, facts for --json."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def tell(self, what: str, result: str, **facts: Any) -> None:
        self.rows.append((what, result))
        self.facts |= facts


@click.command()
@click.option("--keep", is_flag=True, help="Leave the grid running and say how to use it.")
@click.option(
    "--nodes",
    type=click.IntRange(6, 32),
    metavar="COUNT",
    default=6,
    show_default=True,
    help="Node processes, 6 to 32.",
)
@click.option(
    "--size-mb",
    type=click.IntRange(1, 10_000),
    metavar="MEGABYTES",
    default=200,
    show_default=True,
    help="To store, at least.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where to work; must be empty.  [default: a new temporary folder]",
)
@json_option
@pass_context
def demo(context: Context, keep: bool, nodes: int, size_mb: int, folder: Path | None) -> None:
    """See it all: six nodes, real files, faults, a volume.

    Starts an introducer and six nodes as processes on this machine, stores the Python library and media-size
    files so that any 4 of 6 shares restore them, kills one node, damages the disk of another and lets it lie,
    reads everything back and compares.  Then three members share a volume: they join by vote, edit at once,
    remove one of them, bring yesterday's tree back, and audit it all.  A keeper, who cannot read, rebuilds
    what the faults cost.  At last the volume is mounted, and other programs work in it.

    Afterwards nothing is left, unless --keep.
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise Refusal(f"{folder} is not empty", "name a new folder")
    context.interrupted = "its processes are ended and its files are removed"
    size_bytes = size_mb * 1_000_000
    begun = time.monotonic()

    async def work() -> None:
        async with _workplace(folder, size_bytes, keep) as place:
            async with DemoGrid(context.composition, place, nodes, keep=keep) as grid:
                story = await _play(context, grid, place, size_bytes)
                took_s = time.monotonic() - begun
                story.tell("whole demo", f"{took_s:.1f} s", seconds=round(took_s, 3))
                if keep:
                    story.facts |= _kept(grid, place)
                context.emit(story.facts, table(story.rows))
                grid.detached = keep
            if keep:
                context.remark(_how_to(grid, place))

    context.run(work)


@contextlib.asynccontextmanager
async def _workplace(folder: Path | None, size_bytes: int, keep: bool) -> AsyncIterator[Path]:
    """The folder to work in, removed at the end unless all went well and it is to be kept."""
    place = folder or Path(tempfile.mkdtemp(prefix="muniment-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        if shutil.disk_usage(place).free < _ROOM * size_bytes:
            raise Refusal(
                f"{place} has less than {bytes_text(_ROOM * size_bytes)} free",
                "name a folder on a larger disk with --folder, or less with --size-mb",
            )
        yield place
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    if not keep:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


async def _play(context: Context, processes: DemoGrid, place: Path, size_bytes: int) -> _Story:
    """Everything after the start of the processes."""
    story, count = _Story(), len(processes.nodes)
    home, source, back = place / "home", place / "original", place / "back"
    context.remark(f"an introducer and {count} nodes serve, each a process of its own")
    story.tell("grid", f"1 introducer, {count} nodes in {count} zones", nodes=count)
    context.remark(f"making a tree of at least {bytes_text(size_bytes)}")
    await _make_tree(source, size_bytes)
    original = await asyncio.to_thread(demo_tree.fingerprint, source)
    await _wait_announced(context, home, processes.address, count)
    async with context.composition.open_grid(home, processes.address) as grid:
        cap = await _store(context, grid, story, source)
        cap_file = place / "cap"
        cap_file.touch(mode=0o600)
        cap_file.write_text(cap_text(cap) + "\n")
        await _break(context, processes, story)
    # Another client, which does not know yet who has been slow or is dead: it finds out for itself.
    async with context.composition.open_grid(home, processes.address) as grid:
        await _read_back(context, grid, story, processes, cap, back)
        context.remark("comparing")
        same = await asyncio.to_thread(demo_tree.fingerprint, back) == original
        if not same:
            raise InternalError(reason="what came back differs from what was stored")
        story.tell("identical", "yes: every byte, permission, time and link", identical=same)
        await _check(context, grid, story, processes, cap)
    await play_volume(context, processes, place, story)
    await play_keeping(context, processes, place, weaken(cap), story)
    await play_mount(context, processes, place, story)
    return story


async def _make_tree(source: Path, size_bytes: int) -> None:
    """In a thread, which has ended when this is left: nothing appears in a folder that is being removed."""
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    making = loop.run_in_executor(None, demo_tree.make_tree, source, size_bytes, stop.is_set)
    try:
        await asyncio.shield(making)
    except asyncio.CancelledError:
        stop.set()
        await wait_ended(making)
        raise


async def _wait_announced(context: Context, home: Path, address: str, count: int) -> None:
    """Nodes announce themselves a moment after they serve."""
    deadline = time.monotonic() + _ANNOUNCED_S
    known = 0
    while known < count:
        if time.monotonic() > deadline:
            raise InternalError(reason=f"only {known} of {count} nodes announced themselves")
        await asyncio.sleep(_LOOK_S)
        with contextlib.suppress(RosterEmpty):
            async with context.composition.open_grid(home, address) as grid:
                known = sum(node.reachable for node in await grid.status())


async def _store(context: Context, grid: Grid, story: _Story, source: Path) -> TreeReadCap:
    context.remark("storing it: compressed and encrypted here, any 4 of 6 shares restore it")
    begun = time.monotonic()
    with progress_bar(context, "storing") as progress:
        put = await grid.put_tree(source, progress=progress)
    took_s = time.monotonic() - begun
    if put.skipped:
        raise InternalError(reason=f"{put.skipped[0].path} was left out: {put.skipped[0].reason}")
    assert isinstance(put.cap, TreeReadCap)
    story.tell(
        "stored",
        f"{count_text(put.files, 'file')}, {rate_text(put.size_bytes, took_s)}; "
        f"every blob on {put.placed} nodes or more",
        files=put.files,
        stored_bytes=put.size_bytes,
        stored_share_bytes=put.new_bytes,
        stored_s=round(took_s, 3),
    )
    return put.cap


async def _break(context: Context, processes: DemoGrid, story: _Story) -> None:
    """The two faults: a node that dies, and one whose disk is damaged and that lies about the rest."""
    killed, liar = processes.nodes[0], processes.liar
    context.remark(
        f"killing {killed.name} with SIGKILL, damaging every other share on the disk of {liar.name}"
    )
    killed.kill()
    damaged, held = await asyncio.to_thread(demo_tree.damage, liar.folder / "store" / "shares")
    story.tell("killed", f"{killed.name}, with SIGKILL", killed=killed.name)
    story.tell(
        "damaged on disk",
        f"{damaged} of {held} shares of {liar.name}, which alters the others when it serves them",
        damaged_node=liar.name,
        damaged_shares=damaged,
    )


async def _read_back(
    context: Context, grid: Grid, story: _Story, processes: DemoGrid, cap: TreeReadCap, back: Path
) -> None:
    context.remark("reading everything back")
    begun = time.monotonic()
    with progress_bar(context, "reading") as progress:
        got = await grid.get_tree(cap, back, progress=progress)
    took_s = time.monotonic() - begun
    story.tell(
        "read back",
        f"{count_text(got.files, 'file')}, {rate_text(got.size_bytes, took_s)}; "
        f"{got.decoded} of {got.blobs} blobs computed from parity",
        read_bytes=got.size_bytes,
        read_s=round(took_s, 3),
        decoded_blobs=got.decoded,
    )
    liars = {processes.name(node): count for node, count in got.liars.items()}
    if set(liars) != {LIAR}:
        raise InternalError(reason=f"{LIAR} lied, but {', '.join(liars) or 'nobody'} was blamed")
    story.tell(
        "caught lying",
        f"{LIAR}: {count_text(liars[LIAR], 'false share')} noticed and replaced, then it was asked last",
        liars=liars,
    )


async def _check(context: Context, grid: Grid, story: _Story, processes: DemoGrid, cap: TreeReadCap) -> None:
    """Every share read and verified, with a capability that cannot read the files."""
    context.remark("checking every share, with the weaker capability that cannot read")
    begun = time.monotonic()
    health = await grid.check(weaken(cap), verify=True)
    took_s = time.monotonic() - begun
    shares = {state.value: health.shares[state] for state in ShareState}
    found = ", ".join(f"{count} {state}" for state, count in shares.items() if count)
    verdict = "readable" if health.recoverable else "NOT readable"
    story.tell(
        "checked",
        f"{verdict}; shares: {found}; in {took_s:.1f} s",
        shares=shares,
        recoverable=health.recoverable,
        checked_s=round(took_s, 3),
    )
    if not health.recoverable:
        raise InternalError(reason="the check says that what was just read cannot be read")
    quarantined = {processes.name(n.node): n.quarantined_count for n in await grid.status() if n.reachable}
    if any(count for name, count in quarantined.items() if name != LIAR):
        raise InternalError(reason=f"shares are in quarantine where nothing was damaged: {quarantined}")
    story.tell(
        "quarantined",
        f"{quarantined[LIAR]} damaged shares: {LIAR} noticed them itself before serving them",
        quarantined=quarantined[LIAR],
    )


def _kept(grid: DemoGrid, place: Path) -> dict[str, Any]:
    return {
        "folder": str(place),
        "grid": grid.address,
        "home": str(place / "home"),
        "cap_file": str(place / "cap"),
        "processes": [process.pid for process in grid.processes if process.running],
    }


def _how_to(grid: DemoGrid, place: Path) -> str:
    path = "" if shutil.which("muni") else f"  export PATH={Path(sys.executable).parent}:$PATH\n"
    pids = " ".join(str(process.pid) for process in grid.processes if process.running)
    return f"""
The grid goes on: node1 is dead, {LIAR} is switched off, the others are well.  To use it:
{path}  export MUNIMENT_GRID={grid.address}
  export MUNIMENT_HOME={place / "home"}
  muni grid status
  muni put /etc/hostname
  muni check @{place / "cap"}
  muni get @{place / "cap"} restored
To bring node1 back:
  muni node run {place / "node1"}
To end it all:
  kill {pids}; rm -r {place}"""
