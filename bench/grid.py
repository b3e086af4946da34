"""The grid against its ceiling and a rival, as ratios in one run: `python -m bench.grid`.

    ours      real node processes on loopback with TLS, one file up and down through `Grid`
    ceiling   the same bytes through the bare kernels and a bare TLS transfer, summed (bench/ceiling.py)
    rival     the script given with --rival (K N BIG_MB SMALL_COUNT), run in the same minute

Every measurement of ours runs in a process of its own, so that peak memory means something.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench import ceiling
from bench.processes import running_grid
from muniment.engine.policy import Policy
from muniment.engine.results import Stages
from muniment.erasure.codec import Coding
from muniment.node import compose
from muniment.spec.cap import cap_text, parse_cap

MB = 1_000_000


async def _client(job: str, roster: str, work: Path, coding: str) -> dict[str, Any]:
    """One measurement, inside its own process."""
    code = Coding.from_text(coding)
    policy = Policy(coding=code, happy=(code.k + code.n + 1) // 2)
    async with compose.open_grid(work / "home", roster, policy) as grid:
        await grid.status()  # connections and tokens exist, as in a client that has been running
        cpu_s, before = time.process_time(), time.perf_counter()
        if job == "up":
            put = await grid.put(work / "big")
            (work / "cap").write_text(cap_text(put.cap))
            size, stages = put.size_bytes, put.stages
        elif job == "down":
            got = await grid.get(parse_cap((work / "cap").read_text()), work / "back")
            size, stages = got.size_bytes, got.stages
        elif job == "small":
            many = await grid.put_many(sorted((work / "small").iterdir()))
            size, stages = sum(one.size_bytes for one in many if one.cap), Stages()
        else:
            tree = await grid.put_tree(work / "small")
            size, stages = tree.size_bytes, tree.stages
        took_s, cpu_s = time.perf_counter() - before, time.process_time() - cpu_s
    return {
        "size_bytes": size,
        "seconds": took_s,
        "cpu_s": cpu_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "stages": {name: round(getattr(stages, name), 2) for name in stages.__slots__},
    }


def _measure(job: str, roster: Path, work: Path, coding: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.grid", "--job", job, str(roster), str(work), coding]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _make_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // (4 << 20)):
            file.write(os.urandom(4 << 20))


def _coding_run(coding: str, size_mb: int, rival: str | None, folder: Path) -> None:
    code = Coding.from_text(coding)
    size = size_mb * 1024 * 1024
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        _make_file(work / "big", size)
        with running_grid(work, code.n) as grid:
            idle = max(grid.rss_bytes())
            up, up_node_s = _timed(grid.cpu_s, lambda: _measure("up", grid.roster, work, coding))
            down, down_node_s = _timed(grid.cpu_s, lambda: _measure("down", grid.roster, work, coding))
        same = subprocess.run(["cmp", str(work / "big"), str(work / "back")], check=False).returncode == 0
        best = ceiling.measure(code, size, work, cores=os.cpu_count() or 1)
    rates = {"up": size / MB / up["seconds"], "down": size / MB / down["seconds"]}
    tops = {"up": size / MB / best.up_s, "down": size / MB / best.down_s}
    rivals = _rival(rival, code, size_mb) if rival else {}
    print(f"{coding}: {size_mb} MiB over {code.n} nodes, {'identical' if same else 'DIFFERENT'}")
    for way, node_s, ours in (("up", up_node_s, up), ("down", down_node_s, down)):
        line = (
            f"  {way:<5}{rates[way]:6.0f} MB/s, {rates[way] / tops[way]:4.0%} of the ceiling {tops[way]:.0f}"
        )
        if way in rivals:
            line += f", {rates[way] / rivals[way]:.1f} times the rival's {rivals[way]:.0f}"
        print(line)
        each = f"nodes {node_s * 1e9 / size:.2f}, client {ours['cpu_s'] * 1e9 / size:.2f}"
        print(f"       core-ms for each MB: {each}")
        print(f"       client peak {ours['peak_mb']:.0f} MB; stages {ours['stages']}")
    print(f"  idle node {idle / MB:.0f} MB", flush=True)


def _timed(cpu_s: Any, work: Any) -> tuple[dict[str, Any], float]:
    before = cpu_s()
    return work(), cpu_s() - before


def _rival(script: str, code: Coding, size_mb: int) -> dict[str, float]:
    command = ["bash", script, str(code.k), str(code.n), str(size_mb), "20"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print("  " + done.stdout.strip())
    found = re.search(r"up ([\d.]+) MB/s\s+down ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return {"up": float(found[1]), "down": float(found[2])}


def _small_run(folder: Path, count: int) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        (work / "small").mkdir()
        for number in range(count):
            (work / "small" / f"{number:05}").write_bytes(os.urandom(4096))
        with running_grid(work, 6) as grid:
            for job, what in (("small", "a capability each"), ("tree", "as one folder")):
                done = _measure(job, grid.roster, work, "4/6")
                print(f"{count} files of 4 KiB, {what}: {count / done['seconds']:.0f} files/s", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--size-mb", type=int, default=512, help="MiB of the big file")
    parser.add_argument("--coding", nargs="*", default=["4/6", "3/10", "10/14"])
    parser.add_argument("--small", type=int, default=1000, help="small files; 0 to leave out")
    parser.add_argument("--rival", help="script of the rival")
    parser.add_argument("--folder", type=Path, default=Path.cwd() / ".cache", help="on the disk to measure")
    chosen = parser.parse_args()
    if chosen.job:
        job, roster, work, coding = chosen.job
        print(json.dumps(uvloop.run(_client(job, roster, Path(work), coding))))
        return
    chosen.folder.mkdir(parents=True, exist_ok=True)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    for coding in chosen.coding:
        _coding_run(coding, chosen.size_mb, chosen.rival, chosen.folder)
    if chosen.small:
        _small_run(chosen.folder, chosen.small)


if __name__ == "__main__":
    main()
