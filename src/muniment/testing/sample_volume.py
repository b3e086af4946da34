"""Volumes for tests: blobs nobody stored, entries nobody signed, transactions by chance, a tree as data."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from muniment.core.fold import apply
from muniment.core.history import EntryMeta
from muniment.core.state_hash import EMPTY, StateHash, row_of_extent, row_of_inode, row_of_name
from muniment.core.tree_state import Changes, Inode, Name, Rejection, StoredExtent, TreeReading
from muniment.errors import OperationRejected
from muniment.ids import BlobId, EntryHash, MemberId
from muniment.ports import ViewBatch
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.operation import (
    ROOT,
    SIZE_MAX,
    Content,
    Extent,
    Kind,
    Link,
    Make,
    Operation,
    RemoveTree,
    RemoveXattr,
    Rename,
    Rmdir,
    SetAttributes,
    SetXattr,
    Snapshot,
    Truncate,
    Unlink,
    Write,
    XattrMode,
)
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.transaction import Transaction
from muniment.spec.view_row import next_inode_row, snapshot_row, xattr_row

EPOCH_NS = 1_700_000_000 * 10**9
"""When the entries of sample volumes begin; one each second."""

_PAGE = 7
"""Of listings: small, so that every walk pages."""


def blob_ref(seed: int, plain_bytes: int = 64) -> BlobRef:
    """A reference that differs for each seed."""
    digest = hashlib.sha256(f"blob {seed}".encode()).digest()
    shape = BlobShape(CodecId.RS, 2, 3, plain_bytes + 16)
    return BlobRef(BlobName(BlobId(digest), shape), digest[::-1], plain_bytes, Compression(seed % 2))


def entry_time_ns(index: int) -> int:
    """The time of an entry."""
    return EPOCH_NS + index * 10**9


def entry_meta(index: int, message: str = "", time_ns: int | None = None) -> EntryMeta:
    """What is known of an entry; two authors take turns."""
    return EntryMeta(
        EntryHash(hashlib.sha256(f"entry {index}".encode()).digest()),
        MemberId(bytes([index % 2]) * 32),
        entry_time_ns(index) if time_ns is None else time_ns,
        index // 100,
        message,
    )


def folded(state: TreeReading, transaction: Transaction, index: int) -> Changes | Rejection:
    """What a transaction comes to as the entry `index`."""
    try:
        return apply(state, transaction, index=index, time_ns=entry_time_ns(index))
    except OperationRejected as error:
        return Rejection.of(error)


def fold_into(batch: ViewBatch, *operations: Operation, blobs: tuple[BlobRef, ...] = ()) -> Rejection | None:
    """Record one transaction as the next entry; returns why not, if it is rejected."""
    outcome = folded(batch.state, Transaction(operations, blobs), batch.size)
    batch.record(batch.size, entry_meta(batch.size, f"entry {batch.size}"), outcome)
    return outcome if isinstance(outcome, Rejection) else None


# --- a whole tree ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """All rows of a state, sorted."""

    inodes: tuple[Inode, ...]
    names: tuple[Name, ...]
    extents: tuple[tuple[int, StoredExtent], ...]
    xattrs: tuple[tuple[int, bytes, bytes], ...]
    next_inode: int

    def state_hash(self, snapshots: dict[bytes, int]) -> StateHash:
        """Computed anew from all rows; snapshots by name, each with the index of its entry."""
        rows = [
            *map(row_of_inode, self.inodes),
            *map(row_of_name, self.names),
            *(row_of_extent(ino, extent) for ino, extent in self.extents),
            *(xattr_row(*one) for one in self.xattrs),
            *(snapshot_row(name, index) for name, index in snapshots.items()),
            next_inode_row(self.next_inode),
        ]
        return EMPTY.changed((), rows)


def children_of(reading: TreeReading, parent: int) -> Iterator[Name]:
    """All names in a folder, page by page."""
    after = b""
    while page := reading.children(parent, after, _PAGE):
        yield from page
        after = page[-1].name


def tree_of(reading: TreeReading) -> Tree:
    """Walk the whole tree, checking what must hold between its rows."""
    inodes, names = dict[int, Inode](), list[Name]()
    root = reading.inode(ROOT)
    assert root is not None
    found = [root]
    for inode in found:
        if inode.inode in inodes:
            continue
        inodes[inode.inode] = inode
        children = list(children_of(reading, inode.inode))
        assert [child.name for child in children] == sorted({child.name for child in children})
        assert len(children) == inode.entries
        assert not children or inode.kind is Kind.FOLDER
        names += children
        listed = reading.listing(inode.inode, b"", len(children) + 1)
        assert listed == [(child.name, reading.inode(child.inode)) for child in children]
        for child in children:
            below = reading.inode(child.inode)
            assert below is not None
            assert below.kind is child.kind
            assert reading.child(inode.inode, child.name) == child
            assert below.parent == (inode.inode if below.kind is Kind.FOLDER else 0)
            found.append(below)
    extents = [(ino, extent) for ino in inodes for extent in reading.extents(ino, 0, SIZE_MAX)]
    xattrs = [(ino, name, value) for ino in inodes for name, value in reading.xattrs(ino).items()]
    tree = Tree(
        tuple(inodes[ino] for ino in sorted(inodes)),
        tuple(sorted(names, key=lambda name: (name.parent, name.name))),
        tuple(sorted(extents, key=lambda one: (one[0], one[1].offset))),
        tuple(sorted(xattrs)),
        reading.next_inode,
    )
    _check(tree)
    return tree


def _check(tree: Tree) -> None:
    links = {inode.inode: 2 if inode.kind is Kind.FOLDER else 0 for inode in tree.inodes}
    for name in tree.names:
        links[name.parent if name.kind is Kind.FOLDER else name.inode] += 1
    sizes = {inode.inode: inode.size for inode in tree.inodes}
    assert links == {inode.inode: inode.links for inode in tree.inodes}
    assert all(inode.inode < tree.next_inode for inode in tree.inodes)
    at = 0, 0
    for ino, extent in tree.extents:
        assert (ino, extent.offset) >= at
        assert extent.stop <= sizes[ino]
        if isinstance(extent.source, bytes):
            assert len(extent.source) == extent.length
        else:
            assert extent.source_offset + extent.length <= extent.source.plain_bytes
        at = ino, extent.stop


# --- transactions by chance -----------------------------------------------------------------------


class RandomVolume:
    """Transactions by chance that mostly fit the state they are for.

    Args:
        seed: the same seed and states give the same transactions.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._blobs: list[BlobRef] = []

    def transaction(self, state: TreeReading, operations_max: int = 4) -> Transaction:
        """The next one."""
        tree = tree_of(state)
        self._blobs = [blob_ref(self._chance.randrange(20)) for _ in range(self._chance.randrange(4))]
        count = self._chance.randint(1, operations_max)
        operations = tuple(self._operation(tree) for _ in range(count))
        return Transaction(operations, tuple(self._blobs), f"{count} operations")

    def _operation(self, tree: Tree) -> Operation:
        chance = self._chance
        held = chance.choice(tree.names) if tree.names else Name(ROOT, b"none", 9999, Kind.FILE)
        folder = chance.choice([inode.inode for inode in tree.inodes if inode.kind is Kind.FOLDER])
        inode = chance.choice(tree.inodes)
        name = b"%c" % chance.choice(b"abcdefgh") * chance.choice([1, 1, 1, 100])
        file = chance.choice([one for one in tree.inodes if one.kind is Kind.FILE] or [inode])
        version = chance.choice([None, None, file.version, 0])
        xattr = chance.choice([*tree.xattrs, (inode.inode, name, b"")])
        choices: list[Callable[[], Operation]] = [
            *8 * [lambda: self._make(folder, name)],
            *4 * [lambda: Write(file.inode, version, self._content(96))],
            *2 * [lambda: self._rename(tree, held, folder, name)],
            lambda: Truncate(file.inode, version, chance.randrange(100)),
            lambda: Link(held.inode, folder, name),
            lambda: Unlink(held.parent, held.name, held.inode),
            lambda: Rmdir(held.parent, held.name, held.inode),
            lambda: RemoveTree(held.parent, held.name, held.inode),
            lambda: SetAttributes(inode.inode, chance.randrange(0o7777), None, chance.randrange(9), None, 5),
            lambda: SetXattr(inode.inode, name, chance.randbytes(3), XattrMode(chance.randrange(3))),
            lambda: RemoveXattr(xattr[0], xattr[1]),
            lambda: Snapshot(name),
        ]
        return chance.choice(choices)()

    def _rename(self, tree: Tree, held: Name, folder: int, name: bytes) -> Rename:
        target = next((one for one in tree.names if (one.parent, one.name) == (folder, name)), None)
        replaced, exchange = (target.inode, self._chance.random() < 0.5) if target else (0, False)
        return Rename(held.parent, held.name, held.inode, folder, name, replaced, exchange)

    def _make(self, folder: int, name: bytes) -> Make:
        chance = self._chance
        kind = chance.choice([Kind.FILE] * 5 + [Kind.FOLDER] * 5 + list(Kind))
        content, xattrs = tuple[Extent, ...](), tuple[tuple[bytes, bytes], ...]()
        if kind is Kind.FILE:
            content = self._content(64)
        elif kind is Kind.SYMLINK:
            content = (Extent(0, 6, b"target"),)
        if chance.random() < 0.2:
            xattrs = ((b"user.a", b"1"), (b"user.b", chance.randbytes(3)))
        size = content[-1].stop if content else 0
        rdev = (1 << 64) - 1 if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE) else 0
        return Make(folder, name, kind, 0o644, 1, 2, -5, rdev, content, size, xattrs)

    def _content(self, size_max: int) -> Content:
        chance = self._chance
        cuts = sorted({chance.randrange(size_max) for _ in range(chance.choice([2, 2, 2, 6]))} | {size_max})
        extents = []
        for start, stop in pairwise(cuts):
            length, source, source_offset = stop - start, chance.randrange(4), 0
            if source < len(self._blobs) and length <= 64:
                source_offset = chance.randrange(65 - length)
                extents.append(Extent(start, length, source, source_offset))
            elif source != 3:
                extents.append(Extent(start, length, chance.randbytes(length)))
            elif chance.random() < 0.5 or not extents:
                extents.append(Extent(start, length, None))
        return tuple(extents)
