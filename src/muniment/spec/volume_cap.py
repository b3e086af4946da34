"""Volume capabilities and invitations as text (docs/spec/caps.md section 4).

    mun:volume:write:    the member's seed: everything he may do, and his identity
    mun:volume:read:     his read seed: reads what he may read, writes nothing
    mun:volume:verify:   his verify seed: checks everything, reads nothing
    mun:volume:invite:   no secret: where to ask for membership

Each names the volume, the log service and, but for invitations, the member.  Whoever has one needs nothing
else but a roster to use the volume on a new machine.
"""

from __future__ import annotations

import base64
import binascii
import enum
import zlib
from dataclasses import dataclass, field
from typing import Final

from muniment.errors import InvalidCap, MunimentError
from muniment.ids import ID_BYTES, MemberId, VolumeId, id_text
from muniment.spec.address import PeerAddress, PeerKind, parse_address

VERSION: Final = 1
CAP_CHARS_MAX: Final = 1024
VOLUME_PREFIX: Final = "mun:volume:"
_INVITE: Final = "invite"
_CHECKSUM_BYTES: Final = 4


class Right(enum.Enum):
    """What a volume capability grants; each may do what the later ones may."""

    WRITE = "write"
    READ = "read"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class VolumeCap:
    """A volume and a member's secret for it.

    Attributes:
        right: which of his secrets it is.
        volume: which volume.
        log: where its log is.
        member: whose secret.
        seed: 32 secret bytes.
    """

    right: Right
    volume: VolumeId
    log: PeerAddress
    member: MemberId
    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where to ask for membership of a volume; no secret."""

    volume: VolumeId
    log: PeerAddress


def volume_cap_text(cap: VolumeCap | Invitation) -> str:
    """The text; of a capability, treat it like a password."""
    secret = cap.member + cap.seed if isinstance(cap, VolumeCap) else b""
    kind = cap.right.value if isinstance(cap, VolumeCap) else _INVITE
    body = cap.volume + secret + cap.log.node + cap.log.host_port.encode("ascii")
    payload = bytes((VERSION,)) + body
    payload += zlib.crc32(kind.encode() + payload).to_bytes(_CHECKSUM_BYTES, "big")
    return f"{VOLUME_PREFIX}{kind}:{base64.b32encode(payload).decode('ascii').rstrip('=').lower()}"


def parse_volume_cap(text: str) -> VolumeCap | Invitation:
    """Read what `volume_cap_text` wrote; surrounding blanks are ignored.

    Raises: InvalidCap: for any other text.
    """
    text = text.strip()
    kind, colon, encoded = text.removeprefix(VOLUME_PREFIX).partition(":")
    if len(text) > CAP_CHARS_MAX or not text.startswith(VOLUME_PREFIX) or not colon:
        raise InvalidCap(reason="a volume's starts with mun:volume: and write:, read:, verify: or invite:")
    body = _opened(kind, encoded)
    secret_bytes = 0 if kind == _INVITE else 2 * ID_BYTES
    if len(body) <= 2 * ID_BYTES + secret_bytes:
        raise InvalidCap(reason="it is too short")
    volume, body = VolumeId(body[:ID_BYTES]), body[ID_BYTES:]
    secret, body = body[:secret_bytes], body[secret_bytes:]
    try:
        where = f"mun:log:{id_text(body[:ID_BYTES])}@{body[ID_BYTES:].decode('ascii')}"
        log = parse_address(where, PeerKind.LOG)
        if kind == _INVITE:
            return Invitation(volume, log)
        return VolumeCap(Right(kind), volume, log, MemberId(secret[:ID_BYTES]), secret[ID_BYTES:])
    except (MunimentError, ValueError) as error:
        raise InvalidCap(reason="its fields do not fit") from error


def _opened(kind: str, encoded: str) -> bytes:
    try:
        payload = base64.b32decode(encoded.upper() + "=" * (-len(encoded) % 8))
    except (binascii.Error, ValueError) as error:
        raise InvalidCap(reason="it has characters that are not in a-z and 2-7, or misses some") from error
    body, checksum = payload[:-_CHECKSUM_BYTES], payload[-_CHECKSUM_BYTES:]
    if not body or zlib.crc32(kind.encode() + body).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise InvalidCap(reason="its checksum does not match; a character is wrong or missing")
    if base64.b32encode(payload).decode("ascii").rstrip("=").lower() != encoded:
        raise InvalidCap(reason="it is not in canonical form")
    if body[0] != VERSION:
        raise InvalidCap(reason=f"version {body[0]} is not known to this program; update it")
    return body[1:]
