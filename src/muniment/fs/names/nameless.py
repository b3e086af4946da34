"""Files that begin without a name (O_TMPFILE): known to their handles only, until a link gives them one.

Until then they are like files whose last name is gone: nothing of them comes into the log.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from muniment.core.tree_state import Inode
from muniment.fs.content.saving import Saving
from muniment.fs.names.attributes import Attributes
from muniment.fs.names.numbers import Numbers
from muniment.fs.names.reading import Orphan
from muniment.fs.working_tree import WorkingTree
from muniment.spec.access_list import ACCESS, DEFAULT
from muniment.spec.limits import MIB
from muniment.spec.operation import Kind, Make, SetXattr

_TOGETHER_BYTES: Final = MIB
"""Of attributes with which a file gets its name; what it has beyond comes behind it."""

_Attributes = tuple[tuple[bytes, bytes], ...]


class Nameless:
    """See the module.

    Args:
        tree: in which they are.
        saving: told of what has a name at last.
        numbers: theirs.
        attributes: knows how they begin.
    """

    def __init__(self, tree: WorkingTree, saving: Saving, numbers: Numbers, attributes: Attributes) -> None:
        self._tree, self._saving, self._numbers, self._attributes = tree, saving, numbers, attributes
        self._linkable: set[int] = set()

    async def make(
        self, parent: int, mode: int, uid: int, gid: int, flags: int, *, umask: int = 0
    ) -> tuple[int, Inode]:
        """Make and open one (FUSE_TMPFILE); returns the handle's number and the inode.

        Args:
            parent: a folder, whose group and default list it begins with.
            mode, umask: as `FileSystem.make`.
            flags: with O_EXCL it will never have a name.
        """
        await self._tree.admit(parent)
        folder = self._tree.folder(parent)
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
        mode, lists = self._attributes.beginning(parent, Kind.FILE, mode & 0o7777, umask)
        now_ns, ino = self._tree.store.now_ns(), self._numbers.fresh()
        times, version = (now_ns, now_ns, now_ns), self._tree.present.at
        row = Inode(ino, Kind.FILE, mode, uid, gid, *times, 0, 0, 0, 0, version, 0)
        self._tree.present.add_nameless(Orphan(row, (), dict(lists)))
        self._linkable = {one for one in self._linkable if self._tree.handles.is_held(one)}
        if not flags & os.O_EXCL:
            self._linkable.add(ino)
        return self._tree.handles.open(ino, flags), row

    def is_one(self, ino: int) -> bool:
        """Whether it is a file that may get its first name."""
        return ino in self._linkable and self._tree.inode(ino).links == 0

    async def link(self, ino: int, parent: int, name: bytes) -> None:
        """Give one a name: from then on it is as any other; what was written is saved soon, or with `fsync`.

        Raises: OperationRejected: the name is taken; it stays as it is.
        """
        row = self._tree.present.tree.inode(ino)
        assert row is not None
        first, behind = _divided(self._tree.present.tree.attributes(ino))
        facts = row.mode, row.uid, row.gid, row.mtime_ns
        await self._tree.apply(Make(parent, name, Kind.FILE, *facts, 0, (), row.size, first), made=ino)
        self._linkable.discard(ino)
        for attribute, value in behind:
            await self._tree.apply(SetXattr(ino, attribute, value))
        for handle in self._tree.handles.of(ino):
            handle.writes += handle.writable
        self._saving.soon(ino)


def _divided(attributes: Mapping[bytes, bytes]) -> tuple[_Attributes, _Attributes]:
    """As many as one change may have, access lists first; and the rest."""
    ordered = sorted(attributes.items(), key=lambda one: (one[0] not in (ACCESS, DEFAULT), one))
    sizes = accumulate(len(name) + len(value) for name, value in ordered)
    count = sum(size <= _TOGETHER_BYTES for size in sizes)
    return tuple(sorted(ordered[:count])), tuple(ordered[count:])
