"""Transactions: the plaintext of an entry's two encrypted halves (docs/spec/entry.md section 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
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

VERSION_3: Final = 3
"""With blobs of several codings, and only then."""

_VERSIONS: Final = (VERSION, VERSION_2, VERSION_3)
"""All that an entry of version 1 can hold.  A later one comes in a later version of the entry, which a log
service has to know: what is encrypted nobody refuses, and one writer could stop all members for ever."""

PLAIN_BYTES_MAX: Final = 16 * MIB
"""Of a transaction before compression."""

TRANSACTION_EXTENTS_MAX: Final = 1 << 17
"""Of all its operations together: folding them takes seconds, and a few compressed bytes make millions."""

Coding = tuple[int, int, int]
"""Codec, k and n."""

MESSAGE_CHARS_MAX: Final = 4096
_FORMAT: Final = "transaction"
_FIELDS: Final = frozenset((int, read_part, list, str) for read_part in (bytes, list))
_WITH_CONTENT: Final = (Make, Write, ViewSnapshot)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Transaction:
    """A list of operations that are folded together or not at all.

    Attributes:
        operations: in order.
        blobs: what their extents count; those of a copy may be of several codings.
        message: why, in the author's words; may be empty.
    """

    operations: tuple[Operation, ...]
    blobs: tuple[BlobRef, ...] = ()
    message: str = ""

    def __post_init__(self) -> None:
        if not 0 < len(self.operations) <= OPERATIONS_MAX or len(self.blobs) > ROWS_MAX:
            raise _malformed("too many operations or blobs, or none")
        if self.message and (len(self.message) > MESSAGE_CHARS_MAX or _SURROGATES.search(self.message)):
            raise _malformed("a message is up to 4096 characters of Unicode")
        if self.is_view_snapshot and (len(self.operations) > 1 or len(self.codings) > 1):
            raise _malformed("a view snapshot with other operations, or in blobs of several codings")
        made = extents = 0
        for op in self.operations:
            if min(inodes_of(op), default=0) < -made:
                raise _malformed("an inode that is made later, or never")
            if isinstance(op, _WITH_CONTENT):
                extents += len(op.content)
                for extent in op.content:
                    self._check_source(extent)
            made += isinstance(op, Make)
        if extents > TRANSACTION_EXTENTS_MAX:
            raise _malformed("too many extents")

    @property
    def is_view_snapshot(self) -> bool:
        """Whether it stores a state instead of changing one."""
        return ViewSnapshot in map(type, self.operations)

    @property
    def codings(self) -> frozenset[Coding]:
        """All that its blobs have."""
        return frozenset(map(_coding, self.blobs))

    def _check_source(self, extent: Extent) -> None:
        if isinstance(extent.source, int):
            plain_bytes = self.blobs[extent.source].plain_bytes if extent.source < len(self.blobs) else 0
            if extent.source_offset + extent.length > plain_bytes:
                raise _malformed("an extent behind its blob's end")


def encode_transaction(transaction: Transaction) -> tuple[bytes, bytes]:
    """The plaintexts of the transaction and of the names of its blobs (empty if it has none)."""
    tables = []
    for _, refs in groupby(transaction.blobs, _coding):
        tables.append(Manifest(ManifestKind.TREE, tuple(Row(ref, ref.plain_bytes) for ref in refs)))
    read_halves, verify_halves = map(encode_read_half, tables), map(encode_verify_half, tables)
    operations = [pack_operation(op) for op in transaction.operations]
    if len(tables) > 1:
        return (
            dump([VERSION_3, list(read_halves), operations, transaction.message]),
            dump(list(verify_halves)),
        )
    version = VERSION_2 if transaction.is_view_snapshot else VERSION
    plain = dump([version, b"".join(read_halves), operations, transaction.message])
    return plain, b"".join(verify_halves)


def decode_transaction(plain: bytes, verify_plain: bytes) -> Transaction:
    """Read both plaintexts.

    Raises: MalformedRecord: for anything `encode_transaction` did not make, another version too.
    """
    value = load(plain, format=_FORMAT)
    if not isinstance(value, list) or tuple(map(type, value)) not in _FIELDS:
        raise _malformed("fields do not fit")
    version, read_part, operations, message = value
    if version not in _VERSIONS or len(operations) > OPERATIONS_MAX:
        raise _malformed("an unknown version, or too many operations")
    if isinstance(read_part, list) != (version == VERSION_3):
        raise _malformed("several tables of blobs make version 3, and nothing else does")
    read_halves = _halves(read_part)
    verify_halves = _verify_halves(verify_plain)
    if len(read_halves) != len(verify_halves) or (len(read_halves) > 1) != (version == VERSION_3):
        raise _malformed("one half of the blobs is missing")
    blobs: list[BlobRef] = []
    for read_half, verify_half in zip(read_halves, verify_halves, strict=True):
        table = decode_read_half(read_half, decode_verify_half(verify_half))
        plain_rows = table.rows and not any(row.nested for row in table.rows)
        if table.kind is not ManifestKind.TREE or table.entries or not plain_rows:
            raise _malformed("the blobs are not a plain table")
        if blobs and _coding(blobs[-1]) == _coding(table.rows[0].ref):
            raise _malformed("blobs of one coding in two tables")
        blobs += [row.ref for row in table.rows]
    transaction = Transaction(tuple(map(unpack_operation, operations)), tuple(blobs), message)
    if transaction.is_view_snapshot != (version == VERSION_2):
        raise _malformed("a view snapshot makes version 2, and nothing else does")
    return transaction


def decode_names(verify_plain: bytes) -> tuple[BlobName, ...]:
    """What a holder of the verify right sees of a transaction.  Raises: MalformedRecord."""
    halves = map(decode_verify_half, _verify_halves(verify_plain))
    return tuple(row.name for half in halves for row in half.rows)


def _verify_halves(plain: bytes) -> list[bytes]:
    """One for each table; a plain half begins with a number, a list of them with bytes."""
    if not plain:
        return []
    value = load(plain, format=_FORMAT)
    several = isinstance(value, list) and bool(value) and isinstance(value[0], bytes)
    return _halves(value) if isinstance(value, list) and several else [plain]


def _halves(part: bytes | list[object]) -> list[bytes]:
    """One half of each table of blobs, as a transaction holds it."""
    if isinstance(part, bytes):
        return [part] if part else []
    halves = [half for half in part if isinstance(half, bytes)]
    if len(halves) != len(part) or not 1 < len(halves) <= ROWS_MAX:
        raise _malformed("tables of blobs do not fit")
    return halves


def _coding(ref: BlobRef) -> Coding:
    shape = ref.name.shape
    return int(shape.codec), shape.k, shape.n


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
