"""Checkpoints as signed notes, and what witnesses sign (docs/spec/checkpoint.md).

The text formats of C2SP: signed-note, tlog-checkpoint, tlog-cosignature v1.  A note is text, an empty line,
and a line for each signature; a checkpoint is the text of a note.  Pure layout: key ids and signatures are
`muniment.crypto.checkpoints`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from muniment.errors import InvalidRequest, MalformedRecord
from muniment.ids import MemberId, VolumeId, id_from_text, id_text
from muniment.spec.limits import KIB, LOG_SIZE_MAX, MIB
from muniment.spec.tags import COSIGNATURE

NOTE_BYTES_MAX: Final = 8 * KIB
"""Signed checkpoint with its cosignatures."""
NOTES_MAX: Final = 4096
NOTES_BYTES_MAX: Final = 4 * MIB
"""Of a file of checkpoints, for another member (section 5)."""
NOTE_SIGNATURES_MAX: Final = 64
"""Signature lines of one note; C2SP asks for 16 at least."""
ROOT_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
SIGNATURE_BYTES: Final = 64
TIME_BYTES: Final = 8
TIME_S_MAX: Final = (1 << 63) - 1
"""tlog-cosignature, section Format."""
NAME_BYTES_MAX: Final = 255
"""Of an origin or key name: the most that the successor of cosignature/v1 can sign."""

ED25519: Final = 0x01
COSIGNATURE_V1: Final = 0x04
"""Signature types (signed-note, section Signature types): a key id is made under one of them."""

_FILE: Final = "file of checkpoints"
_ORIGIN: Final = "muniment.log/"
_WITNESS: Final = "muniment.witness/"
_DASH: Final = "\u2014 "
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_BLANK_OR_PLUS: Final = re.compile(r"[\s+]")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


def origin_of(volume: VolumeId) -> str:
    """The origin line of a volume's log, which is also the name its log service signs under."""
    return _ORIGIN + id_text(volume)


def volume_of(origin: str) -> VolumeId:
    """The volume whose log has this origin.  Raises: MalformedRecord: it is another kind of log."""
    try:
        if origin.startswith(_ORIGIN):
            return VolumeId(id_from_text(origin.removeprefix(_ORIGIN)))
    except InvalidRequest as error:
        raise MalformedRecord(format="checkpoint", reason=error.reason) from error
    raise MalformedRecord(format="checkpoint", reason="it is not of a Muniment log")


def witness_of(member: MemberId) -> str:
    """The one name under which a member cosigns: a cosignature does not commit to its name."""
    return _WITNESS + id_text(member)


# --- notes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, unverified.

    Attributes:
        name: of the key; without blanks and plus signs.
        key_id: of name, signature type and public key; tells keys apart and proves nothing.
        signature: what its type says.
    Raises: MalformedRecord: they do not fit.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if _BLANK_OR_PLUS.search(self.name):
            raise MalformedRecord(format="signed note", reason="a key name with blanks or plus signs")
        if len(self.key_id) != KEY_ID_BYTES or not self.signature:
            raise MalformedRecord(format="signed note", reason="a signature that is too short")


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note, unverified: the text with its last newline, and the signatures.

    Raises: MalformedRecord: a text that no note can have.
    """

    text: bytes
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        try:
            text = self.text.decode()
        except UnicodeDecodeError as error:
            raise MalformedRecord(format="signed note", reason="not UTF-8") from error
        if not text.endswith("\n") or _CONTROL.search(text):
            raise MalformedRecord(format="signed note", reason="no whole lines, or control characters")

    def adding(self, *signatures: NoteSignature) -> Note:
        """With more signatures; one of the same name and key id is replaced, in its place."""
        merged = {(line.name, line.key_id): line for line in (*self.signatures, *signatures)}
        return Note(self.text, tuple(merged.values()))


def encode_note(note: Note) -> bytes:
    """The note as bytes.  Raises: MalformedRecord: too long, or too many signatures."""
    lines = [
        f"{_DASH}{line.name} {base64.b64encode(line.key_id + line.signature).decode('ascii')}\n"
        for line in note.signatures
    ]
    data = note.text + b"\n" + "".join(lines).encode()
    _check_limits(len(data), len(lines))
    return data


def decode_note(data: bytes) -> Note:
    """Read a note; neither is its text understood nor any signature verified here.

    Raises: MalformedRecord: for anything that is not a signed note within the limits.
    """
    _check_limits(len(data), 1)
    body, empty, tail = data.rpartition(b"\n\n")
    if not empty or not tail.endswith(b"\n"):
        raise MalformedRecord(format="signed note", reason="no signatures behind an empty line")
    try:
        lines = tail[:-1].decode().split("\n")
    except UnicodeDecodeError as error:
        raise MalformedRecord(format="signed note", reason="not UTF-8") from error
    _check_limits(len(data), len(lines))
    return Note(body + b"\n", tuple(map(_signature, lines)))


def _signature(line: str) -> NoteSignature:
    name, blank, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not blank:
        raise MalformedRecord(format="signed note", reason="a line that is no signature")
    blob = _unbase64(encoded, "signed note")
    return NoteSignature(name, blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:])


def _check_limits(size_bytes: int, signatures: int) -> None:
    if size_bytes > NOTE_BYTES_MAX:
        raise MalformedRecord(format="signed note", reason=f"{size_bytes} bytes")
    if not 1 <= signatures <= NOTE_SIGNATURES_MAX:
        raise MalformedRecord(format="signed note", reason=f"{signatures} signatures")


def _check_name(name: str) -> None:
    """Origins and key names: one line, neither empty nor long."""
    try:
        fits = 0 < len(name.encode()) <= NAME_BYTES_MAX
    except UnicodeEncodeError as error:
        raise MalformedRecord(format="signed note", reason="a name that is not Unicode") from error
    if not fits or "\n" in name or _CONTROL.search(name):
        raise MalformedRecord(
            format="signed note", reason="a name of wrong length or with control characters"
        )


def _unbase64(text: str, name: str) -> bytes:
    """Decode standard base64 and insist on its one form."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRecord(format=name, reason="not base64") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedRecord(format=name, reason="not the canonical base64")
    return data


# --- files of notes -----------------------------------------------------------------------------


def encode_notes(notes: Sequence[bytes]) -> bytes:
    """Notes behind each other, an empty line between them; one alone is just that note.

    Raises: MalformedRecord: none, or more than fit.
    """
    data = b"\n".join(notes)
    _check_file(len(data), len(notes))
    return data


def decode_notes(data: bytes) -> list[bytes]:
    """Take a file of notes apart; each is a note, and nothing of it is verified.

    Raises: MalformedRecord: for anything that `encode_notes` did not make.  Cost: O(length).
    """
    _check_file(len(data), 1)
    blocks = data.removesuffix(b"\n").split(b"\n\n", 2 * NOTES_MAX)
    _check_file(len(data), len(blocks) // 2)
    if len(blocks) % 2 or not data.endswith(b"\n"):
        raise MalformedRecord(format=_FILE, reason="a checkpoint without signatures, or cut off")
    notes = [b"%s\n\n%s\n" % pair for pair in zip(blocks[::2], blocks[1::2], strict=True)]
    for note in notes:
        decode_checkpoint(decode_note(note).text)
    return notes


def _check_file(size_bytes: int, notes: int) -> None:
    if size_bytes > NOTES_BYTES_MAX or not 1 <= notes <= NOTES_MAX:
        raise MalformedRecord(format=_FILE, reason=f"{notes} checkpoints in {size_bytes} bytes")


# --- checkpoints --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: at this size it has this root.

    Attributes:
        origin: names the log; `origin_of` a volume for ours.
        size: entries.
        root: of the Merkle tree over them, 32 bytes.
        extensions: further lines of foreign logs; ours have none, for nobody can audit them.
    Raises: MalformedRecord: out of limits.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.origin)
        if not 0 <= self.size <= LOG_SIZE_MAX:
            raise MalformedRecord(format="checkpoint", reason=f"{self.size} entries")
        if len(self.root) != ROOT_BYTES:
            raise MalformedRecord(format="checkpoint", reason=f"root of {len(self.root)} bytes")
        if not all(line and not _CONTROL.search(line) and "\n" not in line for line in self.extensions):
            raise MalformedRecord(format="checkpoint", reason="an extension that is no line")


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The text of the note: what a log signs (section 2)."""
    root = base64.b64encode(checkpoint.root).decode("ascii")
    lines = (checkpoint.origin, str(checkpoint.size), root, *checkpoint.extensions)
    return "".join(f"{line}\n" for line in lines).encode()


def decode_checkpoint(text: bytes) -> Checkpoint:
    """Read the text of a note.

    Raises: MalformedRecord: for anything that `encode_checkpoint` did not make.
    """
    if len(text) > NOTE_BYTES_MAX:
        raise MalformedRecord(format="checkpoint", reason=f"{len(text)} bytes")
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise MalformedRecord(format="checkpoint", reason="not UTF-8") from error
    if len(lines) < 4 or lines.pop() != "":
        raise MalformedRecord(format="checkpoint", reason="it has not three whole lines")
    origin, size, root, *extensions = lines
    if not _SIZE.fullmatch(size):
        raise MalformedRecord(format="checkpoint", reason="its size is no number")
    return Checkpoint(origin, int(size), _unbase64(root, "checkpoint"), tuple(extensions))


# --- cosignatures -------------------------------------------------------------------------------


def cosigned_message(text: bytes, time_s: int) -> bytes:
    """What a witness signs: that at this time it knew of no larger log than that of this note's text."""
    return COSIGNATURE + b"time %d\n" % time_s + text


def encode_cosignature(time_s: int, signature: bytes) -> bytes:
    """The signature field of a cosignature: time, then Ed25519.  Raises: MalformedRecord: out of limits."""
    if not 0 <= time_s <= TIME_S_MAX or len(signature) != SIGNATURE_BYTES:
        raise MalformedRecord(format="cosignature", reason="time or signature out of limits")
    return time_s.to_bytes(TIME_BYTES, "big") + signature


def decode_cosignature(field: bytes) -> tuple[int, bytes]:
    """Time in seconds since the epoch and Ed25519 signature.  Raises: MalformedRecord."""
    if len(field) != TIME_BYTES + SIGNATURE_BYTES:
        raise MalformedRecord(format="cosignature", reason=f"{len(field)} bytes")
    time_s = int.from_bytes(field[:TIME_BYTES], "big")
    if time_s > TIME_S_MAX:
        raise MalformedRecord(format="cosignature", reason="time out of limits")
    return time_s, field[TIME_BYTES:]
