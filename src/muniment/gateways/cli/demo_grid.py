"""A grid of real processes on loopback for the demo: an introducer and nodes, all ended whatever happens.

Each process has a session of its own, so Ctrl-C reaches the demo only, which then ends them in order.  If the
demo itself is killed, the kernel ends them (`PR_SET_PDEATHSIG`), unless they are meant to outlive it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from muniment.errors import ConfigInvalid
from muniment.gateways.cli.composition import Composition, NewNode
from muniment.ids import NodeId
from muniment.spec.address import parse_node

LIAR: Final = "node2"
_LIAR_MODULE: Final = "muniment.testing.lying_node"
_ADDRESS: Final = re.compile(r"^serving (mun:\S+)$", re.MULTILINE)
_CAPACITY_BYTES: Final = 64 << 30
_START_S: Final = 30.0
_STOP_S: Final = 10.0
_LOOK_S: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)


class DemoProcess:
    """One process that serves.

    Args:
        folder: where it works; its name is the process's, and NAME.log beside it takes the output.
        command: what to run, after the Python interpreter.
        keep: it outlives the demo.

    Attributes:
        address: once it serves.
    """

    def __init__(self, folder: Path, command: list[str], *, keep: bool) -> None:
        self.folder, self.name, self.address = folder, folder.name, ""
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=None if keep else partial(_end_with, os.getpid()),  # noqa: PLW1509
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    async def wait_serving(self) -> None:
        """Wait for its address.  Raises: ConfigInvalid: it ended, or does not serve in time."""
        self.address = await self.wait_said(_ADDRESS)

    async def wait_said(self, line: re.Pattern[str]) -> str:
        """Wait until it has said this; returns the first group.  Raises: as `wait_serving`."""
        deadline = time.monotonic() + _START_S
        while not (found := line.search(self.log.read_text(errors="replace"))):
            if not self.running or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").strip()[-500:]
                raise ConfigInvalid(where=f"{self.name} does not serve", reason=said or "it says nothing")
            await asyncio.sleep(_LOOK_S)
        return found[1]

    def kill(self) -> None:
        """SIGKILL, as a power failure would."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    async def wait_ended(self, deadline: float) -> None:
        """Wait until the deadline (monotonic), then kill it."""
        while self.running:
            if time.monotonic() > deadline:
                self.kill()
            await asyncio.sleep(_LOOK_S)


class DemoGrid:
    """Introducer and nodes below one folder; use as an asynchronous context manager.

    Args:
        composition: makes their folders.
        folder: for all of it.
        nodes: how many.
        keep: the processes outlive the demo, once `detached` is set.

    Attributes:
        nodes: node1 first.
        detached: set when all went well, to leave the processes running.
    """

    def __init__(self, composition: Composition, folder: Path, nodes: int, *, keep: bool) -> None:
        self._composition, self._folder, self._keep = composition, folder, keep
        self._count = nodes
        self.nodes: list[DemoProcess] = []
        self.introducer: DemoProcess | None = None
        self._log: DemoProcess | None = None
        self.detached = False

    async def __aenter__(self) -> DemoGrid:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.detached:
            await self._stop()

    @property
    def log(self) -> DemoProcess:
        """The log service."""
        assert self._log is not None
        return self._log

    @property
    def address(self) -> str:
        """The introducer's."""
        assert self.introducer is not None
        return self.introducer.address

    @property
    def processes(self) -> list[DemoProcess]:
        """All that were started."""
        return [*self.nodes, *(one for one in (self._log, self.introducer) if one is not None)]

    @property
    def liar(self) -> DemoProcess:
        """The node that lies."""
        return next(node for node in self.nodes if node.name == LIAR)

    def name(self, node: NodeId) -> str:
        """What the process of this node is called here."""
        return next(p.name for p in self.nodes if parse_node(p.address).node == node)

    async def _start(self) -> None:
        home = self._folder / "introducer"
        self._composition.init_introducer(home, host="127.0.0.1", port=0, advertise="")
        self.introducer = self._run(home, "introducer")
        await self.introducer.wait_serving()
        for number in range(1, self._count + 1):
            folder = self._folder / f"node{number}"
            new = NewNode(_CAPACITY_BYTES, zone=f"zone{number}", introducers=(self.address,))
            self._composition.init_node(folder, new)
            self.nodes.append(self._run(folder, "node"))
        orderer = self._folder / "log"
        self._composition.init_log(orderer, host="127.0.0.1", port=0, advertise="", founders=[])
        self._log = self._run(orderer, "log")
        for process in (*self.nodes, self._log):
            await process.wait_serving()

    def _run(self, folder: Path, kind: str) -> DemoProcess:
        command = ["muniment", kind, "run", str(folder)]
        if folder.name == LIAR:
            command = [_LIAR_MODULE, str(folder)]
        return DemoProcess(folder, command, keep=self._keep)

    async def _stop(self) -> None:
        """Nodes first: they take leave of the introducer."""
        for processes in (self.nodes, [one for one in (self._log, self.introducer) if one is not None]):
            for process in processes:
                process.terminate()
            deadline = time.monotonic() + _STOP_S
            for process in processes:
                await process.wait_ended(deadline)


def _end_with(demo: int) -> None:
    """In the child, before it runs anything: end when the process `demo` ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != demo:  # it ended in between
        os._exit(1)
