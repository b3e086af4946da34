"""Manifests: the sealed table of the blobs of a file or tree (docs/spec/manifest.md).

A manifest has two halves under two keys.  The verify half names the blobs (and opens the verify halves of
nested manifests); the read half has their keys and, for a tree, its entries.  Whoever checks or repairs
needs the first half only.

    sealed   magic(8) version(1) verify_length(4)  verify half + tag  read half + tag

This module is layout: the halves' plaintext to and from bytes.  Encryption is `core.sealing`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import ID_BYTES, BlobId
from muniment.spec.blob import KEY_BYTES, BlobName, BlobRef, Compression
from muniment.spec.canonical import dump, load
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.tags import MANIFEST_MAGIC
from muniment.spec.tree_entry import TreeEntry, check_order, pack_entry, unpack_entry

VERSION: Final = 1
FIXED: Final = struct.Struct(">8sBI")
ROWS_MAX: Final = 8192
"""Rows of one manifest: 32 GiB of file at the default chunk size; larger files nest."""
ENTRIES_MAX: Final = 8192
"""Entries of one tree manifest; larger trees nest."""
_FORMAT: Final = "manifest"
_SPAN_MAX: Final = 1 << 63


class ManifestKind(enum.IntEnum):
    """What the rows are."""

    FILE = 1
    """The file's content in order; a nested row is a manifest of kind FILE."""
    TREE = 2
    """What the entries' extents point into; a nested row is a FILE manifest of one large file."""
    TREE_INDEX = 3
    """Nested TREE or TREE_INDEX manifests in path order; no entries of its own."""


@dataclass(frozen=True, slots=True)
class VerifyRow:
    """A blob to check; `verify_key` opens the verify half of a nested manifest, and is empty for content."""

    name: BlobName
    verify_key: bytes


@dataclass(frozen=True, slots=True)
class VerifyHalf:
    """What a holder of the verify right sees."""

    kind: ManifestKind
    rows: tuple[VerifyRow, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One blob of a manifest with its key.

    Attributes:
        ref: the blob.
        span_bytes: bytes of file content under it (0 for a nested tree).
        verify_key: of a nested manifest; empty for content.
    """

    ref: BlobRef
    span_bytes: int
    verify_key: bytes = b""

    @property
    def nested(self) -> bool:
        """Whether the blob is a manifest itself."""
        return bool(self.verify_key)

    def __repr__(self) -> str:
        return f"Row({self.ref!r}, span_bytes={self.span_bytes}, nested={self.nested})"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Both halves."""

    kind: ManifestKind
    rows: tuple[Row, ...]
    entries: tuple[TreeEntry, ...] = ()

    @property
    def span_bytes(self) -> int:
        """File content under all rows."""
        return sum(row.span_bytes for row in self.rows)


def encode_verify_half(manifest: Manifest) -> bytes:
    """The verify half's plaintext; all rows share one coding."""
    shapes = [row.ref.name.shape for row in manifest.rows]
    coding = [int(shapes[0].codec), shapes[0].k, shapes[0].n] if shapes else []
    return dump(
        [
            int(manifest.kind),
            coding,
            b"".join(row.ref.name.blob for row in manifest.rows),
            [shape.length for shape in shapes],
            [[at, row.verify_key] for at, row in enumerate(manifest.rows) if row.nested],
        ]
    )


def encode_read_half(manifest: Manifest) -> bytes:
    """The read half's plaintext."""
    return dump(
        [
            b"".join(row.ref.key for row in manifest.rows),
            [row.ref.plain_bytes for row in manifest.rows],
            bytes(row.ref.compression for row in manifest.rows),
            [row.span_bytes for row in manifest.rows],
            [pack_entry(entry) for entry in manifest.entries],
        ]
    )


def decode_verify_half(plain: bytes) -> VerifyHalf:
    """Read a verify half.  Raises: MalformedRecord: for any bytes `encode_verify_half` did not make."""
    match load(plain, format=_FORMAT):
        case [int(kind), list(coding), bytes(ids), list(lengths), list(keys)]:
            pass
        case _:
            raise _malformed("fields do not fit")
    count = len(lengths)
    if kind not in ManifestKind.__members__.values() or count > ROWS_MAX or len(ids) != ID_BYTES * count:
        raise _malformed("kind or counts do not fit")
    verify_keys = [b""] * count
    for item in keys:
        match item:
            case [int(at), bytes(key)] if 0 <= at < count and len(key) == KEY_BYTES:
                verify_keys[at] = key
            case _:
                raise _malformed("a nested key does not fit")
    rows = []
    for at, length in enumerate(lengths):
        blob = BlobId(ids[at * ID_BYTES :][:ID_BYTES])
        rows.append(VerifyRow(BlobName(blob, _shape(coding, length)), verify_keys[at]))
    return VerifyHalf(ManifestKind(kind), tuple(rows))


def decode_read_half(plain: bytes, verify: VerifyHalf) -> Manifest:
    """Read a read half and join it to its verify half.

    Raises: MalformedRecord: for any bytes that are not the other half of `verify`.
    """
    match load(plain, format=_FORMAT):
        case [bytes(keys), list(sizes), bytes(compressions), list(spans), list(entries)]:
            pass
        case _:
            raise _malformed("fields do not fit")
    count = len(verify.rows)
    if not len(keys) == KEY_BYTES * count == KEY_BYTES * len(sizes) == KEY_BYTES * len(compressions):
        raise _malformed("the halves differ in length")
    if len(spans) != count or len(entries) > ENTRIES_MAX:
        raise _malformed("the halves differ in length")
    rows = tuple(
        _row(row, keys[at * KEY_BYTES :][:KEY_BYTES], sizes[at], compressions[at], spans[at])
        for at, row in enumerate(verify.rows)
    )
    manifest = Manifest(verify.kind, rows, tuple(map(unpack_entry, entries)))
    _check(manifest)
    return manifest


def _row(row: VerifyRow, key: bytes, size: object, compression: int, span: object) -> Row:
    if type(size) is not int or type(span) is not int or not 0 <= span < _SPAN_MAX:
        raise _malformed("a size does not fit")
    if compression not in Compression.__members__.values():
        raise _malformed(f"compression {compression}")
    if not row.verify_key and span != size:
        raise _malformed("a row's span is not its size")
    return Row(BlobRef(row.name, key, size, Compression(compression)), span, row.verify_key)


def _check(manifest: Manifest) -> None:
    """What holds between rows and entries of a well-made manifest."""
    if manifest.kind is not ManifestKind.TREE and manifest.entries:
        raise _malformed("entries where none belong")
    if manifest.kind is ManifestKind.TREE_INDEX and not all(row.nested for row in manifest.rows):
        raise _malformed("content in an index of trees")
    check_order(manifest.entries)
    for entry in manifest.entries:
        for extent in entry.extents:
            if extent.row >= len(manifest.rows):
                raise _malformed("an extent of no row")
            if extent.offset + extent.length > manifest.rows[extent.row].span_bytes:
                raise _malformed("an extent behind its row's end")


def pack_sealed_head(verify_bytes: int) -> bytes:
    """The cleartext start of a sealed manifest; `verify_bytes` counts the verify half with its tag."""
    return FIXED.pack(MANIFEST_MAGIC, VERSION, verify_bytes)


def split_sealed(sealed: memoryview) -> tuple[memoryview, memoryview]:
    """The two encrypted halves of a sealed manifest.

    Raises: MalformedRecord: wrong magic or lengths; UnknownVersion.
    """
    if len(sealed) < FIXED.size:
        raise _malformed("too short")
    magic, version, verify_bytes = FIXED.unpack(sealed[: FIXED.size])
    if magic != MANIFEST_MAGIC:
        raise _malformed("wrong magic")
    if version != VERSION:
        raise UnknownVersion(format=_FORMAT, version=version)
    cut = FIXED.size + verify_bytes
    if cut > len(sealed):
        raise _malformed("the verify half is longer than the manifest")
    return sealed[FIXED.size : cut], sealed[cut:]


def _shape(coding: list[object], length: object) -> BlobShape:
    match coding:
        case [int(codec), int(k), int(n)] if codec in CodecId.__members__.values() and type(length) is int:
            return BlobShape(CodecId(codec), k, n, length)
    raise _malformed("the coding does not fit")


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
