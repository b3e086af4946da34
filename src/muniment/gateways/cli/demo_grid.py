"""A grid of real processes on loopback for the demo: an introducer and nodes, all ended whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from muniment.errors import ConfigInvalid

_ADDRESS: Final = re.compile(r"mun:(?:node|introducer):\S+")
_START_S: Final = 20
_STOP_S: Final = 10
_PR_SET_PDEATHSIG: Final = 1
LIAR: Final = "muniment.testing.lying_node"


class DemoProcess:
    """One `muni ... run`.

    Args:
        module: what to run instead of the command line, or None for that.
        keep: lives on when this process ends.
    """

    def __init__(self, kind: str, folder: Path, *, module: str | None = None, keep: bool = False) -> None:
        self.folder, self.name = folder, folder.name
        self._log = (folder.parent / f"{folder.name}.log").open("wb")
        command = (
            [sys.executable, "-m", module, str(folder)] if module else [*_muni(), kind, "run", str(folder)]
        )
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches the demo only, which then stops them in order
            preexec_fn=None if keep else _die_with_parent,  # noqa: PLW1509 - one prctl, no locks
        )
        self.address = self._wait_address()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, as a power failure would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it in order, or by force when that takes too long.  Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self.release()

    def release(self) -> None:
        """Let go of its pipes; the process lives on."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _wait_address(self) -> str:
        assert self._process.stdout is not None
        watchdog = threading.Timer(_START_S, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if found := _ADDRESS.search(line.decode(errors="replace")):
                    return found.group()
        finally:
            watchdog.cancel()
        log = Path(self._log.name)
        raise ConfigInvalid(where=str(log), reason=f"{self.name} did not start: {log.read_text()[-500:]}")


class DemoGrid:
    """Introducer and nodes below one folder; use as a context manager.

    Args:
        say: told what is being done.
    """

    def __init__(self, folder: Path, nodes: int, *, keep: bool, say: Callable[[str], None]) -> None:
        self._folder, self._count, self._keep, self._say = folder, nodes, keep, say
        self.introducer: DemoProcess | None = None
        self.nodes: list[DemoProcess] = []
        self.detached = False

    def __enter__(self) -> DemoGrid:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.detached:
            for process in self._all():
                process.release()
        else:
            self.stop()

    @property
    def address(self) -> str:
        """The introducer's address."""
        assert self.introducer is not None
        return self.introducer.address

    def stop(self) -> None:
        """End all processes."""
        for process in self._all():
            with contextlib.suppress(OSError):
                process.stop()

    def _all(self) -> list[DemoProcess]:
        return [*self.nodes, *([self.introducer] if self.introducer else [])]

    def _start(self) -> None:
        home = self._folder / "introducer"
        _run(["introducer", "init", str(home)])
        self.introducer = DemoProcess("introducer", home, keep=self._keep)
        self._say(f"introducer serves (process {self.introducer.pid})")
        for number in range(1, self._count + 1):
            folder = self._folder / f"node{number}"
            options = ["--capacity", "4GiB", "--zone", f"zone{number}", "--introducer", self.address]
            _run(["node", "init", str(folder), *options])
            # The second node keeps its promises on disk and lies on the wire: see its module.
            module = LIAR if number == 2 else None
            self.nodes.append(DemoProcess("node", folder, module=module, keep=self._keep))
        pids = " ".join(str(node.pid) for node in self.nodes)
        self._say(f"{self._count} nodes serve (processes {pids})")


def _muni() -> list[str]:
    return [sys.executable, "-m", "muniment"]


def _run(arguments: list[str]) -> None:
    command = [*_muni(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise ConfigInvalid(where="muni " + " ".join(arguments[:2]), reason=done.stderr.strip())


def _die_with_parent() -> None:
    """In the child: end when the demo ends, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)
