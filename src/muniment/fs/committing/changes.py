"""Changes on their way into the log, and the transaction that they become.

A change is one operation in the numbers of this file system.  When an entry is planned, all that wait become
one transaction in the volume's numbers; those that the newest state does not allow any more, because another
client was faster, are left out and fail alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from muniment.core.fold import Fold, Why
from muniment.core.overlay import Overlay
from muniment.core.tree_state import TreeReading
from muniment.errors import InvalidRequest, MalformedRecord, MunimentError, OperationRejected
from muniment.fs.names.numbers import Numbers
from muniment.fs.names.reading import HereReading
from muniment.spec.blob import BlobRef
from muniment.spec.entry import ENTRY_BYTES_MAX
from muniment.spec.limits import KIB
from muniment.spec.manifest import ROWS_MAX
from muniment.spec.operation import (
    Content,
    Link,
    Make,
    Operation,
    RemoveTree,
    RemoveXattr,
    Rename,
    Rmdir,
    SetAttributes,
    SetXattr,
    Truncate,
    Unlink,
    Write,
    inodes_of,
)
from muniment.spec.transaction import TRANSACTION_EXTENTS_MAX, Transaction

_BATCH_CHANGES: Final = 4096
_BATCH_BYTES: Final = ENTRY_BYTES_MAX - 256 * KIB
"""What does not get smaller by compression must fit with all that an entry has besides."""

_OVERHEAD_BYTES: Final = 96
_BLOB_BYTES: Final = 160
_EXTENT_BYTES: Final = 32


@dataclass(slots=True, eq=False)
class Change:
    """One operation that a caller was told is done.

    Attributes:
        number: in the order in which they were made.
        operation: in the numbers of this file system.
        blobs: what its extents count.
        time_ns: when it was made.
        made: the number of what it makes; 0 for nothing.
        local: it is about what has no name any more, and goes into no entry.
        error: why it will never be in the log.
    """

    number: int
    operation: Operation
    blobs: tuple[BlobRef, ...] = field(repr=False)
    time_ns: int
    made: int = 0
    local: bool = False
    error: MunimentError | None = None

    @property
    def inodes(self) -> tuple[int, ...]:
        """Those that it is about."""
        named = inodes_of(self.operation)
        return (*named, self.made) if self.made else named

    @property
    def size_bytes(self) -> int:
        """What it takes in an entry, at most."""
        size, operation = _OVERHEAD_BYTES + _BLOB_BYTES * len(self.blobs), self.operation
        match operation:
            case Make():
                size += len(operation.name) + _content_bytes(operation.content)
                return size + sum(len(name) + len(value) + 16 for name, value in operation.xattrs)
            case Write():
                return size + _content_bytes(operation.content)
            case SetXattr():
                return size + len(operation.name) + len(operation.value)
            case Rename():
                return size + len(operation.name) + len(operation.new_name)
            case Link() | Unlink() | Rmdir() | RemoveTree() | RemoveXattr():
                return size + len(operation.name)
            case _:
                return size

    @property
    def extents(self) -> int:
        """Pieces of content that it names."""
        return len(self.operation.content) if isinstance(self.operation, Make | Write) else 0


def taken(queue: deque[Change]) -> tuple[Change, ...]:
    """Take the first changes from a queue: as many as an entry takes, and one at least."""
    size = blobs = extents = 0
    batch: list[Change] = []
    while queue and len(batch) < _BATCH_CHANGES:
        size += queue[0].size_bytes
        blobs += len(queue[0].blobs)
        extents += queue[0].extents
        fits = size <= _BATCH_BYTES and blobs <= ROWS_MAX and extents <= TRANSACTION_EXTENTS_MAX
        if batch and not fits:
            break
        batch.append(queue.popleft())
    return tuple(batch)


def _content_bytes(content: Content) -> int:
    inline = (len(one.source) for one in content if isinstance(one.source, bytes))
    return _EXTENT_BYTES * len(content) + sum(inline)


@dataclass(slots=True)
class Planned:
    """What became of changes in the last plan.

    Attributes:
        made: numbers here of what the transaction makes, in its order.
        failed: changes that the state does not allow.
    """

    made: list[int] = field(default_factory=list)
    failed: list[tuple[Change, MunimentError]] = field(default_factory=list)


class NothingLeft(Exception):
    """No change of a plan is allowed any more, or none goes into the log."""

    def __init__(self, planned: Planned) -> None:
        super().__init__()
        self.planned = planned


def plan(
    changes: Sequence[Change],
    state: TreeReading,
    numbers: Numbers,
    blobs: Mapping[BlobRef, BlobRef],
    index: int,
    *,
    check: bool,
) -> tuple[Transaction, Planned]:
    """Make a transaction of changes.

    Args:
        blobs: what each one named is called now; those under passed keys were stored again.
        check: whether others have changed the state since these changes were made on it.
    Raises: NothingLeft; InvalidRequest: they are too much for one transaction.
    """
    planned, rows = Planned(), dict[BlobRef, int]()
    tree = Overlay(HereReading(state, numbers)) if check else None
    operations: list[Operation] = []
    places: dict[int, int] = {}

    def place(here: int) -> int:
        found = places.get(here) or numbers.in_volume(here)
        if not found:
            reason = "what it is about could not be made"
            raise OperationRejected(why=Why.NOT_FOUND, operation=0, reason=reason)
        return found

    for change in changes:
        if change.local and (tree is None or tree.node(change.inodes[0]) is None):
            continue  # it is about what was removed, unless who was faster has kept a name for it
        current = [blobs.get(ref, ref) for ref in change.blobs]
        try:
            if tree is not None:
                if change.made:
                    tree.next_inode = change.made
                Fold(tree, current, index, change.time_ns).run(change.operation)
            operation = renumbered(change.operation, place)
        except OperationRejected as error:
            planned.failed.append((change, error))
            continue
        for ref in current:
            rows.setdefault(ref, len(rows))
        operations.append(_with_rows(operation, [rows[ref] for ref in current]))
        if change.made:
            planned.made.append(change.made)
            places[change.made] = -len(planned.made)
    if not operations:
        raise NothingLeft(planned)
    try:
        return Transaction(tuple(operations), tuple(rows)), planned
    except MalformedRecord as error:
        raise InvalidRequest(reason=f"not one transaction: {error.reason}") from error


def renumbered(op: Operation, place: Callable[[int], int]) -> Operation:
    """The operation with every inode as `place` calls it."""
    match op:
        case Make():
            return replace(op, parent=place(op.parent))
        case Link():
            return Link(place(op.inode), place(op.parent), op.name)
        case Rename():
            return replace(
                op,
                parent=place(op.parent),
                inode=place(op.inode),
                new_parent=place(op.new_parent),
                replaced=place(op.replaced) if op.replaced else 0,
            )
        case Unlink(parent, name, inode):
            return Unlink(place(parent), name, place(inode))
        case Rmdir(parent, name, inode):
            return Rmdir(place(parent), name, place(inode))
        case RemoveTree(parent, name, inode):
            return RemoveTree(place(parent), name, place(inode))
        case SetAttributes() | SetXattr() | RemoveXattr() | Write() | Truncate():
            return replace(op, inode=place(op.inode))
        case _:
            return op


def _with_rows(op: Operation, rows: Sequence[int]) -> Operation:
    """Let its extents count the blobs of the whole transaction."""
    if not rows or not isinstance(op, Make | Write):
        return op
    content: Content = tuple(
        replace(one, source=rows[one.source]) if isinstance(one.source, int) else one for one in op.content
    )
    return replace(op, content=content)
