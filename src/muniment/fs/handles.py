"""Who has what open."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from muniment.core.tree_state import Name
from muniment.errors import FileRefused
from muniment.fs.errnos import Because


@dataclass(slots=True, eq=False)
class Handle:
    """An open file or folder.

    Attributes:
        inode: by its number here.
        writable: may be written.
        append: writes go behind the end, wherever they say.
        writes: so often it was written.
        saved: so many of these are durable.
        next_offset: where a sequential reader goes on.
        names: of a folder, as they were when it was read from its beginning; None: not read yet.
    """

    inode: int
    writable: bool = False
    append: bool = False
    writes: int = 0
    saved: int = 0
    next_offset: int = 0
    names: list[Name] | None = None


def writes(flags: int) -> bool:
    """Whether a file is opened to write to it."""
    return (flags & os.O_ACCMODE) != os.O_RDONLY


class Handles:
    """All that are open, and how often each inode's number is known by somebody else."""

    def __init__(self) -> None:
        self._open: dict[int, Handle] = {}
        self._inodes: Counter[int] = Counter()
        self._known: Counter[int] = Counter()
        self._next = 1

    def add(self, handle: Handle) -> int:
        """Open; returns the handle's number."""
        number, self._next = self._next, self._next + 1
        self._open[number] = handle
        self._inodes[handle.inode] += 1
        return number

    def open(self, ino: int, flags: int) -> int:
        """Open a file as flags (O_RDWR, O_APPEND) say; returns the handle's number."""
        return self.add(Handle(ino, writes(flags), bool(flags & os.O_APPEND)))

    def get(self, number: int) -> Handle:
        """An open one.  Raises: FileRefused."""
        try:
            return self._open[number]
        except KeyError:
            raise FileRefused(why=Because.NO_SUCH_HANDLE, reason="this is not open") from None

    def writable(self, number: int) -> Handle:
        """One that is open for writing.  Raises: FileRefused."""
        handle = self.get(number)
        if not handle.writable:
            raise FileRefused(why=Because.NO_SUCH_HANDLE, reason="it is not open for writing")
        return handle

    def remove(self, number: int) -> Handle:
        """Close.  Raises: FileRefused."""
        handle = self.get(number)
        del self._open[number]
        self._inodes[handle.inode] -= 1
        if not self._inodes[handle.inode]:
            del self._inodes[handle.inode]
        return handle

    def is_open(self, ino: int) -> bool:
        """Whether any handle is of this inode."""
        return ino in self._inodes

    def of(self, ino: int) -> list[Handle]:
        """All handles of an inode.  Cost: O(open handles)."""
        return [handle for handle in self._open.values() if handle.inode == ino]

    def opened(self) -> Iterable[int]:
        """The inodes that are open."""
        return list(self._inodes)

    # --- numbers that others know -------------------------------------------------------------

    def know(self, ino: int) -> None:
        """Somebody was told this number, and will say when he forgets it."""
        self._known[ino] += 1

    def forget(self, ino: int, count: int) -> bool:
        """He forgets it so many times; returns whether nobody knows it now."""
        self._known[ino] -= count
        if self._known[ino] > 0:
            return False
        del self._known[ino]
        return not self.is_open(ino)

    def numbers(self) -> set[int]:
        """All that anybody could ask for."""
        return self._inodes.keys() | self._known.keys()

    def is_held(self, ino: int) -> bool:
        """Whether anybody could ask for it by its number."""
        return ino in self._inodes or ino in self._known
