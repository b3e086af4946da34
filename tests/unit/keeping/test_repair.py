"""The plan for one blob: distinct shares on distinct nodes, few moves, nothing given up too soon."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from muniment.core.keeping.repair import Condition, Seen, plan
from muniment.core.placement import Candidate, Slot, place
from muniment.ids import BlobId, NodeId, ShareNumber
from muniment.spec.share import BlobShape, CodecId

BLOB = BlobId(bytes(range(32)))
SHAPE = BlobShape(CodecId.RS, 4, 6, 100_000)


def node(at: int) -> NodeId:
    return NodeId(bytes([at]) * 32)


def grid(count: int, zones: int = 1) -> list[Candidate]:
    return [Candidate(node(at), 1000, f"zone {at % zones}") for at in range(count)]


def slot(share: int, at: int) -> Slot:
    return Slot(ShareNumber(share), node(at))


def placed(nodes: list[Candidate]) -> dict[Slot, Seen]:
    return dict.fromkeys(place(BLOB, SHAPE.n, nodes).slots, Seen.HELD)


def test_a_blob_that_lies_where_it_should_needs_nothing() -> None:
    found = plan(BLOB, SHAPE, placed(grid(9)), grid(9), repair_below=6)
    assert (found.condition, found.live, found.spare) == (Condition.WHOLE, 6, 2)
    assert (found.rebuild, found.moves, found.surplus) == ((), (), ())


def test_missing_shares_alone_are_rebuilt_on_nodes_that_have_none() -> None:
    seen = placed(grid(9))
    gone = list(seen)[:2]
    for one in gone:
        seen[one] = Seen.DAMAGED
    found = plan(BLOB, SHAPE, seen, grid(9), repair_below=6)
    assert found.condition is Condition.DUE
    assert [one.share for one in found.rebuild] == sorted(one.share for one in gone)
    busy = {one.node for one in found.sources}
    assert len({one.node for one in found.rebuild} | busy) == 6


def test_a_node_that_lied_about_a_blob_gets_nothing_of_it_and_gives_away_what_it_has() -> None:
    seen = placed(grid(9))
    first, second, *_ = seen
    seen[first] = Seen.DAMAGED
    found = plan(BLOB, SHAPE, seen, grid(9), repair_below=6, avoid={first.node})
    assert [one.share for one in found.rebuild] == [first.share]
    assert first.node not in {one.node for one in found.rebuild}
    assert found.avoid == {first.node}
    seen[first] = Seen.HELD
    found = plan(BLOB, SHAPE, seen, grid(9), repair_below=6, avoid={second.node})
    assert [(one.share, one.source) for one in found.moves] == [(second.share, second.node)]


def test_what_is_rebuilt_goes_to_nodes_that_answer_and_apart_as_soon_as_there_are_enough() -> None:
    seen = placed(grid(7))
    first = next(iter(seen))
    (spare,) = {one.node for one in grid(7)} - {one.node for one in seen}
    seen[first] = Seen.OFFLINE
    found = plan(BLOB, SHAPE, seen, grid(7), repair_below=6, offline={first.node})
    assert [one.node for one in found.rebuild] == [spare]
    found = plan(BLOB, SHAPE, seen, grid(7), repair_below=6, offline={first.node, spare})
    (doubled,) = found.rebuild
    assert doubled.node in {one.node for one in found.sources}
    del seen[first]
    seen[doubled] = Seen.HELD
    again = plan(BLOB, SHAPE, seen, grid(7), repair_below=6)
    assert [(one.source, one.target) for one in again.moves] == [(doubled.node, first.node)]
    assert plan(BLOB, SHAPE, {}, [], repair_below=6, offline={spare}).rebuild == ()


def test_above_the_threshold_missing_shares_wait() -> None:
    seen = placed(grid(9))
    seen[next(iter(seen))] = Seen.DAMAGED
    assert plan(BLOB, SHAPE, seen, grid(9), repair_below=5).condition is Condition.DEGRADED
    assert not plan(BLOB, SHAPE, seen, grid(9), repair_below=5).rebuild


def test_a_node_that_is_away_for_a_short_time_costs_nothing() -> None:
    seen = placed(grid(9))
    away = next(iter(seen))
    seen[away] = Seen.OFFLINE
    waiting = plan(BLOB, SHAPE, seen, grid(9), repair_below=6, waiting={away})
    assert (waiting.condition, waiting.rebuild) == (Condition.WHOLE, ())
    due = plan(BLOB, SHAPE, seen, grid(9), repair_below=6)
    assert due.condition is Condition.DUE
    assert [one.share for one in due.rebuild] == [away.share]


def test_too_few_are_lost_only_if_nobody_who_is_away_can_have_the_rest() -> None:
    seen = {slot(i, i): Seen.HELD for i in range(3)} | {slot(3, 3): Seen.OFFLINE}
    assert plan(BLOB, SHAPE, seen, grid(9), repair_below=6).condition is Condition.OUT_OF_REACH
    seen[slot(3, 3)] = Seen.DAMAGED
    assert plan(BLOB, SHAPE, seen, grid(9), repair_below=6).condition is Condition.LOST


def test_shares_are_spread_over_zones_before_a_zone_gets_its_second() -> None:
    seen = {slot(i, i): Seen.HELD for i in range(4)}  # zones 0, 1, 2, 0
    found = plan(BLOB, SHAPE, seen, grid(12, zones=6), repair_below=6)
    zones = Counter(f"{one.node[0] % 6}" for one in (*found.sources, *found.rebuild))
    assert set(zones.values()) == {1}


def test_a_draining_node_gives_its_share_to_the_next_one_and_nothing_else_moves() -> None:
    seen = placed(grid(9))
    leaving = next(iter(seen))
    drained = [Candidate(one.node, 0 if one.node == leaving.node else 1000, one.zone) for one in grid(9)]
    found = plan(BLOB, SHAPE, seen, drained, repair_below=6)
    (move,) = found.moves
    assert (move.share, move.source) == (leaving.share, leaving.node)
    assert move.target not in {one.node for one in seen}


def test_a_second_copy_is_surplus_and_the_share_is_not() -> None:
    seen = {slot(i, i): Seen.HELD for i in range(6)} | {slot(0, 7): Seen.HELD}
    found = plan(BLOB, SHAPE, seen, grid(9), repair_below=6)
    assert len(found.surplus) == 1
    assert found.surplus[0].share == 0
    assert {one.share for one in found.sources} == set(range(6))


def test_without_any_node_nothing_is_promised() -> None:
    seen = {slot(i, i): Seen.HELD for i in range(4)}
    assert plan(BLOB, SHAPE, seen, [], repair_below=6).rebuild == ()


@given(
    st.dictionaries(
        st.builds(slot, st.integers(0, 5), st.integers(0, 11)), st.sampled_from(Seen), max_size=24
    ),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(4, 6),
)
def test_what_is_carried_out_never_loses_a_share_and_ends(
    seen: dict[Slot, Seen], nodes: int, zones: int, below: int
) -> None:
    """Plans are carried out to the letter until there is nothing to do: soon, and with every share kept."""
    candidates = grid(nodes, zones)
    for _ in range(3):
        found = plan(BLOB, SHAPE, seen, candidates, repair_below=below)
        held = {one for one, what in seen.items() if what is Seen.HELD}
        shares = {one.share for one in held}
        assert {one.share for one in found.sources} == shares
        assert set(found.sources) | set(found.surplus) <= held
        assert set(found.sources) | set(found.surplus) == held or found.condition.value in (
            "due",
            "out-of-reach",
            "lost",
        )
        assert not {one.share for one in found.rebuild} & shares
        for one in found.rebuild:
            seen[one] = Seen.HELD
        for move in found.moves:
            assert seen[Slot(move.share, move.source)] is Seen.HELD
            seen[Slot(move.share, move.target)] = Seen.HELD
            del seen[Slot(move.share, move.source)]
        for one in found.surplus:
            del seen[one]
        after = {one.share for one, what in seen.items() if what is Seen.HELD}
        assert shares <= after
    final = plan(BLOB, SHAPE, seen, candidates, repair_below=below)
    assert (final.rebuild, final.moves, final.surplus) == ((), (), ())
    if final.condition is Condition.WHOLE and nodes >= SHAPE.n:
        assert len({one.node for one in final.sources}) == SHAPE.n
