"""The state as one transaction sees it: a reading that stays as it is, and the changes made so far on top.

Nothing is written anywhere; a transaction that is rejected is forgotten with its overlay.  Every look-up is
kept, so a row is read once however many operations touch it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from muniment.core.content_edit import ContentEdit
from muniment.core.tree_state import (
    Changes,
    ExtentChange,
    Inode,
    InodeChange,
    Name,
    NameChange,
    StoredExtent,
    TreeReading,
    XattrChange,
)
from muniment.spec.operation import SIZE_MAX, Kind

_PAGE_NAMES: Final = 1000


@dataclass(slots=True)
class Node:
    """An inode on which operations work; fields as those of `Inode`."""

    inode: int
    kind: Kind
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    size: int
    links: int
    entries: int
    rdev: int
    version: int
    parent: int

    @property
    def is_folder(self) -> bool:
        """Whether names can stand in it."""
        return self.kind is Kind.FOLDER

    def row(self) -> Inode:
        """As it is now."""
        return Inode(
            self.inode,
            self.kind,
            self.mode,
            self.uid,
            self.gid,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.size,
            self.links,
            self.entries,
            self.rdev,
            self.version,
            self.parent,
        )


def _nothing(start: int, stop: int) -> Sequence[StoredExtent]:
    """The stored content of a file that is new."""
    return ()


class Overlay:
    """A working copy of `state`."""

    def __init__(self, state: TreeReading) -> None:
        self._state = state
        self._first = self.next_inode = state.next_inode
        self._rows: dict[int, Inode | None] = {}  # as found, of every number looked up
        self._nodes: dict[int, Node | None] = {}
        self._found: dict[tuple[int, bytes], Name | None] = {}  # as found
        self._names: dict[tuple[int, bytes], Name | None] = {}
        self._added: dict[int, dict[bytes, None]] = {}  # names set in a folder here, some taken away again
        self._contents: dict[int, ContentEdit] = {}
        self._values: dict[int, dict[bytes, bytes]] = {}  # attributes as found
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        self._snapshots: dict[bytes, None] = {}

    # --- inodes -------------------------------------------------------------------------------

    def node(self, ino: int) -> Node | None:
        """The inode to look at and to change, or None."""
        try:
            return self._nodes[ino]
        except KeyError:
            row = self._state.inode(ino) if 0 < ino < self._first else None
            self._rows[ino] = row
            node = self._nodes[ino] = None if row is None else Node(*row)
            return node

    def add(self, node: Node) -> None:
        """A new inode under the number `next_inode`, which is used up."""
        self._rows[node.inode], self._nodes[node.inode] = None, node
        self.next_inode += 1

    def drop(self, node: Node) -> None:
        """The inode goes, with its content and attributes."""
        if node.size:
            self.content(node.inode).cut(0, SIZE_MAX)
        self.xattrs(node.inode).clear()
        self._nodes[node.inode] = None

    def content(self, ino: int) -> ContentEdit:
        """The extents of a file, to change."""
        found = self._contents.get(ino)
        if found is None:
            # By no method of this object: a cycle would keep each transaction until cycles are searched.
            stored = partial(self._state.extents, ino) if ino < self._first else _nothing
            found = self._contents[ino] = ContentEdit(ino, stored)
        return found

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """The attributes of an inode, to change."""
        found = self._xattrs.get(ino)
        if found is None:
            values = dict(self._state.xattrs(ino)) if ino < self._first else {}
            self._values[ino], found = values, dict(values)
            self._xattrs[ino] = found
        return found

    # --- names --------------------------------------------------------------------------------

    def name(self, parent: int, name: bytes) -> Name | None:
        """What stands under a name."""
        key = parent, name
        try:
            return self._names[key]
        except KeyError:
            found = self._state.child(parent, name) if 0 < parent < self._first else None
            self._found[key] = self._names[key] = found
            return found

    def set_name(self, parent: int, name: bytes, node: Node | None) -> None:
        """Let a name, which `name` has looked up, lead to an inode, or to nothing."""
        leads = None if node is None else Name(parent, name, node.inode, node.kind)
        self._names[parent, name] = leads
        if leads is not None:
            self._added.setdefault(parent, {})[name] = None

    def names_in(self, parent: int) -> Iterator[Name]:
        """All names in a folder as they are now, looked up.  Names may be taken away while this runs."""
        if parent < self._first:
            after = b""
            while page := self._state.children(parent, after, _PAGE_NAMES):
                for stored in page:
                    key = parent, stored.name
                    if key not in self._names:
                        self._found[key] = self._names[key] = stored
                    if (now := self._names[key]) is not None:
                        yield now
                if len(page) < _PAGE_NAMES:
                    break
                after = page[-1].name
        for name in self._added.get(parent, {}):
            if self._found[parent, name] is None and (now := self._names[parent, name]) is not None:
                yield now

    # --- snapshots, result --------------------------------------------------------------------

    def has_snapshot(self, name: bytes) -> bool:
        """Whether the name is used, here or before."""
        return name in self._snapshots or self._state.has_snapshot(name)

    def add_snapshot(self, name: bytes) -> None:
        """Use the name."""
        self._snapshots[name] = None

    def changes(self, index: int) -> Changes:
        """What differs from the state."""
        inodes, names, xattrs = [], [], []
        extents: list[ExtentChange] = []
        for ino, node in self._nodes.items():
            row, now = self._rows[ino], None if node is None else node.row()
            if row != now:
                inodes.append(InodeChange(row, now))
        for key, name in self._names.items():
            found = self._found[key]
            if found != name:
                names.append(NameChange(found, name))
        for edit in self._contents.values():
            extents += edit.changes()
        for ino, held in self._xattrs.items():
            values = self._values[ino]
            for attribute in sorted(values.keys() | held.keys()):
                before, after = values.get(attribute), held.get(attribute)
                if before != after:
                    xattrs.append(XattrChange(ino, attribute, before, after))
        return Changes(
            index=index,
            inodes=tuple(inodes),
            names=tuple(names),
            extents=tuple(extents),
            xattrs=tuple(xattrs),
            snapshots=tuple(self._snapshots),
            next_inode_before=self._first,
            next_inode=self.next_inode,
        )
