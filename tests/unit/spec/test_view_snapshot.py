"""Streams of view snapshots and clear parts: what anybody may have made is read, or refused in one way."""

from __future__ import annotations

import dataclasses
import io
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.state_hash import row_of_extent, row_of_inode, row_of_name
from muniment.core.state_rows import (
    CounterRow,
    ExtentRow,
    SnapshotRow,
    StateRow,
    XattrRow,
    opened_rows,
)
from muniment.core.tree_state import ROOT_INODE, Inode, Name, StoredExtent
from muniment.errors import IntegrityError, MalformedRecord, UnknownVersion
from muniment.ids import EntryHash, MemberId, VolumeId
from muniment.spec.clear_part import (
    ClearAct,
    ClearHead,
    ClearPart,
    ClearTail,
    decode_clear,
    encode_clear,
    pack_head,
    unpack_head,
)
from muniment.spec.operation import Kind
from muniment.spec.view_row import next_inode_row, snapshot_row, xattr_row
from muniment.spec.view_snapshot import ROW_BYTES_MAX, decode_view, encode_view
from muniment.testing.sample_volume import blob_ref


def inode(**changes: Any) -> Inode:
    """The root with other fields."""
    return Inode(**{name: getattr(ROOT_INODE, name) for name in Inode.__match_args__} | changes)


SIZE = 6
HEAD = ClearHead(
    VolumeId(b"v" * 32),
    SIZE,
    1_700_000_000 * 10**9,
    (b"a" * 32, b"b" * 32),
    (
        ClearTail(MemberId(b"m" * 32), 4, EntryHash(b"p" * 32)),
        ClearTail(MemberId(b"n" * 32), 2, EntryHash(b"q" * 32)),
    ),
    2,
    b"h" * 32,
)
ACTS = (
    ClearAct(0, 0, b"founding", (b"x" * 32, b"y" * 32)),
    ClearAct(5, 1_700_000_000 * 10**9, b"another", (b"z" * 32,)),
)
REF = blob_ref(1, 1000)
ROWS = [
    row_of_inode(ROOT_INODE),
    row_of_inode(ROOT_INODE._replace(inode=2, kind=Kind.FILE, version=3, parent=0, size=1010)),
    row_of_name(Name(1, b"file", 2, Kind.FILE)),
    row_of_extent(2, StoredExtent(0, 1000, REF)),
    row_of_extent(2, StoredExtent(1000, 10, b"0123456789")),
    xattr_row(2, b"user.a", b"value"),
    snapshot_row(b"before", 3),
    next_inode_row(3),
]


def stream(head: ClearHead = HEAD, rows: list[bytes] = ROWS) -> bytes:
    return b"".join(encode_view(head, rows))


def read(data: bytes) -> tuple[ClearHead, list[StateRow]]:
    head, rows = decode_view(io.BytesIO(data))
    return head, [row for _, row in opened_rows(rows, head.size)]


def test_a_snapshot_survives_its_encoding() -> None:
    head, rows = read(stream())
    assert head == HEAD
    assert rows == [
        ROOT_INODE,
        ROOT_INODE._replace(inode=2, kind=Kind.FILE, version=3, parent=0, size=1010),
        Name(1, b"file", 2, Kind.FILE),
        ExtentRow(2, StoredExtent(0, 1000, REF)),
        ExtentRow(2, StoredExtent(1000, 10, b"0123456789")),
        XattrRow(2, b"user.a", b"value"),
        SnapshotRow(b"before", 3),
        CounterRow(3),
    ]


def test_one_flipped_bit_changes_it_or_is_refused() -> None:
    whole = stream()
    random.seed(1)
    for at in random.sample(range(8 * len(whole)), 2000):
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        try:
            assert read(bytes(changed)) != read(whole)
        except IntegrityError:
            pass


def test_a_snapshot_that_was_cut_off_is_refused_wherever_it_ends() -> None:
    whole = stream()
    for end in range(len(whole)):
        with pytest.raises(MalformedRecord):
            read(whole[:end])
    with pytest.raises(MalformedRecord):
        read(whole + b"\0")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_one_family_of_errors(data: bytes) -> None:
    for some in (data, stream()[:9] + data):
        with pytest.raises(IntegrityError):
            read(some)


def test_another_version_is_named_as_such() -> None:
    with pytest.raises(UnknownVersion):
        read(stream()[:8] + b"\x02" + stream()[9:])
    clear = b"".join(encode_clear(ClearPart(HEAD, ACTS)))
    with pytest.raises(UnknownVersion):
        decode_clear(clear[:8] + b"\x02" + clear[9:])


def test_a_frame_that_claims_too_much_is_refused_before_it_is_read() -> None:
    class Endless:
        asked = 0

        def __init__(self, start: bytes) -> None:
            self.start = io.BytesIO(start)

        def read(self, size: int) -> bytes:
            self.asked = max(self.asked, size)
            return self.start.read(size) or b"\xff" * size

    for start in (stream()[:9], stream(rows=[])):
        endless = Endless(start)
        with pytest.raises(MalformedRecord):
            list(decode_view(endless)[1])
        assert endless.asked <= max(ROW_BYTES_MAX, len(pack_head(HEAD)))


@pytest.mark.parametrize("swapped", range(len(ROWS) - 1))
def test_rows_stand_in_one_order_and_none_twice(swapped: int) -> None:
    rows = list(ROWS)
    rows[swapped], rows[swapped + 1] = rows[swapped + 1], rows[swapped]
    for wrong in (rows, ROWS[: swapped + 1] + ROWS[swapped:]):
        with pytest.raises(MalformedRecord):
            list(opened_rows(wrong, SIZE))


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\x07",
        row_of_inode(ROOT_INODE._replace(version=SIZE)),
        row_of_inode(ROOT_INODE._replace(links=1 << 63)),
        row_of_inode(ROOT_INODE._replace(size=1 << 63)),
        row_of_inode(ROOT_INODE)[:-1],
        row_of_name(Name(0, b"n", 1, Kind.FILE)),
        row_of_name(Name(1, b"a/b", 1, Kind.FILE)),
        row_of_extent(2, StoredExtent(0, 10, b"short")),
        row_of_extent(2, StoredExtent(0, 1001, REF)),
        row_of_extent(2, StoredExtent((1 << 64) - 1, 1, REF)),
        xattr_row(2, b"", b""),
        xattr_row(2, b"long", b"value")[:12],
        snapshot_row(b"later", SIZE),
        next_inode_row(0),
    ],
)
def test_a_row_out_of_range_is_refused(row: bytes) -> None:
    with pytest.raises(MalformedRecord):
        list(opened_rows([row], SIZE))


def test_a_clear_part_survives_its_encoding() -> None:
    part = ClearPart(HEAD, ACTS)
    whole = b"".join(encode_clear(part))
    assert decode_clear(whole) == part
    for end in range(len(whole)):
        with pytest.raises(MalformedRecord):
            decode_clear(whole[:end])
    for at in range(0, 8 * len(whole), 3):
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        try:
            assert decode_clear(bytes(changed)) != part
        except IntegrityError:
            pass


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 7},
        {"frontier": (b"a" * 32,)},
        {"tails": HEAD.tails[::-1]},
        {"tails": HEAD.tails[:1]},
        {"acts_count": 7},
        {"acts_count": 0},
        {"time_ns": -1},
    ],
)
def test_a_head_that_does_not_add_up_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedRecord):
        unpack_head(pack_head(dataclasses.replace(HEAD, **changes)))  # type: ignore[arg-type]
