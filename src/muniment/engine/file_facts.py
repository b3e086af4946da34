"""Owners, permissions, times and extended attributes of this machine's files: read in one place, set in one.

What cannot be read or set is counted by its name and left out; it never ends a transfer.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from typing import Final

from muniment.engine.tree_item import TreeItem, Xattrs
from muniment.spec.operation import NAME_BYTES_MAX, XATTR_BYTES_MAX, Kind

XATTRS_BYTES_MAX: Final = 256 << 10
"""Of all attributes of one file: what fits in a log entry beside others."""

_PERMISSIONS: Final = 0o777

LeftOut = Counter[str]
"""What was left out: `owner`, `attribute NAME`, `device`; and of how many files."""

FORMATS: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.FOLDER: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}
"""The type bits of a mode."""

KINDS: Final = {bits: kind for kind, bits in FORMATS.items() if kind is not Kind.SOCKET}
"""By the type bits of a mode; a socket is nothing that could be carried: it lives with its process."""


def read_xattrs(file: int | bytes, left_out: LeftOut) -> Xattrs:
    """All extended attributes that can be read and kept.

    Args:
        file: descriptor, or path that is not followed if it is a link.
        left_out: counts the others.
    """
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError:
        return ()  # a file system without them
    found, total = [], 0
    for name in sorted(map(os.fsencode, names)):
        try:
            value = os.getxattr(file, name, follow_symlinks=follow)
        except OSError:
            left_out[f"attribute {os.fsdecode(name)}"] += 1
            continue
        total += len(name) + len(value)
        if len(name) > NAME_BYTES_MAX or len(value) > XATTR_BYTES_MAX or total > XATTRS_BYTES_MAX:
            left_out[f"attribute {os.fsdecode(name)}"] += 1
            continue
        found.append((name, value))
    return tuple(found)


class Settler:
    """Gives restored files their facts.

    Args:
        owners: user and group too, and with them set-user, set-group and sticky bits and the attributes that
            grant rights; None: if this process may, as `tar` does for root.

    Attributes:
        left_out: what could not be set.
    """

    def __init__(self, *, owners: bool | None = None) -> None:
        self._owners = os.geteuid() == 0 if owners is None else owners
        self.left_out = LeftOut()

    def settle(self, file: int | bytes, item: TreeItem, *, permissions: bool = True) -> None:
        """Set all of them: owner first, since it takes set-user bits and capabilities away.

        Args:
            file: descriptor, or path that is not followed if it is a link.
            permissions: owner and mode too.
        Raises: OSError: permissions or times cannot be set.
        """
        follow = isinstance(file, int)
        owned = permissions and self._set_owner(file, item, follow)
        for name, value in item.xattrs:
            self._set_xattr(file, name, value, follow, owned)
        if permissions and item.kind is not Kind.SYMLINK:
            os.chmod(file, item.mode if owned else item.mode & _PERMISSIONS)  # noqa: PTH101
        os.utime(file, ns=(item.mtime_ns, item.mtime_ns), follow_symlinks=follow)

    def _set_owner(self, file: int | bytes, item: TreeItem, follow: bool) -> bool:
        """Whether it has the owner that it had."""
        if not self._owners or item.owner is None:
            return False
        try:
            os.chown(file, *item.owner, follow_symlinks=follow)
        except OSError:
            self.left_out["owner"] += 1
            return False
        return True

    def _set_xattr(self, file: int | bytes, name: bytes, value: bytes, follow: bool, owned: bool) -> None:
        try:
            if name.startswith(b"security.") and not owned:
                raise PermissionError  # capabilities of somebody else's program, as his set-user bits
            os.setxattr(file, name, value, follow_symlinks=follow)
        except OSError:
            self.left_out[f"attribute {os.fsdecode(name)}"] += 1
