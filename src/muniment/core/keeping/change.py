"""Whether nodes have changed so much that shares belong elsewhere (docs/keeping.md section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from muniment.core.placement import Candidate

_MATERIAL: Final = 0.25
"""A node whose weight changes by less than this part of it wins or loses so little that it can wait."""


def is_material(before: Iterable[Candidate], now: Iterable[Candidate]) -> bool:
    """Whether a node came, went, changed its zone, began or ceased to take shares, or is of another size.

    Cost: O(nodes).
    """
    old, new = ({one.node: one for one in grid} for grid in (before, now))
    return old.keys() != new.keys() or any(_differs(old[node], new[node]) for node in old)


def _differs(before: Candidate, now: Candidate) -> bool:
    least, most = sorted((before.weight, now.weight))
    return before.zone != now.zone or (least == 0 < most) or most - least > _MATERIAL * most
