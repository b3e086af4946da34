"""Keeping over real node processes on loopback: `python -m bench.keeping`.

    repair     two of eight nodes die; a file is repaired, against the speed of its download and upload
    collect    a volume of many small blobs is scanned and leased, half of it is pruned, the rest given up,
               while a writer goes on: seconds, memory, and the writer's pauses

The keeper is the product's own; only its log is made by hand, so that it can name what it likes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from bench.processes import running_grid
from muniment.books.sqlite import SqliteBlobBook
from muniment.engine.keeping.duties import Duties
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.named import LogHead
from muniment.engine.keeping.work import Worker
from muniment.engine.policy import Policy
from muniment.engine.results import UploadTally
from muniment.erasure.codec import Coding
from muniment.ids import BlobId, MemberId, VolumeId
from muniment.node import compose
from muniment.node.clock import SystemClock
from muniment.ports import NamedBlobs
from muniment.queues.sqlite import SqliteQueue
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape

MB = 1_000_000
_NAMED_AT_ONCE = 1000
_SMALL = Policy(coding=Coding.from_text("1/2"), happy=2)


@dataclass
class Log:
    """A log that names what it is told."""

    volume: VolumeId
    entries: list[NamedBlobs] = field(default_factory=list)

    @property
    def head(self) -> LogHead:
        """How far it is."""
        return LogHead(len(self.entries), bytes(32))

    async def follow(self) -> LogHead:
        """There is nobody to ask."""
        return self.head

    def root(self, size: int) -> bytes:
        """Made by hand, it has no tree."""
        return size.to_bytes(32, "big")

    def page(self, start: int) -> list[NamedBlobs]:
        """Some entries."""
        return self.entries[start : start + 16]


class _Sink:
    """Counts what is written to it."""

    def write(self, data: memoryview | bytes) -> int:
        """Take some."""
        return len(data)


async def repair(work: Path, size_mb: int) -> None:
    """How fast shares are rebuilt."""
    policy = Policy(coding=Coding.from_text("4/6"), happy=5)
    with (work / "big").open("wb") as file:
        for _ in range(size_mb // 4):
            file.write(os.urandom(4 << 20))
    with running_grid(work, 8) as nodes:
        async with compose.open_grid(work / "home", str(nodes.roster), policy) as grid:
            await grid.status()
            begun_s = time.perf_counter()
            put = await grid.put(work / "big")
            up = put.size_bytes * 6 / 4 / (time.perf_counter() - begun_s)
            begun_s = time.perf_counter()
            await grid.get(put.cap, _Sink())
            down = put.size_bytes / (time.perf_counter() - begun_s)
            for process in nodes.processes[:2]:
                process.kill()
            begun_s = time.perf_counter()
            done = await grid.repair(put.cap, seed=os.urandom(32))
            took_s = time.perf_counter() - begun_s
    at_best_s = done.read_bytes / down + done.rebuilt_bytes / up
    print(
        f"repair of {size_mb} MiB, 4-of-6, two of eight nodes dead: {done.rebuilt} shares"
        f" ({done.rebuilt_bytes / MB:.0f} MB) from {done.read_bytes / MB:.0f} MB in {took_s:.2f} s;"
        f" at the speed of download ({down / MB:.0f} MB/s) and upload ({up / MB:.0f} MB of shares/s)"
        f" {at_best_s:.2f} s: {at_best_s / took_s:.0%}"
    )
    assert done.failed == 0


async def _fill(work: Path, roster: str, count: int) -> None:
    """In a process of its own: store small blobs, and leave their names."""
    async with compose.open_grid(work / "author", roster, _SMALL) as grid:
        writer = grid.blob_writer(b"s" * 32, _SMALL, UploadTally())
        places = asyncio.Semaphore(256)
        with (work / "names").open("w") as names:

            async def one(number: int) -> None:
                async with places:
                    plain = number.to_bytes(8, "big") * 16
                    name = (await writer.store(memoryview(plain), len(plain))).name
                    names.write(f"{name.blob.hex()} {name.shape.pack().hex()}\n")

            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(one(number))


async def _write_on(work: Path, roster: str, seconds: int) -> None:
    """In a process of its own: store one small blob after the other, and print how long each took."""
    async with compose.open_grid(work / "author", roster, _SMALL) as grid:
        writer = grid.blob_writer(b"w" * 32, _SMALL, UploadTally())
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            plain = os.urandom(4096)
            begun_s = time.perf_counter()
            await writer.store(memoryview(plain), len(plain))
            print(time.time(), time.perf_counter() - begun_s, flush=True)
            await asyncio.sleep(0.02)


async def _started(job: str, work: Path, roster: Path, much: int) -> asyncio.subprocess.Process:
    words = ("-m", "bench.keeping", "--job", job, str(work), str(roster), str(much))
    return await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)


def _entries(names: Sequence[BlobName], *, prune: bool) -> list[NamedBlobs]:
    pages = (tuple(names[at : at + _NAMED_AT_ONCE]) for at in range(0, len(names), _NAMED_AT_ONCE))
    return [NamedBlobs(pruned=page) if prune else NamedBlobs(added=page) for page in pages]


async def collect(work: Path, count: int) -> None:
    """How long a volume of many blobs takes."""
    log = Log(VolumeId(b"v" * 32))
    with running_grid(work, 3) as nodes:
        begun_s = time.perf_counter()
        assert await (await _started("fill", work, nodes.roster, count)).wait() == 0
        print(f"{count} blobs of 1-of-2 stored in {time.perf_counter() - begun_s:.0f} s", flush=True)
        rows = [line.split() for line in (work / "names").read_text().splitlines()]
        names = [BlobName(BlobId(bytes.fromhex(a)), BlobShape.unpack(bytes.fromhex(b))) for a, b in rows]
        log.entries += _entries(names, prune=False)
        clock, process = SystemClock(), psutil.Process()
        async with compose.open_grid(work / "keeper", str(nodes.roster), _SMALL) as grid:
            book, queue = SqliteBlobBook(work / "book"), SqliteQueue(work / "queue")
            worker = Worker(queue, clock=clock, chance=random.random)
            duties = Duties(move=False)
            keeper = Keeper(log, grid, book, worker, clock, MemberId(b"m" * 32), duties)
            before_mb = process.memory_info().rss / MB
            begun_s = time.perf_counter()
            await keeper.begin()
            await worker.flush()
            took_s = time.perf_counter() - begun_s
            print(
                f"scan: {keeper.tally.proofs} shares proven, {keeper.tally.leased} leased in {took_s:.1f} s"
                f" ({keeper.tally.proofs / took_s:.0f}/s), memory {process.memory_info().rss / MB:.0f} MB"
                f" ({before_mb:.0f} before)",
                flush=True,
            )
            gone = names[: count // 2]
            log.entries += _entries(gone, prune=True)
            writing = await _started("write", work, nodes.roster, 60)
            await asyncio.sleep(5)
            begun_s, wall_s = time.perf_counter(), time.time()
            await keeper.follow()
            await worker.add(*keeper.collections())
            await worker.flush()
            took_s = time.perf_counter() - begun_s
            writing.terminate()
            told = [line.split() for line in (await writing.communicate())[0].decode().splitlines()]
            quiet = [float(took) for when, took in told if float(when) < wall_s]
            meanwhile = [float(took) for when, took in told if float(when) >= wall_s]
            assert keeper.tally.collected == 2 * len(gone), keeper.tally
            print(
                f"collect: {keeper.tally.collected} of {2 * count} shares given up in {took_s:.1f} s,"
                f" memory {process.memory_info().rss / MB:.0f} MB; a writer's blob: p50 {_ms(quiet, 50)},"
                f" p99 {_ms(quiet, 99)} before, p50 {_ms(meanwhile, 50)}, p99 {_ms(meanwhile, 99)} meanwhile"
            )
            queue.close()
            book.close()


def _ms(times_s: Sequence[float], percentile: int) -> str:
    return (
        f"{statistics.quantiles(times_s, n=100)[percentile - 1] * 1000:.0f} ms" if len(times_s) > 2 else "-"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size-mb", type=int, default=512, help="MiB of the file that is repaired")
    parser.add_argument("--blobs", type=int, default=100_000, help="of the volume that is collected")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path.cwd() / ".cache", help="on the disk to measure")
    chosen = parser.parse_args()
    if chosen.job:
        job, work, roster, much = chosen.job
        uvloop.run((_fill if job == "fill" else _write_on)(Path(work), roster, int(much)))
        return
    chosen.folder.mkdir(parents=True, exist_ok=True)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    for bench, much in ((repair, chosen.size_mb), (collect, chosen.blobs)):
        with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
            uvloop.run(bench(Path(name), much))


if __name__ == "__main__":
    main()
