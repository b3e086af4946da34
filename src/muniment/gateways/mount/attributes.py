"""An inode of the file system as the kernel wants it."""

from __future__ import annotations

import stat
from typing import Final

from muniment.core.tree_state import Inode
from muniment.engine.file_facts import FORMATS
from muniment.gateways.mount import protocol
from muniment.spec.operation import Kind

_KINDS: Final = {format_: kind for kind, format_ in FORMATS.items()}
_SECTOR_BYTES: Final = 512
_BLOCK_BYTES: Final = 4096
_SECOND: Final = 1_000_000_000
_DEVICES: Final = 0xFFFF_FFFF
"""The kernel's numbers of devices here have 32 bits."""

_FACTS: Final = 16
"""Fields of fuse_attr."""


def kind_of(mode: int) -> Kind:
    """What a mode with its file type says: a plain file if it has none."""
    return _KINDS.get(stat.S_IFMT(mode), Kind.FILE)


class Shown:
    """Inodes in the kernel's layout.

    Args:
        timeout_s: so long the kernel need not ask again for a name or attributes.

    Attributes:
        nothing: the entry of a name that is not there; what is made under it elsewhere the kernel is told.
    """

    def __init__(self, timeout_s: float) -> None:
        self._seconds, self._nanoseconds = divmod(int(timeout_s * _SECOND), _SECOND)
        fields = 0, 0, self._seconds, 0, self._nanoseconds, 0
        self.nothing = protocol.ENTRY.pack(*fields, *[0] * _FACTS)

    def entry(self, row: Inode) -> bytes:
        """What a name leads to (fuse_entry_out)."""
        whole, part = self._seconds, self._nanoseconds
        return protocol.ENTRY.pack(row.inode, 0, whole, whole, part, part, *_facts(row))

    def attributes(self, row: Inode) -> bytes:
        """What `stat` shows (fuse_attr_out)."""
        return protocol.ATTRIBUTES.pack(self._seconds, self._nanoseconds, 0, *_facts(row))


def _facts(row: Inode) -> tuple[int, ...]:
    """The fields of fuse_attr."""
    atime, atime_ns = divmod(row.atime_ns, _SECOND)
    mtime, mtime_ns = divmod(row.mtime_ns, _SECOND)
    ctime, ctime_ns = divmod(row.ctime_ns, _SECOND)
    return (
        row.inode,
        row.size,
        -(-row.size // _SECTOR_BYTES),
        atime,
        mtime,
        ctime,
        atime_ns,
        mtime_ns,
        ctime_ns,
        FORMATS[row.kind] | row.mode,
        row.links,
        row.uid,
        row.gid,
        row.rdev & _DEVICES,
        _BLOCK_BYTES,
        0,
    )
