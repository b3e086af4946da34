"""The tree as callers see it: a state with changes on top that are in no entry yet.

`core.overlay` keeps what is changed, `core.fold` changes it.  Here is how it is looked at without keeping
what was only looked at, and how inodes that somebody has open outlive their last name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from muniment.core.overlay import Node, Overlay
from muniment.core.tree_state import Inode, Name, StoredExtent, TreeReading
from muniment.fs.names.reading import Orphan
from muniment.spec.operation import SIZE_MAX

_PAGE: Final = 4096


class HereTree(Overlay):
    """A working copy of `state`.

    Args:
        held: whether somebody has an inode open, or knows it by its number.
    """

    def __init__(self, state: TreeReading, held: Callable[[int], bool]) -> None:
        super().__init__(state)
        self._held = held

    @property
    def touched(self) -> int:
        """Inodes kept here: about what memory it takes."""
        return len(self._nodes) + len(self._names)

    def keeps(self, ino: int) -> bool:
        """Whether an inode was changed here, or a change has looked at it."""
        return ino in self._nodes

    def drop(self, node: Node) -> None:
        if self._held(node.inode):
            node.links = 0
        else:
            super().drop(node)

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
        return self._state.extents(ino, start, stop) if edit is None else edit.extents(start, stop)

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

    def changed(self) -> Iterator[Inode]:
        """The inodes that were changed here, as they are now."""
        for ino, node in self._nodes.items():
            if node is not None and (row := node.row()) != self._rows.get(ino):
                yield row
