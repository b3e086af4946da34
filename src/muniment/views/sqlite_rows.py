"""Rows of the view's tables as values and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from muniment.core.tree_state import Inode, StoredExtent
from muniment.ids import BlobId
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.operation import Kind
from muniment.spec.share import BlobShape, CodecId

Row = tuple[Any, ...]
INSERT_INODE: Final = "INSERT INTO inodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
"""Of `inode_columns`, valid_from and valid_to."""

KINDS: Final = (Kind.FILE, *Kind)
"""By number; the first stands for none."""

BLOB_COLUMNS: Final = "b.blob, b.codec, b.k, b.n, b.length, b.key, b.plain_bytes, b.compression"


def inode_of(row: Row) -> Inode:
    """An inode from its columns in the order of the table."""
    rdev = row[11]
    unsigned = rdev if rdev >= 0 else rdev + (1 << 64)
    return Inode._make((row[0], KINDS[row[1]], *row[2:11], unsigned, *row[12:14]))


def inode_columns(row: Inode) -> tuple[int, ...]:
    """The columns of an inode in the order of the table."""
    signed = row.rdev if row.rdev < 1 << 63 else row.rdev - (1 << 64)
    return (row.inode, int(row.kind), *row[2:11], signed, row.version, row.parent)


@lru_cache(maxsize=1024)
def blob_of(row: Row) -> BlobRef:
    """A reference from BLOB_COLUMNS; extents that follow each other often share theirs."""
    shape = BlobShape(CodecId(row[1]), row[2], row[3], row[4])
    return BlobRef(BlobName(BlobId(row[0]), shape), row[5], row[6], Compression(row[7]))


def blob_columns(ref: BlobRef) -> Row:
    """BLOB_COLUMNS of a reference."""
    shape = ref.name.shape
    return (
        ref.name.blob,
        int(shape.codec),
        shape.k,
        shape.n,
        shape.length,
        ref.key,
        ref.plain_bytes,
        int(ref.compression),
    )


def extent_of(row: Row) -> StoredExtent:
    """An extent from offset, length, source_offset, its bytes, BLOB_COLUMNS."""
    if row[3] is not None:
        return StoredExtent(row[0], row[1], row[3])
    return StoredExtent(row[0], row[1], blob_of(row[4:]), row[2])
