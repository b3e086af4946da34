"""Whole pages of memory, used again and again: fresh ones cost more than what is computed on them.

For reads and writes past the page cache, which need memory that begins at a page boundary.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Iterator
from typing import Final

from muniment.spec.limits import MIB

PAGES_BYTES: Final = 2 * MIB
"""One buffer: room for the usual share of a 4 MiB chunk."""


def whole_pages(size_bytes: int) -> int:
    """The bytes of the pages that hold so much."""
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


class Pages:
    """Buffers of `PAGES_BYTES`; any thread.  The one used last is lent first, so that who is quiet touches
    one only.

    Args:
        count_max: so many are lent by `take` at once; None: as many as are asked for.
    """

    def __init__(self, count_max: int | None = None) -> None:
        self._free: list[memoryview] = []
        self._left = threading.Semaphore(count_max) if count_max is not None else None

    def take(self) -> memoryview | None:
        """A buffer to be given back by `give_back`; None where too many are lent."""
        if self._left is not None and not self._left.acquire(blocking=False):
            return None
        try:
            return self._free.pop()  # atomic, and so is append
        except IndexError:
            pass
        try:
            return memoryview(mmap.mmap(-1, PAGES_BYTES))
        except OSError:
            if self._left is not None:
                self._left.release()
            raise

    def give_back(self, buffer: memoryview) -> None:
        """A whole buffer that nobody reads or writes any more."""
        self._free.append(buffer)
        if self._left is not None:
            self._left.release()

    @contextlib.contextmanager
    def borrow(self, size_bytes: int) -> Iterator[memoryview]:
        """The whole pages that hold so much, until the end of the block; more than one buffer, or than are
        to be lent, is not kept.
        """
        pages_bytes = whole_pages(size_bytes)
        buffer = self.take() if pages_bytes <= PAGES_BYTES else None
        if buffer is None:
            yield memoryview(mmap.mmap(-1, pages_bytes))
            return
        try:
            yield buffer[:pages_bytes]
        finally:
            self.give_back(buffer)
