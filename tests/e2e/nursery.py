"""Runs `muni`, and services, in processes that are born with the program imported.

Each start of the program costs a quarter of a second of processor time, that of a node half a second, most of
it for imports, and the tests start hundreds.  Here one process imports everything once and forks for each
command: a process of its own, with its own arguments, environment, folder, streams and exit code.  What is
about the start itself, signals or terminals starts the program as people do (`User.start`).

This file is both ends: imported, the tests' end; run, the process that forks.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_MESSAGE_BYTES_MAX = 100_000

# --- the tests' end


def run(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, stdin: bytes, patience_s: float
) -> tuple[int, bytes, bytes]:
    """Run `words[0]` as `muni` with the others to its end; returns its exit code, output and errors.

    Raises: subprocess.TimeoutExpired: it took too long, and was killed.
    """
    (its_in, feed), (out, its_out), (err, its_err) = (os.pipe() for _ in range(3))
    with (
        ThreadPoolExecutor(3) as threads,
        Child(words, environment, folder, (its_in, its_out, its_err)) as child,
    ):
        threads.submit(_write, feed, stdin)
        texts = threads.submit(_read, out), threads.submit(_read, err)
        return child.wait(patience_s), texts[0].result(), texts[1].result()


class Child:
    """A process that was forked for a command; killed if it has not ended when it is left.

    Args:
        words: `muni` and its arguments, or `compose`, one of its functions and the folder that this runs.
        streams: its standard ones; closed here.

    Attributes:
        pid: of the process.
        returncode: of one that has ended; negative: by this signal.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        streams: tuple[int, int, int],
    ) -> None:
        self.returncode: int | None = None
        self._words = list(words)
        message = json.dumps({"words": words, "environment": dict(environment), "folder": str(folder)})
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(_nursery())
        socket.send_fds(self._line, [message.encode()], streams)
        for fd in streams:
            os.close(fd)
        self.pid = int(self._line.recv(20))

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        self._line.close()

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code.  Raises: subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._line.settimeout(timeout_s)
            try:
                self.returncode = int(self._line.recv(20))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self._words, timeout_s or 0.0) from None
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as pipe:
        pipe.write(data)


def _read(fd: int) -> bytes:
    with open(fd, "rb") as pipe:
        return pipe.read()


@functools.cache
def _nursery() -> str:
    """Where the process of this worker listens; it ends with the worker."""
    folder = tempfile.mkdtemp(prefix="muniment-nursery-")
    address = f"{folder}/line"
    environment = os.environ | {"LANG": "C.UTF-8", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def end() -> None:
        with process:
            process.communicate()
        shutil.rmtree(folder)

    atexit.register(end)
    return address


# --- the process that forks


def become_a_child(address: str) -> None:
    """Listen; returns in a new process for each command, which is then as if it had been started so."""
    import muniment

    for module in pkgutil.walk_packages(muniment.__path__, "muniment."):
        if not module.name.startswith("muniment.testing"):
            importlib.import_module(module.name)
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(address)
        server.listen(64)
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who watches over a child is waited for by nobody
        while server.fileno() in select.select([server.fileno(), 0], [], [])[0]:
            line, _ = server.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                return _watch_over_a_child(line)
            line.close()
    os._exit(0)  # the tests have ended


def _watch_over_a_child(line: socket.socket) -> None:
    message, streams, _, _ = socket.recv_fds(line, _MESSAGE_BYTES_MAX, 3)
    child = os.fork()
    if child:
        for fd in streams:
            os.close(fd)
        line.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        line.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    line.close()
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    command = json.loads(message)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv = command["words"]


def run_composed(what: str, folder: str) -> None:
    """Run a service of `node.compose` in a folder; prints its address when it serves."""
    from muniment.errors import MunimentError
    from muniment.node import compose

    run = getattr(compose, what)
    try:
        compose.run_process(run(Path(folder), ready=lambda address: print(address, flush=True)))
    except MunimentError as error:
        sys.exit(f"{error.code}: {error}")


if __name__ == "__main__":
    become_a_child(sys.argv[1])
    if sys.argv[0] == "compose":
        run_composed(*sys.argv[1:])
    else:
        from muniment.node.main import main

        main()
