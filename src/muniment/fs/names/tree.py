"""The tree as callers see it: a state with changes on top that are in no entry yet.

`core.overlay` keeps what is changed, `core.fold` changes it.  Here is how it is looked at without keeping
what was only looked at, and how inodes that somebody has open outlive their last name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from muniment.core.content_edit import ContentEdit
from muniment.core.overlay import Node, Overlay
from muniment.core.tree_state import Inode, Name, StoredExtent, TreeReading
from muniment.fs.names.reading import Orphan
from muniment.spec.operation import SIZE_MAX

_PAGE: Final = 4096

_PIECES: Final = 4
_VALUE_BYTES: Final = 512
"""So many extents, or bytes of attributes, take about as much memory as an inode."""


class HereTree(Overlay):
    """A working copy of `state`.

    Args:
        held: whether somebody has an inode open, or knows it by its number.
    """

    def __init__(self, state: TreeReading, held: Callable[[int], bool]) -> None:
        super().__init__(state)
        self._held = held
        self._to_weigh: set[int] = set()
        self._weights: dict[int, int] = {}  # of contents and attributes, by inode
        self._weight = 0

    @property
    def touched(self) -> int:
        """Inodes and names kept here, and so many more as contents and attributes are worth: about what
        memory it takes.

        Cost: O(extents and attributes of what was touched since the last look).
        """
        for ino in self._to_weigh:
            weight = self._weighed(ino)
            self._weight += weight - self._weights.get(ino, 0)
            self._weights[ino] = weight
        self._to_weigh.clear()
        return len(self._nodes) + len(self._names) + self._weight

    def _weighed(self, ino: int) -> int:
        edit = self._contents.get(ino)
        pieces = 0 if edit is None else edit.pieces
        held = (self._values.get(ino, {}), self._xattrs.get(ino, {}))
        return pieces // _PIECES + sum(len(value) for one in held for value in one.values()) // _VALUE_BYTES

    def content(self, ino: int) -> ContentEdit:
        self._to_weigh.add(ino)
        return super().content(ino)

    def xattrs(self, ino: int) -> dict[bytes, bytes]:
        self._to_weigh.add(ino)
        return super().xattrs(ino)

    def keeps(self, ino: int) -> bool:
        """Whether an inode was changed here, or a change has looked at it."""
        return ino in self._nodes

    def is_gone(self, ino: int) -> bool:
        """Whether it has no name any more, and only handles know it."""
        row = self.inode(ino)
        return row is not None and row.links == 0

    def drop(self, node: Node) -> None:
        if self._held(node.inode):
            node.links = 0
        else:
            super().drop(node)

    def let_go(self, ino: int) -> None:
        """Nobody knows an inode any more: without a name it goes, with its content and attributes."""
        node = self._nodes.get(ino)
        if node is not None and node.links == 0:
            self._nodes[ino] = None
            for kept in (self._contents, self._values, self._xattrs):
                kept.pop(ino, None)
            self._to_weigh.add(ino)

    def inode(self, ino: int) -> Inode | None:
        """As it is now; with 0 links if only handles know it."""
        if ino in self._nodes:
            node = self._nodes[ino]
            return None if node is None else node.row()
        return self._state.inode(ino)

    def child(self, parent: int, name: bytes) -> Name | None:
        """What a name leads to."""
        key = parent, name
        return self._names[key] if key in self._names else self._state.child(parent, name)

    def names(self, parent: int) -> list[Name]:
        """All names in a folder, in byte order.  Cost: O(names in it)."""
        found: dict[bytes, Name] = {}
        after = b""
        while page := self._state.children(parent, after, _PAGE):
            for one in page:
                now = self._names.get((parent, one.name), one)
                if now is not None:
                    found[one.name] = now
            if len(page) < _PAGE:
                break
            after = page[-1].name
        for name in self._added.get(parent, {}):
            now = self._names[parent, name]
            if now is not None:
                found[name] = now
        return [found[name] for name in sorted(found)]

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        """The extents of a file that have a byte in [start, stop), whole, in order."""
        edit = self._contents.get(ino)
        if edit is None:
            return self._state.extents(ino, start, stop)
        self._to_weigh.add(ino)  # what is only read is taken over, too
        return edit.extents(start, stop)

    def attributes(self, ino: int) -> Mapping[bytes, bytes]:
        """All extended attributes."""
        held = self._xattrs.get(ino)
        return self._state.xattrs(ino) if held is None else held

    def orphan(self, ino: int) -> Orphan | None:
        """A copy of all that is known of an inode, without names."""
        row = self.inode(ino)
        if row is None:
            return None
        extents = tuple(self.extents(ino, 0, SIZE_MAX)) if row.size else ()
        return Orphan(row._replace(links=0), extents, dict(self.attributes(ino)))

    def kept(self) -> Iterator[Inode]:
        """The inodes that were changed here, or that a change has looked at, as they are now."""
        return (node.row() for node in self._nodes.values() if node is not None)
