"""Capabilities as text: `mun:<file|tree>:<read|verify>:<payload>` (docs/spec/caps.md).

Payload: lower-case unpadded base32 of version(1) kind(1) body crc32(4).  The checksum covers prefix and
payload, so any one wrong character and any two swapped neighbours are found.  A capability is a secret:
`repr` shows its kind and a fingerprint only, `cap_text` is the one way to the text.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from muniment.errors import InvalidCap, MalformedRecord
from muniment.ids import ID_BYTES, BlobId
from muniment.spec.blob import KEY_BYTES, BlobName, BlobRef, Compression
from muniment.spec.limits import LITERAL_BYTES_MAX
from muniment.spec.share import BlobShape, CodecId

VERSION: Final = 1
CAP_CHARS_MAX: Final = 512
_FILE_READ: Final = "mun:file:read:"
_FILE_VERIFY: Final = "mun:file:verify:"
_TREE_READ: Final = "mun:tree:read:"
_TREE_VERIFY: Final = "mun:tree:verify:"
_LITERAL, _BLOB, _MANIFEST = 0, 1, 2
_NAME: Final = struct.Struct(">32sBBBQ")
_REF: Final = struct.Struct(">32sIB")
_SIZE: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class LiteralFile:
    """A file of at most LITERAL_BYTES_MAX bytes that lives in the capability; no node is involved."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A file of one blob."""

    ref: BlobRef


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of several blobs: `ref` opens its manifest."""

    ref: BlobRef
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LiteralFileVerify:
    """The verify form of a literal file: there is nothing to verify."""


@dataclass(frozen=True, slots=True)
class BlobFileVerify:
    """Checks and repairs a file of one blob."""

    name: BlobName


@dataclass(frozen=True, slots=True)
class ManifestFileVerify:
    """Checks and repairs a file of several blobs; `verify_key` opens the manifest's verify half only."""

    name: BlobName
    verify_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TreeReadCap:
    """An immutable directory tree: `ref` opens its manifest."""

    ref: BlobRef


@dataclass(frozen=True, slots=True)
class TreeVerifyCap:
    """Checks and repairs a tree."""

    name: BlobName
    verify_key: bytes = field(repr=False)


FileReadCap = LiteralFile | BlobFile | ManifestFile
FileVerifyCap = LiteralFileVerify | BlobFileVerify | ManifestFileVerify
ReadCap = FileReadCap | TreeReadCap
VerifyCap = FileVerifyCap | TreeVerifyCap
Cap = ReadCap | VerifyCap


def _pack_name(name: BlobName) -> bytes:
    shape = name.shape
    return _NAME.pack(name.blob, shape.codec, shape.k - 1, shape.n - 1, shape.length)


def _pack_ref(ref: BlobRef) -> bytes:
    return _pack_name(ref.name) + _REF.pack(ref.key, ref.plain_bytes, ref.compression)


def cap_text(cap: Cap) -> str:
    """The capability's text; treat it like a password."""
    match cap:
        case LiteralFile(data):
            return _seal(_FILE_READ, _LITERAL, data)
        case BlobFile(ref):
            return _seal(_FILE_READ, _BLOB, _pack_ref(ref))
        case ManifestFile(ref, size):
            return _seal(_FILE_READ, _MANIFEST, _pack_ref(ref) + _SIZE.pack(size))
        case LiteralFileVerify():
            return _seal(_FILE_VERIFY, _LITERAL, b"")
        case BlobFileVerify(name):
            return _seal(_FILE_VERIFY, _BLOB, _pack_name(name))
        case ManifestFileVerify(name, key):
            return _seal(_FILE_VERIFY, _MANIFEST, _pack_name(name) + key)
        case TreeReadCap(ref):
            return _seal(_TREE_READ, _MANIFEST, _pack_ref(ref))
        case TreeVerifyCap(name, key):
            return _seal(_TREE_VERIFY, _MANIFEST, _pack_name(name) + key)


def _seal(prefix: str, kind: int, body: bytes) -> str:
    payload = bytes((VERSION, kind)) + body
    payload += zlib.crc32(prefix.encode() + payload).to_bytes(4, "big")
    return prefix + base64.b32encode(payload).decode("ascii").rstrip("=").lower()


def parse_cap(text: str) -> Cap:
    """Read a capability; surrounding blanks are ignored.

    Raises: InvalidCap: for any text that `cap_text` did not write.
    """
    text = text.strip()
    if len(text) > CAP_CHARS_MAX:
        raise InvalidCap(reason="it is too long")
    for prefix in (_FILE_READ, _FILE_VERIFY, _TREE_READ, _TREE_VERIFY):
        if text.startswith(prefix):
            break
    else:
        raise InvalidCap(reason="it does not start with mun:file: or mun:tree: and read: or verify:")
    kind, body = _open(prefix, text[len(prefix) :])
    try:
        return _build(prefix, kind, body)
    except (MalformedRecord, struct.error, ValueError) as error:
        raise InvalidCap(reason="its fields do not fit") from error


def _open(prefix: str, encoded: str) -> tuple[int, bytes]:
    """Kind and body behind a prefix, checksum verified."""
    try:
        payload = base64.b32decode(encoded.upper() + "=" * (-len(encoded) % 8))
    except (binascii.Error, ValueError) as error:
        raise InvalidCap(reason="it has characters that are not in a-z and 2-7, or misses some") from error
    if len(payload) < 6:
        raise InvalidCap(reason="it is too short")
    body, checksum = payload[:-4], payload[-4:]
    if zlib.crc32(prefix.encode() + body).to_bytes(4, "big") != checksum:
        raise InvalidCap(reason="its checksum does not match; a character is wrong or missing")
    if base64.b32encode(payload).decode("ascii").rstrip("=").lower() != encoded:
        raise InvalidCap(reason="it is not in canonical form")
    if body[0] != VERSION:
        raise InvalidCap(reason=f"version {body[0]} is not known to this program; update it")
    return body[1], body[2:]


def _build(prefix: str, kind: int, body: bytes) -> Cap:
    match prefix, kind:
        case ("mun:file:read:", 0) if len(body) <= LITERAL_BYTES_MAX:
            return LiteralFile(body)
        case ("mun:file:read:", 1):
            return BlobFile(_unpack_ref(body))
        case ("mun:file:read:", 2):
            cut = len(body) - _SIZE.size
            return ManifestFile(_unpack_ref(body[:cut]), _SIZE.unpack(body[cut:])[0])
        case ("mun:file:verify:", 0) if not body:
            return LiteralFileVerify()
        case ("mun:file:verify:", 1):
            return BlobFileVerify(_unpack_name(body))
        case ("mun:file:verify:", 2):
            return ManifestFileVerify(*_unpack_keyed(body))
        case ("mun:tree:read:", 2):
            return TreeReadCap(_unpack_ref(body))
        case ("mun:tree:verify:", 2):
            return TreeVerifyCap(*_unpack_keyed(body))
    raise InvalidCap(reason=f"kind {kind} is not known to this program; update it")


def _unpack_name(body: bytes) -> BlobName:
    blob, codec, k, n, length = _NAME.unpack(body)
    return BlobName(BlobId(blob), BlobShape(CodecId(codec), k + 1, n + 1, length))


def _unpack_ref(body: bytes) -> BlobRef:
    key, plain_bytes, compression = _REF.unpack(body[_NAME.size :])
    return BlobRef(_unpack_name(body[: _NAME.size]), key, plain_bytes, Compression(compression))


def _unpack_keyed(body: bytes) -> tuple[BlobName, bytes]:
    key = body[_NAME.size :]
    if len(key) != KEY_BYTES:
        raise ValueError("key length")
    return _unpack_name(body[: _NAME.size]), key


assert _NAME.size == ID_BYTES + 11
