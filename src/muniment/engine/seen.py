"""What a member has seen of a log, for people and for other members: checkpoints, and who cosigned them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from muniment.crypto.checkpoints import bare_checkpoint, merge_cosignatures, open_cosignatures
from muniment.crypto.entries import known_entry
from muniment.engine.follower import Follower
from muniment.errors import MalformedRecord
from muniment.ids import MemberId
from muniment.spec.checkpoint import (
    NOTES_BYTES_MAX,
    NOTES_MAX,
    Checkpoint,
    decode_checkpoint,
    decode_note,
    encode_notes,
    witness_of,
)


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """A checkpoint, and what all copies of it that were seen say together.

    Attributes:
        checkpoint: what the log signed.
        note: with its signature, and the cosignatures of present members; others say nothing here.
        cosigned: who did it when, in seconds since the epoch.
    """

    checkpoint: Checkpoint
    note: bytes = field(repr=False)
    cosigned: dict[MemberId, int]


def seen_sizes(follower: Follower) -> list[int]:
    """Entries of the logs of which checkpoints were seen, in order.  In the volume's thread."""
    return sorted({decode_checkpoint(decode_note(note).text).size for note in follower.known_notes()})


def seen_checkpoints(follower: Follower, log_keys: Sequence[bytes], start: int = 0) -> list[SeenCheckpoint]:
    """Those of logs of at least `start` entries, smaller ones first.

    In the volume's thread.

    Args:
        log_keys: of the service, and of those that had the log before.
    Cost: reads all files of the checkpoints from there on; a signature check for each cosignature.
    """
    members = follower.membership.members
    witnesses = {witness_of(member): bytes(member) for member in members}
    merged: dict[bytes, bytes] = {}
    for note in follower.known_notes(start):
        text = decode_note(note).text
        if text not in merged:
            bare = _bare(note, log_keys)
            if bare is None:
                continue  # it was seen under a key that is not known any more
            merged[text] = bare
        try:
            merged[text] = merge_cosignatures(merged[text], note, witnesses)
        except MalformedRecord:
            continue  # a cosignature on it does not verify: none of them counts
    found = [_seen(text, note, witnesses) for text, note in merged.items()]
    return sorted(found, key=lambda one: one.checkpoint.size)


def _bare(note: bytes, log_keys: Sequence[bytes]) -> bytes | None:
    for key in log_keys:
        try:
            return bare_checkpoint(note, key)
        except MalformedRecord:
            continue
    return None


def _seen(text: bytes, note: bytes, witnesses: dict[str, bytes]) -> SeenCheckpoint:
    times = open_cosignatures(note, witnesses)
    cosigned = {MemberId(witnesses[name]): time_s for name, time_s in times.items()}
    return SeenCheckpoint(decode_checkpoint(text), note, cosigned)


def entry_time_ns(follower: Follower, size: int) -> int | None:
    """When the last of the first `size` entries was made, by its author's clock; None if it is not here."""
    if not 0 < size <= follower.frontier.size:
        return None
    (signed,) = follower.replica.read(size - 1, size, bytes_max=1)
    return known_entry(signed).entry.time_ns


def exported(seen: Sequence[SeenCheckpoint]) -> tuple[bytes, int]:
    """The newest of them as one file, and how many are in it; as many as a file may have.

    Raises: MalformedRecord: there are none.
    """
    notes = list(_fitting(seen))
    return encode_notes(notes[::-1]), len(notes)


def _fitting(seen: Sequence[SeenCheckpoint]) -> Iterator[bytes]:
    room = NOTES_BYTES_MAX
    for one in seen[: -NOTES_MAX - 1 : -1]:
        room -= len(one.note) + 1
        if room < 0:
            return
        yield one.note
