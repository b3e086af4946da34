"""The share record: what a node stores and what crosses the wire, byte for byte (docs/spec/share.md).

    header   magic(8) version(1) codec(1) k(2) n(2) number(2) length(8)    big-endian, 24 bytes
    roots    n share roots, 32 bytes each
    leaves   one 32-byte leaf hash for every 16 KiB of data
    data     ceil(length / k) bytes

Everything before the data is what a receiver needs to check each leaf while it arrives.  Pure layout:
hashing, and with it the check against a BlobId, is `muniment.merkle.share_tree`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import ShareNumber
from muniment.spec.limits import LEAF_BYTES, SEALED_BYTES_MAX, SHARES_MAX
from muniment.spec.tags import SHARE_MAGIC

VERSION: Final = 1
HASH_BYTES: Final = 32
FIXED_BYTES: Final = 24
_FIXED: Final = struct.Struct(">8sBBHHHQ")
_SHAPE: Final = struct.Struct(">BHHQ")


class CodecId(enum.IntEnum):
    """How the n shares relate to the blob: section 3 of the spec page."""

    RS = 1
    REP = 2


@dataclass(frozen=True, slots=True)
class BlobShape:
    """What decides every size of a blob: codec, k, n and its length before padding."""

    codec: CodecId
    k: int
    n: int
    length: int

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n <= SHARES_MAX:
            raise MalformedRecord(format="blob shape", reason=f"k = {self.k}, n = {self.n}")
        if self.codec is CodecId.REP and self.k != 1:
            raise MalformedRecord(format="blob shape", reason=f"replication with k = {self.k}")
        if not 1 <= self.length <= SEALED_BYTES_MAX:
            raise MalformedRecord(format="blob shape", reason=f"length = {self.length}")

    @property
    def share_bytes(self) -> int:
        """Data bytes of each share, the last data share zero-padded."""
        return -(-self.length // self.k)

    @property
    def leaf_count(self) -> int:
        return -(-self.share_bytes // LEAF_BYTES)

    @property
    def roots_bytes(self) -> int:
        return HASH_BYTES * self.n

    @property
    def head_bytes(self) -> int:
        """Offset of the data in a share record: fixed header, roots and leaf hashes."""
        return FIXED_BYTES + self.roots_bytes + HASH_BYTES * self.leaf_count

    @property
    def record_bytes(self) -> int:
        """Size of a whole share record: what a node stores, reserves and accounts for."""
        return self.head_bytes + self.share_bytes

    def pack(self) -> bytes:
        """The 13 bytes that enter the BlobId in front of the roots."""
        return _SHAPE.pack(self.codec, self.k, self.n, self.length)

    @classmethod
    def unpack(cls, packed: bytes) -> BlobShape:
        """Read what `pack` made.  Raises: MalformedRecord: other bytes."""
        if len(packed) != _SHAPE.size or packed[0] not in CodecId.__members__.values():
            raise MalformedRecord(format="blob shape", reason="not a known codec's")
        codec, k, n, length = _SHAPE.unpack(packed)
        return cls(CodecId(codec), k, n, length)


@dataclass(frozen=True, slots=True)
class ShareHeader:
    """A share record's header and roots.

    Attributes:
        shape: of the blob this is a share of.
        number: which share, 0 to n - 1.
        roots: n * 32 bytes, the roots of all shares' trees in order.
    """

    shape: BlobShape
    number: ShareNumber
    roots: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.shape.n:
            raise MalformedRecord(format="share", reason=f"number {self.number} of {self.shape.n}")
        if len(self.roots) != self.shape.roots_bytes:
            raise MalformedRecord(format="share", reason=f"{len(self.roots)} bytes of roots")

    @property
    def root(self) -> bytes:
        """The 32-byte root of this share's own tree."""
        at = HASH_BYTES * self.number
        return self.roots[at : at + HASH_BYTES]

    def encode(self) -> bytes:
        """Header and roots as stored; the leaf hashes and the data follow."""
        shape = self.shape
        fixed = _FIXED.pack(SHARE_MAGIC, VERSION, shape.codec, shape.k, shape.n, self.number, shape.length)
        return fixed + self.roots


def decode_fixed(fixed: bytes | memoryview) -> tuple[BlobShape, ShareNumber]:
    """Read the first `FIXED_BYTES` bytes of a share record: enough to know all its sizes.

    Raises:
        MalformedRecord: wrong length, magic, codec, k, n, number or length.
        UnknownVersion: a version this program does not know.
    """
    if len(fixed) != FIXED_BYTES:
        raise MalformedRecord(format="share", reason=f"header of {len(fixed)} bytes")
    magic, version, codec, k, n, number, length = _FIXED.unpack(fixed)
    if magic != SHARE_MAGIC:
        raise MalformedRecord(format="share", reason="wrong magic")
    if version != VERSION:
        raise UnknownVersion(format="share", version=version)
    if codec not in (CodecId.RS, CodecId.REP):
        raise MalformedRecord(format="share", reason=f"codec {codec}")
    shape = BlobShape(CodecId(codec), k, n, length)
    if number >= n:
        raise MalformedRecord(format="share", reason=f"number {number} of {n}")
    return shape, ShareNumber(number)


def decode_header(head: bytes | memoryview) -> ShareHeader:
    """Read header and roots from the start of a share record; what follows is ignored.

    Raises: MalformedRecord, UnknownVersion: as `decode_fixed`, or too short for its roots.
    """
    shape, number = decode_fixed(head[:FIXED_BYTES])
    return ShareHeader(shape, number, bytes(head[FIXED_BYTES : FIXED_BYTES + shape.roots_bytes]))
