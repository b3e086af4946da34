"""Which tiles of an archive are needed: the cover of a log, gaps, what is merged and what is superfluous."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.keeping.tiles import HeldTile, cover, end_of, gap_end, merged_start, superfluous
from muniment.ids import BlobId
from muniment.spec.archive import TILE_BYTES_MAX, TileRange
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape, CodecId


def tile(start: int, stop: int, live: int = 6, *, length: int = 1000, name: int = 0) -> HeldTile:
    blob = BlobId(b"%8d%8d%8d%8d" % (start, stop, live, name))
    return HeldTile(BlobName(blob, BlobShape(CodecId.RS, 4, 6, length)), TileRange(start, stop), live)


TILES = st.lists(
    st.builds(
        lambda start, count, live, name: tile(start, start + count, live, name=name),
        st.integers(0, 30),
        st.integers(1, 12),
        st.integers(0, 6),
        st.integers(0, 3),
    ),
    max_size=20,
    unique_by=lambda one: one.name.blob,
)


@given(TILES, st.randoms(use_true_random=False))
def test_the_cover_is_a_chain_without_gap_whatever_the_order(tiles: list[HeldTile], chance: object) -> None:
    chain = cover(tiles)
    at = 0
    for one in chain:
        assert one.readable
        assert one.range.start <= at < one.range.stop
        at = one.range.stop
    readable = [one for one in tiles if one.readable]
    assert not any(one.range.start <= at < one.range.stop for one in readable)
    assert cover(list(reversed(tiles))) == chain
    for left in chain:  # none of them can be left away
        assert end_of(cover([one for one in chain if one is not left])) < at


@given(TILES)
def test_what_is_given_up_is_held_happily_elsewhere(tiles: list[HeldTile]) -> None:
    chain = cover(tiles)
    gone = superfluous(tiles, chain, 5)
    kept = [one for one in tiles if one not in gone]
    assert end_of(cover(kept)) == end_of(chain)
    for one in gone:
        assert one not in chain
        for entry in range(one.range.start, one.range.stop):
            assert any(c.range.start <= entry < c.range.stop and c.live >= 5 for c in chain)


def test_a_tile_stays_until_what_contains_it_is_held_by_enough_nodes() -> None:
    old, weak, happy = tile(0, 5), tile(0, 9, 4), tile(0, 9, 5)
    assert superfluous([old, weak], cover([old, weak]), 5) == []
    assert superfluous([old, happy], cover([old, happy]), 5) == [old]


def test_a_gap_ends_where_the_next_tile_begins() -> None:
    tiles = [tile(0, 3), tile(7, 9), tile(12, 20), tile(5, 6, 3)]
    assert gap_end(tiles, 3, 30) == 7
    assert gap_end(tiles[:1], 3, 30) == 30


@pytest.mark.parametrize(
    ("lengths", "fresh", "start"),
    [
        ((), 100, 0),
        ((1000,), 499, 10),
        ((1000,), 500, 0),
        ((9000, 3000, 1000), 500, 0),
        ((9002, 3000, 1000), 500, 10),
        ((TILE_BYTES_MAX // 2 + 1,), TILE_BYTES_MAX // 2 + 1, 10),
    ],
)
def test_tiles_are_merged_when_they_are_not_much_longer_than_what_comes(
    lengths: tuple[int, ...], fresh: int, start: int
) -> None:
    chain = [tile(10 * at, 10 * at + 10, length=length) for at, length in enumerate(lengths)]
    assert merged_start(chain, fresh) == start


def test_so_a_log_that_grows_by_little_is_written_few_times() -> None:
    chain: list[HeldTile] = []
    written = 0
    for at in range(4096):
        start = merged_start(chain, 1000)
        chain = [one for one in chain if one.range.start < start]
        length = 1000 * (at + 1 - start)
        written += length
        chain.append(tile(start, at + 1, length=length))
        assert len(chain) <= 13
    assert written <= 21 * 4096 * 1000
