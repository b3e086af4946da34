"""The log's tree against the definition of RFC 6962, written down as it stands there; false proofs fail."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from muniment.errors import InvalidRequest, MalformedRecord
from muniment.merkle.log_tree import (
    EMPTY_ROOT,
    Frontier,
    Subtree,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
)
from muniment.spec.limits import LOG_SIZE_MAX

ALL = 130
"""Every size up to this, and every proof in it: past two powers of two."""

SIZES = range(1, ALL + 1)


def entry(index: int) -> bytes:
    return b"entry %d" % index


# --- the oracle: RFC 9162 sections 2.1.1, 2.1.3.1 and 2.1.4.1, word by word ------------------------


def split(count: int) -> int:
    """The largest power of two smaller than count."""
    return 1 << (count - 1).bit_length() - 1


@cache
def tree_hash(start: int, stop: int) -> bytes:
    if stop == start:
        return hashlib.sha256(b"").digest()
    if stop - start == 1:
        return hashlib.sha256(b"\0" + entry(start)).digest()
    middle = start + split(stop - start)
    return hashlib.sha256(b"\1" + tree_hash(start, middle) + tree_hash(middle, stop)).digest()


def oracle_inclusion(index: int, start: int, stop: int) -> tuple[bytes, ...]:
    if stop - start == 1:
        return ()
    middle = start + split(stop - start)
    if index < middle:
        return (*oracle_inclusion(index, start, middle), tree_hash(middle, stop))
    return (*oracle_inclusion(index, middle, stop), tree_hash(start, middle))


def oracle_consistency(old: int, start: int, stop: int, *, known: bool = True) -> tuple[bytes, ...]:
    """`known`: SUBPROOF's b."""
    if old == stop:
        return () if known else (tree_hash(start, stop),)
    middle = start + split(stop - start)
    if old <= middle:
        return (*oracle_consistency(old, start, middle, known=known), tree_hash(middle, stop))
    return (*oracle_consistency(old, middle, stop, known=False), tree_hash(start, middle))


# --- a store of subtrees ---------------------------------------------------------------------------


class Store:
    """Complete subtrees of a log, counting what is asked of it."""

    def __init__(self, size: int) -> None:
        self.asked = 0
        self.frontiers = [Frontier()]
        self.subtrees: dict[tuple[int, int], bytes] = {}
        for index in range(size):
            frontier, completed = self.frontiers[-1].append(leaf_hash(entry(index)))
            self.frontiers.append(frontier)
            for subtree in completed:
                assert (subtree.level, subtree.index) not in self.subtrees
                self.subtrees[subtree.level, subtree.index] = subtree.hash

    def node(self, level: int, index: int) -> bytes:
        self.asked += 1
        return self.subtrees[level, index]


STORE = Store(ALL)


class FarStore:
    """Subtrees of a log of any size whose entries are all the same, which needs no room."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, 0
        self.levels = [bytes(leaf_hash(b""))]
        while len(self.levels) < 64:
            below = self.levels[-1]
            self.levels.append(hashlib.sha256(b"\1" + below + below).digest())

    def node(self, level: int, index: int) -> bytes:
        assert (index + 1) << level <= self.size, "an incomplete subtree was asked for"
        self.asked += 1
        return self.levels[level]


# --- appending -------------------------------------------------------------------------------------


def test_the_log_without_entries_has_the_root_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == tree_hash(0, 0)


@pytest.mark.parametrize("size", SIZES)
def test_roots_frontiers_and_subtrees_are_those_of_the_definition(size: int) -> None:
    frontier = STORE.frontiers[size]
    assert frontier.root() == tree_hash(0, size)
    assert Frontier(size, frontier.hashes) == frontier
    assert Frontier.at(size, STORE.node) == frontier


def test_every_complete_subtree_is_handed_out_once() -> None:
    expected = {
        (level, index): tree_hash(index << level, (index + 1) << level)
        for level in range(ALL.bit_length())
        for index in range(ALL >> level)
    }
    assert STORE.subtrees == expected


@given(st.lists(st.integers(0, 40), max_size=6))
def test_leaves_are_appended_in_groups_as_one_by_one(groups: list[int]) -> None:
    frontier = one = Frontier()
    completed: list[Subtree] = []
    single: list[Subtree] = []
    for group in groups:
        leaves = [leaf_hash(entry(frontier.size + i)) for i in range(group)]
        frontier, more = frontier.extend(iter(leaves))
        completed += more
    for index in range(sum(groups)):
        one, more = one.append(leaf_hash(entry(index)))
        single += more
    assert frontier == one
    assert completed == single
    assert completed[:1] == [Subtree(0, 0, leaf_hash(entry(0)))][: len(completed)]


@pytest.mark.parametrize(
    ("size", "hashes"),
    [
        (-1, ()),
        (0, (EMPTY_ROOT,)),
        (1, ()),
        (1, (b"short",)),
        (3, (EMPTY_ROOT,)),
        (4, (EMPTY_ROOT, EMPTY_ROOT)),
        (2, (EMPTY_ROOT + b"x",)),
        (LOG_SIZE_MAX + 1, (EMPTY_ROOT,)),
    ],
)
def test_a_frontier_that_cannot_be_is_refused(size: int, hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedRecord, match="log frontier"):
        Frontier(size, hashes)


@pytest.mark.parametrize("size", [-1, LOG_SIZE_MAX + 1])
def test_no_subtree_is_asked_for_a_log_that_cannot_be(size: int) -> None:
    store = Store(0)
    with pytest.raises(MalformedRecord, match="log frontier"):
        Frontier.at(size, store.node)
    assert store.asked == 0


def test_what_is_no_hash_is_not_appended() -> None:
    for leaf in (b"", bytes(31), bytes(33)):
        with pytest.raises(MalformedRecord, match="leaf hash"):
            Frontier().append(leaf)


def test_a_full_log_takes_no_entry() -> None:
    full = Frontier(LOG_SIZE_MAX, (EMPTY_ROOT,) * 63)
    with pytest.raises(MalformedRecord, match="entries"):
        full.append(EMPTY_ROOT)


# --- proofs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_proofs_are_those_of_the_definition_and_are_accepted(size: int) -> None:
    root = tree_hash(0, size)
    for index in range(size):
        path = inclusion_path(index, size, STORE.node)
        assert path == oracle_inclusion(index, 0, size)
        check_inclusion(leaf_hash(entry(index)), index, size, path, root)


@pytest.mark.parametrize("new", SIZES)
def test_consistency_proofs_are_those_of_the_definition_and_are_accepted(new: int) -> None:
    for old in range(new + 1):
        path = consistency_path(old, new, STORE.node)
        assert path == (oracle_consistency(old, 0, new) if old else ())
        check_consistency(old, tree_hash(0, old), new, tree_hash(0, new), path)


@given(st.integers(1, LOG_SIZE_MAX), st.data())
def test_proofs_of_huge_logs_take_few_look_ups_and_are_accepted(size: int, data: st.DataObject) -> None:
    store = FarStore(size)
    root = Frontier.at(size, store.node).root()
    index = data.draw(st.integers(0, size - 1))
    store.asked = 0
    path = inclusion_path(index, size, store.node)
    assert store.asked <= 2 * size.bit_length()
    assert len(path) <= 63
    check_inclusion(store.levels[0], index, size, path, root)
    old = data.draw(st.integers(0, size))
    store.asked = 0
    path = consistency_path(old, size, store.node)
    assert store.asked <= 2 * size.bit_length() + 1
    assert len(path) <= 64
    check_consistency(old, Frontier.at(old, store.node).root(), size, root, path)


@given(st.integers(1, 1500), st.data())
def test_proofs_of_larger_logs_are_those_of_the_definition(size: int, data: st.DataObject) -> None:
    def node(level: int, index: int) -> bytes:
        assert (index + 1) << level <= size
        return tree_hash(index << level, (index + 1) << level)

    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert inclusion_path(index, size, node) == oracle_inclusion(index, 0, size)
    assert consistency_path(old, size, node) == oracle_consistency(old, 0, size)


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0), (0, LOG_SIZE_MAX + 1)])
def test_no_inclusion_is_proved_of_what_is_not_in_the_log(index: int, size: int) -> None:
    with pytest.raises(InvalidRequest):
        inclusion_path(index, size, STORE.node)
    with pytest.raises(MalformedRecord, match="inclusion proof"):
        check_inclusion(EMPTY_ROOT, index, size, (), EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(-1, 4), (5, 4), (0, -1), (0, LOG_SIZE_MAX + 1)])
def test_no_consistency_is_proved_of_sizes_that_cannot_be(old: int, new: int) -> None:
    with pytest.raises(InvalidRequest):
        consistency_path(old, new, STORE.node)
    with pytest.raises(MalformedRecord, match="consistency proof"):
        check_consistency(old, EMPTY_ROOT, new, EMPTY_ROOT, ())


# --- false proofs ----------------------------------------------------------------------------------


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


def damaged(path: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Each hash changed, cut, lengthened, left out, doubled; neighbours swapped; one more at either end."""
    wrong = [(EMPTY_ROOT, *path), (*path, EMPTY_ROOT), (*path, b""), path[:-1] if path else (b"",)]
    for at, step in enumerate(path):
        before, after = path[:at], path[at + 1 :]
        wrong += [(*before, flipped(step, bit), *after) for bit in (0, 77, 255)]
        wrong += [(*before, step[:-1], *after), (*before, step + b"\0", *after)]
        wrong += [(*before, *after), (*before, step, step, *after)]
        if at:
            wrong.append((*path[: at - 1], step, path[at - 1], *after))
    return wrong


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 33, 64])
def test_an_inclusion_proof_proves_one_leaf_at_one_place_of_one_tree(size: int) -> None:
    root = tree_hash(0, size)
    for index in range(size):
        leaf, path = leaf_hash(entry(index)), inclusion_path(index, size, STORE.node)
        for wrong in damaged(path):
            with pytest.raises(MalformedRecord, match="inclusion proof"):
                check_inclusion(leaf, index, size, wrong, root)
        for false_leaf, false_root in (
            (flipped(leaf, 9), root),
            (leaf, flipped(root, 200)),
            (leaf[:-1], root),
            (leaf, root + b"\0"),
            (leaf, b""),
        ):
            with pytest.raises(MalformedRecord, match="inclusion proof"):
                check_inclusion(false_leaf, index, size, path, false_root)
        for place in {*range(-1, size + 1)} - {index}:
            with pytest.raises(MalformedRecord, match="inclusion proof"):
                check_inclusion(leaf, place, size, path, root)


@pytest.mark.parametrize("new", [1, 2, 3, 4, 5, 7, 8, 11, 33, 64])
def test_a_consistency_proof_proves_one_pair_of_trees(new: int) -> None:
    new_root = tree_hash(0, new)
    for old in range(1, new + 1):
        old_root, path = tree_hash(0, old), consistency_path(old, new, STORE.node)
        for wrong in damaged(path):
            with pytest.raises(MalformedRecord, match="consistency proof"):
                check_consistency(old, old_root, new, new_root, wrong)
        for false_old, false_new in (
            (flipped(old_root, 3), new_root),
            (old_root, flipped(new_root, 130)),
            (old_root[:-1], new_root),
            (old_root, new_root[1:]),
            (old_root, b""),
            (EMPTY_ROOT, new_root),
        ):
            with pytest.raises(MalformedRecord, match="consistency proof"):
                check_consistency(old, false_old, new, false_new, path)
        for other in {*range(new + 2)} - {old}:
            with pytest.raises(MalformedRecord, match="consistency proof"):
                check_consistency(other, old_root, new, new_root, path)


def test_a_proof_for_a_larger_tree_does_not_show_a_smaller_one() -> None:
    """Trees of other sizes may give paths of the same length; the hashes then differ."""
    for size in range(1, 33):
        for other in set(range(1, 33)) - {size}:
            path = inclusion_path(0, size, STORE.node)
            with pytest.raises(MalformedRecord):
                check_inclusion(leaf_hash(entry(0)), 0, other, path, tree_hash(0, other))


def test_nothing_but_its_own_root_is_the_empty_log() -> None:
    check_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, ())
    for old, new, path in (
        (bytes(32), tree_hash(0, 3), ()),
        (EMPTY_ROOT, tree_hash(0, 3), (bytes(32),)),
        (EMPTY_ROOT, b"short", ()),
    ):
        with pytest.raises(MalformedRecord, match="consistency proof"):
            check_consistency(0, old, 3, new, path)
    with pytest.raises(MalformedRecord, match="consistency proof"):
        check_consistency(0, bytes(32), 0, bytes(32), ())


def test_a_node_does_not_pass_for_a_leaf() -> None:
    assert leaf_hash(tree_hash(0, 1) + tree_hash(1, 2)) != tree_hash(0, 2)


@given(
    st.integers(-2, 70) | st.integers(),
    st.integers(-2, 70) | st.integers(),
    st.lists(st.binary(min_size=32, max_size=32) | st.binary(max_size=40), max_size=70),
    st.binary(min_size=32, max_size=32) | st.binary(max_size=40),
    st.binary(min_size=32, max_size=32) | st.binary(max_size=40),
)
def test_any_input_is_refused_in_one_way(
    one: int, other: int, path: list[bytes], first: bytes, second: bytes
) -> None:
    assume(first != second)  # there is a tree of one leaf, and a log that has not grown
    with pytest.raises(MalformedRecord):
        check_inclusion(first, one, other, path, second)
    with pytest.raises(MalformedRecord):
        check_consistency(one, first, other, second, path)
