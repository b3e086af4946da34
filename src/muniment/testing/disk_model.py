"""A disk in memory that forgets at a power cut what was not flushed: the hostile reading of POSIX.

Names and bytes live twice: as every process sees them, and as they are on the medium.  Only flushing a file
moves its bytes there, only flushing a folder its names.  A power cut keeps for each name any one thing of all
it stood for since its folder was flushed, and of each file any state of its unflushed bytes.  One promise is
taken from journalling file systems: a rename of which nothing was flushed leaves the file one of its two
names, or both.  Real file systems lose less.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import count

from muniment.stores.disk import DiskEntry


@dataclass(eq=False, slots=True)
class _File:
    """Attributes: `seen`: as processes see it; `kept`: as flushed last."""

    seen: bytearray = field(default_factory=bytearray)
    kept: bytes = b""


@dataclass(eq=False, slots=True)
class _Folder:
    """Attributes: `seen`: names now; `past`: for each name changed since the last flush, all it stood for."""

    seen: dict[str, _Node] = field(default_factory=dict)
    past: dict[str, list[_Node | None]] = field(default_factory=dict)

    def change(self, name: str, node: _Node | None) -> None:
        self.past.setdefault(name, [self.seen.get(name)]).append(node)
        if node is None:
            del self.seen[name]
        else:
            self.seen[name] = node


_Node = _File | _Folder

Choose = Callable[[int], int]
"""Of so many possible states, the one that is kept: 0 is what was flushed, the last the newest."""


def lose_all(states: int) -> int:
    """Keep nothing that was not flushed."""
    del states
    return 0


def keep_all(states: int) -> int:
    """Keep everything, as if all had just reached the medium."""
    return states - 1


@dataclass(eq=False, slots=True)
class _Rename:
    node: _Node
    old: _Folder
    old_name: str
    new: _Folder
    new_name: str

    def repair(self, copies: dict[int, _Node], choose: Choose | None) -> None:
        """Give the file its old name back if a restart left it none and the old folder was not flushed."""
        old, new = copies.get(id(self.old)), copies.get(id(self.new))
        if not isinstance(old, _Folder) or self.old_name not in self.old.past or self.old_name in old.seen:
            return
        if choose and not (
            isinstance(new, _Folder) and new.seen.get(self.new_name) is copies.get(id(self.node))
        ):
            old.seen[self.old_name] = _copy(self.node, copies, choose)


class DiskModel:
    """Implements `Disk`; paths given without a folder start at the model's root.

    Attributes:
        changes: counts the calls after which a power cut could leave something else than before.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._root = _Folder()
        self._renames: list[_Rename] = []
        self._open: dict[int, tuple[_Node, bool]] = {}  # and whether it holds the file's lock
        self._fds = count(1000)

    @property
    def open_count(self) -> int:
        """Descriptors not closed yet."""
        return len(self._open)

    # --- what happens to machines -------------------------------------------------------------

    def after_kill(self) -> DiskModel:
        """The disk as the next process sees it when this one was killed; this model stays as it is."""
        return self._restarted(None)

    def after_power_cut(self, choose: Choose) -> DiskModel:
        """A disk as it may come back from a power cut; this model stays as it is.

        Args:
            choose: decides for each name and file what of the unflushed is kept.
        """
        return self._restarted(choose)

    def _restarted(self, choose: Choose | None) -> DiskModel:
        model = DiskModel()
        copies: dict[int, _Node] = {}
        root = _copy(self._root, copies, choose)
        assert isinstance(root, _Folder)
        model._root = root
        for rename in self._renames:
            rename.repair(copies, choose)
        return model

    # --- Disk ---------------------------------------------------------------------------------

    def make_folder(self, name: str, at: int | None) -> None:
        parent, last = self._place(name, at)
        if last in parent.seen:
            raise _error(errno.EEXIST)
        parent.change(last, _Folder())
        self.changes += 1

    def open_folder(self, name: str, at: int | None) -> int:
        parent, last = self._place(name, at)
        node = parent.seen.get(last) if last else parent
        if not isinstance(node, _Folder):
            raise _error(errno.ENOENT if node is None else errno.ENOTDIR)
        return self._opened(node)

    def lock_file(self, name: str, at: int) -> int:
        folder = self._folder(at)
        if name not in folder.seen:
            folder.change(name, _File())
            self.changes += 1
        node = folder.seen[name]
        if any(other is node and locked for other, locked in self._open.values()):
            raise _error(errno.EWOULDBLOCK)
        return self._opened(node, locked=True)

    def create_file(self, name: str, at: int) -> int:
        folder = self._folder(at)
        if name in folder.seen:
            raise _error(errno.EEXIST)
        file = _File()
        folder.change(name, file)
        self.changes += 1
        return self._opened(file)

    def open_file(self, name: str, at: int) -> int:
        return self._opened(self._found(name, at))

    def close(self, fd: int) -> None:
        if self._open.pop(fd, None) is None:
            raise _error(errno.EBADF)

    def reserve(self, fd: int, size_bytes: int) -> None:
        """Room is never short here; a file's size is its bytes'."""
        self._file(fd)

    def write(self, fd: int, data: memoryview) -> int:
        self._file(fd).seen += data
        self.changes += 1
        return len(data)

    def write_uncached(self, fd: int, data: memoryview) -> int:
        return self.write(fd, data)

    def cut(self, fd: int, size_bytes: int) -> None:
        del self._file(fd).seen[size_bytes:]
        self.changes += 1

    def read_into(self, fd: int, buffer: memoryview, offset: int) -> int:
        piece = self._file(fd).seen[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def read_uncached(self, fd: int, buffer: memoryview, offset: int) -> int:
        return self.read_into(fd, buffer, offset)

    def describe(self, fd: int) -> DiskEntry:
        return _entry("", self._node(fd))

    def look(self, name: str, at: int) -> DiskEntry:
        return _entry(name, self._found(name, at))

    def entries(self, fd: int) -> Generator[DiskEntry, None, None]:
        for name, node in list(self._folder(fd).seen.items()):
            yield _entry(name, node)

    def rename(self, name: str, at: int, new_name: str, new_at: int) -> None:
        node = self._found(name, at)
        old, new = self._folder(at), self._folder(new_at)
        new.change(new_name, node)
        old.change(name, None)
        self._renames.append(_Rename(node, old, name, new, new_name))
        self.changes += 1

    def unlink(self, name: str, at: int) -> None:
        if isinstance(self._found(name, at), _Folder):
            raise _error(errno.EISDIR)
        self._folder(at).change(name, None)
        self.changes += 1

    def flush_file(self, fd: int) -> None:
        file = self._file(fd)
        file.kept = bytes(file.seen)
        self.changes += 1

    def drop_cached(self, fd: int) -> None:
        """All is memory here."""
        self._file(fd)

    def flush_folder(self, fd: int) -> None:
        self._folder(fd).past.clear()
        self.changes += 1

    def free_bytes(self, fd: int) -> int:
        self._node(fd)
        return 1 << 40

    # --- looking things up --------------------------------------------------------------------

    def _opened(self, node: _Node, *, locked: bool = False) -> int:
        fd = next(self._fds)
        self._open[fd] = (node, locked)
        return fd

    def _node(self, fd: int) -> _Node:
        if fd not in self._open:
            raise _error(errno.EBADF)
        return self._open[fd][0]

    def _file(self, fd: int) -> _File:
        node = self._node(fd)
        if not isinstance(node, _File):
            raise _error(errno.EISDIR)
        return node

    def _folder(self, fd: int) -> _Folder:
        node = self._node(fd)
        if not isinstance(node, _Folder):
            raise _error(errno.ENOTDIR)
        return node

    def _found(self, name: str, at: int) -> _Node:
        node = self._folder(at).seen.get(name)
        if node is None:
            raise _error(errno.ENOENT)
        return node

    def _place(self, name: str, at: int | None) -> tuple[_Folder, str]:
        """The folder in which a path ends, and its last name, empty for the root."""
        if at is not None:
            return self._folder(at), name
        *above, last = name.strip("/").split("/")
        folder: _Node | None = self._root
        for part in above:
            folder = folder.seen.get(part) if isinstance(folder, _Folder) else None
        if not isinstance(folder, _Folder):
            raise _error(errno.ENOENT)
        return folder, last


def _copy(node: _Node, copies: dict[int, _Node], choose: Choose | None) -> _Node:
    """A node and all below as they are after a restart; a file of two names stays one."""
    if id(node) in copies:
        return copies[id(node)]
    if isinstance(node, _File):
        content = bytes(node.seen) if choose is None else _survivor(node, choose)
        file = _File(bytearray(content), node.kept if choose is None else content)
        copies[id(node)] = file
        return file
    folder = copies[id(node)] = _Folder()
    for name, now in node.seen.items():
        if choose is None or name not in node.past:
            folder.seen[name] = _copy(now, copies, choose)
    for name, states in node.past.items():
        if choose is None:
            folder.past[name] = [None if state is None else _copy(state, copies, choose) for state in states]
            continue
        state = states[choose(len(states))]
        if state is not None:
            folder.seen[name] = _copy(state, copies, choose)
    return folder


def _survivor(file: _File, choose: Choose) -> bytes:
    """Flushed bytes for certain; unflushed ones not at all, in part, as zeros, or whole."""
    seen = bytes(file.seen)
    if seen == file.kept:
        return seen
    cut = len(seen) // 2
    states = (file.kept, seen[:cut], seen[:cut] + bytes(len(seen) - cut), bytes(len(seen)), seen)
    return states[choose(len(states))]


def _entry(name: str, node: _Node) -> DiskEntry:
    is_file = isinstance(node, _File)
    return DiskEntry(name, is_file, not is_file, len(node.seen) if isinstance(node, _File) else 0)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
