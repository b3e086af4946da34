"""An inode of the file system as the kernel wants it."""

from __future__ import annotations

import stat
from typing import Final

import pyfuse3

from muniment.core.tree_state import Inode
from muniment.engine.file_facts import FORMATS
from muniment.spec.operation import Kind

_KINDS: Final = {format_: kind for kind, format_ in FORMATS.items()}
_SECTOR_BYTES: Final = 512
_BLOCK_BYTES: Final = 4096


def kind_of(mode: int) -> Kind:
    """What a mode with its file type says: a plain file if it has none."""
    return _KINDS.get(stat.S_IFMT(mode), Kind.FILE)


def attributes_of(row: Inode, timeout_s: float) -> pyfuse3.EntryAttributes:
    """What `stat` shows.

    Args:
        timeout_s: so long the kernel need not ask again for the name or the attributes.
    """
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(row.inode)
    entry.st_mode = pyfuse3.ModeT(FORMATS[row.kind] | row.mode)
    entry.st_nlink = row.links
    entry.st_uid, entry.st_gid, entry.st_rdev = row.uid, row.gid, row.rdev
    entry.st_size = row.size
    entry.st_blksize, entry.st_blocks = _BLOCK_BYTES, -(-row.size // _SECTOR_BYTES)
    entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = row.atime_ns, row.mtime_ns, row.ctime_ns
    entry.entry_timeout = entry.attr_timeout = timeout_s
    return entry
