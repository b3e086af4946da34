"""Rendezvous placement: deterministic, weighted, zoned, and stable when the grid changes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.placement import Candidate, Placement, Slot, place, rank, score
from muniment.ids import BlobId, NodeId, ShareNumber


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(2, "big") * 16)


def blob(number: int) -> BlobId:
    return BlobId(number.to_bytes(4, "big") * 8)


def grid(count: int, *, zones: int = 0) -> list[Candidate]:
    return [Candidate(node(i), 100, f"zone{i % zones}" if zones else "") for i in range(count)]


blobs = st.integers(0, 2**32 - 1).map(blob)
candidates = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 400).map(node),
        st.integers(1, 10**13),
        st.sampled_from(["", "a", "b", "c"]),
    ),
    max_size=20,
    unique_by=lambda candidate: candidate.node,
)


@given(blobs, candidates, st.randoms(use_true_random=False))
def test_the_order_of_the_roster_does_not_matter(
    name: BlobId, nodes: list[Candidate], chance: object
) -> None:
    shuffled = list(nodes)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rank(name, nodes) == rank(name, shuffled)


@given(blobs, candidates, st.integers(1, 14))
def test_every_share_has_one_slot_and_nodes_repeat_only_when_there_are_too_few(
    name: BlobId, nodes: list[Candidate], n: int
) -> None:
    placement = place(name, n, nodes)
    if not nodes:
        assert placement == Placement((), (), 0)
        return
    assert [slot.share for slot in placement.slots] == list(range(n))
    load = Counter(slot.node for slot in placement.slots)
    assert len(load) == min(n, len(nodes))
    assert max(load.values()) == -(-n // len(nodes)) == placement.per_node_max
    assert set(placement.spares).isdisjoint(load)
    assert placement.nodes == {candidate.node for candidate in nodes}


@given(blobs, st.integers(2, 12), st.integers(1, 12))
def test_a_node_that_goes_moves_only_its_own_share(name: BlobId, count: int, n: int) -> None:
    """With one zone, the ranking without a node is the ranking with that node taken out."""
    nodes = grid(count)
    before = rank(name, nodes)
    for gone in nodes:
        after = rank(name, [candidate for candidate in nodes if candidate is not gone])
        assert after == [other for other in before if other != gone.node]
    placed = {slot.node for slot in place(name, n, nodes).slots}
    for gone in nodes:
        left = {slot.node for slot in place(name, n, [c for c in nodes if c is not gone]).slots}
        assert len(left - placed) <= (1 if gone.node in placed else 0)


@given(blobs, candidates, st.integers(0, 400))
def test_a_node_that_comes_keeps_the_order_of_the_others_within_their_zones(
    name: BlobId, nodes: list[Candidate], number: int
) -> None:
    newcomer = Candidate(NodeId(b"new!" * 8), 1 + number, "a")
    zone_of = {candidate.node: candidate.zone for candidate in nodes}
    before, after = rank(name, nodes), rank(name, [*nodes, newcomer])
    for zone in ("", "a", "b", "c"):
        assert [n for n in before if zone_of[n] == zone] == [n for n in after if zone_of.get(n) == zone]


@given(blobs, st.integers(1, 20), st.integers(1, 5), st.integers(1, 20))
def test_zones_are_spread_as_evenly_as_they_can_be(name: BlobId, count: int, zones: int, n: int) -> None:
    nodes = grid(count, zones=zones)
    zone_of = {candidate.node: candidate.zone for candidate in nodes}
    size = Counter(zone_of.values())
    used = {slot.node for slot in place(name, n, nodes).slots}
    load = Counter(zone_of[one] for one in used)
    fullest = max(load.values())
    for zone, members in size.items():
        assert load[zone] >= min(members, fullest - 1)


def test_weights_are_respected_statistically() -> None:
    nodes = [Candidate(node(0), 100), Candidate(node(1), 200), Candidate(node(2), 700)]
    first = Counter(rank(blob(i), nodes)[0] for i in range(4000))
    for candidate, expected in zip(nodes, (0.1, 0.2, 0.7), strict=True):
        assert first[candidate.node] / 4000 == pytest.approx(expected, abs=0.03)


def test_a_node_of_no_weight_takes_nothing() -> None:
    assert rank(blob(1), [Candidate(node(0), 0), Candidate(node(1), 5)]) == [node(1)]


def test_the_score_is_frozen() -> None:
    """Readers of other releases must find what this one placed."""
    nodes = grid(6, zones=3)
    assert [f"{score(blob(7), candidate):.12f}" for candidate in nodes] == SCORES
    assert rank(blob(7), nodes) == [node(number) for number in RANKED]


SCORES = [
    "0.019929732226",
    "0.002004554145",
    "0.032474508029",
    "0.002969709222",
    "0.020191448775",
    "0.010079818503",
]
RANKED = [1, 3, 5, 0, 4, 2]


@given(blobs, st.integers(1, 10), st.integers(1, 8), st.sets(st.integers(0, 9)))
def test_avoiding_moves_only_the_slots_of_the_avoided(
    name: BlobId, count: int, n: int, avoided: set[int]
) -> None:
    shunned = {node(number) for number in avoided}
    before = place(name, n, grid(count))
    after = before.avoiding(shunned)
    assert after.nodes == before.nodes
    for old, new in zip(before.slots, after.slots, strict=True):
        assert old.share == new.share
        assert new == old or (old.node in shunned and new.node not in shunned)
    good_spares = [spare for spare in after.spares if spare not in shunned]
    if any(slot.node in shunned for slot in after.slots):
        assert not good_spares
    assert list(after.spares[: len(good_spares)]) == good_spares


def test_avoiding_nobody_changes_nothing() -> None:
    placement = place(blob(3), 4, grid(6))
    assert placement.avoiding(set()) is placement
    assert Slot(ShareNumber(0), rank(blob(3), grid(6))[0]) == placement.slots[0]
