"""The hash of a volume's whole state, kept up to date at the cost of the rows that change.

LtHash: every row is hashed to 1024 lanes of 16 bits, and the state is the sum of its rows' lanes, modulo
2^16 each.  Sums do not depend on order, and a row that goes is subtracted; so what is folded step by step
and what is computed from all rows at once agree.  Source: Bellare and Micciancio 1997; Lewi et al.,
"Securing Update Propagation with Homomorphic Hashing" (2019); docs/spec/view.md section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from muniment.core.tree_state import FIRST_INODE, ROOT_INODE, Changes, Inode, Name, StoredExtent
from muniment.crypto.hashing import derive
from muniment.errors import MalformedRecord
from muniment.spec.tags import VIEW_ROW, VIEW_STATE
from muniment.spec.view_row import (
    extent_row,
    inode_row,
    name_row,
    next_inode_row,
    snapshot_row,
    xattr_row,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LANES: Final = 1024
LANES_BYTES: Final = 2 * LANES
_LANE: Final = "<u2"
_ROW_HASHER: Final = blake3(derive_key_context=VIEW_ROW)
"""Copied for each row: deriving the key anew would cost more than the row."""

_ROWS_AT_ONCE: Final = 64
"""Added up by one NumPy call; 128 KiB stay in the cache."""


@dataclass(frozen=True, slots=True)
class StateHash:
    """A sum over rows; `EMPTY` of none.

    Attributes:
        lanes: LANES_BYTES bytes, lanes little-endian.
    """

    lanes: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.lanes) != LANES_BYTES:
            raise MalformedRecord(format="state hash", reason=f"{len(self.lanes)} bytes")

    def changed(self, removed_rows: Iterable[bytes], added_rows: Iterable[bytes]) -> StateHash:
        """The hash after these rows went and those came.

        Whether the rows were there is the caller's to know.  Cost: O(rows), about 1 us each.
        """
        import numpy as np  # not above: commands that only look would start a tenth slower

        lanes = np.frombuffer(self.lanes, _LANE) + _sum(added_rows) - _sum(removed_rows)
        return StateHash(lanes.tobytes())

    def digest(self) -> bytes:
        """The 32 bytes that stand for the state."""
        return derive(VIEW_STATE, self.lanes)


EMPTY: Final = StateHash(bytes(LANES_BYTES))


def initial() -> StateHash:
    """The hash of a state without entries: the root and the counter."""
    return EMPTY.changed((), [row_of_inode(ROOT_INODE), next_inode_row(FIRST_INODE)])


def _sum(rows: Iterable[bytes]) -> NDArray[np.uint16]:
    import numpy as np

    total = np.zeros(LANES, _LANE)
    stream = iter(rows)
    while some := list(islice(stream, _ROWS_AT_ONCE)):
        spread = np.frombuffer(b"".join(map(_spread, some)), _LANE).reshape(-1, LANES)
        total += spread.sum(axis=0, dtype=_LANE)
    return total


def _spread(row: bytes) -> bytes:
    hasher = _ROW_HASHER.copy()
    hasher.update(row)
    return hasher.digest(length=LANES_BYTES)


# --- rows -----------------------------------------------------------------------------------------


def row_of_inode(row: Inode) -> bytes:
    """The encoded row."""
    return inode_row(*row)


def row_of_name(row: Name) -> bytes:
    """The encoded row."""
    return name_row(*row)


def row_of_extent(inode: int, row: StoredExtent) -> bytes:
    """The encoded row."""
    return extent_row(inode, row.offset, row.length, row.source, row.source_offset)


def removed_rows(changes: Changes) -> Iterator[bytes]:
    """The encoded rows that a transaction takes away or replaces."""
    yield from (row_of_inode(one.before) for one in changes.inodes if one.before is not None)
    yield from (row_of_name(one.before) for one in changes.names if one.before is not None)
    yield from (row_of_extent(one.inode, one.before) for one in changes.extents if one.before is not None)
    yield from (
        xattr_row(one.inode, one.name, one.before) for one in changes.xattrs if one.before is not None
    )
    if changes.next_inode != changes.next_inode_before:
        yield next_inode_row(changes.next_inode_before)


def added_rows(changes: Changes) -> Iterator[bytes]:
    """The encoded rows that a transaction adds, or puts in place of others."""
    yield from (row_of_inode(one.after) for one in changes.inodes if one.after is not None)
    yield from (row_of_name(one.after) for one in changes.names if one.after is not None)
    yield from (row_of_extent(one.inode, one.after) for one in changes.extents if one.after is not None)
    yield from (xattr_row(one.inode, one.name, one.after) for one in changes.xattrs if one.after is not None)
    yield from (snapshot_row(name, changes.index) for name in changes.snapshots)
    if changes.next_inode != changes.next_inode_before:
        yield next_inode_row(changes.next_inode)
