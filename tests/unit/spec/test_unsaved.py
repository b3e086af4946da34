"""The file of what a mount could not save: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest

from muniment.errors import MalformedRecord, MunimentError, UnknownVersion
from muniment.spec.canonical import dump
from muniment.spec.operation import ROOT, Extent, Kind, Make, Write
from muniment.spec.transaction import Transaction, encode_transaction
from muniment.spec.unsaved import (
    FRAME_BYTES_MAX,
    HEAD_BYTES,
    UnsavedChange,
    UnsavedFile,
    UnsavedHead,
    UnsavedPiece,
    UnsavedRecord,
    decode_head,
    decode_length,
    decode_record,
    encode_head,
    encode_length,
    encode_record,
)

RECORDS: list[UnsavedRecord] = [
    UnsavedHead(1_800_000_000 * 10**9, 17, b"h" * 32, (1 << 52, (1 << 52) + 1)),
    UnsavedHead(1, 0, b"", ()),
    UnsavedFile(7, 3, None),
    UnsavedFile(1 << 52, 0, 5),
    UnsavedChange(Make(ROOT, b"name", Kind.FOLDER, 0o755), (), 9, 1 << 52, was_sent=True),
    UnsavedChange(Write(7, None, (Extent(0, 3, b"abc"),)), (), 9, 0, was_sent=False),
    UnsavedPiece(7, 1 << 40, b"bytes"),
    None,
]


@pytest.mark.parametrize("record", RECORDS)
def test_what_is_written_is_read(record: UnsavedRecord) -> None:
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize("record", RECORDS)
def test_any_other_bytes_are_a_record_or_the_one_error(record: UnsavedRecord) -> None:
    plain = encode_record(record)
    for at in range(len(plain)):
        with pytest.raises(MalformedRecord):
            decode_record(plain[:at])
        changed = plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :]
        try:
            found = decode_record(changed)
        except MalformedRecord:
            continue
        assert found != record
    with pytest.raises(MalformedRecord):
        decode_record(plain + b"\0")


PLAIN, NAMES = encode_transaction(Transaction((Make(ROOT, b"name", Kind.FOLDER, 0o755),), ()))


@pytest.mark.parametrize(
    "values",
    [
        [0, 1 << 63, 0, b"", []],
        [0, 1, -1, b"", []],
        [0, 1, 0, b"h" * 31, []],
        [0, 1, 0, b"", [0]],
        [0, 1, 0, b"", [b"7"]],
        [1, -7, 0, None],
        [1, 1 << 53, 0, None],
        [1, 7, -1, None],
        [1, 7, 0, -(1 << 63) - 1],
        [2, PLAIN, NAMES, 1 << 63, 0, 0],
        [2, PLAIN, NAMES, 1, -1, 0],
        [2, PLAIN, NAMES, 1, 0, 2],
        [3, 0, 0, b"bytes"],
        [3, 7, -1, b"bytes"],
        [3, 7, (1 << 62) - 4, b"bytes"],
        [4, 0],
        [5],
        7,
    ],
)
def test_what_no_mount_could_mean_is_no_record(values: object) -> None:
    with pytest.raises(MalformedRecord):
        decode_record(dump(values))


def test_the_head_names_the_epoch() -> None:
    head = encode_head(12)
    assert len(head) == HEAD_BYTES == 17
    assert head[:9] == b"MUNUNSAV\x01"
    assert decode_head(head) == 12
    with pytest.raises(UnknownVersion):
        decode_head(head[:8] + b"\x02" + head[9:])
    for wrong in (head[:-1], head + b"\0", b"x" + head[1:], b""):
        with pytest.raises(MalformedRecord):
            decode_head(wrong)


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1])
def test_no_frame_is_empty_or_longer_than_it_may_be(size: int) -> None:
    assert decode_length(encode_length(FRAME_BYTES_MAX)) == FRAME_BYTES_MAX
    with pytest.raises(MunimentError):
        decode_length(encode_length(size))
    with pytest.raises(MalformedRecord):
        decode_length(b"\0\0\0")
