"""The state hash against a slow one written from docs/spec/view.md, and what makes it a hash of a set."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.state_hash import EMPTY, LANES_BYTES, StateHash, added_rows, initial, removed_rows
from muniment.core.tree_state import Changes, Rejection
from muniment.errors import MalformedRecord
from muniment.spec.operation import ROOT, Extent, Kind, Make, SetXattr, Snapshot
from muniment.spec.view_row import (
    extent_row,
    inode_row,
    name_row,
    next_inode_row,
    snapshot_row,
    xattr_row,
)
from muniment.testing.contracts.view import fold
from muniment.testing.sample_volume import RandomVolume, blob_ref, entry_meta, folded
from muniment.views.memory import MemoryView

ROWS = st.lists(st.binary(max_size=40), max_size=80)


def slow(rows: list[bytes]) -> bytes:
    """Section 4 word by word."""
    lanes = [0] * 1024
    for row in rows:
        spread = blake3(row, derive_key_context="muniment v1 view row").digest(length=2048)
        for lane in range(1024):
            lanes[lane] = (lanes[lane] + spread[2 * lane] + 256 * spread[2 * lane + 1]) % 65536
    joined = b"".join(lane.to_bytes(2, "little") for lane in lanes)
    return blake3(joined, derive_key_context="muniment v1 view state").digest()


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "big", signed=value < 0)


def test_rows_are_laid_out_as_the_page_says() -> None:
    fields = [number(2), number(3, 1), number(0o644, 2), number(5, 4), number(6, 4), number(-7), number(8)]
    inode = b"".join([b"\1", *fields, *map(number, (9, 10, 11, 12, (1 << 64) - 13, 14, 15))])
    assert inode_row(2, 3, 0o644, 5, 6, -7, 8, 9, 10, 11, 12, (1 << 64) - 13, 14, 15) == inode
    assert name_row(1, b"name", 2, 3) == b"\2" + number(1) + number(2) + b"\3name"
    ref = blob_ref(1, 99)
    shape = number(1, 1) + number(2, 2) + number(3, 2) + number(99 + 16)
    blob = number(7, 4) + ref.name.blob + shape + ref.key + number(99, 4) + b"\1"
    assert extent_row(2, 3, 4, ref, 7) == b"\3" + number(2) + number(3) + number(4) + b"\2" + blob
    assert extent_row(2, 3, 4, b"abcd", 0) == b"\3" + number(2) + number(3) + number(4) + b"\1abcd"
    assert xattr_row(2, b"name", b"value") == b"\4" + number(2) + b"\4namevalue"
    assert snapshot_row(b"name", 5) == b"\5" + number(5) + b"name"
    assert next_inode_row(6) == b"\6" + number(6)


def test_a_state_without_entries() -> None:
    fields = [number(1), number(2, 1), number(0o755, 2), bytes(32 + 8), number(2), bytes(24), number(1)]
    root = b"".join([b"\1", *fields])
    assert initial().digest() == slow([root, b"\6" + number(2)])


@given(ROWS)
def test_it_is_the_sum_that_the_page_defines(rows: list[bytes]) -> None:
    assert EMPTY.changed([], rows).digest() == slow(rows)


@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_order_and_steps_do_not_matter(
    kept: list[bytes], passing: list[bytes], chance: random.Random
) -> None:
    at_once = EMPTY.changed([], kept)
    added = kept + passing
    chance.shuffle(added)
    cut = chance.randint(0, len(added))
    steps = EMPTY.changed([], added[:cut]).changed([], added[cut:])
    chance.shuffle(passing)
    assert steps.changed(passing, []) == at_once
    assert EMPTY.changed(passing, added) == at_once


def test_every_row_counts() -> None:
    rows = [bytes([number]) for number in range(100)]
    whole = EMPTY.changed([], rows)
    assert len({whole.changed([row], []).digest() for row in rows} | {whole.digest()}) == 101
    assert whole.changed(rows, []) == EMPTY


def test_changes_as_rows_lead_from_state_to_state() -> None:
    view, volume = MemoryView(), RandomVolume(11)
    assert (
        fold(view, Snapshot(b"s"), Make(ROOT, b"f", Kind.FILE, 0, content=(Extent(0, 1, b"x"),), size=1))
        is None
    )
    assert fold(view, SetXattr(2, b"a", b"")) is None
    for _ in range(40):
        outcome = folded(view.reading(), volume.transaction(view.reading()), view.size)
        assert fold_rows(view, outcome) == view.state_hash()


def fold_rows(view: MemoryView, outcome: Changes | Rejection) -> StateHash:
    """Record an outcome; the hash before it, changed by its rows."""
    old = view.state_hash()
    with view.batch() as batch:
        batch.record(batch.size, entry_meta(batch.size), outcome)
    return old.changed(removed_rows(outcome), added_rows(outcome)) if isinstance(outcome, Changes) else old


@pytest.mark.parametrize("size_bytes", [0, LANES_BYTES - 1, LANES_BYTES + 1])
def test_lanes_of_another_size_are_refused(size_bytes: int) -> None:
    with pytest.raises(MalformedRecord):
        StateHash(bytes(size_bytes))


def test_its_text_shows_nothing_of_the_rows() -> None:
    assert repr(initial()) == "StateHash()"
