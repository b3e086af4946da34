"""Transactions: the plaintext of an entry's two encrypted halves (docs/spec/entry.md section 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from muniment.errors import MalformedRecord
from muniment.spec.blob import BlobName, BlobRef
from muniment.spec.canonical import dump, load
from muniment.spec.limits import MIB
from muniment.spec.manifest import (
    ROWS_MAX,
    Manifest,
    ManifestKind,
    Row,
    decode_read_half,
    decode_verify_half,
    encode_read_half,
    encode_verify_half,
)
from muniment.spec.operation import (
    OPERATIONS_MAX,
    Extent,
    Make,
    Operation,
    ViewSnapshot,
    Write,
    inodes_of,
    pack_operation,
    unpack_operation,
)

VERSION: Final = 1
VERSION_2: Final = 2
"""With a view snapshot, and only then."""

_VERSIONS: Final = (VERSION, VERSION_2)
"""All that an entry of version 1 can hold.  A later one comes in a later version of the entry, which a log
service has to know: what is encrypted nobody refuses, and one writer could stop all members for ever."""

PLAIN_BYTES_MAX: Final = 16 * MIB
"""Of a transaction before compression."""

TRANSACTION_EXTENTS_MAX: Final = 1 << 17
"""Of all its operations together: folding them takes seconds, and a few compressed bytes make millions."""

MESSAGE_CHARS_MAX: Final = 4096
_FORMAT: Final = "transaction"
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Transaction:
    """A list of operations that are folded together or not at all.

    Attributes:
        operations: in order.
        blobs: what their extents count; all of one coding.
        message: why, in the author's words; may be empty.
    """

    operations: tuple[Operation, ...]
    blobs: tuple[BlobRef, ...] = ()
    message: str = ""

    def __post_init__(self) -> None:
        if not 0 < len(self.operations) <= OPERATIONS_MAX or len(self.blobs) > ROWS_MAX:
            raise _malformed("too many operations or blobs, or none")
        if len(self.message) > MESSAGE_CHARS_MAX or _SURROGATES.search(self.message):
            raise _malformed("a message is up to 4096 characters of Unicode")
        shapes = [ref.name.shape for ref in self.blobs]
        if len({(shape.codec, shape.k, shape.n) for shape in shapes}) > 1:
            raise _malformed("blobs of different codings")
        if self.is_view_snapshot and len(self.operations) > 1:
            raise _malformed("a view snapshot with other operations")
        made = extents = 0
        for op in self.operations:
            if any(inode < -made for inode in inodes_of(op)):
                raise _malformed("an inode that is made later, or never")
            if isinstance(op, Make | Write | ViewSnapshot):
                extents += len(op.content)
                for extent in op.content:
                    self._check_source(extent)
            made += isinstance(op, Make)
        if extents > TRANSACTION_EXTENTS_MAX:
            raise _malformed("too many extents")

    @property
    def is_view_snapshot(self) -> bool:
        """Whether it stores a state instead of changing one."""
        return any(isinstance(op, ViewSnapshot) for op in self.operations)

    def _check_source(self, extent: Extent) -> None:
        if isinstance(extent.source, int):
            plain_bytes = self.blobs[extent.source].plain_bytes if extent.source < len(self.blobs) else 0
            if extent.source_offset + extent.length > plain_bytes:
                raise _malformed("an extent behind its blob's end")


def encode_transaction(transaction: Transaction) -> tuple[bytes, bytes]:
    """The plaintexts of the transaction and of the names of its blobs (empty if it has none)."""
    table = Manifest(ManifestKind.TREE, tuple(Row(ref, ref.plain_bytes) for ref in transaction.blobs))
    halves = (encode_read_half(table), encode_verify_half(table)) if transaction.blobs else (b"", b"")
    operations = [pack_operation(op) for op in transaction.operations]
    version = VERSION_2 if transaction.is_view_snapshot else VERSION
    return dump([version, halves[0], operations, transaction.message]), halves[1]


def decode_transaction(plain: bytes, verify_plain: bytes) -> Transaction:
    """Read both plaintexts.

    Raises: MalformedRecord: for anything `encode_transaction` did not make, another version too.
    """
    match load(plain, format=_FORMAT):
        case [int(version), bytes(read_half), list(operations), str(message)] if version in _VERSIONS:
            if len(operations) > OPERATIONS_MAX:
                raise _malformed("too many operations")
        case _:
            raise _malformed("fields do not fit")
    if bool(read_half) != bool(verify_plain):
        raise _malformed("one half of the blobs is missing")
    blobs: tuple[BlobRef, ...] = ()
    if read_half:
        table = decode_read_half(read_half, decode_verify_half(verify_plain))
        plain_rows = table.rows and not any(row.nested for row in table.rows)
        if table.kind is not ManifestKind.TREE or table.entries or not plain_rows:
            raise _malformed("the blobs are not a plain table")
        blobs = tuple(row.ref for row in table.rows)
    transaction = Transaction(tuple(map(unpack_operation, operations)), blobs, message)
    if transaction.is_view_snapshot != (version == VERSION_2):
        raise _malformed("a view snapshot makes version 2, and nothing else does")
    return transaction


def decode_names(verify_plain: bytes) -> tuple[BlobName, ...]:
    """What a holder of the verify right sees of a transaction.  Raises: MalformedRecord."""
    return tuple(row.name for row in decode_verify_half(verify_plain).rows) if verify_plain else ()


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
