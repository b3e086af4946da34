"""Real nodes and log services on loopback for the benches, started by the command line like anybody's."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MUNI = (sys.executable, "-m", "muniment")
_ADDRESS = re.compile(r"mun:(?:node|log):\S+")


@dataclass(frozen=True)
class BenchGrid:
    """A running grid: its roster file and the node processes."""

    roster: Path
    processes: tuple[subprocess.Popen[bytes], ...]

    def rss_bytes(self) -> list[int]:
        """Resident memory of each node now."""
        return [psutil.Process(process.pid).memory_info().rss for process in self.processes]

    def cpu_s(self) -> float:
        """Processor seconds of all nodes since they started."""
        times = [psutil.Process(process.pid).cpu_times() for process in self.processes]
        return sum(t.user + t.system for t in times)


@contextlib.contextmanager
def running_grid(work: Path, nodes: int) -> Iterator[BenchGrid]:
    """Start nodes below `work`, each a zone of its own, with a static roster; stop them at the end."""
    processes = []
    with contextlib.ExitStack() as stack:
        for number in range(nodes):
            folder = work / f"node{number}"
            command = [*MUNI, "node", "init", str(folder), "--capacity", "100GB", "--zone", f"zone{number}"]
            subprocess.run(command, check=True, capture_output=True)
            process = subprocess.Popen(
                [*MUNI, "node", "run", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            stack.callback(_stop, process)
            processes.append(process)
        addresses = [_wait_address(process) for process in processes]
        roster = work / "roster"
        roster.write_text("".join(f"{address}\n" for address in addresses))
        yield BenchGrid(roster, tuple(processes))


@contextlib.contextmanager
def running_log(work: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a log service below `work`; its address and its process."""
    folder = work / "log"
    subprocess.run([*MUNI, "log", "init", str(folder)], check=True, capture_output=True)
    process = subprocess.Popen(
        [*MUNI, "log", "run", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield _wait_address(process), process
    finally:
        _stop(process)


def _wait_address(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := _ADDRESS.search(line.decode()):
            return found.group()
    raise RuntimeError("a service ended before it served")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
