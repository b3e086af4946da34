"""The plan for one blob: which shares to rebuild and where, which to move, which copies are one too many.

Pure, and a function of what was seen alone, so that two keepers who saw the same plan the same
(docs/keeping.md sections 2, 5 and 6).  A plan never gives up what it needs: a move is a copy, whose source is
surplus in the next plan, when the share was seen at its new node; and while shares are missing, nothing is.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from muniment.core.placement import Candidate, Slot, rank
from muniment.ids import BlobId, NodeId, ShareNumber
from muniment.spec.share import BlobShape


class Seen(enum.Enum):
    """What was learned of a share at a node."""

    HELD = "held"
    DAMAGED = "damaged"
    """Or missing: the node answers, and does not have a good copy."""
    OFFLINE = "offline"
    """The node does not answer; it had the share when it last did."""


class Condition(enum.Enum):
    """How a blob stands; the later, the worse."""

    WHOLE = "whole"
    DEGRADED = "degraded"
    """Shares are missing, and still not so many that they are rebuilt."""
    DUE = "due"
    """So many are missing that they are rebuilt now."""
    OUT_OF_REACH = "out-of-reach"
    """Too few answer; nodes that are offline may have the rest."""
    LOST = "lost"
    """Too few are left, whoever comes back."""


@dataclass(frozen=True, slots=True)
class Move:
    """A share that is to lie at another node: copied there, given up here by a later plan that sees both."""

    share: ShareNumber
    source: NodeId
    target: NodeId


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for a blob.

    Attributes:
        condition: how it stands now.
        live: distinct shares that are held, or wait at a node that is away for a short time.
        spare: shares at hand beyond those needed to read it, negative if it cannot be read now; blobs with
            the fewest are repaired first.
        sources: one good copy of each share that is held.
        rebuild: missing shares and the node for each; empty unless due.
        moves: shares that lie where placement does not want them, or two at one node.
        surplus: further copies of shares that are held; empty while shares are rebuilt.
        avoid: nodes that get nothing of this blob now.
    """

    condition: Condition
    live: int
    spare: int
    sources: tuple[Slot, ...]
    rebuild: tuple[Slot, ...] = ()
    moves: tuple[Move, ...] = ()
    surplus: tuple[Slot, ...] = ()
    avoid: frozenset[NodeId] = frozenset()


def plan(
    blob: BlobId,
    shape: BlobShape,
    seen: Mapping[Slot, Seen],
    candidates: Iterable[Candidate],
    *,
    repair_below: int,
    waiting: Set[Slot] = frozenset(),
    avoid: Set[NodeId] = frozenset(),
    offline: Set[NodeId] = frozenset(),
) -> Plan:
    """What a blob needs.

    Args:
        seen: every (share, node) of which anything is known.
        candidates: the grid; a node that takes nothing more (draining, full) has weight 0, a node that is not
            here is gone.
        repair_below: missing shares are rebuilt when fewer distinct ones are live; at the latest when no
            further one may be lost.
        waiting: shares at nodes that are offline for so short that these count as live.
        avoid: nodes that sent of this blob what does not verify.  They would say that they hold whatever is
            brought to them, so they get none of it, and what is held there is moved away.
        offline: nodes that do not answer now, and get nothing.  They keep their place in the order: what they
            have is not moved because they are away for a moment.
    Cost: O(nodes log nodes) for the ranking, O(n * nodes) at worst for the choice of nodes.
    """
    held = sorted(slot for slot, what in seen.items() if what is Seen.HELD)
    away = {slot for slot, what in seen.items() if what is Seen.OFFLINE}
    board = _Board(blob, [candidate for candidate in candidates if candidate.node not in avoid], offline)
    sources = _first_of_each(held, board)
    lasting = waiting & away
    live = {slot.share for slot in sources} | {slot.share for slot in lasting}
    spare, shunned = len(sources) - shape.k, frozenset(avoid | offline)
    if spare < 0:
        known = {slot.share for slot in sources} | {slot.share for slot in away}
        condition = Condition.OUT_OF_REACH if len(known) >= shape.k else Condition.LOST
        return Plan(condition, len(live), spare, sources, avoid=shunned)
    for slot in {*sources, *lasting}:
        board.occupy(slot.node)
    if len(live) < min(max(repair_below, shape.k + 1), shape.n):
        rebuild = _rebuild([number for number in range(shape.n) if number not in live], board)
        return Plan(Condition.DUE, len(live), spare, sources, rebuild, avoid=shunned)
    condition = Condition.WHOLE if len(live) == shape.n else Condition.DEGRADED
    moves = _moves(sources, shape.n, board)
    surplus = tuple(slot for slot in held if slot not in set(sources))
    return Plan(condition, len(live), spare, sources, (), moves, surplus, shunned)


def _rebuild(missing: Sequence[int], board: _Board) -> tuple[Slot, ...]:
    """A node for each missing share, while there is any that takes one."""
    slots = []
    for number in missing:
        if (node := board.best()) is not None:
            board.occupy(node)
            slots.append(Slot(ShareNumber(number), node))
    return tuple(slots)


class _Board:
    """The grid in the blob's order of preference, and what of the blob lies where."""

    def __init__(self, blob: BlobId, candidates: Iterable[Candidate], offline: Set[NodeId]) -> None:
        known = list(candidates)
        self.ranked = rank(blob, known)
        self._takers = [node for node in self.ranked if node not in offline]
        self.place = {node: at for at, node in enumerate(self.ranked)}
        self._zone = {candidate.node: candidate.zone for candidate in known}
        self.at_node: Counter[NodeId] = Counter()
        self._in_zone: Counter[str] = Counter()

    def occupy(self, node: NodeId) -> None:
        """One share more lies there."""
        self.at_node[node] += 1
        if node in self._zone:
            self._in_zone[self._zone[node]] += 1

    def leave(self, node: NodeId) -> None:
        """One share less."""
        self.at_node[node] -= 1
        if node in self._zone:
            self._in_zone[self._zone[node]] -= 1

    def best(self) -> NodeId | None:
        """Where the next share lies best, of nodes that answer: distinct nodes, distinct zones, then by rank.

        Two shares at one node until another comes back are better than one share less until then.
        """
        return min(
            self._takers,
            key=lambda node: (self.at_node[node], self._in_zone[self._zone[node]], self.place[node]),
            default=None,
        )

    def free(self, n: int) -> list[NodeId]:
        """Of the best n nodes those that answer and have none of the blob."""
        wanted = set(self.ranked[:n])
        return [node for node in self._takers if node in wanted and not self.at_node[node]]


def _first_of_each(held: Sequence[Slot], board: _Board) -> tuple[Slot, ...]:
    """One copy of each share: on nodes that have no other as far as that goes, then on those preferred."""
    copies = Counter(slot.share for slot in held)
    busy: Counter[NodeId] = Counter()
    chosen: dict[ShareNumber, Slot] = {}
    last = len(board.ranked)
    for slot in sorted(
        held, key=lambda slot: (copies[slot.share], board.place.get(slot.node, last), slot.share)
    ):
        kept = chosen.get(slot.share)
        if kept is None:
            chosen[slot.share] = slot
            busy[slot.node] += 1
        elif slot.node in board.place and busy[slot.node] == 0 and busy[kept.node] > 1:
            busy[kept.node] -= 1
            busy[slot.node] += 1
            chosen[slot.share] = slot
    return tuple(chosen[share] for share in sorted(chosen))


def _moves(sources: Sequence[Slot], n: int, board: _Board) -> tuple[Move, ...]:
    """Shares from nodes that should have none of them, or have two, to the best nodes that have none.

    Only as many move as nodes won or lost the blob: a share that lies at any of its nodes stays, whatever its
    number.  Where every node has one, a node that is to leave gives its share to one of them.
    """
    wanted, free = set(board.ranked[:n]), board.free(n)
    crowd: Counter[NodeId] = Counter()
    moves = []
    for slot in sorted(sources, key=lambda slot: (slot.node not in wanted, slot), reverse=True):
        crowd[slot.node] += 1
        if slot.node in wanted and crowd[slot.node] == 1:
            continue
        leaving = slot.node not in board.place
        target = free.pop(0) if free else board.best() if leaving else None
        if target is None:
            continue
        board.leave(slot.node)
        board.occupy(target)
        moves.append(Move(slot.share, slot.node, target))
    return tuple(sorted(moves, key=lambda move: move.share))
