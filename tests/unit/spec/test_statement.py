"""Statements of acts: packed and unpacked, bounded, and refused in one way; acts have one or have none."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.entries import Place, open_pruned, open_statement, seal_statement
from muniment.core.key_ring import KeyRing
from muniment.core.keys import EpochKeys
from muniment.crypto.member import MemberSecret
from muniment.errors import MalformedRecord
from muniment.ids import BlobId, EntryHash, MemberId, VolumeId
from muniment.spec.act import Act, Hold, Leave, Prune, Report, Retain
from muniment.spec.blob import BlobName
from muniment.spec.canonical import dump
from muniment.spec.entry import Entry
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.statement import (
    LOST_MAX,
    KeepingRecord,
    decode_pruned,
    decode_reason,
    decode_record,
    encode_pruned,
    encode_reason,
    encode_record,
)

SHAPE = BlobShape(CodecId.RS, 2, 3, 80)
NAMES = tuple(BlobName(BlobId(bytes([at]) * 32), SHAPE) for at in (1, 2, 9))
RECORD = KeepingRecord(
    (BlobId(b"a" * 32), BlobId(b"b" * 32)), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
)
PLACE = Place(VolumeId(b"v" * 32), 0, MemberId(b"m" * 32), 1, EntryHash(b"p" * 32), 3, b"r" * 32, 7)
KEYS = EpochKeys.of_read(0, b"k" * 32)


class Ring(KeyRing):
    """One who was given the verify key of epoch 0."""

    def __init__(self) -> None:
        super().__init__(MemberSecret(b"s" * 32).read.verify)

    def keys(self, epoch: int) -> EpochKeys:
        return EpochKeys(epoch, KEYS.verify)


def test_statements_survive_their_encoding() -> None:
    assert decode_record(encode_record(RECORD)) == RECORD
    assert decode_pruned(encode_pruned(NAMES)) == NAMES
    assert decode_reason(encode_reason("case 7 / 2026")) == "case 7 / 2026"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_statement_or_refused(plain: bytes) -> None:
    for decode in (decode_record, decode_pruned, decode_reason):
        try:
            decode(plain)
        except MalformedRecord:
            continue


@pytest.mark.parametrize(
    "value",
    [
        [2, list(range(1, 17)), []],
        [1, list(range(1, 16)), []],
        [1, list(range(1, 18)), []],
        [1, [*range(15), -1], []],
        [1, [*range(15), 1 << 63], []],
        [1, [*range(15), b""], []],
        [1, list(range(16)), [b"b" * 32, b"a" * 32]],
        [1, list(range(16)), [b"a" * 32, b"a" * 32]],
        [1, list(range(16)), [b"a" * 31]],
        [1, list(range(16)), [bytes([at]) * 32 for at in range(LOST_MAX + 1)]],
        [1, list(range(16))],
    ],
)
def test_a_report_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(MalformedRecord):
        decode_record(dump(value))


@pytest.mark.parametrize("names", [(), NAMES[::-1], (NAMES[0], NAMES[0])])
def test_names_out_of_order_are_refused(names: tuple[BlobName, ...]) -> None:
    with pytest.raises(MalformedRecord):
        decode_pruned(encode_pruned(names))


@pytest.mark.parametrize("reason", ["", "two\nlines", "x" * 257])
def test_a_reason_is_one_line(reason: str) -> None:
    with pytest.raises(MalformedRecord):
        encode_reason(reason)
    with pytest.raises(MalformedRecord):
        decode_reason(reason.encode())


@pytest.mark.parametrize(
    ("act", "statement"),
    [(Report(urgent=True), encode_record(RECORD)), (Hold(7, on=True), b"why"), (Prune(3, 1, 3), b"names")],
)
def test_a_statement_opens_for_the_verify_right_and_in_its_place_only(act: Act, statement: bytes) -> None:
    entry = seal_statement(PLACE, act, statement, KEYS, os.urandom)
    assert statement not in entry.blobs
    assert open_statement(entry, Ring()) == statement
    for moved in (
        dataclasses.replace(entry, sequence=2),
        dataclasses.replace(entry, time_ns=8),
        dataclasses.replace(entry, author=MemberId(b"n" * 32)),
        dataclasses.replace(entry, blobs=entry.blobs[:-1] + bytes([entry.blobs[-1] ^ 1])),
    ):
        with pytest.raises(MalformedRecord):
            open_statement(moved, Ring())


def test_a_prune_gives_up_exactly_what_it_counts_or_nothing() -> None:
    def pruned(count: int, statement: bytes) -> tuple[BlobName, ...]:
        return open_pruned(seal_statement(PLACE, Prune(3, 1, count), statement, KEYS, os.urandom), Ring())

    assert pruned(3, encode_pruned(NAMES)) == NAMES
    assert pruned(2, encode_pruned(NAMES)) == ()
    assert pruned(3, encode_pruned(NAMES)[:-1]) == ()


@pytest.mark.parametrize(
    ("act", "statement"),
    [
        (Report(urgent=False), b""),
        (Hold(7, on=True), b""),
        (Prune(3, 1, 3), b""),
        (Retain(7, 0), b"x"),
        (Leave(), b"x"),
        (Report(urgent=False), bytes(8193)),
        (Hold(7, on=True), bytes(2049)),
        (Prune(3, 1, 3), bytes((3 << 20) + 1)),
    ],
)
def test_an_act_has_its_statement_or_none(act: Act, statement: bytes) -> None:
    with pytest.raises(MalformedRecord):
        PLACE.entry(act, blobs=statement)


def test_an_entry_with_a_statement_is_an_entry() -> None:
    assert isinstance(PLACE.entry(Report(urgent=False), blobs=bytes(8192)), Entry)
