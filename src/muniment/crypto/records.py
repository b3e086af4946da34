"""Signing and opening node records (docs/spec/record.md section 3)."""

from __future__ import annotations

from muniment.crypto.identity import Identity, node_id, verify_signature
from muniment.errors import MalformedRecord
from muniment.spec import record as spec
from muniment.spec.base64url import base64url, from_base64url
from muniment.spec.limits import RECORD_BYTES_MAX
from muniment.spec.record import NodeRecord
from muniment.spec.tags import RECORD_SIGNATURE


def sign_record(identity: Identity, record: NodeRecord) -> bytes:
    """The signed form of a node's own record, at most RECORD_BYTES_MAX bytes."""
    payload = spec.encode_payload(record)
    return spec.join_signed(payload, identity.sign(RECORD_SIGNATURE + payload))


def open_record(signed: bytes, *, now_s: float) -> NodeRecord:
    """Verify a signed record from anybody.

    Raises:
        MalformedRecord: too long, not canonical, NodeId not the key's, signature wrong, or expired.
        UnknownVersion: a newer format.
    """
    if len(signed) > RECORD_BYTES_MAX:
        raise MalformedRecord(format="node record", reason=f"{len(signed)} bytes")
    payload, signature = spec.split_signed(signed)
    record = spec.decode_payload(payload)
    if node_id(record.public_key) != record.node:
        raise MalformedRecord(format="node record", reason="the NodeId is not that of the key")
    verify_signature(record.public_key, signature, RECORD_SIGNATURE + payload)
    if record.expires_s <= now_s:
        raise MalformedRecord(format="node record", reason="expired")
    return record


def record_text(signed: bytes) -> str:
    """A signed record as unpadded URL-safe base64."""
    return base64url(signed)


def record_from_text(text: str) -> bytes:
    """Read what `record_text` wrote; the record itself is not checked.  Raises: MalformedRecord."""
    if len(text) > 2 * RECORD_BYTES_MAX:
        raise MalformedRecord(format="node record", reason=f"text of {len(text)} characters")
    try:
        signed = from_base64url(text)
    except ValueError as error:
        raise MalformedRecord(format="node record", reason="not base64") from error
    if record_text(signed) != text:
        raise MalformedRecord(format="node record", reason="not the canonical text")
    return signed
