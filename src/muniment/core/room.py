"""How much content nodes have room for, from the free space that they tell.

Each blob needs distinct shares on `happy` distinct nodes, each a k-th of it.  So if all blobs together have D
bytes in each share, node i can take min(free_i, D) of them, and everything fits if these add up to happy * D
(that is enough too, as for any schedule where nobody does two things at once).  Pure; compression, equal
content and what is there already only make it better.
"""

from __future__ import annotations

from collections.abc import Iterable


def room_bytes(free_bytes: Iterable[int], happy: int) -> int:
    """The largest D, in bytes of one share of everything; times k it is content.  Cost: O(nodes log nodes).

    Args:
        free_bytes: of each node.
        happy: distinct nodes that each blob needs, at least 1.
    """
    free = sorted(free_bytes, reverse=True)
    rest = sum(free)
    for full, largest in enumerate(free[:happy]):
        # `full` nodes take a share of everything; the others are filled to the brim.
        if (room := rest // (happy - full)) >= largest:
            return room if full == 0 else min(room, free[full - 1])
        rest -= largest
    return free[happy - 1] if len(free) >= happy else 0
