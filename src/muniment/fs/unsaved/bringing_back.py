"""Making again on the newest state what an earlier mount could not save.

Changes come in their order, then bytes.  What the newest state forbids goes beside the name that it was meant
for, as `NAME.unsaved-TIME`, and so does content of a file that others have changed since or removed: theirs
stays as it is.  What can stand nowhere, such as the removal of a name that is gone, is told.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from muniment.core.tree_state import Inode, Name, StoredExtent, TreeReading
from muniment.errors import ContentPruned, HistoryMissing, OperationRejected
from muniment.fs.committing.changes import renumbered
from muniment.fs.content.dirty import Dirty
from muniment.fs.names.numbers import LOCAL_FIRST, Numbers
from muniment.fs.names.present import Present
from muniment.fs.store import Store
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    NAME_BYTES_MAX,
    ROOT,
    SIZE_MAX,
    Extent,
    Kind,
    Link,
    Make,
    Operation,
    Rename,
    SetAttributes,
    Truncate,
    Unlink,
    Write,
)
from muniment.spec.unsaved import UnsavedChange, UnsavedFile, UnsavedHead, UnsavedPiece, UnsavedRecord

_EXTENTS: Final = 4096
_PAGE: Final = 4096
_SHOWN: Final = 5
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Brought:
    """What became of it.

    Attributes:
        changes: that were made again, or were in the log already.
        files: of which bytes were written again.
        beside: names under which something stands that could not stand where it was meant to.
        refused: what could stand nowhere.
    """

    changes: int = 0
    files: int = 0
    beside: list[bytes] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """In a line, for people."""
        parts = [f"{self.changes} changes, content of {self.files} files"]
        if self.beside:
            names = ", ".join(name.decode(errors="replace") for name in self.beside[:_SHOWN])
            parts.append(f"beside what others have made meanwhile ({len(self.beside)}): {names}")
        if self.refused:
            shown = ", ".join(self.refused[:_SHOWN])
            parts.append(f"not possible any more ({len(self.refused)}): {shown}")
        return "; ".join(parts)


class BringingBack:
    """Of one file of records.  Belongs to the loop: nothing is awaited in here.

    Args:
        present: where changes are made.
        dirty: where bytes go.
        store: has the states.
        numbers: of this file system.
    """

    def __init__(self, present: Present, dirty: Dirty, store: Store, numbers: Numbers) -> None:
        self._present, self._dirty, self._store, self._numbers = present, dirty, store, numbers
        self._now = store.state(present.at)
        self._places: dict[int, int] = {}  # numbers here, by those in the records
        self._files: dict[int, UnsavedFile] = {}
        self._written: set[int] = set()
        self._done: int | None = None  # the entry that was sent, if the log has it
        self._head = UnsavedHead(0, 0, b"", ())
        self._brought = Brought()

    def take(self, records: Iterable[UnsavedRecord]) -> Brought:
        """Make all of it again; the caller commits it."""
        for record in records:
            match record:
                case UnsavedHead():
                    self._begin(record)
                case UnsavedFile():
                    self._files[record.inode] = record
                case UnsavedChange():
                    self._change(record)
                case UnsavedPiece():
                    self._piece(record)
        return self._brought

    def _begin(self, head: UnsavedHead) -> None:
        self._head = head
        self._done = self._store.accepted(head.sent) if head.sent else None
        if self._done is not None:
            first = self._store.state(self._done - 1).next_inode
            self._places.update((made, first + at) for at, made in enumerate(head.made))

    def _place(self, ino: int) -> int:
        return self._places.get(ino, ino)

    # --- changes ------------------------------------------------------------------------------

    def _change(self, change: UnsavedChange) -> None:
        self._brought.changes += 1
        if change.was_sent and self._done is not None:
            return
        operation = change.operation
        if isinstance(operation, Write | Truncate):
            self._protect(operation.inode)
        made = self._numbers.fresh() if change.made else 0
        operation = renumbered(operation, self._place)
        for one in self._ways(change.operation, operation):
            try:
                self._present.apply(one, change.time_ns, change.blobs, made=made)
            except OperationRejected as error:
                _log.info("%s is not possible any more: %s", _told(one), error)
                continue
            self._store.needs(change.blobs)
            if isinstance(one, Truncate):
                self._present.apply(SetAttributes(one.inode, mtime_ns=change.time_ns), change.time_ns)
            if made:
                self._places[change.made] = made
            if _name_of(one) != _name_of(operation):
                self._tell_beside(one)
            return
        self._brought.changes -= 1
        self._brought.refused.append(_told(operation))

    def _ways(self, then: Operation, operation: Operation) -> Iterator[Operation]:
        """The operation, if others' content does not vanish by it, and what may be done in its place."""
        match then, operation:
            case Rename(), Rename():
                if not then.replaced or not self._is_changed(then.replaced):
                    yield operation
                alone = replace(operation, replaced=0, exchange=False)
                yield alone
                yield replace(alone, new_name=self._beside(operation.new_parent, operation.new_name))
            case Unlink(), _:
                if not self._is_changed(then.inode):
                    yield operation
            case _, Link():
                yield operation
                yield replace(operation, name=self._beside(operation.parent, operation.name))
            case _, Make():
                yield operation
                yield replace(operation, name=self._beside(operation.parent, operation.name))
                yield replace(operation, parent=ROOT, name=self._beside(ROOT, operation.name))
            case _:
                yield operation

    def _is_changed(self, ino: int) -> bool:
        """Whether others have changed the content of a file, or removed it."""
        known = self._files.get(ino)
        if known is None or ino >= LOCAL_FIRST or ino in self._places:
            return False
        row = self._now.inode(ino)
        return row is None or row.version not in (known.version, self._done)

    # --- content ------------------------------------------------------------------------------

    def _piece(self, piece: UnsavedPiece) -> None:
        self._protect(piece.inode)
        ino = self._place(piece.inode)
        if self._present.tree.inode(ino) is None:
            ino = self._set_aside(piece.inode)
        file = self._files.get(piece.inode)
        mtime_ns = self._head.time_ns if file is None or file.mtime_ns is None else file.mtime_ns
        self._dirty.write(ino, piece.offset, memoryview(piece.data), mtime_ns)
        self._written.add(ino)
        self._brought.files = len(self._written)

    def _protect(self, ino: int) -> None:
        """If others have changed a file, let what comes for it go to a copy."""
        if self._is_changed(ino):
            self._set_aside(ino)

    def _set_aside(self, ino: int) -> int:
        """Make a file beside another one, with the content that was there when all this was written."""
        before: TreeReading | None = None
        row: Inode | None = None
        extents: tuple[StoredExtent, ...] = ()
        with contextlib.suppress(HistoryMissing, ContentPruned):
            before = self._store.past(self._head.at)
            row = before.inode(ino)
            extents = tuple(before.extents(ino, 0, SIZE_MAX)) if row is not None else ()
        there = None if before is None or row is None else _named(before, ino)
        parent, name = (ROOT, b"file-%d" % ino) if there is None else (there.parent, there.name)
        folder = self._present.tree.inode(parent)
        parent = parent if folder is not None and folder.links else ROOT
        made = self._places[ino] = self._numbers.fresh()
        mode, uid, gid = (0o600, 0, 0) if row is None else (row.mode, row.uid, row.gid)
        make = Make(parent, self._beside(parent, name), Kind.FILE, mode, uid, gid, self._head.time_ns)
        self._present.apply(make, self._head.time_ns, made=made)
        self._tell_beside(make)
        if row is not None:
            self._copy(made, row, extents)
        return made

    def _copy(self, made: int, row: Inode, extents: tuple[StoredExtent, ...]) -> None:
        time_ns = self._head.time_ns
        for first in range(0, len(extents), _EXTENTS):
            rows: dict[BlobRef, int] = {}
            content = []
            for one in extents[first : first + _EXTENTS]:
                held = isinstance(one.source, bytes)
                source = (
                    one.source if isinstance(one.source, bytes) else rows.setdefault(one.source, len(rows))
                )
                content.append(Extent(one.offset, one.length, source, 0 if held else one.source_offset))
            self._store.adopt(rows)
            self._present.apply(Write(made, None, tuple(content)), time_ns, tuple(rows))
        self._present.apply(Truncate(made, None, row.size), time_ns)

    # --- names --------------------------------------------------------------------------------

    def _beside(self, parent: int, name: bytes) -> bytes:
        """A name that nothing has."""
        moment = dt.datetime.fromtimestamp(self._head.time_ns // 10**9, dt.UTC).astimezone()
        for number in count(1):
            end = moment.strftime(".unsaved-%Y-%m-%dT%H:%M").encode() + (
                b"" if number == 1 else b"-%d" % number
            )
            found = name[: NAME_BYTES_MAX - len(end)] + end
            if self._present.tree.child(parent, found) is None:
                return found
        raise AssertionError

    def _tell_beside(self, operation: Operation) -> None:
        name = _name_of(operation)
        _log.warning("what others have made impossible stands beside it: %s", name.decode(errors="replace"))
        self._brought.beside.append(name)


def _name_of(operation: Operation) -> bytes:
    """Where something stands by it."""
    match operation:
        case Rename():
            return operation.new_name
        case Make() | Link():
            return operation.name
        case _:
            return b""


def _named(state: TreeReading, wanted: int) -> Name | None:
    """One of the names of an inode.  Cost: O(names in the volume)."""
    folders = deque([ROOT])
    while folders:
        parent, after = folders.popleft(), b""
        while page := state.children(parent, after, _PAGE):
            for one in page:
                if one.inode == wanted:
                    return one
                if one.kind is Kind.FOLDER:
                    folders.append(one.inode)
            after = page[-1].name
    return None


def _told(operation: Operation) -> str:
    """For people."""
    names = [getattr(operation, field, b"") for field in ("name", "new_name")]
    shown = " to ".join(name.decode(errors="replace") for name in names if name)
    return f"{type(operation).__name__.lower()} {shown}".strip()
