"""Happiness: how many nodes hold a share that no other of them is counted for.

Counting shares would call four shares on one disk safe; counting nodes would call four copies of one share
complete (row T23).  The maximum matching of nodes to shares counts neither twice.
"""

from __future__ import annotations

from collections.abc import Collection

from muniment.core.placement import Slot
from muniment.ids import NodeId, ShareNumber


def happiness(placed: Collection[Slot]) -> int:
    """Size of a maximum matching between the distinct nodes and the distinct shares of `placed`.

    Cost: O(slots) where no node and no share occurs twice, else O(nodes * slots) (augmenting paths).
    """
    shares_of: dict[NodeId, list[ShareNumber]] = {}
    for slot in placed:
        shares_of.setdefault(slot.node, []).append(slot.share)
    if len(shares_of) == len(placed) == len({slot.share for slot in placed}):
        return len(placed)
    holder: dict[ShareNumber, NodeId] = {}

    def gives(node: NodeId, tried: set[ShareNumber]) -> bool:
        for share in shares_of[node]:
            if share in tried:
                continue
            tried.add(share)
            if share not in holder or gives(holder[share], tried):
                holder[share] = node
                return True
        return False

    return sum(gives(node, set()) for node in shares_of)
