"""Faults at single system calls of a `Disk`: fail one, kill the process at one, cut the power at one.

Stands between a store and its disk (`muniment.stores.disk`), real or modelled; nothing is patched.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from muniment.stores.disk import Disk, DiskEntry

_T = TypeVar("_T")

Step = Callable[[str], None]
"""Told the name of a call."""


def _nothing(call: str) -> None:
    del call


class InterceptedDisk:
    """Passes all calls on, with a step before and after each.

    Args:
        inner: does the work.

    Attributes:
        before: runs before each call; what it raises, the call raises instead of being made.
        after: runs after each call that succeeded.
    """

    def __init__(self, inner: Disk, *, before: Step = _nothing, after: Step = _nothing) -> None:
        self.inner = inner
        self.before, self.after = before, after

    def _made(self, call: str, make: Callable[[], _T]) -> _T:
        self.before(call)
        result = make()
        self.after(call)
        return result

    def make_folder(self, name: str, at: int | None) -> None:
        self._made("make_folder", lambda: self.inner.make_folder(name, at))

    def open_folder(self, name: str, at: int | None) -> int:
        return self._made("open_folder", lambda: self.inner.open_folder(name, at))

    def lock_file(self, name: str, at: int) -> int:
        return self._made("lock_file", lambda: self.inner.lock_file(name, at))

    def create_file(self, name: str, at: int) -> int:
        return self._made("create_file", lambda: self.inner.create_file(name, at))

    def open_file(self, name: str, at: int) -> int:
        return self._made("open_file", lambda: self.inner.open_file(name, at))

    def close(self, fd: int) -> None:
        self._made("close", lambda: self.inner.close(fd))

    def reserve(self, fd: int, size_bytes: int) -> None:
        self._made("reserve", lambda: self.inner.reserve(fd, size_bytes))

    def write(self, fd: int, data: memoryview) -> int:
        return self._made("write", lambda: self.inner.write(fd, data))

    def write_uncached(self, fd: int, data: memoryview) -> int:
        return self._made("write_uncached", lambda: self.inner.write_uncached(fd, data))

    def cut(self, fd: int, size_bytes: int) -> None:
        self._made("cut", lambda: self.inner.cut(fd, size_bytes))

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        return self._made("read_into", lambda: self.inner.read_into(fd, buffer, offset))

    def read_uncached(self, fd: int, buffer: memoryview, offset: int) -> int:
        return self._made("read_uncached", lambda: self.inner.read_uncached(fd, buffer, offset))

    def describe(self, fd: int) -> DiskEntry:
        return self._made("describe", lambda: self.inner.describe(fd))

    def look(self, name: str, at: int) -> DiskEntry:
        return self._made("look", lambda: self.inner.look(name, at))

    def entries(self, fd: int) -> Generator[DiskEntry, None, None]:
        self.before("entries")
        yield from self.inner.entries(fd)
        self.after("entries")

    def rename(self, name: str, at: int, new_name: str, new_at: int) -> None:
        self._made("rename", lambda: self.inner.rename(name, at, new_name, new_at))

    def unlink(self, name: str, at: int) -> None:
        self._made("unlink", lambda: self.inner.unlink(name, at))

    def flush_file(self, fd: int) -> None:
        self._made("flush_file", lambda: self.inner.flush_file(fd))

    def drop_cached(self, fd: int) -> None:
        self._made("drop_cached", lambda: self.inner.drop_cached(fd))

    def flush_folder(self, fd: int) -> None:
        self._made("flush_folder", lambda: self.inner.flush_folder(fd))

    def free_bytes(self, fd: int) -> int:
        return self._made("free_bytes", lambda: self.inner.free_bytes(fd))


class PowerCut(BaseException):
    """The machine is off; no handler of `Exception` may outlive it."""


class Countdown:
    """A step that acts at one call, counted from 0, and can keep acting.

    Args:
        at: which call.
        act: what happens there; may raise.
        for_ever: also at each call after it: nothing runs on a machine that is off.

    Attributes:
        struck: the name of the call where it acted first, or None.
    """

    def __init__(self, at: int, act: Callable[[], None], *, for_ever: bool = False) -> None:
        self._left, self._act, self._for_ever = at, act, for_ever
        self.struck: str | None = None

    def __call__(self, call: str) -> None:
        self._left -= 1
        if self._left == -1:
            self.struck = call
        if self._left == -1 or (self._left < 0 and self._for_ever):
            self._act()


def kill_now() -> None:
    """End this process as a crash would: no handler, no flush, no close runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def cut_power() -> None:
    """Raises: PowerCut."""
    raise PowerCut


@contextmanager
def failing(disk: InterceptedDisk, at: int, error_number: int) -> Iterator[Countdown]:
    """Let one call fail as the system would; yields a countdown that says which it was.

    The call is not made, except `close`: a failed close has closed.
    """

    def fail() -> None:
        raise OSError(error_number, os.strerror(error_number))

    countdown = Countdown(at, fail)
    kept = disk.before, disk.after
    closing = Countdown(0, fail)

    def before(call: str) -> None:
        if call != "close":
            countdown(call)
            return
        try:
            countdown(call)
        except OSError:
            disk.after = closing

    disk.before = before
    try:
        yield countdown
    finally:
        disk.before, disk.after = kept
