"""Signing and opening log entries (docs/spec/entry.md section 1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from muniment.crypto.hashing import derive
from muniment.crypto.identity import Identity, verify_signature
from muniment.errors import InvalidRequest
from muniment.ids import EntryHash, VolumeId
from muniment.spec import entry as spec
from muniment.spec import tags
from muniment.spec.entry import ENTRY_BYTES_MAX, Entry


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """An entry whose signature was verified; only this module makes them.

    Attributes:
        entry: what was signed.
        hash: its name in the log.
        signed: the signed form, as it stands in the log.
    """

    entry: Entry
    hash: EntryHash
    signed: bytes = field(repr=False)


def sign_entry(identity: Identity, entry: Entry) -> bytes:
    """The signed form of an own entry, at most ENTRY_BYTES_MAX bytes.

    Raises: InvalidRequest: the entry is too large, or another author's.
    """
    if entry.author != identity.public_key:
        raise InvalidRequest(reason="an entry is signed by its author")
    payload = spec.encode_payload(entry)
    signed = spec.join_signed(payload, identity.sign(tags.ENTRY_SIGNATURE + payload))
    if len(signed) > ENTRY_BYTES_MAX:
        raise InvalidRequest(reason=f"an entry of {len(signed)} bytes; make several smaller changes")
    return signed


def open_entry(signed: bytes) -> SignedEntry:
    """Verify a signed entry from anybody.  Whether it may stand in a log is `core.membership`'s to say.

    Raises: MalformedRecord: too long, not canonical, out of limits or the signature wrong; UnknownVersion.
    Cost: one Ed25519 check, and two passes over the bytes.
    """
    payload, signature = spec.split_signed(signed)
    entry = spec.decode_payload(payload)
    verify_signature(entry.author, signature, tags.ENTRY_SIGNATURE + payload)
    return SignedEntry(entry, entry_hash(signed), signed)


def known_entry(signed: bytes) -> SignedEntry:
    """An entry from a store of one's own, which `open_entry` verified when it came in.

    An audit verifies again; opening a volume does not, since the signatures are most of the cost.
    Raises: MalformedRecord, UnknownVersion: the store is damaged.
    """
    payload, _ = spec.split_signed(signed)
    return SignedEntry(spec.decode_payload(payload), entry_hash(signed), signed)


def entry_hash(signed: bytes) -> EntryHash:
    """The name of an entry: the RFC 6962 hash of its leaf in the log's tree, signature included."""
    return EntryHash(hashlib.sha256(tags.LOG_LEAF + signed).digest())


def volume_id(founding: bytes) -> VolumeId:
    """The name of the volume that this signed entry founds; the entry itself is not checked."""
    return VolumeId(derive(tags.VOLUME_ID, founding))
