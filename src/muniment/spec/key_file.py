"""Key files: a seed locked by a passphrase, as text (docs/spec/key_file.md).

Three lines: what the file is and whether it is locked, the body in base64, and a checksum of both, by which
a damaged file and a wrong passphrase are told apart.  Pure layout; Argon2id and the cipher are
`muniment.crypto.key_file`.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.spec.limits import KIB

VERSION: Final = 1
SEED_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
SEALED_BYTES: Final = SEED_BYTES + 16
KEY_FILE_BYTES_MAX: Final = 1 * KIB
"""More than any version will need; read no more of a file."""

MEMORY_KIB_MIN: Final = 8 * KIB
MEMORY_KIB_MAX: Final = 256 * KIB
PASSES_MAX: Final = 16
LANES_MAX: Final = 16
"""What a file may ask of its reader: 256 MiB and a few seconds.  Checked before anything is derived."""

_FORMAT: Final = "key file"
_LOCKED: Final = "locked by a passphrase"
_OPEN: Final = "NOT LOCKED: who reads this file has the key"
_HEADER: Final = re.compile(r"muniment key v([1-9][0-9]{0,4}), (.*)", re.ASCII)
_BODY: Final = struct.Struct(f">IBB{SALT_BYTES}s{NONCE_BYTES}s")


@dataclass(frozen=True, slots=True)
class KeyFileCost:
    """What Argon2id costs (RFC 9106): by default its second recommended choice, for any machine.

    Attributes:
        memory_kib: memory; 64 MiB.
        passes: over that memory.
        lanes: which may be computed at the same time.
    Raises: MalformedRecord: less than protects, or more than a reader has to give.
    """

    memory_kib: int = 64 * KIB
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        if not (
            MEMORY_KIB_MIN <= self.memory_kib <= MEMORY_KIB_MAX
            and 1 <= self.passes <= PASSES_MAX
            and 1 <= self.lanes <= LANES_MAX
        ):
            raise MalformedRecord(format=_FORMAT, reason=f"costs out of limits: {self}")


@dataclass(frozen=True, slots=True)
class LockedKey:
    """The content of a locked file; `sealed` is the encrypted seed and its tag."""

    cost: KeyFileCost
    salt: bytes
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class OpenKey:
    """The content of a file that is not locked."""

    seed: bytes = field(repr=False)


def locked_header(cost: KeyFileCost, salt: bytes, nonce: bytes) -> bytes:
    """All of a locked file that is before the encrypted seed: the cipher's associated data."""
    return _header(_LOCKED) + _BODY.pack(cost.memory_kib, cost.passes, cost.lanes, salt, nonce)


def encode_key_file(key: LockedKey | OpenKey) -> bytes:
    """The file: ASCII text of three lines."""
    match key:
        case LockedKey(cost, salt, nonce, sealed):
            header = _header(_LOCKED)
            body = _BODY.pack(cost.memory_kib, cost.passes, cost.lanes, salt, nonce) + sealed
        case OpenKey(seed):
            header, body = _header(_OPEN), seed
    checked = header + base64.b64encode(body) + b"\n"
    return checked + _checksum(checked)


def decode_key_file(data: bytes) -> LockedKey | OpenKey:
    """Read a key file.

    No cause is chained to the errors: it might carry a part of the key into a log.
    Raises: MalformedRecord: for anything `encode_key_file` did not write; UnknownVersion.
    """
    if len(data) > KEY_FILE_BYTES_MAX:
        raise MalformedRecord(format=_FORMAT, reason=f"{len(data)} bytes")
    header, _, rest = data.partition(b"\n")
    found = _HEADER.fullmatch(header.decode("ascii", "replace"))
    if found is None:
        raise MalformedRecord(format=_FORMAT, reason="it does not begin with 'muniment key v1, '")
    if int(found[1]) != VERSION:
        raise UnknownVersion(format=_FORMAT, version=int(found[1]))
    encoded, _, checksum = rest.partition(b"\n")
    if checksum != _checksum(header + b"\n" + encoded + b"\n"):
        raise MalformedRecord(
            format=_FORMAT, reason="its checksum does not match; a character is wrong or missing"
        )
    body = _unbase64(encoded)
    if found[2] == _LOCKED and len(body) == _BODY.size + SEALED_BYTES:
        memory_kib, passes, lanes, salt, nonce = _BODY.unpack_from(body)
        return LockedKey(KeyFileCost(memory_kib, passes, lanes), salt, nonce, body[_BODY.size :])
    if found[2] == _OPEN and len(body) == SEED_BYTES:
        return OpenKey(body)
    raise MalformedRecord(format=_FORMAT, reason="neither locked nor open, or of wrong length")


def _header(state: str) -> bytes:
    return f"muniment key v{VERSION}, {state}\n".encode("ascii")


def _checksum(checked: bytes) -> bytes:
    return b"%08x\n" % zlib.crc32(checked)


def _unbase64(encoded: bytes) -> bytes:
    try:
        body = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedRecord(format=_FORMAT, reason="not base64") from None
    if base64.b64encode(body) != encoded:
        raise MalformedRecord(format=_FORMAT, reason="not the canonical base64")
    return body
