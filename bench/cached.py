"""What reading a chunk costs, from nodes, from the cache on disk and from memory: `python -m bench.cached`.

    nodes     six real nodes on loopback, 4-of-6, nothing is kept
    filling   the same, and what was read is kept on disk, until all of it is written
    disk      kept on disk before; the kernel has its pages
    memory    opened before, in the cache of a mount

All four in turn, several times, so that they share whatever else the machine does: processor time for each
MiB of content, of the client and of the nodes.  Each chunk is copied once, as for a program that reads, and
other chunks were read before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import uvloop

from bench.processes import BenchGrid, running_grid
from muniment.engine.grid import Grid
from muniment.engine.results import DownloadTally
from muniment.fs.content.chunk_cache import ChunkCache
from muniment.node import compose
from muniment.spec.blob import BlobRef
from muniment.spec.cap import BlobFile

_AHEAD = 4
_LIMIT_BYTES = 1 << 30
_WAYS = {"nodes": 0, "filling": _LIMIT_BYTES, "disk": _LIMIT_BYTES, "memory": 0}

Cost = tuple[float, float, float]
"""Core-ms for each MiB, of the client and of the nodes; MiB a second."""


async def _read(chunks: ChunkCache, refs: list[BlobRef], into: bytearray) -> None:
    for at, ref in enumerate(refs):
        for later in refs[at + 1 : at + 1 + _AHEAD]:
            chunks.ahead(later)
        plain = await chunks.get(ref)
        into[: len(plain)] = plain


async def _stored(grid: Grid, chosen: argparse.Namespace) -> list[BlobRef]:
    refs = []
    for _ in range((chosen.size_mib << 10) // chosen.chunk_kib):
        cap = (await grid.put(os.urandom(chosen.chunk_kib << 10))).cap
        assert isinstance(cap, BlobFile)
        refs.append(cap.ref)
    return refs


async def _run(bench: BenchGrid, work: Path, chosen: argparse.Namespace) -> dict[str, list[Cost]]:
    home, into = work / "home", bytearray(chosen.chunk_kib << 10)
    open_grid = partial(compose.open_grid, home, str(bench.roster))
    async with open_grid() as grid:
        warm, refs = await _stored(grid, chosen), await _stored(grid, chosen)

    async def filled() -> None:
        """Read until all is kept: what comes faster than it can be written is not."""
        tally = DownloadTally()
        while tally.cached < len(refs):
            tally = DownloadTally()
            async with open_grid(cache_bytes=_LIMIT_BYTES) as grid:
                for ref in refs:
                    await grid.read_blob(ref, tally)

    async def measured(way: str) -> Cost:
        tally = DownloadTally()
        async with open_grid(cache_bytes=_WAYS[way]) as grid:
            chunks = ChunkCache(partial(grid.read_blob, tally=tally), _LIMIT_BYTES)
            await grid.status()  # connections and tokens exist
            await _read(chunks, refs if way == "memory" else warm, into)  # buffers exist
            tally.cached = 0
            own_s, nodes_s, begun_s = time.process_time(), bench.cpu_s(), time.perf_counter()
            await _read(chunks, refs, into)
            took_s = time.perf_counter() - begun_s
            nodes_s = bench.cpu_s() - nodes_s
        own_s = time.process_time() - own_s  # until what waits is written, and all is closed
        assert tally.cached == (len(refs) if way == "disk" else 0)
        return own_s * 1000 / chosen.size_mib, nodes_s * 1000 / chosen.size_mib, chosen.size_mib / took_s

    figures: dict[str, list[Cost]] = {way: [] for way in _WAYS}
    for _ in range(chosen.times):
        shutil.rmtree(home / "cache", ignore_errors=True)
        for way, rows in figures.items():
            if way == "disk":
                await filled()
            rows.append(await measured(way))
    return figures


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=64)
    parser.add_argument("--chunk-kib", type=int, default=4096)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name, running_grid(Path(name), 6) as bench:
        figures = uvloop.run(_run(bench, Path(name), chosen))
    print(f"{'':10}{'client':>16}{'nodes':>16}{'MiB/s':>10}    core-ms for each MiB: median (least)")
    for way, rows in figures.items():
        own, nodes, rate = zip(*rows, strict=True)
        shown = [f"{statistics.median(one):.2f} ({min(one):.2f})" for one in (own, nodes)]
        print(f"{way:10}{shown[0]:>16}{shown[1]:>16}{statistics.median(rate):10.0f}")
    print(f"load {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
