"""The rows of a volume's state as bytes, for the state hash and snapshots (docs/spec/view.md section 3).

Fixed big-endian layouts: one row has one encoding, and no two rows share one.  A tag says which table it is
of, and every length that could be ambiguous is either fixed or the rest of the row.
"""

from __future__ import annotations

import struct
from typing import Final

from muniment.errors import MalformedRecord
from muniment.ids import BlobId
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.share import BlobShape

_INODE: Final = struct.Struct(">BQBHIIqqqQQQQQQ")
_NAME: Final = struct.Struct(">BQQB")
_EXTENT: Final = struct.Struct(">BQQQB")
_BLOB: Final = struct.Struct(">I32s13s32sIB")
_XATTR: Final = struct.Struct(">BQB")
_NUMBER: Final = struct.Struct(">BQ")
INODE_TAG: Final = 1
NAME_TAG: Final = 2
EXTENT_TAG: Final = 3
XATTR_TAG: Final = 4
SNAPSHOT_TAG: Final = 5
NEXT_INODE_TAG: Final = 6
_FORMAT: Final = "view row"
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
        INODE_TAG,
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
    return _NAME.pack(NAME_TAG, parent, inode, kind) + name


def extent_row(inode: int, offset: int, length: int, source: BlobRef | bytes, source_offset: int) -> bytes:
    """A piece of a file's content."""
    if isinstance(source, bytes):
        return _EXTENT.pack(EXTENT_TAG, inode, offset, length, _INLINE) + source
    return _EXTENT.pack(EXTENT_TAG, inode, offset, length, _OF_BLOB) + _BLOB.pack(
        source_offset,
        source.name.blob,
        source.name.shape.pack(),
        source.key,
        source.plain_bytes,
        source.compression,
    )


def xattr_row(inode: int, name: bytes, value: bytes) -> bytes:
    """An extended attribute."""
    return _XATTR.pack(XATTR_TAG, inode, len(name)) + name + value


def snapshot_row(name: bytes, index: int) -> bytes:
    """A name for the state before the entry `index`."""
    return _NUMBER.pack(SNAPSHOT_TAG, index) + name


def next_inode_row(next_inode: int) -> bytes:
    """The number that the next inode takes; every state has exactly one such row."""
    return _NUMBER.pack(NEXT_INODE_TAG, next_inode)


# --- back -----------------------------------------------------------------------------------------
# Forms only: whether values are in range and rows fit each other is for `core.state_rows` to say.


def inode_fields(row: bytes) -> tuple[int, ...]:
    """The arguments of `inode_row`.  Raises: MalformedRecord."""
    if len(row) != _INODE.size:
        raise _malformed("an inode of wrong length")
    return _INODE.unpack(row)[1:]


def name_fields(row: bytes) -> tuple[int, bytes, int, int]:
    """The arguments of `name_row`.  Raises: MalformedRecord."""
    _, parent, inode, kind = _NAME.unpack(_start(row, _NAME))
    return parent, row[_NAME.size :], inode, kind


def extent_fields(row: bytes) -> tuple[int, int, int, BlobRef | bytes, int]:
    """The arguments of `extent_row`.  Raises: MalformedRecord."""
    _, inode, offset, length, source = _EXTENT.unpack(_start(row, _EXTENT))
    rest = row[_EXTENT.size :]
    if source == _INLINE:
        return inode, offset, length, rest, 0
    if source != _OF_BLOB or len(rest) != _BLOB.size:
        raise _malformed("an extent of no known source")
    source_offset, blob, shape, key, plain_bytes, compression = _BLOB.unpack(rest)
    if compression not in Compression.__members__.values():
        raise _malformed(f"compression {compression}")
    name = BlobName(BlobId(blob), BlobShape.unpack(shape))
    return inode, offset, length, BlobRef(name, key, plain_bytes, Compression(compression)), source_offset


def xattr_fields(row: bytes) -> tuple[int, bytes, bytes]:
    """The arguments of `xattr_row`.  Raises: MalformedRecord."""
    _, inode, length = _XATTR.unpack(_start(row, _XATTR))
    name = row[_XATTR.size : _XATTR.size + length]
    if len(name) != length:
        raise _malformed("an attribute that is cut off")
    return inode, name, row[_XATTR.size + length :]


def snapshot_fields(row: bytes) -> tuple[bytes, int]:
    """The arguments of `snapshot_row`.  Raises: MalformedRecord."""
    return row[_NUMBER.size :], int(_NUMBER.unpack(_start(row, _NUMBER))[1])


def next_inode_field(row: bytes) -> int:
    """The argument of `next_inode_row`.  Raises: MalformedRecord."""
    if len(row) != _NUMBER.size:
        raise _malformed("a counter of wrong length")
    return int(_NUMBER.unpack(row)[1])


def _start(row: bytes, layout: struct.Struct) -> bytes:
    if len(row) < layout.size:
        raise _malformed("a row that is cut off")
    return row[: layout.size]


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
