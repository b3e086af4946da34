"""Operations on a volume's tree, each with what it expects (docs/spec/entry.md section 5).

Inodes are positive numbers; in an operation a negative one, -i, is what the i-th `Make` of the same
transaction makes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Final

from muniment.errors import MalformedRecord
from muniment.spec.limits import KIB, LOG_SIZE_MAX

ROOT: Final = 1
INODE_MAX: Final = 1 << 53
OPERATIONS_MAX: Final = 1 << 16
"""Of one transaction."""

NAME_BYTES_MAX: Final = 255
INLINE_BYTES_MAX: Final = 2 * KIB
"""Content up to this size lives in the entry itself."""

LINK_BYTES_MAX: Final = 4 * KIB - 1
"""The longest target of a symbolic link, which always does: that of Linux (PATH_MAX without its NUL)."""

XATTR_BYTES_MAX: Final = 64 * KIB
SIZE_MAX: Final = 1 << 62
EXTENTS_MAX: Final = 1 << 16
TIME_NS_MAX: Final = 1 << 63
_MODE_MAX: Final = 0o7777
_ID_MAX: Final = 1 << 32
_FORMAT: Final = "operation"


class Kind(enum.IntEnum):
    """What an inode is."""

    FILE = 1
    FOLDER = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7


class XattrMode(enum.IntEnum):
    """What setting an attribute expects."""

    ANY = 0
    NEW = 1
    REPLACE = 2


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of content.

    Attributes:
        offset: in the file.
        length: at least 1.
        source: a row of the transaction's blobs; or the bytes themselves; or None for a hole.
        source_offset: where in that blob's plaintext; 0 otherwise.
    """

    offset: int
    length: int
    source: int | bytes | None = field(repr=False)
    source_offset: int = 0

    def __post_init__(self) -> None:
        if not (self.offset >= 0 and self.length > 0 and self.offset + self.length <= SIZE_MAX):
            raise _malformed("an extent out of range")
        if isinstance(self.source, int):
            fits = self.source >= 0 and 0 <= self.source_offset < SIZE_MAX
        elif self.source is None:
            fits = self.source_offset == 0
        else:
            fits = len(self.source) == self.length <= INLINE_BYTES_MAX and self.source_offset == 0
        if not fits:
            raise _malformed("an extent and its source do not fit")

    @property
    def stop(self) -> int:
        """End in the file, exclusive."""
        return self.offset + self.length


Content = tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Make:
    """A new inode under a name."""

    parent: int
    name: bytes
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    rdev: int = 0
    content: Content = ()
    size: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()

    def __post_init__(self) -> None:
        _check_inodes(self.parent)
        check_name(self.name)
        _check_attributes(self.mode, self.uid, self.gid, None, self.mtime_ns)
        check_content(self.content)
        if not 0 <= self.rdev < 1 << 64 or not 0 <= self.size <= SIZE_MAX:
            raise _malformed("a number out of range")
        if self.content and self.content[-1].stop > self.size:
            raise _malformed("content behind the end")
        if self.kind is Kind.SYMLINK:
            target = b"".join(map(_inline, self.content))
            if not 0 < len(target) == self.size <= LINK_BYTES_MAX or b"\0" in target:
                raise _malformed("a link without a proper target")
        elif self.kind is not Kind.FILE and (self.content or self.size):
            raise _malformed("content where none belongs")
        if self.xattrs and [name for name, _ in self.xattrs] != sorted({name for name, _ in self.xattrs}):
            raise _malformed("attributes out of order")
        for name, value in self.xattrs:
            _check_xattr(name, value)


@dataclass(frozen=True, slots=True)
class Link:
    """Another name for an inode that is no folder."""

    inode: int
    parent: int
    name: bytes

    def __post_init__(self) -> None:
        _check_inodes(self.inode, self.parent)
        check_name(self.name)


@dataclass(frozen=True, slots=True)
class Rename:
    """Move a name, or exchange two.

    Attributes:
        inode: expected under the old name.
        replaced: expected under the new name; 0 for nothing.
        exchange: the replaced one takes the old name instead of vanishing.
    """

    parent: int
    name: bytes
    inode: int
    new_parent: int
    new_name: bytes
    replaced: int = 0
    exchange: bool = False

    def __post_init__(self) -> None:
        _check_inodes(self.parent, self.inode, self.new_parent, self.replaced or ROOT)
        check_name(self.name)
        check_name(self.new_name)
        if self.exchange and not self.replaced:
            raise _malformed("an exchange with nothing")


@dataclass(frozen=True, slots=True)
class Unlink:
    """Take a name from an inode that is no folder; the last one takes its content."""

    parent: int
    name: bytes
    inode: int

    def __post_init__(self) -> None:
        _check_inodes(self.parent, self.inode)
        check_name(self.name)


@dataclass(frozen=True, slots=True)
class Rmdir:
    """Remove an empty folder."""

    parent: int
    name: bytes
    inode: int

    def __post_init__(self) -> None:
        _check_inodes(self.parent, self.inode)
        check_name(self.name)


@dataclass(frozen=True, slots=True)
class RemoveTree:
    """Remove whatever stands under a name, with all below it."""

    parent: int
    name: bytes
    inode: int

    def __post_init__(self) -> None:
        _check_inodes(self.parent, self.inode)
        check_name(self.name)


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Change what is not None."""

    inode: int
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    def __post_init__(self) -> None:
        _check_inodes(self.inode)
        _check_attributes(self.mode, self.uid, self.gid, self.atime_ns, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class SetXattr:
    """Set an extended attribute."""

    inode: int
    name: bytes
    value: bytes = field(repr=False)
    mode: XattrMode = XattrMode.ANY

    def __post_init__(self) -> None:
        _check_inodes(self.inode)
        _check_xattr(self.name, self.value)


@dataclass(frozen=True, slots=True)
class RemoveXattr:
    """Remove an extended attribute."""

    inode: int
    name: bytes

    def __post_init__(self) -> None:
        _check_inodes(self.inode)
        _check_xattr(self.name, b"")


@dataclass(frozen=True, slots=True)
class Write:
    """Replace pieces of a file's content; `version` is the one expected, None for any."""

    inode: int
    version: int | None
    content: Content

    def __post_init__(self) -> None:
        _check_inodes(self.inode)
        check_content(self.content)
        _check_version(self.version)
        if not self.content:
            raise _malformed("a write of nothing")


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut a file, or make it longer by a hole."""

    inode: int
    version: int | None
    size: int

    def __post_init__(self) -> None:
        _check_inodes(self.inode)
        _check_version(self.version)
        if not 0 <= self.size <= SIZE_MAX:
            raise _malformed("a size out of range")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Give the state before this transaction a name."""

    name: bytes

    def __post_init__(self) -> None:
        check_name(self.name)


STATE_HASH_BYTES: Final = 32
SNAPSHOT_LAG_MAX: Final = 1 << 16
"""Entries between the state of a view snapshot and its own: an audit remembers so many states' hashes."""


@dataclass(frozen=True, slots=True)
class ViewSnapshot:
    """The state after the first `size` entries, stored in blobs (docs/spec/view_snapshot.md).

    Changes nothing; whoever signs the entry vouches for the state.

    Attributes:
        size: entries that it covers.
        state_hash: of that state (docs/spec/view.md section 4).
        content: the snapshot's bytes, without a hole, from 0 on.
    """

    size: int
    state_hash: bytes
    content: Content

    def __post_init__(self) -> None:
        if not 0 < self.size <= LOG_SIZE_MAX or len(self.state_hash) != STATE_HASH_BYTES:
            raise _malformed("not the hash of a state")
        check_content(self.content)
        at = 0
        for extent in self.content:
            if extent.offset != at or extent.source is None:
                raise _malformed("a view snapshot with a hole")
            at = extent.stop
        if not at:
            raise _malformed("a view snapshot of nothing")

    @property
    def size_bytes(self) -> int:
        """Of the snapshot."""
        return self.content[-1].stop


Operation = (
    Make
    | Link
    | Rename
    | Unlink
    | Rmdir
    | RemoveTree
    | SetAttributes
    | SetXattr
    | RemoveXattr
    | Write
    | Truncate
    | Snapshot
    | ViewSnapshot
)


def pack_operation(op: Operation) -> list[object]:
    """The operation as plain CBOR values."""
    match op:
        case Make():
            return [
                *(1, op.parent, op.name, int(op.kind), op.mode, op.uid, op.gid, op.mtime_ns, op.rdev),
                _pack_content(op.content),
                op.size,
                [list(pair) for pair in op.xattrs],
            ]
        case Link(inode, parent, name):
            return [2, inode, parent, name]
        case Rename():
            return [
                *(3, op.parent, op.name, op.inode, op.new_parent, op.new_name, op.replaced),
                int(op.exchange),
            ]
        case Unlink(parent, name, inode):
            return [4, parent, name, inode]
        case Rmdir(parent, name, inode):
            return [5, parent, name, inode]
        case RemoveTree(parent, name, inode):
            return [6, parent, name, inode]
        case SetAttributes(inode, mode, uid, gid, atime_ns, mtime_ns):
            return [7, inode, mode, uid, gid, atime_ns, mtime_ns]
        case SetXattr(inode, name, value, mode):
            return [8, inode, name, value, int(mode)]
        case RemoveXattr(inode, name):
            return [9, inode, name]
        case Write(inode, version, content):
            return [10, inode, version, _pack_content(content)]
        case Truncate(inode, version, size):
            return [11, inode, version, size]
        case Snapshot(name):
            return [12, name]
        case ViewSnapshot(size, state_hash, content):
            return [13, size, state_hash, _pack_content(content)]


def unpack_operation(value: object) -> Operation:
    """Read what `pack_operation` made.  Raises: MalformedRecord: for any other value."""
    if isinstance(value, list) and value and type(value[0]) is int and value[0] in _UNPACKED:
        fields, unpacked = _UNPACKED[value[0]]
        if tuple(map(type, value)) in fields:
            return unpacked(*value[1:])
    raise _malformed("fields do not fit")


def inodes_of(op: Operation) -> tuple[int, ...]:
    """The inodes that an operation names."""
    match op:
        case Make():
            return (op.parent,)
        case Link():
            return op.inode, op.parent
        case Rename():
            return op.parent, op.inode, op.new_parent, op.replaced
        case Unlink() | Rmdir() | RemoveTree():
            return op.parent, op.inode
        case Snapshot() | ViewSnapshot():
            return ()
        case _:
            return (op.inode,)


def check_name(name: bytes) -> None:
    """Raise MalformedRecord unless it can be a name in a folder."""
    if not 0 < len(name) <= NAME_BYTES_MAX or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise _malformed("not a proper name")


def check_content(content: Content) -> None:
    """Raise MalformedRecord unless extents ascend without overlapping."""
    if len(content) > EXTENTS_MAX:
        raise _malformed("too many extents")
    if len(content) > 1 and any(b.offset < a.stop for a, b in pairwise(content)):
        raise _malformed("extents out of order")


def inline_content(data: bytes) -> Content:
    """Bytes that stand in the operation itself, in as few extents as may be."""
    starts = range(0, len(data), INLINE_BYTES_MAX)
    parts = [data[start : start + INLINE_BYTES_MAX] for start in starts]
    return tuple(Extent(start, len(part), part) for start, part in zip(starts, parts, strict=True))


def _inline(extent: Extent) -> bytes:
    return extent.source if isinstance(extent.source, bytes) else b""


def _pack_content(content: Content) -> list[object]:
    return [[e.offset, e.length, e.source, e.source_offset] for e in content]


def _unpack_content(values: list[object]) -> Content:
    if len(values) > EXTENTS_MAX:
        raise _malformed("too many extents")
    content = []
    for value in values:
        if not isinstance(value, list) or tuple(map(type, value)) not in _EXTENT_FIELDS:
            raise _malformed("an extent does not fit")
        content.append(Extent(*value))
    return tuple(content)


def _unpack_pair(value: object) -> tuple[bytes, bytes]:
    match value:
        case [bytes(name), bytes(data)]:
            return name, data
    raise _malformed("an attribute does not fit")


def _check_inodes(*inodes: int) -> None:
    for inode in inodes:
        if not (0 < inode < INODE_MAX or -OPERATIONS_MAX <= inode < 0):
            raise _malformed("there is no such inode")


def _check_attributes(
    mode: int | None, uid: int | None, gid: int | None, atime_ns: int | None, mtime_ns: int | None
) -> None:
    if mode is not None and not 0 <= mode <= _MODE_MAX:
        raise _malformed("a mode out of range")
    for number in (uid, gid):
        if number is not None and not 0 <= number < _ID_MAX:
            raise _malformed("an owner out of range")
    for time in (atime_ns, mtime_ns):
        if time is not None and not -TIME_NS_MAX <= time < TIME_NS_MAX:
            raise _malformed("a time out of range")


def _check_xattr(name: bytes, value: bytes) -> None:
    if not 0 < len(name) <= NAME_BYTES_MAX or b"\0" in name or len(value) > XATTR_BYTES_MAX:
        raise _malformed("not a proper attribute")


def _check_version(version: int | None) -> None:
    if version is not None and not 0 <= version <= LOG_SIZE_MAX:
        raise _malformed("a version out of range")


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)


# --- as plain values --------------------------------------------------------------------------------
# By exact types, which `canonical.load` leaves no others than: to try a pattern for each operation in turn
# was most of what reading one cost.


def _unpack_make(
    parent: int,
    name: bytes,
    kind: int,
    mode: int,
    uid: int,
    gid: int,
    mtime_ns: int,
    rdev: int,
    content: list[object],
    size: int,
    xattrs: list[object],
) -> Make:
    known = _KINDS.get(kind)
    if known is None:
        raise _malformed("fields do not fit")
    held, pairs = _unpack_content(content), tuple(map(_unpack_pair, xattrs))
    return Make(parent, name, known, mode, uid, gid, mtime_ns, rdev, held, size, pairs)


def _unpack_rename(
    parent: int, name: bytes, inode: int, new_parent: int, new_name: bytes, replaced: int, exchange: int
) -> Rename:
    if exchange not in (0, 1):
        raise _malformed("fields do not fit")
    return Rename(parent, name, inode, new_parent, new_name, replaced, exchange == 1)


def _unpack_set_xattr(inode: int, name: bytes, value: bytes, mode: int) -> SetXattr:
    if mode not in _XATTR_MODES:
        raise _malformed("fields do not fit")
    return SetXattr(inode, name, value, _XATTR_MODES[mode])


def _unpack_write(inode: int, version: int | None, content: list[object]) -> Write:
    return Write(inode, version, _unpack_content(content))


def _unpack_view_snapshot(size: int, state_hash: bytes, content: list[object]) -> ViewSnapshot:
    return ViewSnapshot(size, state_hash, _unpack_content(content))


_Types = tuple[type, ...]
_Fields = frozenset[_Types]


def _fields(*choices: type | _Types) -> _Fields:
    """All types that the values of a list may have; several may stand in one place."""
    return frozenset(product(*(one if isinstance(one, tuple) else (one,) for one in choices)))


_NONE: Final = type(None)
_MAYBE: Final = (int, _NONE)
_KINDS: Final = {int(kind): kind for kind in Kind}
_XATTR_MODES: Final = {int(mode): mode for mode in XattrMode}
_EXTENT_FIELDS: Final = _fields(int, int, (int, bytes, _NONE), int)
_HELD: Final = _fields(int, int, bytes, int)
_UNPACKED: Final[dict[int, tuple[_Fields, Callable[..., Operation]]]] = {
    1: (_fields(int, int, bytes, int, int, int, int, int, int, list, int, list), _unpack_make),
    2: (_fields(int, int, int, bytes), Link),
    3: (_fields(int, int, bytes, int, int, bytes, int, int), _unpack_rename),
    4: (_HELD, Unlink),
    5: (_HELD, Rmdir),
    6: (_HELD, RemoveTree),
    7: (_fields(int, int, _MAYBE, _MAYBE, _MAYBE, _MAYBE, _MAYBE), SetAttributes),
    8: (_fields(int, int, bytes, bytes, int), _unpack_set_xattr),
    9: (_fields(int, int, bytes), RemoveXattr),
    10: (_fields(int, int, _MAYBE, list), _unpack_write),
    11: (_fields(int, int, _MAYBE, int), Truncate),
    12: (_fields(int, bytes), Snapshot),
    13: (_fields(int, int, bytes, list), _unpack_view_snapshot),
}
"""By the number of an operation: the types of its fields, its own number first, and what makes it of them."""
