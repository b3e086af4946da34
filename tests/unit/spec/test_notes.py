"""Files of checkpoints: taken apart as they were put together, and hostile bytes are one error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.crypto.checkpoints import cosign, sign_checkpoint
from muniment.crypto.identity import Identity
from muniment.errors import MalformedRecord
from muniment.spec.checkpoint import (
    NOTES_BYTES_MAX,
    NOTES_MAX,
    Checkpoint,
    decode_notes,
    encode_notes,
)

LOG = Identity.from_seed(b"l" * 32)


def note(size: int, *extensions: str) -> bytes:
    return sign_checkpoint(LOG, Checkpoint("muniment.log/x", size, b"r" * 32, extensions))


NOTES = [note(1), cosign(LOG, "muniment.witness/y", note(2), time_s=7), note(3, "more", "and more")]


def test_one_alone_is_that_note() -> None:
    assert encode_notes(NOTES[:1]) == NOTES[0]
    assert decode_notes(NOTES[0]) == NOTES[:1]


def test_round_trip() -> None:
    assert decode_notes(encode_notes(NOTES)) == NOTES


def test_every_cut_is_found() -> None:
    data = encode_notes(NOTES)
    for end in range(len(data)):
        if data[:end].endswith(b"\n") and data[:end].splitlines()[-1].startswith("\u2014".encode()):
            decode_notes(data[:end])  # behind a signature all is whole that is there
            continue
        with pytest.raises(MalformedRecord):
            decode_notes(data[:end])


@pytest.mark.parametrize("more", [b"\n", b" ", b"\x00", b"\n\n", b"x\n", NOTES[0]])
def test_what_is_behind_it_is_found(more: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_notes(NOTES[0] + more)


def test_too_many_and_too_long() -> None:
    many = [note(1)] * (NOTES_MAX + 1)
    assert len(decode_notes(encode_notes(many[1:]))) == NOTES_MAX
    with pytest.raises(MalformedRecord):
        encode_notes(many)
    with pytest.raises(MalformedRecord):
        decode_notes(b"\n".join(many))
    with pytest.raises(MalformedRecord):
        encode_notes([])
    for hostile in (b"\n" * NOTES_BYTES_MAX, b"\n" * (NOTES_BYTES_MAX + 1), b"x" * NOTES_BYTES_MAX, b""):
        with pytest.raises(MalformedRecord):
            decode_notes(hostile)


@given(st.binary(max_size=300) | st.lists(st.sampled_from([*NOTES, b"\n", b"\n\n", b"x"])).map(b"".join))
def test_any_bytes_are_notes_or_one_error(data: bytes) -> None:
    try:
        notes = decode_notes(data)
    except MalformedRecord:
        return
    assert encode_notes(notes) == data


@given(st.integers(0, len(encode_notes(NOTES)) - 1), st.integers(1, 255))
def test_one_changed_byte_gives_other_notes_or_one_error(at: int, flip: int) -> None:
    data = bytearray(encode_notes(NOTES))
    data[at] ^= flip
    try:
        assert encode_notes(decode_notes(bytes(data))) == data
    except MalformedRecord:
        pass
