"""One process of the drill: started, killed, stopped for a while, ended, and started again as it was."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).parents[2]
_START_S: Final = 60.0
_END_S: Final = 60.0
_LOOK_S: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)


class Service:
    """A process.

    Args:
        folder: for NAME.out and NAME.err, to which it adds.
        words: behind the interpreter.
        says: it serves when it has printed this; empty: it is not waited for.
        control: its standard input is a pipe.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        words: list[str],
        *,
        says: str = "serving",
        control: bool = False,
    ) -> None:
        self.name, self.words = name, words
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self._says, self._control = says.encode(), control
        # Some environments turn bytecode files off; each process would then compile the whole program anew.
        self._environment = {
            name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._from = 0
        self.starts = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def control(self) -> IO[bytes]:
        """Its standard input."""
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin

    async def start(self, words: list[str] | None = None) -> None:
        """Start it, and wait until it serves.

        Args:
            words: instead of its own, this time.
        """
        self.begin(words)
        await self.wait_serving()

    async def wait_serving(self) -> None:
        """Until it has printed what it prints then.  Raises: RuntimeError: it ended, or takes too long."""
        until_s = time.monotonic() + _START_S
        while self._says and self._says not in self._printed():
            if not self.running or time.monotonic() > until_s:
                raise RuntimeError(f"{self.name} does not serve: see {self.err}")
            await asyncio.sleep(_LOOK_S)

    def begin(self, words: list[str] | None = None) -> None:
        """As `start`, without waiting."""
        assert not self.running, self.name
        self._from = self.out.stat().st_size if self.out.exists() else 0
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self._process = subprocess.Popen(
                [sys.executable, *(words or self.words)],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE if self._control else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=partial(_end_with, os.getpid()),  # noqa: PLW1509 - no thread holds a lock here
            )
        self.starts += 1

    def _printed(self) -> bytes:
        with self.out.open("rb") as file:
            file.seek(self._from)
            return file.read()

    def kill(self) -> None:
        """SIGKILL, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def suspend(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self.running:
            os.kill(self.pid, signal.SIGCONT)

    async def end(self) -> int:
        """Ask it to end; returns its exit code, -9 if it had to be killed."""
        assert self._process is not None
        if self.running:
            self.resume()
            self._process.terminate()
        try:
            code = await asyncio.to_thread(self._process.wait, _END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code


def _end_with(parent: int) -> None:
    """In the child, before it runs anything: end when the drill ends, however that is."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
