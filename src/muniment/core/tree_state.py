"""What a volume's tree consists of, how a fold reads it, and what a fold changes in it.

Values and one Protocol, nothing else: views keep the rows, `core.fold` computes their changes, and
`core.state_hash` sums them up.  Source: docs/spec/view.md section 1.

Inodes, names and their changes are tuples with named fields: listings and folds make them by the ten
thousand, and a frozen dataclass costs four times as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from muniment.errors import OperationRejected
from muniment.spec.blob import BlobRef
from muniment.spec.operation import ROOT, Kind


class Inode(NamedTuple):
    """One thing in the tree, apart from its names and content.

    Attributes:
        inode: its number, from 1; never used again.
        kind: never changes.
        mode: permission bits, without the file type.
        uid: owner.
        gid: group.
        atime_ns: nanoseconds since the epoch, as the other times; set by its maker and by `SetAttributes`.
        mtime_ns: of the content, or of the names in a folder.
        ctime_ns: of any change.
        size: bytes of content, holes included; 0 for what has none.
        links: names of it; of a folder 2 and the folders in it.
        entries: names in it, if it is a folder.
        rdev: of a device.
        version: index of the entry that changed its content last, or made it.
        parent: of a folder, the folder that it is in (the root is in itself); 0 for anything else.
    """

    inode: int
    kind: Kind
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    size: int
    links: int
    entries: int
    rdev: int
    version: int
    parent: int


class Name(NamedTuple):
    """A name in a folder, and what it leads to; the kind stands here so that listings need nothing else."""

    parent: int
    name: bytes
    inode: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class StoredExtent:
    """A piece of a file's content; what no extent covers is a hole.

    Attributes:
        offset: in the file.
        length: at least 1, at most CHUNK_BYTES_MAX.
        source: the blob it is in, or the bytes themselves.
        source_offset: where in the blob's plaintext; 0 for bytes.
    """

    offset: int
    length: int
    source: BlobRef | bytes = field(repr=False)
    source_offset: int = 0

    @property
    def stop(self) -> int:
        """End in the file, exclusive."""
        return self.offset + self.length


FIRST_INODE: Final = ROOT + 1
"""What the first operation that makes an inode takes."""

ROOT_INODE: Final = Inode(
    inode=ROOT,
    kind=Kind.FOLDER,
    mode=0o755,
    uid=0,
    gid=0,
    atime_ns=0,
    mtime_ns=0,
    ctime_ns=0,
    size=0,
    links=2,
    entries=0,
    rdev=0,
    version=0,
    parent=ROOT,
)
"""The root of every volume before anybody changes it: all there is in a state without entries."""


class TreeReading(Protocol):
    """The tree in one state.  Reading changes nothing, and finds nothing rather than raising for numbers and
    names that do not exist.  Drivers raise StoreFailed where their medium fails.
    """

    @property
    def next_inode(self) -> int:
        """The number that the next inode takes."""
        ...

    def inode(self, ino: int) -> Inode | None: ...

    def child(self, parent: int, name: bytes) -> Name | None: ...

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        """The names in a folder behind `after` (empty: from the start), in byte order, at most `limit`.

        Fewer than `limit` are the last.
        """
        ...

    def listing(self, parent: int, after: bytes, limit: int) -> Sequence[tuple[bytes, Inode]]:
        """As `children`, with all of what each name leads to."""
        ...

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        """The extents that have a byte in [start, stop), whole, in order of their offsets."""
        ...

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        """All extended attributes, in byte order of their names."""
        ...

    def has_snapshot(self, name: bytes) -> bool: ...


class InodeChange(NamedTuple):
    """An inode before and after; None where it is not there.  As with all changes, the two differ."""

    before: Inode | None
    after: Inode | None


class NameChange(NamedTuple):
    """A name before and after."""

    before: Name | None
    after: Name | None


class ExtentChange(NamedTuple):
    """What starts at an offset of a file, before and after."""

    inode: int
    before: StoredExtent | None
    after: StoredExtent | None


@dataclass(frozen=True, slots=True)
class XattrChange:
    """An attribute's value before and after."""

    inode: int
    name: bytes
    before: bytes | None = field(repr=False)
    after: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction does to the state: for every row it touches, the row before and after.

    No row is named twice and none stays the same.  The order is that in which the operations touched them,
    so equal transactions on equal states give equal changes.

    Attributes:
        index: of the entry.
        inodes: keyed by number.
        names: keyed by folder and name.
        extents: keyed by inode and offset.
        xattrs: keyed by inode and name.
        snapshots: names given to the state before this entry.
        next_inode_before: the counter.
        next_inode: the counter after all that was made, also what was removed again at once.
    """

    index: int
    inodes: tuple[InodeChange, ...]
    names: tuple[NameChange, ...]
    extents: tuple[ExtentChange, ...]
    xattrs: tuple[XattrChange, ...]
    snapshots: tuple[bytes, ...]
    next_inode_before: int
    next_inode: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an entry changes nothing: the same on every member, and kept with the entry.

    Attributes:
        code: what the operation expected and did not find, as docs/spec/entry.md section 5 names it.
        operation: which one of the transaction, from 0; None where none is to blame.
        reason: for people.
    """

    code: str
    operation: int | None
    reason: str

    @classmethod
    def of(cls, error: OperationRejected) -> Rejection:
        """What a fold raised, as a value."""
        return cls(error.why, error.operation, error.reason)
