"""Runs `muni` in processes that are born with the program imported.

Each start of the program costs a quarter of a second of processor time, most of it for imports, and the tests
start it hundreds of times.  Here one process imports everything once and forks for each command: a process of
its own, with its own arguments, environment, folder, streams and exit code.  What is about the start itself,
signals or terminals starts the program as people do (`User.start`).

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
    message = json.dumps({"words": words, "environment": dict(environment), "folder": str(folder)})
    ends = [os.pipe() for _ in range(3)]
    (its_in, feed), (out, its_out), (err, its_err) = ends
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(_nursery())
        socket.send_fds(line, [message.encode()], [its_in, its_out, its_err])
        for fd in (its_in, its_out, its_err):
            os.close(fd)
        with ThreadPoolExecutor(3) as threads:
            threads.submit(_write, feed, stdin)
            texts = threads.submit(_read, out), threads.submit(_read, err)
            child = int(line.recv(20))
            line.settimeout(patience_s)
            try:
                code = int(line.recv(20))
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), patience_s) from None
            return code, texts[0].result(), texts[1].result()


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


if __name__ == "__main__":
    become_a_child(sys.argv[1])
    from muniment.node.main import main

    main()
