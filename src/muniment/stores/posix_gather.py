"""A record's bytes on their way past the page cache: gathered in whole pages, then written at once.

Fresh pages of the cache cost more than the copy into pages that are used again (docs/drivers/posix.md).
"""

from __future__ import annotations

import errno
from typing import Final

from muniment.stores.disk import Disk
from muniment.stores.pages import Pages, whole_pages

GATHERING_MAX: Final = 8
"""Records gathered at once in one store; others go through the cache, so that slow clients take no memory."""


class Gatherer:
    """What is written to one file, from its beginning on.

    Not thread-safe; whoever makes one calls `end`, whatever happens.

    Args:
        buffer: taken from `pages`, to which `end` gives it back.
        fd: a new file, open for writing.
        size_bytes: the file's when it is complete.
    """

    def __init__(self, disk: Disk, pages: Pages, buffer: memoryview, fd: int, size_bytes: int) -> None:
        self._disk, self._pages, self._fd = disk, pages, fd
        self._buffer: memoryview | None = buffer
        self._left_bytes = size_bytes
        self._size_bytes = size_bytes
        self._filled = 0
        self._past_cache = True

    def write(self, data: memoryview) -> None:
        """Take the next bytes, not more than are left; with the last ones the file has all of them.

        Raises: OSError: as the disk does.
        """
        buffer = self._buffer
        assert buffer is not None
        while data:
            count = min(len(data), len(buffer) - self._filled)
            buffer[self._filled : self._filled + count] = data[:count]
            data = data[count:]
            self._filled += count
            self._left_bytes -= count
            if self._filled == len(buffer) and self._left_bytes:
                self._put_down(buffer)
                self._filled = 0
        if not self._left_bytes:
            whole = whole_pages(self._filled)
            buffer[self._filled : whole] = bytes(whole - self._filled)  # or another record's would be seen
            self._put_down(buffer[:whole])
            if whole > self._filled:
                self._disk.cut(self._fd, self._size_bytes)
            self.end()

    def end(self) -> None:
        """Give the memory back.  Idempotent."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._pages.give_back(buffer)

    def _put_down(self, whole: memoryview) -> None:
        while whole and self._past_cache:
            try:
                whole = whole[self._disk.write_uncached(self._fd, whole) :]
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._past_cache = False  # this file system cannot, or not from where the last one ended
        while whole:
            whole = whole[self._disk.write(self._fd, whole) :]
