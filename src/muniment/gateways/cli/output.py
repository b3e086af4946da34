"""Content on standard output, in a way that can be broken off.

The engine writes in a thread.  If the reader of a pipe stops reading (a pager, a stopped process), a blocking
write would keep that thread, and so the whole command, from ending at Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class BrokenOffError(Exception):
    """Writing was stopped by `StandardOutput.break_off`."""


class StandardOutput:
    """Takes bytes in order, in any one thread; use as a context manager.

    A pipe or terminal is opened anew without blocking: the flag belongs to the open file, which other
    processes share.  Anything else never keeps a writer waiting for long, and is written to as it is.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._wake_out, self._wake_in = os.pipe()
        with contextlib.suppress(OSError, ValueError):  # not a descriptor, or a system without /proc
            number = sys.stdout.fileno()
            mode = os.fstat(number).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                self._fd = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> StandardOutput:
        sys.stdout.flush()
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._fd, self._wake_out, self._wake_in):
            if fd >= 0:
                os.close(fd)

    def write(self, data: memoryview) -> int:
        """Write some of `data`; returns how much.

        Raises: BrokenOffError: nobody wants it any more; BrokenPipeError: the reader went away.
        """
        if self._fd < 0:
            count = sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return count
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.register(self._wake_out, select.POLLIN)
        while True:
            if any(fd == self._wake_out for fd, _ in poll.poll()):
                raise BrokenOffError
            with contextlib.suppress(BlockingIOError):
                return os.write(self._fd, data)

    async def interruptible(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Await work that writes here; if cancelled, a write that waits is broken off first."""
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            os.write(self._wake_in, b"\0")
            task.cancel()
            await asyncio.wait({task})
            raise
