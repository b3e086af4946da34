"""Extended attributes: those of programs, and the two that hold access lists.

Of all others in `system.` there are none, and what begins with `muniment.` is the file system's own: programs
neither see nor change it.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Final

from muniment.core.fold import Why
from muniment.errors import FileRefused, MalformedRecord
from muniment.fs.errnos import Because
from muniment.fs.working_tree import WorkingTree, rejected
from muniment.spec.access_list import ACCESS, DEFAULT, AccessList, beginning
from muniment.spec.lock_attributes import OWN
from muniment.spec.operation import (
    NAME_BYTES_MAX,
    XATTR_BYTES_MAX,
    Kind,
    RemoveXattr,
    SetAttributes,
    SetXattr,
    XattrMode,
)

_SYSTEM: Final = b"system."


class Attributes:
    """See the module.

    Attributes:
        has_access_lists: whoever serves this tree grants what access lists say, as a kernel does that was
            asked to (FUSE_POSIX_ACL); else they are refused, since who sets one expects it to hold.

    Args:
        tree: whose inodes.
    """

    def __init__(self, tree: WorkingTree) -> None:
        self._tree = tree
        self.has_access_lists = False

    def all(self, ino: int) -> Mapping[bytes, bytes]:
        """All that programs can ask for."""
        self._tree.inode(ino)
        found = self._tree.present.tree.attributes(ino)
        return {name: value for name, value in found.items() if self._is_known(name)}

    def get(self, ino: int, name: bytes) -> bytes:
        """One of them.  Raises: OperationRejected: it is not there; FileRefused: it cannot be.

        Listings ask for several of each file, which mostly has none: what is gone has none either.
        """
        self._check(name)
        value = self._tree.present.tree.attributes(ino).get(name)
        if value is None:
            raise rejected(Why.NO_SUCH_ATTRIBUTE, "it has no such attribute")
        return value

    async def set(
        self,
        ino: int,
        name: bytes,
        value: bytes,
        mode: XattrMode = XattrMode.ANY,
        *,
        takes_setgid: bool = False,
    ) -> None:
        """Set one; an access list sets the mode too, and is gone if a mode says the same.

        Args:
            takes_setgid: the file loses its bit g+s: its maker is not in its group.
        Raises: FileRefused: no name or value for an attribute, or no access list; OperationRejected.
        """
        if not 0 < len(name) <= NAME_BYTES_MAX or b"\0" in name:
            raise FileRefused(why=Because.NAME_TOO_LONG, reason="no attribute can be called so")
        self._check(name)
        if len(value) > XATTR_BYTES_MAX:
            raise FileRefused(why=Because.VALUE_TOO_LARGE, reason="no attribute can be that long")
        await self._tree.admit(ino)
        if name in (ACCESS, DEFAULT):
            access = self._list(ino, name, value)
            if name == ACCESS and await self._grant(ino, access, takes_setgid=takes_setgid):
                return
        await self._tree.apply(SetXattr(ino, name, value, mode))

    async def remove(self, ino: int, name: bytes) -> None:
        """Remove one."""
        self._check(name)
        await self._tree.admit(ino)
        await self._tree.apply(RemoveXattr(ino, name))

    # --- access lists -------------------------------------------------------------------------

    def beginning(
        self, parent: int, kind: Kind, mode: int, umask: int
    ) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        """Mode and attributes with which something is made in a folder."""
        if kind is Kind.SYMLINK:
            return mode, ()
        above = self._tree.present.tree.attributes(parent) if self.has_access_lists else {}
        return beginning(above, mode, umask, is_folder=kind is Kind.FOLDER)

    async def follow_mode(self, ino: int, mode: int) -> None:
        """Let an access list say what a new mode says."""
        held = self._tree.present.tree.attributes(ino).get(ACCESS) if self.has_access_lists else None
        if held is None:
            return
        try:
            value = AccessList.load(held).with_permissions(mode).dump()
        except MalformedRecord:
            return  # put there by something else; the kernel does not take it either
        if value != held:
            await self._tree.apply(SetXattr(ino, ACCESS, value))

    def _list(self, ino: int, name: bytes, value: bytes) -> AccessList:
        kind = self._tree.inode(ino).kind
        if kind is Kind.SYMLINK:
            raise FileRefused(why=Because.NOT_SUPPORTED, reason="a symbolic link has no access list")
        if name == DEFAULT and kind is not Kind.FOLDER:
            raise FileRefused(why=Because.NOT_ALLOWED, reason="only a folder has a default list")
        try:
            return AccessList.load(value)
        except MalformedRecord as error:
            raise FileRefused(why=Because.BAD_VALUE, reason=f"{error.reason}") from error

    async def _grant(self, ino: int, access: AccessList, *, takes_setgid: bool) -> bool:
        """Set the mode that a list shows; returns whether that is all."""
        old = self._tree.inode(ino).mode
        mode = old & ~0o777 & ~(stat.S_ISGID if takes_setgid else 0) | access.permissions
        if mode != old:
            await self._tree.apply(SetAttributes(ino, mode))
        if access.is_mode and ACCESS in self._tree.present.tree.attributes(ino):
            await self._tree.apply(RemoveXattr(ino, ACCESS))
        return access.is_mode

    # --- names --------------------------------------------------------------------------------

    def _is_known(self, name: bytes) -> bool:
        if name in (ACCESS, DEFAULT):
            return self.has_access_lists
        return not name.startswith((_SYSTEM, OWN))

    def _check(self, name: bytes) -> None:
        if not self._is_known(name):
            raise FileRefused(why=Because.NOT_SUPPORTED, reason="there are no attributes of this kind")
