"""Tiles of an archived log: layout, sealing, and hostile bytes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.keeping.tiles import open_head, open_tile, seal_tile
from muniment.errors import MalformedRecord, UnknownVersion
from muniment.spec import archive as spec
from muniment.spec.archive import Tile, TileRange, decode_body, decode_head, encode_body, encode_head, fitting
from muniment.spec.entry import ENTRY_BYTES_MAX

SECRET = b"s" * 32
ENTRIES = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=12).map(tuple)
TILES = st.builds(
    Tile,
    start=st.integers(0, 1 << 62),
    log_key=st.binary(min_size=32, max_size=32),
    note=st.binary(min_size=1, max_size=300),
    entries=ENTRIES,
)
TILE = Tile(7, b"k" * 32, b"a note", (b"one", b"two", b"three"))


@given(TILES)
def test_what_was_sealed_opens(tile: Tile) -> None:
    sealed = seal_tile(tile, SECRET, os.urandom)
    assert open_tile(sealed, SECRET) == tile
    assert len(sealed) == spec.sealed_bytes(tile.entries, tile.note)
    assert open_head(sealed[: spec.BODY_AT], SECRET) == tile.range
    assert seal_tile(tile, SECRET, os.urandom) != sealed


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    begin = spec.encode_prefix(b"\0" * 32)
    for sealed in (data, begin + data):
        with pytest.raises(MalformedRecord):
            open_tile(sealed, SECRET)
    with pytest.raises(MalformedRecord):
        decode_body(data, TileRange(0, 1 << 40))


@given(TILES, st.data())
def test_a_body_that_was_changed_in_form_is_refused_or_another_tile(tile: Tile, data: st.DataObject) -> None:
    body = encode_body(tile)
    assert decode_body(body, tile.range) == tile
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(MalformedRecord):
        decode_body(body[:cut], tile.range)
    with pytest.raises(MalformedRecord):
        decode_body(body + b"\0", tile.range)
    for other in (TileRange(tile.start, tile.range.stop + 1), TileRange(tile.start, tile.start + 99)):
        with pytest.raises(MalformedRecord):
            decode_body(body, other)
    at = data.draw(st.integers(0, len(body) - 1))
    flipped = body[:at] + bytes((body[at] ^ data.draw(st.integers(1, 255)),)) + body[at + 1 :]
    try:
        changed = decode_body(flipped, tile.range)
    except MalformedRecord:
        return
    assert changed != tile
    assert encode_body(changed) == flipped


def test_each_byte_of_the_sealed_form_counts() -> None:
    sealed = seal_tile(TILE, SECRET, os.urandom)
    for at in range(len(sealed)):
        damaged = sealed[:at] + bytes((sealed[at] ^ 1,)) + sealed[at + 1 :]
        with pytest.raises((MalformedRecord, UnknownVersion)):
            open_tile(damaged, SECRET)
    with pytest.raises(MalformedRecord, match="does not open"):
        open_tile(sealed, b"t" * 32)
    with pytest.raises(UnknownVersion):
        open_head(sealed[:8] + b"\2" + sealed[9:], SECRET)


def test_head_and_body_of_two_tiles_do_not_fit_together() -> None:
    one, two = (seal_tile(TILE, SECRET, os.urandom) for _ in range(2))
    with pytest.raises(MalformedRecord, match="does not open"):
        open_tile(one[: spec.BODY_AT] + two[spec.BODY_AT :], SECRET)


def test_a_tile_has_at_most_four_mebibytes_or_one_entry() -> None:
    assert fitting([]) == 0
    assert fitting([bytes(ENTRY_BYTES_MAX), b"x"]) == 1
    half = bytes(spec.TILE_BYTES_MAX // 2 - 4)
    assert fitting([half, half]) == 2
    assert fitting([half, half + b"x"]) == 1
    with pytest.raises(MalformedRecord, match="not one tile"):
        encode_body(Tile(0, b"k" * 32, b"n", (half, half, b"x")))
    largest = seal_tile(Tile(0, b"k" * 32, b"n" * 8192, (bytes(ENTRY_BYTES_MAX),)), SECRET, os.urandom)
    assert len(largest) <= spec.SEALED_TILE_BYTES_MAX
    assert open_tile(largest, SECRET).entries == (bytes(ENTRY_BYTES_MAX),)
    with pytest.raises(MalformedRecord, match="bytes"):
        open_tile(largest + bytes(spec.SEALED_TILE_BYTES_MAX), SECRET)


@pytest.mark.parametrize(
    "tile",
    [
        Tile(0, b"k" * 31, b"n", (b"x",)),
        Tile(0, b"k" * 32, b"", (b"x",)),
        Tile(0, b"k" * 32, b"n", (b"",)),
        Tile(0, b"k" * 32, b"n", ()),
    ],
)
def test_what_no_reader_takes_is_not_written(tile: Tile) -> None:
    with pytest.raises(MalformedRecord):
        encode_body(tile)


def test_a_range_has_entries_and_an_end() -> None:
    for start, stop in ((0, 0), (3, 2), (0, 1 << 63), (-1, 2)):
        with pytest.raises(MalformedRecord):
            TileRange(start, stop)
    with pytest.raises(MalformedRecord):
        decode_head(encode_head(TileRange(0, 1)) + b"\0")
    with pytest.raises(MalformedRecord):
        decode_head(bytes(16))
