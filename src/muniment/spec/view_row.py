"""The rows of a volume's state as bytes, for the state hash (docs/spec/view.md section 3).

Fixed big-endian layouts: one row has one encoding, and no two rows share one.  A tag says which table it is
of, and every length that could be ambiguous is either fixed or the rest of the row.
"""

from __future__ import annotations

import struct
from typing import Final

from muniment.spec.blob import BlobRef

_INODE: Final = struct.Struct(">BQBHIIqqqQQQQQQ")
_NAME: Final = struct.Struct(">BQQB")
_EXTENT: Final = struct.Struct(">BQQQB")
_BLOB: Final = struct.Struct(">I32s13s32sIB")
_XATTR: Final = struct.Struct(">BQB")
_NUMBER: Final = struct.Struct(">BQ")
_INODE_TAG, _NAME_TAG, _EXTENT_TAG, _XATTR_TAG, _SNAPSHOT_TAG, _NEXT_INODE_TAG = range(1, 7)
_INLINE, _OF_BLOB = 1, 2


def inode_row(
    inode: int,
    kind: int,
    mode: int,
    uid: int,
    gid: int,
    atime_ns: int,
    mtime_ns: int,
    ctime_ns: int,
    size: int,
    links: int,
    entries: int,
    rdev: int,
    version: int,
    parent: int,
) -> bytes:
    """An inode; the arguments stand in the order of the row."""
    return _INODE.pack(
        _INODE_TAG,
        inode,
        kind,
        mode,
        uid,
        gid,
        atime_ns,
        mtime_ns,
        ctime_ns,
        size,
        links,
        entries,
        rdev,
        version,
        parent,
    )


def name_row(parent: int, name: bytes, inode: int, kind: int) -> bytes:
    """A name in a folder."""
    return _NAME.pack(_NAME_TAG, parent, inode, kind) + name


def extent_row(inode: int, offset: int, length: int, source: BlobRef | bytes, source_offset: int) -> bytes:
    """A piece of a file's content."""
    if isinstance(source, bytes):
        return _EXTENT.pack(_EXTENT_TAG, inode, offset, length, _INLINE) + source
    return _EXTENT.pack(_EXTENT_TAG, inode, offset, length, _OF_BLOB) + _BLOB.pack(
        source_offset,
        source.name.blob,
        source.name.shape.pack(),
        source.key,
        source.plain_bytes,
        source.compression,
    )


def xattr_row(inode: int, name: bytes, value: bytes) -> bytes:
    """An extended attribute."""
    return _XATTR.pack(_XATTR_TAG, inode, len(name)) + name + value


def snapshot_row(name: bytes, index: int) -> bytes:
    """A name for the state before the entry `index`."""
    return _NUMBER.pack(_SNAPSHOT_TAG, index) + name


def next_inode_row(next_inode: int) -> bytes:
    """The number that the next inode takes; every state has exactly one such row."""
    return _NUMBER.pack(_NEXT_INODE_TAG, next_inode)
