"""The four-server pair table (rows L8, L9, L18-L21): stated, and its whole truth table run.

Every combination of four servers, each in one of five states, goes through the real download machine.  The
states are the predecessor's five (row L20), in our words:

    down      the server does not run
    stranger  it runs and has never heard of the account: it refuses it
    empty     it knows the account and holds nothing of this blob
    half      it holds one of its two shares: `first` or `second`
    full      it holds both
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import TypeVar

import pytest

from muniment.core import download as dl
from muniment.core.placement import Candidate, Slot, place_pairs
from muniment.errors import InvalidCoding
from muniment.ids import BlobId, NodeId, ShareNumber

_T = TypeVar("_T")

SERVERS = [NodeId(bytes([number]) * 32) for number in (10, 20, 30, 40)]
GRID = [Candidate(server, 100) for server in reversed(SERVERS)]  # the roster's order must not matter

# Row L8 with its chunks 1 to 4 as shares 0 to 3.
TABLE = {
    0: [(0, 1), (1, 2), (2, 3), (3, 0)],
    1: [(3, 0), (0, 1), (1, 2), (2, 3)],
    2: [(2, 3), (3, 0), (0, 1), (1, 2)],
    3: [(1, 2), (2, 3), (3, 0), (0, 1)],
}
STATES = ("down", "stranger", "empty", "first", "second", "full")


def kept(pair: Sequence[_T], state: str) -> Sequence[_T]:
    """What a server in this state has of its pair."""
    return {"first": pair[:1], "second": pair[1:], "full": pair}.get(state, ())


def blob(turn: int) -> BlobId:
    """A blob whose BlobId mod 4 is `turn`."""
    return BlobId(b"b" * 31 + bytes([64 + turn]))


@pytest.mark.parametrize("turn", range(4))
def test_the_table_is_the_predecessors(turn: int) -> None:
    slots = place_pairs(blob(turn), GRID).slots
    for server, pair in zip(SERVERS, TABLE[turn], strict=True):
        assert tuple(slot.share for slot in slots if slot.node == server) == pair


@pytest.mark.parametrize("turn", range(4))
def test_the_first_four_slots_are_four_shares_from_four_servers(turn: int) -> None:
    """Row L10: with all servers up, every byte crosses the wire once."""
    first = place_pairs(blob(turn), GRID).slots[:4]
    assert len({slot.share for slot in first}) == len({slot.node for slot in first}) == 4


@pytest.mark.parametrize("count", [0, 3, 5])
def test_it_needs_exactly_four_nodes(count: int) -> None:
    nodes = [Candidate(NodeId(bytes([number]) * 32), 1) for number in range(count)]
    with pytest.raises(InvalidCoding, match=f"not {count}"):
        place_pairs(blob(0), nodes)


def run(turn: int, states: tuple[str, ...], *, last_first: bool) -> dl.DownloadAction:
    """Drive a download to its end; answers come in order, or the last asked first."""
    slots = place_pairs(blob(turn), GRID).slots
    held: set[Slot] = set()
    for server, state in zip(SERVERS, states, strict=True):
        own = [slot for slot in slots if slot.node == server]
        held.update(kept(own, state))
    state_of = dict(zip(SERVERS, states, strict=True))
    machine = dl.Download(blob(turn), 4, slots, SERVERS)
    todo = machine.handle(dl.Begin())
    end: dl.DownloadAction | None = None
    while todo:
        action = todo.pop() if last_first else todo.pop(0)
        match action:
            case dl.Fetch(slot) if state_of[slot.node] in ("down", "stranger"):
                todo += machine.handle(dl.Lost(slot))
            case dl.Fetch(slot):
                todo += machine.handle(dl.Received(slot) if slot in held else dl.Missing(slot))
            case dl.Locate(node) if state_of[node] in ("down", "stranger"):
                todo += machine.handle(dl.Located(node, frozenset()))
            case dl.Locate(node):
                shares = frozenset(ShareNumber(slot.share) for slot in held if slot.node == node)
                todo += machine.handle(dl.Located(node, shares))
            case dl.Check():
                todo += machine.handle(dl.Checked())
            case dl.Finish() | dl.Fail():
                assert end is None
                end = action
    assert end is not None
    return end


def shares_left(turn: int, states: tuple[str, ...]) -> set[int]:
    """Straight from the table: what the servers that answer hold between them."""
    left: set[int] = set()
    for pair, state in zip(TABLE[turn], states, strict=True):
        left.update(kept(pair, state))
    return left


@pytest.mark.parametrize("turn", range(4))
def test_every_combination_of_the_five_states(turn: int) -> None:
    """Read exactly when all four shares are still somewhere; 1296 rows, for half a server is either half."""
    for states in product(STATES, repeat=4):
        left = shares_left(turn, states)
        for last_first in (False, True):
            end = run(turn, states, last_first=last_first)
            if len(left) == 4:
                assert isinstance(end, dl.Finish), states
                assert {slot.share for slot in end.slots} == {0, 1, 2, 3}
            else:
                assert isinstance(end, dl.Fail), states
                assert (end.error.found, end.error.needed) == (len(left), 4), states


@pytest.mark.parametrize("turn", range(4))
def test_the_documented_truth_table(turn: int) -> None:
    """docs/placement.md counts rows by how many servers hold both shares, and how many the second."""
    found: dict[tuple[int, int], list[bool]] = {}
    for states in product(("down", "stranger", "empty", "second", "full"), repeat=4):
        row = found.setdefault((states.count("full"), states.count("second")), [])
        row.append(len(shares_left(turn, states)) == 4)
    readable = {kind: (sum(row), len(row)) for kind, row in found.items() if any(row)}
    assert readable == {
        (4, 0): (1, 1),
        (3, 0): (12, 12),
        (3, 1): (4, 4),
        (2, 2): (6, 6),
        (2, 1): (24, 36),
        (2, 0): (18, 54),
        (1, 3): (4, 4),
        (1, 2): (12, 36),
        (0, 4): (1, 1),
    }
    assert sum(good for good, _ in readable.values()) == 82


@pytest.mark.parametrize("turn", range(4))
def test_the_sixteen_subsets_of_servers(turn: int) -> None:
    """Row L9: any one server may be down; two only if they are opposite each other; three never."""
    for down in range(5):
        for gone in combinations(range(4), down):
            states = tuple("down" if server in gone else "full" for server in range(4))
            opposite = down == 2 and gone[1] - gone[0] == 2
            readable = down <= 1 or opposite
            assert isinstance(run(turn, states, last_first=False), dl.Finish) is readable, gone
