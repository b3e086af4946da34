"""The rows of a state as a stream: their order, and values back from bytes that anybody may have made.

The order is that of docs/spec/view_snapshot.md section 3: inodes by number, names by folder and name, extents
by inode and offset, attributes by inode and name, snapshots by name, and last the counter.  So one state has
one stream, and who stores it twice stores it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from muniment.core.tree_state import Inode, Name, StoredExtent
from muniment.errors import MalformedRecord
from muniment.spec.limits import CHUNK_BYTES_MAX, LOG_SIZE_MAX
from muniment.spec.operation import (
    INLINE_BYTES_MAX,
    INODE_MAX,
    NAME_BYTES_MAX,
    OPERATIONS_MAX,
    SIZE_MAX,
    XATTR_BYTES_MAX,
    Kind,
    check_name,
)
from muniment.spec.view_row import (
    EXTENT_TAG,
    INODE_TAG,
    NAME_TAG,
    NEXT_INODE_TAG,
    SNAPSHOT_TAG,
    XATTR_TAG,
    extent_fields,
    inode_fields,
    name_fields,
    next_inode_field,
    snapshot_fields,
    xattr_fields,
)

_COUNTER_MAX = INODE_MAX + OPERATIONS_MAX


@dataclass(frozen=True, slots=True)
class ExtentRow:
    """An extent and whose it is."""

    inode: int
    extent: StoredExtent


@dataclass(frozen=True, slots=True)
class XattrRow:
    """An extended attribute."""

    inode: int
    name: bytes
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A name for the state before the entry `index`."""

    name: bytes
    index: int


@dataclass(frozen=True, slots=True)
class CounterRow:
    """The number that the next inode takes."""

    next_inode: int


StateRow = Inode | Name | ExtentRow | XattrRow | SnapshotRow | CounterRow


def opened_rows(rows: Iterable[bytes], size: int) -> Iterator[tuple[bytes, StateRow]]:
    """Each row with what it says; none comes twice, and the counter's comes last.

    Args:
        rows: from anybody.
        size: entries whose state it is.
    Raises: MalformedRecord: a row is none, is out of order or out of range, or the last is missing.
    """
    last: tuple[object, ...] = ()
    ended = False
    for row in rows:
        opened = _opened(row, size)
        key = _key(opened)
        if key <= last or ended:
            raise _malformed("rows out of order")
        last, ended = key, isinstance(opened, CounterRow)
        yield row, opened
    if not ended:
        raise _malformed("the end is missing")


def _opened(row: bytes, size: int) -> StateRow:
    match row[0] if row else 0:
        case 1:  # INODE_TAG, and so on: patterns take no plain names
            return _inode(row, size)
        case 2:
            parent, name, inode, kind = name_fields(row)
            _check_inode(parent)
            _check_inode(inode)
            check_name(name)
            return Name(parent, name, inode, _kind(kind))
        case 3:
            inode, offset, length, source, source_offset = extent_fields(row)
            _check_inode(inode)
            if not (length > 0 and offset + length <= SIZE_MAX and length <= CHUNK_BYTES_MAX):
                raise _malformed("an extent out of range")
            if isinstance(source, bytes):
                if not len(source) == length <= INLINE_BYTES_MAX:
                    raise _malformed("bytes that do not fit their extent")
            elif source_offset + length > source.plain_bytes:
                raise _malformed("an extent behind its blob's end")
            return ExtentRow(inode, StoredExtent(offset, length, source, source_offset))
        case 4:
            inode, name, value = xattr_fields(row)
            _check_inode(inode)
            if not 0 < len(name) <= NAME_BYTES_MAX or len(value) > XATTR_BYTES_MAX:
                raise _malformed("not a proper attribute")
            return XattrRow(inode, name, value)
        case 5:
            name, index = snapshot_fields(row)
            check_name(name)
            if index >= size:
                raise _malformed("a snapshot of a later state")
            return SnapshotRow(name, index)
        case 6:
            number = next_inode_field(row)
            if not 1 < number <= _COUNTER_MAX:
                raise _malformed("a counter out of range")
            return CounterRow(number)
        case tag:
            raise _malformed(f"a row of unknown kind {tag}")


def _inode(row: bytes, size: int) -> Inode:
    number, kind, mode, uid, gid, atime, mtime, ctime, length, links, entries, rdev, version, parent = (
        inode_fields(row)
    )
    _check_inode(number)
    small = max(links, entries) <= LOG_SIZE_MAX and parent < INODE_MAX
    if not small or length > SIZE_MAX or not 0 <= version < size or mode > 0o7777:
        raise _malformed("an inode out of range")
    fixed = (mode, uid, gid, atime, mtime, ctime, length, links, entries, rdev, version, parent)
    return Inode(number, _kind(kind), *fixed)


def _key(row: StateRow) -> tuple[object, ...]:
    match row:
        case Inode():
            return INODE_TAG, row.inode
        case Name():
            return NAME_TAG, row.parent, row.name
        case ExtentRow():
            return EXTENT_TAG, row.inode, row.extent.offset
        case XattrRow():
            return XATTR_TAG, row.inode, row.name
        case SnapshotRow():
            return SNAPSHOT_TAG, row.name
        case CounterRow():
            return (NEXT_INODE_TAG,)


def _kind(number: int) -> Kind:
    if number not in Kind.__members__.values():
        raise _malformed(f"a thing of kind {number}")
    return Kind(number)


def _check_inode(number: int) -> None:
    if not 0 < number < _COUNTER_MAX:
        raise _malformed("there is no such inode")


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format="view snapshot", reason=reason)
