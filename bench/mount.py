"""A mounted volume beside a plain passthrough and the bare disk, in one run: `python -m bench.mount`.

    mount         `muni mount` over six real nodes on loopback, 4-of-6, and a log service
    passthrough   a folder of the same disk through the plainest pyfuse3 file system (bench/passthrough.py);
                  only this needs pyfuse3: apt-get install fuse3 libfuse3-dev pkg-config gcc python3-dev
                  and pip install pyfuse3
    disk          that disk itself

Each figure is taken of the three in turn, so that they share whatever else the machine does.  "cold":
mounted anew, nothing kept on the mount's disk of what was read, and all pages and names dropped from the
kernel, which needs root.  Processor time is that of the mount's process, and of nodes and log service, for
each megabyte or file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.processes import MUNI, running_grid, running_log

MB = 1_000_000
_BLOCK = 1 << 20
_CODING = ["--coding", "4/6", "--happy", "5"]
_UNMOUNT_S = 120


@dataclass
class Target:
    """Where one column's figures come from.

    Attributes:
        folder: measured in.
        command: serves `folder` until it is unmounted; empty: it is a plain folder.
        behind: processes that work for it besides.
        kept: what it keeps on disk of what was read.
    """

    name: str
    folder: Path
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    behind: tuple[int, ...] = ()
    kept: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Mount it."""
        if not self.command:
            return
        self.process = subprocess.Popen(
            [*self.command, *options], stdout=subprocess.PIPE, env=os.environ | self.environment
        )
        assert self.process.stdout is not None
        if b"mounted" not in self.process.stdout.readline():
            raise RuntimeError(f"{self.name} was not mounted")

    def stop(self) -> None:
        """Unmount it; all is saved on return."""
        if self.process is None:
            return
        subprocess.run(["fusermount3", "-u", str(self.folder)], check=True)
        self.process.wait(_UNMOUNT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def freshen(self, *options: str, keep: bool = False) -> None:
        """Let nothing be known of it but what is on the disk; what it has read only if `keep`."""
        self.stop()
        if self.kept is not None and not keep:
            shutil.rmtree(self.kept, ignore_errors=True)
        drop_caches()
        self.start(*options)

    def cpu_s(self) -> tuple[float, float]:
        """Processor seconds so far: serving it, and behind it."""
        own = 0.0 if self.process is None else _cpu_s(self.process.pid)
        return own, sum(map(_cpu_s, self.behind))

    def end(self) -> None:
        """Leave no mount, whatever happened."""
        if self.process is not None:
            subprocess.run(["fusermount3", "-uz", str(self.folder)], check=False)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_UNMOUNT_S)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def drop_caches() -> None:
    """Let the kernel forget all pages, names and attributes that it could read again."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


# --- what is measured -------------------------------------------------------------------------


def write(folder: Path, size_mb: int) -> None:
    """One file, in order, with one fsync at its end."""
    block = os.urandom(_BLOCK)
    with (folder / "big").open("wb", buffering=0) as file:
        for number in range(size_mb * MB // _BLOCK):
            file.write(number.to_bytes(8) + block[8:])
        os.fsync(file.fileno())


def read(folder: Path) -> None:
    """The same file, in order."""
    into = bytearray(_BLOCK)
    with (folder / "big").open("rb", buffering=0) as file:
        while file.readinto(into):
            pass


def create(folder: Path, count: int, writers: int, size: int) -> None:
    """Files of `size` bytes, made and closed by several threads, each in a folder of its own."""

    def some(writer: int) -> None:
        own = folder / str(writer)
        own.mkdir(parents=True, exist_ok=True)
        content = os.urandom(size)
        for number in range(count // writers):
            descriptor = os.open(own / f"file{number:05}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            if size:
                os.write(descriptor, number.to_bytes(8) + content[8:])  # equal files would be stored once
            os.close(descriptor)

    with ThreadPoolExecutor(writers) as threads:
        list(threads.map(some, range(writers)))


def stat_all(folder: Path) -> int:
    """Ask for every file by its name; the folder is not listed.  Returns how many."""
    count = 0
    for own in range(10):
        with contextlib.suppress(FileNotFoundError):
            for number in range(1 << 30):
                os.stat(f"{folder}/{own}/file{number:05}")  # noqa: PTH116 - the plain call
                count += 1
    return count


def list_all(folder: Path) -> None:
    """Every name with its attributes."""
    subprocess.run(["ls", "-lR", str(folder)], check=True, stdout=subprocess.DEVNULL)


# --- the run ----------------------------------------------------------------------------------


class Table:
    """Figures of all targets, printed line by line as they come."""

    def __init__(self, targets: tuple[Target, ...]) -> None:
        self._targets = targets
        names = "".join(f"{target.name:>14}" for target in targets)
        print(f"{'':<34}{names}   of passthrough   core-ms each, serving + behind", flush=True)

    def line(
        self,
        what: str,
        amount: float,
        work: Callable[[Target], object],
        before: Callable[[Target], object] = lambda target: None,
        only: str = "",
    ) -> None:
        """Measure `amount` units of work of each target: units a second."""
        rates, costs = [], ""
        for target in self._targets:
            if only and target.name != only:
                continue
            before(target)
            own, behind = target.cpu_s()
            begun = time.perf_counter()
            work(target)
            rates.append(amount / (time.perf_counter() - begun))
            if target is self._targets[0]:
                own, behind = (now - then for now, then in zip(target.cpu_s(), (own, behind), strict=True))
                costs = f"{own * 1000 / amount:.2f} + {behind * 1000 / amount:.2f}"
        compared = len(rates) > 1 and self._targets[1].name == "passthrough"
        ratio = f"{rates[0] / rates[1]:.0%}" if compared else ""
        print(f"{what:<34}{''.join(f'{rate:14,.0f}' for rate in rates)}   {ratio:<14}   {costs}", flush=True)


def _run(targets: tuple[Target, ...], chosen: argparse.Namespace) -> None:
    table, size_mb, files = Table(targets), chosen.size_mb, chosen.files

    def cold(target: Target) -> None:
        target.freshen()

    def kept(target: Target) -> None:
        target.freshen(keep=True)

    def again(target: Target) -> None:
        read(target.folder)

    def dropped(target: Target) -> None:
        read(target.folder)
        drop_caches()

    def synced(target: Target) -> None:
        target.freshen("-o", "sync") if target.name == "mount" else target.freshen()

    for target in targets:
        target.start()
    for _ in range(chosen.times):
        table.line("write to fsync, MB/s", size_mb, lambda target: write(target.folder, size_mb))
        table.line("read cold, MB/s", size_mb, lambda target: read(target.folder), cold)
        table.line("the same, kept on the mount's disk", size_mb, lambda target: read(target.folder), kept)
        table.line("read warm, MB/s", size_mb, lambda target: read(target.folder), again)
        table.line("the same, kernel's pages dropped", size_mb, lambda target: read(target.folder), dropped)
    table.line("create, one writer, files/s", files, lambda t: create(t.folder / "many", files, 1, 0))
    table.line("stat cold, files/s", files, lambda target: stat_all(target.folder / "many"), cold)
    table.line("ls -lR cold, files/s", files, lambda target: list_all(target.folder / "many"), cold)
    few = files // 10
    for writers in (1, 4, 16):
        name = f"sync{writers}"
        only = "mount" if writers > 1 else ""
        table.line(
            f"create, durable, {writers} writers",
            few,
            lambda target, w=writers, n=name: create(target.folder / n, few // w * w, w, 0),  # type: ignore[misc]
            synced if writers == 1 else lambda target: None,
            only,
        )
    for target in targets:
        target.freshen()
    for size in (1000, 16_000):
        for writers in (1, 16):
            count = max(writers, few // 4 if writers == 1 else few)
            table.line(
                f"{size} bytes closed, {writers} writers",
                count,
                lambda target, w=writers, c=count, s=size: create(  # type: ignore[misc]
                    target.folder / f"small{s}-{w}", c // w * w, w, s
                ),
            )


_FIO = {
    "fio random, blocks of 1 KiB": ["--rw=randrw", "--bs=1k", "--size=10m"],
    "fio random, blocks of 4 KiB": ["--rw=randrw", "--bs=4k", "--size=64m", "--io_size=16m"],
    "fio sequential write": ["--rw=write", "--bs=128k", "--size=256m", "--end_fsync=1"],
    "fio sequential read": ["--rw=read", "--bs=128k", "--size=256m"],
}


def _suites(targets: tuple[Target, ...]) -> None:
    """Other people's programs, where they are installed: each has to end without an error."""
    if shutil.which("fio"):
        for what, options in _FIO.items():
            rates = []
            for target in targets:
                common = [
                    "--name=job",
                    f"--directory={target.folder}",
                    "--ioengine=psync",
                    "--output-format=terse",
                ]
                done = _suite("fio", *options, *common)
                values = done.split(";")
                rates.append((int(values[6]) + int(values[47])) / 1000)  # terse 3: read and write KiB/s
            print(f"{what + ', MB/s':<34}" + "".join(f"{rate:14,.1f}" for rate in rates), flush=True)
    if shutil.which("bonnie++"):
        # Byte by byte only 1 MB of its usual 20: each byte is a request to a FUSE process.
        bonnie = ("bonnie++", "-q", "-u", "root", "-s", "256", "-r", "128", "-n", "1", "-f1M", "-d")
        _timed("bonnie++, s", targets, lambda folder: (*bonnie, str(folder)))
    if shutil.which("dbench"):
        told = [_suite("dbench", "-t", "10", "4", "-D", str(target.folder)) for target in targets]
        rates = [float(re.findall(r"Throughput ([\d.]+) MB/sec", one)[-1]) for one in told]
        print(f"{'dbench, 4 clients, MB/s':<34}" + "".join(f"{rate:14,.1f}" for rate in rates), flush=True)
    if shutil.which("iozone"):
        # All its tests, of 64 KiB to 16 MiB in records of each size, flushed and closed.
        iozone = ("iozone", "-a", "-e", "-c", "-n", "64k", "-g", "16m", "-f")
        told = _timed("iozone, all its tests, s", targets, lambda folder: (*iozone, str(folder / "iozone")))
        if any("iozone test complete" not in one for one in told):
            raise RuntimeError("iozone gave up")


def _timed(what: str, targets: tuple[Target, ...], command: Callable[[Path], tuple[str, ...]]) -> list[str]:
    """Run a suite in each and print how long that took; returns what it said."""
    times, told = [], []
    for target in targets:
        begun = time.perf_counter()
        told.append(_suite(*command(target.folder)))
        times.append(time.perf_counter() - begun)
    print(f"{what:<34}" + "".join(f"{took:14,.1f}" for took in times), flush=True)
    return told


def _suite(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def targets_in(work: Path) -> Iterator[tuple[Target, ...]]:
    """All three below a folder, not mounted yet; none is mounted at the end."""
    for name in ("mounted", "passed", "behind", "disk"):
        (work / name).mkdir()
    with running_grid(work, 6) as grid, running_log(work) as (log, service):
        own = {"MUNIMENT_HOME": str(work / "home"), "MUNIMENT_GRID": str(grid.roster)}
        for line in (
            ["identity", "new", "--unlocked"],
            ["volume", "create", "bench", *_CODING, "--log", log],
        ):
            subprocess.run([*MUNI, *line], check=True, capture_output=True, env=os.environ | own)
        serve = (*MUNI, "mount", "--foreground", "bench", str(work / "mounted"))
        behind = (*(process.pid for process in grid.processes), service.pid)
        passing = (sys.executable, "-m", "bench.passthrough", str(work / "behind"), str(work / "passed"))
        targets = (
            Target("mount", work / "mounted", serve, own, behind, work / "home" / "cache"),
            *(
                [Target("passthrough", work / "passed", passing)]
                if importlib.util.find_spec("pyfuse3")
                else []
            ),
            Target("disk", work / "disk"),
        )
        if len(targets) < 3:
            print("pyfuse3 is not installed, so there is no passthrough to compare with: see --help")
        try:
            yield targets
            for target in targets:
                target.stop()
        finally:
            for target in targets:
                target.end()


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size-mb", type=int, default=512, help="of the big file")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=1, help="so often the big file is written and read")
    parser.add_argument("--suites", action="store_true", help="fio, bonnie++, dbench, iozone too")
    parser.add_argument("--only-suites", action="store_true")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name, targets_in(Path(name)) as targets:
        if not chosen.only_suites:
            _run(targets, chosen)
        if chosen.suites or chosen.only_suites:
            for target in targets:
                target.freshen()
            _suites(targets)
    print(f"load {os.getloadavg()[0]:.2f} at the end")


if __name__ == "__main__":
    main()
