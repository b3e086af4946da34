"""Roots of a log's tree at earlier sizes, those that were asked for lately at hand."""

from __future__ import annotations

from typing import Final

from muniment.merkle.log_tree import Frontier, NodeReader

_ROOTS_MAX: Final = 4096


class KeptRoots:
    """See the module; belongs to one thread.

    Args:
        node: gives the stored subtrees of the log.
    """

    def __init__(self, node: NodeReader) -> None:
        self._node = node
        self._roots: dict[int, bytes] = {}

    def root(self, size: int) -> bytes:
        """That of the first `size` entries.  Raises: as `Frontier.at`.

        Cost: O(log size) subtrees read, unless it is at hand.
        """
        root = self._roots.get(size)
        if root is None:
            root = Frontier.at(size, self._node).root()
            self.keep(size, root)
        return root

    def keep(self, size: int, root: bytes) -> None:
        """Have one at hand that is known."""
        self._roots[size] = root
        if len(self._roots) > _ROOTS_MAX:
            del self._roots[next(iter(self._roots))]
