"""Merkle trees over leaf hashes, in the shape of RFC 6962 section 2.1: split at the largest power of two.

Leaves come in as one byte string of 32-byte hashes; a leaf hash is taken under its own context, so a node
can never pass for a leaf.  The hash of an inner node is BLAKE3 under `tags.SHARE_NODE`.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from muniment.crypto.hashing import hasher
from muniment.errors import MalformedRecord
from muniment.spec.share import HASH_BYTES
from muniment.spec.tags import SHARE_NODE


def _levels(leaves: bytes) -> list[list[bytes]]:
    """All levels from the leaves to the root; an odd last node rises unchanged, which is RFC 6962's shape."""
    hash_of = hasher(SHARE_NODE)
    level = [leaves[i : i + HASH_BYTES] for i in range(0, len(leaves), HASH_BYTES)]
    levels = [level]
    while len(level) > 1:
        paired = [hash_of(level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
        levels.append(level)
    return levels


def tree_root(leaves: bytes) -> bytes:
    """The root over m >= 1 leaf hashes (m * 32 bytes); of a single leaf, that leaf's hash.

    Cost: m - 1 hashes of 64 bytes.
    """
    return _levels(leaves)[-1][0]


def tree_path(leaves: bytes, index: int) -> tuple[bytes, ...]:
    """The siblings of leaf `index` from the bottom up: at most ceil(log2 m) hashes."""
    path = []
    for level in _levels(leaves)[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index //= 2
    return tuple(path)


def root_from_path(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf hash and its path lead to.

    Args:
        leaf: hash of the leaf.
        index: its place among `count` leaves.
        count: leaves of the tree; fixes the path's length, so that no path can be lengthened.
        path: as `tree_path` gives it.
    Raises: MalformedRecord: index out of range, or a path of the wrong length.
    """
    if not 0 <= index < count:
        raise MalformedRecord(format="tree path", reason=f"leaf {index} of {count}")
    steps = iter(path)
    node = leaf
    while count > 1:
        if index ^ 1 < count:
            sibling = next(steps, None)
            if sibling is None:
                raise MalformedRecord(format="tree path", reason="too short")
            pair = sibling + node if index & 1 else node + sibling
            node = blake3(pair, derive_key_context=SHARE_NODE).digest()
        index //= 2
        count = (count + 1) // 2
    if next(steps, None) is not None:
        raise MalformedRecord(format="tree path", reason="too long")
    return node
