"""The node record: what a node says of itself, signed, expiring (docs/spec/record.md).

Signed form: canonical CBOR array [payload, signature], where payload is the canonical CBOR of the record's
fields and the signature is Ed25519 over RECORD_SIGNATURE + payload.  Pure layout; signing and the check of
NodeId, signature and expiry are `muniment.crypto.records`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import ID_BYTES, NodeId
from muniment.spec.address import is_host_port
from muniment.spec.canonical import dump, load

PROTOCOL_VERSION: Final = 1
ADDRESSES_MAX: Final = 8
ADDRESS_CHARS_MAX: Final = 255
ZONE_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A verified node record, or one about to be signed.

    Attributes:
        node: hash of `public_key`.
        public_key: Ed25519, 32 bytes.
        addresses: `host:port`, best first, 1 to ADDRESSES_MAX.
        zone: failure zone (a rack, a house, a provider); empty where unknown.
        capacity_bytes: what the operator gives; the weight in placement.
        price: micro-credits for one GiB and 30 days; 0 is free.
        protocols: versions spoken.
        issued_s: seconds since the epoch; of two records the later issued wins.
        expires_s: not to be used from then on.
        draining: takes no new shares; those it has are to be moved.
    """

    node: NodeId
    public_key: bytes
    addresses: tuple[str, ...]
    zone: str
    capacity_bytes: int
    price: int
    protocols: tuple[int, ...]
    issued_s: int
    expires_s: int
    draining: bool = False


VERSION: Final = 2
_DRAINING: Final = 1
"""The one flag there is."""

SIGNATURE_BYTES: Final = 64
_FORMAT: Final = "node record"
_TIME_S_MAX: Final = 1 << 40
_CAPACITY_MAX: Final = 1 << 63


def encode_payload(record: NodeRecord) -> bytes:
    """The bytes that are signed: a canonical CBOR array in the order of section 2.

    Of the first version that can say it: nodes and clients of a grid are not brought up to date in one
    moment, and a program of before version 2 has no use for a node that takes no shares.
    """
    fields = [
        record.node,
        record.public_key,
        list(record.addresses),
        record.zone,
        record.capacity_bytes,
        record.price,
        list(record.protocols),
        record.issued_s,
        record.expires_s,
    ]
    return dump([2, *fields, _DRAINING] if record.draining else [1, *fields])


def decode_payload(payload: bytes) -> NodeRecord:
    """Read a payload of any version; signature and NodeId are not checked here.

    Raises: MalformedRecord: not canonical, wrong types or out of limits; UnknownVersion.
    """
    match load(payload, format=_FORMAT):
        case [1, *fields]:
            return _record(fields, draining=False)
        case [2, *fields, int(flags)]:
            if flags != _DRAINING:  # without it the record is of version 1: there is one encoding of each
                raise MalformedRecord(format=_FORMAT, reason=f"flags {flags}")
            return _record(fields, draining=True)
        case [int(version), *_] if version != 2:
            raise UnknownVersion(format=_FORMAT, version=version)
        case _:
            raise MalformedRecord(format=_FORMAT, reason="fields do not fit")


def _record(fields: list[object], *, draining: bool) -> NodeRecord:
    """The record of the fields that all versions share.  Raises: MalformedRecord."""
    match fields:
        case [
            bytes(node),
            bytes(key),
            list(addresses),
            str(zone),
            int(capacity),
            int(price),
            list(protocols),
            int(issued),
            int(expires),
        ]:
            pass
        case _:
            raise MalformedRecord(format=_FORMAT, reason="fields do not fit")
    if len(node) != ID_BYTES or len(key) != ID_BYTES:
        raise MalformedRecord(format=_FORMAT, reason="key or NodeId of wrong length")
    if not 1 <= len(addresses) <= ADDRESSES_MAX or not all(
        isinstance(address, str) and len(address) <= ADDRESS_CHARS_MAX and is_host_port(address)
        for address in addresses
    ):
        raise MalformedRecord(format=_FORMAT, reason="addresses out of limits, or not host:port")
    if len(zone) > ZONE_CHARS_MAX:
        raise MalformedRecord(format=_FORMAT, reason="zone too long")
    if len(protocols) > ADDRESSES_MAX or not all(type(p) is int for p in protocols):
        raise MalformedRecord(format=_FORMAT, reason="protocol versions out of limits")
    if not (
        0 <= capacity < _CAPACITY_MAX
        and 0 <= price < _CAPACITY_MAX
        and 0 <= issued < _TIME_S_MAX
        and 0 <= expires < _TIME_S_MAX
    ):
        raise MalformedRecord(format=_FORMAT, reason="numbers out of limits")
    return NodeRecord(
        NodeId(node),
        key,
        tuple(addresses),
        zone,
        capacity,
        price,
        tuple(protocols),
        issued,
        expires,
        draining,
    )


def join_signed(payload: bytes, signature: bytes) -> bytes:
    """The signed form: canonical CBOR of [payload, signature]."""
    return dump([payload, signature])


def split_signed(signed: bytes) -> tuple[bytes, bytes]:
    """Payload and signature of a signed record, unverified.  Raises: MalformedRecord."""
    match load(signed, format=_FORMAT):
        case [bytes(payload), bytes(signature)] if len(signature) == SIGNATURE_BYTES:
            return payload, signature
        case _:
            raise MalformedRecord(format=_FORMAT, reason="not a payload with a signature")
