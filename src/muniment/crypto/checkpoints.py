"""Signing and opening checkpoints, and cosignatures of witnesses (docs/spec/checkpoint.md).

A signature is looked for under (name, key id).  One that stands under a key's own name and id and does not
verify spoils the note, whatever else is in it; those of unknown keys are passed over (C2SP signed-note).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from muniment.crypto.identity import Identity, verify_signature
from muniment.errors import InvalidRequest, MalformedRecord
from muniment.spec import checkpoint as spec
from muniment.spec.checkpoint import Checkpoint, Note, NoteSignature, decode_note, encode_note


def key_id(name: str, signature_type: int, public_key: bytes) -> bytes:
    """The 4 bytes by which a signature line tells whose and of what type it is."""
    named = name.encode() + b"\n" + bytes((signature_type,))
    return hashlib.sha256(named + public_key).digest()[: spec.KEY_ID_BYTES]


def sign_note(identity: Identity, name: str, text: bytes) -> bytes:
    """A note with one Ed25519 signature under `name`.  Raises: MalformedRecord: it would be none."""
    signer = key_id(name, spec.ED25519, identity.public_key)
    return encode_note(Note(text, (NoteSignature(name, signer, identity.sign(text)),)))


def open_note(note: bytes, name: str, public_key: bytes) -> bytes:
    """The text of a note that the key of this name signed.

    Raises: MalformedRecord: not a note, not signed by the key, or a signature of the key does not verify.
    """
    opened = decode_note(note)
    lines = _lines_of(opened, name, spec.ED25519, public_key)
    if not lines:
        raise MalformedRecord(format="signed note", reason="it is not signed by the expected key")
    for line in lines:
        verify_signature(public_key, line.signature, opened.text)
    return opened.text


def _lines_of(note: Note, name: str, signature_type: int, public_key: bytes) -> list[NoteSignature]:
    wanted = key_id(name, signature_type, public_key)
    return [line for line in note.signatures if line.name == name and line.key_id == wanted]


def sign_checkpoint(identity: Identity, checkpoint: Checkpoint) -> bytes:
    """The checkpoint as a note signed by its log, under its origin.

    A log signs no checkpoint that is inconsistent with one it has signed: what it signed is evidence.
    Raises: MalformedRecord: an origin that cannot name a key, or too long.
    """
    return sign_note(identity, checkpoint.origin, spec.encode_checkpoint(checkpoint))


def open_checkpoint(note: bytes, public_key: bytes, *, origin: str | None = None) -> Checkpoint:
    """Verify a checkpoint from anybody.

    Args:
        note: signed by its log, under its origin.
        public_key: of the log, Ed25519.
        origin: of the log that is meant; without it, the caller compares.
    Raises: MalformedRecord: too long, no checkpoint, of another log, or not signed by the key.
    """
    checkpoint = spec.decode_checkpoint(decode_note(note).text)
    if origin is not None and checkpoint.origin != origin:
        raise MalformedRecord(format="checkpoint", reason="it is of another log")
    open_note(note, checkpoint.origin, public_key)
    return checkpoint


def bare_checkpoint(note: bytes, public_key: bytes) -> bytes:
    """A checkpoint under its log's signature alone, unverified; whatever else is on the note is left away.

    Raises: MalformedRecord: not a checkpoint, or no line of this key is on it.
    """
    opened = decode_note(note)
    origin = spec.decode_checkpoint(opened.text).origin
    lines = _lines_of(opened, origin, spec.ED25519, public_key)
    if not lines:
        raise MalformedRecord(format="signed note", reason="it is not signed by the expected key")
    return encode_note(Note(opened.text, tuple(lines)))


def cosign(identity: Identity, name: str, note: bytes, *, time_s: int) -> bytes:
    """The note with a witness's cosignature added, or renewed.

    The witness has opened the checkpoint and checked its consistency with the largest it has cosigned of
    this log: that is what its signature says.

    Args:
        identity: of the witness.
        name: the only one under which this key cosigns; `spec.checkpoint.witness_of` for members.
        note: a checkpoint.
        time_s: seconds since the epoch.
    Raises: MalformedRecord: not a note, or no room for another signature.
    """
    opened = decode_note(note)
    signature = identity.sign(spec.cosigned_message(opened.text, time_s))
    signer = key_id(name, spec.COSIGNATURE_V1, identity.public_key)
    field = spec.encode_cosignature(time_s, signature)
    return encode_note(opened.adding(NoteSignature(name, signer, field)))


def open_cosignatures(note: bytes, witnesses: Mapping[str, bytes]) -> dict[str, int]:
    """Verify the cosignatures of known witnesses; the log's own signature is `open_checkpoint`'s.

    Args:
        note: a checkpoint from anybody.
        witnesses: public keys by name, each key once.
    Returns: for each witness that cosigned, when: the latest time, in seconds since the epoch.

    Raises:
        MalformedRecord: not a note, or a cosignature of a known witness does not verify.
        InvalidRequest: two names have one key.  Who has a cosignature of one name could write the other's,
            and a quorum would count it twice.
    """
    return {name: time_s for name, (time_s, _) in _cosigned(decode_note(note), witnesses).items()}


def _cosigned(note: Note, witnesses: Mapping[str, bytes]) -> dict[str, tuple[int, NoteSignature]]:
    """The latest cosignature of each known witness, verified, with its time."""
    if len(set(witnesses.values())) != len(witnesses):
        raise InvalidRequest(reason="two witnesses have the same key")
    found: dict[str, tuple[int, NoteSignature]] = {}
    for name, public_key in witnesses.items():
        for line in _lines_of(note, name, spec.COSIGNATURE_V1, public_key):
            time_s, signature = spec.decode_cosignature(line.signature)
            verify_signature(public_key, signature, spec.cosigned_message(note.text, time_s))
            if name not in found or found[name][0] < time_s:
                found[name] = time_s, line
    return found


def merge_cosignatures(note: bytes, other: bytes, witnesses: Mapping[str, bytes]) -> bytes:
    """A checkpoint with those cosignatures of known witnesses added that another copy of it has.

    Of two by one witness the later stays.  Nothing else is taken over from `other`, which may come from
    anybody.
    Raises: InvalidRequest: it is on another checkpoint, most likely because the log has grown since, or as
        `open_cosignatures`; MalformedRecord: not notes, a cosignature that does not verify, or no room.
    """
    mine, theirs = decode_note(note), decode_note(other)
    if mine.text != theirs.text:
        raise InvalidRequest(reason="the cosignature is on another checkpoint; cosign the newest")
    held = _cosigned(mine, witnesses)
    fresh = (
        line
        for name, (time_s, line) in _cosigned(theirs, witnesses).items()
        if name not in held or held[name][0] < time_s
    )
    return encode_note(mine.adding(*fresh))
