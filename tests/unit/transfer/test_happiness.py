"""Happiness against a brute-force matching."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.happiness import happiness
from muniment.core.placement import Slot
from muniment.ids import NodeId, ShareNumber


def slot(share: int, node: int) -> Slot:
    return Slot(ShareNumber(share), NodeId(bytes([node]) * 32))


def brute_force(slots: set[Slot]) -> int:
    for size in range(len(slots), 0, -1):
        for chosen in combinations(slots, size):
            if len({s.share for s in chosen}) == len({s.node for s in chosen}) == size:
                return size
    return 0


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ([], 0),
        ([(0, 0)], 1),
        ([(0, 0), (1, 0), (2, 0)], 1),
        ([(0, 0), (0, 1), (0, 2)], 1),
        ([(0, 0), (1, 1), (2, 2)], 3),
        ([(0, 0), (1, 0), (0, 1)], 2),
        ([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 0)], 3),
    ],
)
def test_happiness_counts_no_node_and_no_share_twice(slots: list[tuple[int, int]], expected: int) -> None:
    assert happiness([slot(share, node) for share, node in slots]) == expected


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=9))
def test_happiness_is_the_maximum_matching(pairs: set[tuple[int, int]]) -> None:
    slots = {slot(share, node) for share, node in pairs}
    assert happiness(slots) == brute_force(slots)
