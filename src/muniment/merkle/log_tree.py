"""The Merkle tree of a log: RFC 6962 hashing, RFC 9162 proofs (docs/spec/checkpoint.md section 1).

SHA-256 and not BLAKE3, so that public transparency tools verify our proofs.  The tree is known by its
complete subtrees: (level, index) names the one over the 2^level leaves from index * 2^level on, and its hash
never changes once it is complete.  A `Frontier` makes them while entries are appended; whoever keeps them can
give any proof by O(log n) look-ups.

Both provers and both checkers climb by `_siblings`, the shape of the tree: a node without a sibling rises
unchanged, which is RFC 6962's split at the largest power of two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from muniment.errors import InvalidRequest, MalformedRecord
from muniment.ids import EntryHash
from muniment.spec.limits import LOG_SIZE_MAX
from muniment.spec.tags import LOG_LEAF, LOG_NODE

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()
"""Root of the log without entries."""

_INCLUSION: Final = "inclusion proof"
_CONSISTENCY: Final = "consistency proof"

NodeReader = Callable[[int, int], bytes]
"""Gives the hash of the complete subtree (level, index); it is asked for no other."""


@dataclass(frozen=True, slots=True)
class Subtree:
    """A complete subtree: the 2^level leaves from index * 2^level on, and their hash."""

    level: int
    index: int
    hash: bytes


def leaf_hash(entry: bytes) -> EntryHash:
    """The hash under which an entry stands in the tree."""
    return EntryHash(hashlib.sha256(LOG_LEAF + entry).digest())


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(LOG_NODE + left + right).digest()


def _siblings(level: int, index: int, size: int) -> Iterator[tuple[int, int]]:
    """The siblings on the way from (level, index) to the root over `size` leaves, from the bottom up.

    One with an even index stands on the left.  At most one, on the right, is incomplete.
    """
    last = (size - 1) >> level
    while last > 0:
        if index ^ 1 <= last:
            yield level, index ^ 1
        level, index, last = level + 1, index >> 1, last >> 1


# --- appending ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frontier:
    """What is needed of a log to append to it and to know its root: the roots of its largest subtrees.

    Attributes:
        size: entries.
        hashes: one for each 1 bit of `size`, the largest subtree, which is leftmost, first.
    Raises: MalformedRecord: size out of limits, or hashes that cannot belong to it.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _check_size(self.size)
        if len(self.hashes) != self.size.bit_count() or any(len(h) != HASH_BYTES for h in self.hashes):
            raise MalformedRecord(format="log frontier", reason=f"its hashes do not fit {self.size} entries")

    @classmethod
    def at(cls, size: int, node: NodeReader) -> Frontier:
        """The frontier that the log had at `size` entries, from stored subtrees.

        Raises: MalformedRecord: size out of limits, or what is stored are no hashes.
        """
        _check_size(size)
        levels = (level for level in reversed(range(size.bit_length())) if size >> level & 1)
        return cls(size, tuple(node(level, (size >> level) - 1) for level in levels))

    def append(self, leaf: bytes) -> tuple[Frontier, tuple[Subtree, ...]]:
        """As `extend` with one leaf."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> tuple[Frontier, tuple[Subtree, ...]]:
        """Append leaf hashes.

        Returns: the new frontier, and the subtrees that became complete, leaves included, in the order in
            which they did: what a store of subtrees has to add.
        Raises: MalformedRecord: a leaf that is no hash, or more entries than a log may have.
        Cost: two hashes for a leaf on average, and one copy of the frontier in all.
        """
        size, hashes = self.size, list(self.hashes)
        completed: list[Subtree] = []
        for leaf in leaves:
            if len(leaf) != HASH_BYTES:
                raise MalformedRecord(format="log frontier", reason=f"leaf hash of {len(leaf)} bytes")
            node = Subtree(0, size, leaf)
            completed.append(node)
            while node.index & 1:
                node = Subtree(node.level + 1, node.index >> 1, _parent(hashes.pop(), node.hash))
                completed.append(node)
            hashes.append(node.hash)
            size += 1
        return Frontier(size, tuple(hashes)), tuple(completed)

    def root(self) -> bytes:
        """The root hash of the tree (RFC 9162 section 2.1.1)."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = _parent(left, root)
        return root


def _check_size(size: int) -> None:
    if not 0 <= size <= LOG_SIZE_MAX:
        raise MalformedRecord(format="log frontier", reason=f"{size} entries")


# --- proving ------------------------------------------------------------------------------------


def inclusion_path(index: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """The proof that entry `index` is in the log of `size` entries (RFC 9162 section 2.1.3.1).

    Raises: InvalidRequest: there is no such entry.
    Cost: at most 2 * log2(size) look-ups.
    """
    if not 0 <= index < size <= LOG_SIZE_MAX:
        raise InvalidRequest(reason=f"entry {index} of a log of {size}")
    return _path(0, index, size, node)


def consistency_path(old: int, new: int, node: NodeReader) -> tuple[bytes, ...]:
    """The proof that the log of `new` entries begins with that of `old` (RFC 9162 section 2.1.4.1).

    It is empty where nothing needs proof: for equal sizes, and for an old log without entries.
    Raises: InvalidRequest: new is smaller than old, or a size is out of limits.
    Cost: at most 2 * log2(new) look-ups.
    """
    if not 0 <= old <= new <= LOG_SIZE_MAX:
        raise InvalidRequest(reason=f"a log of {new} entries cannot begin with one of {old}")
    if old in {0, new}:
        return ()
    level, index = _last_subtree(old)
    # A verifier has the hash of the last subtree of `old` already if that is all of `old`.
    start = () if index == 0 else (node(level, index),)
    return start + _path(level, index, new, node)


def _last_subtree(size: int) -> tuple[int, int]:
    """Level and index of the smallest, rightmost complete subtree of a log that has entries."""
    level = (size & -size).bit_length() - 1
    return level, (size >> level) - 1


def _path(level: int, index: int, size: int, node: NodeReader) -> tuple[bytes, ...]:
    """The hashes of the siblings; that of an incomplete one is made from its own complete subtrees."""
    return tuple(
        node(at, sibling) if (sibling + 1) << at <= size else _tail(sibling << at, size, node)
        for at, sibling in _siblings(level, index, size)
    )


def _tail(start: int, size: int, node: NodeReader) -> bytes:
    """The root over the leaves from `start`, where an incomplete subtree begins, to `size`."""
    tail = b""
    while size > start:
        level, index = _last_subtree(size)
        left = node(level, index)
        tail = _parent(left, tail) if tail else left
        size -= 1 << level
    return tail


# --- checking -----------------------------------------------------------------------------------


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that entry `index` of the log with this size and root has this leaf hash.

    Everything may come from a hostile peer, but root and size from a checkpoint that was verified.
    Raises: MalformedRecord: the proof does not show it (RFC 9162 section 2.1.3.2).
    """
    if not 0 <= index < size <= LOG_SIZE_MAX:
        raise MalformedRecord(format=_INCLUSION, reason=f"entry {index} of {size}")
    siblings = tuple(_siblings(0, index, size))
    _check_lengths(_INCLUSION, path, len(siblings), leaf, root)
    node = leaf
    for (_, sibling), given in zip(siblings, path, strict=True):
        node = _parent(node, given) if sibling & 1 else _parent(given, node)
    if node != root:
        raise MalformedRecord(format=_INCLUSION, reason="it leads to another root")


def prefix_root(leaf: bytes, size: int, new_size: int, path: Sequence[bytes]) -> bytes:
    """The root that the first `size` entries of a larger log have, by an inclusion proof of the last of them.

    `check_inclusion(leaf, size - 1, new_size, path, root)` went before.  Those of the path that stand on the
    left are the rest of the smaller tree, and the larger one's root commits to them: so a log whose root was
    another at `size` entries is not what this one grew from.
    """
    root = leaf
    for (_, sibling), given in zip(_siblings(0, size - 1, new_size), path, strict=True):
        if not sibling & 1:
            root = _parent(given, root)
    return root


def check_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that the log of the new size and root begins with all entries of the old one, unchanged.

    Everything may come from a hostile peer, but sizes and roots from checkpoints that were verified.
    Raises: MalformedRecord: the proof does not show it (RFC 9162 section 2.1.4.2); if it comes from the log
        itself, the two checkpoints may be evidence that it forked.
    """
    if not 0 <= old_size <= new_size <= LOG_SIZE_MAX:
        raise MalformedRecord(format=_CONSISTENCY, reason=f"from {old_size} to {new_size} entries")
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise MalformedRecord(format=_CONSISTENCY, reason="not the root of a log without entries")
    if old_size in {0, new_size}:
        _check_lengths(_CONSISTENCY, path, 0, old_root, new_root)
        if old_size == new_size and old_root != new_root:
            raise MalformedRecord(format=_CONSISTENCY, reason="two roots for one size")
        return
    level, index = _last_subtree(old_size)
    siblings = tuple(_siblings(level, index, new_size))
    given = path if index else (old_root, *path)
    _check_lengths(_CONSISTENCY, given, 1 + len(siblings), old_root, new_root)
    old = new = given[0]
    for (_, sibling), step in zip(siblings, given[1:], strict=True):
        if sibling & 1:  # on the right, so it begins where the old log ends
            new = _parent(new, step)
        else:
            old, new = _parent(step, old), _parent(step, new)
    if old != old_root or new != new_root:
        which = "old" if old != old_root else "new"
        raise MalformedRecord(format=_CONSISTENCY, reason=f"it leads to another {which} root")


def _check_lengths(name: str, path: Sequence[bytes], count: int, *hashes: bytes) -> None:
    if len(path) != count:
        raise MalformedRecord(format=name, reason=f"{len(path)} hashes where {count} are needed")
    if any(len(given) != HASH_BYTES for given in (*path, *hashes)):
        raise MalformedRecord(format=name, reason="a hash of wrong length")
