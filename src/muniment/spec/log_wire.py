"""Messages between members and a log service (docs/spec/log.md section 2).

Entries travel as frames: a length of 4 bytes, then the signed form.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec

from muniment.errors import MalformedRecord
from muniment.spec.checkpoint import NOTE_BYTES_MAX
from muniment.spec.entry import ENTRY_BYTES_MAX
from muniment.spec.limits import KIB, MIB
from muniment.spec.wire import IdText, Message, Problem

ENTRIES_TYPE: Final = "application/vnd.muniment.entries"
APPEND_ENTRIES_MAX: Final = 1024
APPEND_BYTES_MAX: Final = ENTRY_BYTES_MAX + 64 * KIB
"""Body of one `append`: one largest entry, or many small ones."""

ENTRIES_ANSWER_BYTES_MAX: Final = 4 * MIB
"""Entries in one answer, but one at least."""

CLEAR_TYPE: Final = "application/vnd.muniment.clear"
CLEAR_ANSWER_BYTES_MAX: Final = 8 * MIB
"""Of a checkpoint and the clear part up to it; a log with more acts than that is followed from its start."""

WAIT_S_MAX: Final = 60.0
"""Longest long poll."""

_FRAME: Final = struct.Struct(">I")

Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
Wait = Annotated[float, msgspec.Meta(ge=0, le=WAIT_S_MAX)]
NoteText = Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]
HashText = Annotated[str, msgspec.Meta(min_length=64, max_length=64, pattern="^[0-9a-f]{64}$")]


class LogInfo(Message):
    """Who signs checkpoints: the log service's Ed25519 key, whose hash is its NodeId."""

    public_key: HashText
    version: Annotated[str, msgspec.Meta(max_length=64)]
    time_s: float


class VolumeFounded(Message):
    """The log exists."""

    volume: IdText
    note: NoteText


class NoteMessage(Message):
    """A signed checkpoint, or a cosignature of one."""

    note: NoteText


class AppendOutcome(Message):
    """One entry's place, or why it may not follow; those behind a refused one were not looked at."""

    index: Index | None = None
    problem: Problem | None = None


class AppendAnswer(Message):
    """Outcomes in order, and a checkpoint that covers all places."""

    outcomes: Annotated[list[AppendOutcome], msgspec.Meta(max_length=APPEND_ENTRIES_MAX)]
    note: NoteText


class ProofAnswer(Message):
    """Hashes of a proof from the bottom up."""

    hashes: Annotated[list[HashText], msgspec.Meta(max_length=128)]


def pack_frames(entries: Iterable[bytes]) -> list[bytes]:
    """Lengths and entries, to be sent one after the other."""
    return [part for entry in entries for part in (_FRAME.pack(len(entry)), entry)]


def split_frames(body: bytes) -> Iterator[bytes]:
    """The entries of a body.  Raises: MalformedRecord: it is not frames, or one is too long."""
    at = 0
    while at < len(body):
        if len(body) - at < _FRAME.size:
            raise MalformedRecord(format="entries", reason="a frame without a length")
        (size,) = _FRAME.unpack_from(body, at)
        at += _FRAME.size
        if size > ENTRY_BYTES_MAX or size > len(body) - at:
            raise MalformedRecord(format="entries", reason="a frame longer than its body")
        yield body[at : at + size]
        at += size


def pack_clear(note: bytes, part: bytes) -> bytes:
    """A checkpoint and the clear part up to it."""
    return _FRAME.pack(len(note)) + note + part


def split_clear(body: bytes) -> tuple[bytes, bytes]:
    """Read what `pack_clear` made.  Raises: MalformedRecord: it is cut off, or the note too long."""
    if len(body) < _FRAME.size:
        raise MalformedRecord(format="clear part", reason="it has no checkpoint")
    (size,) = _FRAME.unpack_from(body)
    if size > NOTE_BYTES_MAX or size > len(body) - _FRAME.size:
        raise MalformedRecord(format="clear part", reason="its checkpoint is too long")
    return body[_FRAME.size : _FRAME.size + size], body[_FRAME.size + size :]
