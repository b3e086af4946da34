"""Names of a volume by their paths: looking, moving, copying, removing, restoring; no node is asked.

    names = VolumeNames(volume)
    await names.move([b"books/draft.pdf"], b"books/final.pdf")

Every change is one transaction, whatever number of names it touches.  Content stays where it is;
`VolumeFiles` adds what needs the grid.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from muniment.core.fold import apply
from muniment.core.history import FileVersion
from muniment.core.tree_state import Inode, TreeReading
from muniment.engine.pruning import past_reading
from muniment.engine.volume import Committed, Plan, Volume
from muniment.engine.volume_plans import (
    NewFacts,
    copied,
    folder_made,
    folder_restored,
    into,
    named,
    present,
    replaced,
)
from muniment.engine.volume_tree import Listed, Place, children, find, link_target, locate, path_text, walk
from muniment.errors import InvalidRequest, OperationRejected, PathUnknown
from muniment.spec.blob import BlobRef
from muniment.spec.manifest import ROWS_MAX
from muniment.spec.operation import (
    OPERATIONS_MAX,
    Kind,
    Link,
    Make,
    Operation,
    RemoveTree,
    Rename,
    Rmdir,
    SetAttributes,
    Snapshot,
    Unlink,
    Write,
    inline_content,
)
from muniment.spec.transaction import TRANSACTION_EXTENTS_MAX, Transaction

_CHECKED_MAX: Final = 64
"""Operations of a change that is folded before it is sent: what people type has fewer."""

_T = TypeVar("_T")

OWNER: Final = (os.geteuid(), os.getegid())
"""Of what this process makes: of the same numbers as in the files that it makes here."""


class VolumeNames:
    """The tree of one volume.

    Args:
        volume: followed by whoever calls; changes follow it themselves.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    # --- looking ------------------------------------------------------------------------------

    async def look(self, look: Callable[[TreeReading], _T], *, at: int | None = None) -> _T:
        """What `look` finds in the present state, or after the entry `at`; in the volume's thread.

        Raises: ContentPruned: it looks at content of the past that is gone.
        """
        return await self._volume.run(lambda: look(self._reading(at)))

    def _reading(self, at: int | None) -> TreeReading:
        return self._volume.view.reading() if at is None else past_reading(self._volume, at)

    async def find(self, path: bytes, *, at: int | None = None, follow: bool = True) -> Inode:
        """What stands under a path, now or after the entry `at`.  Raises: PathUnknown, InvalidRequest."""
        return await self.look(lambda state: find(state, path, follow=follow), at=at)

    async def listing(self, path: bytes, *, at: int | None = None) -> list[Listed]:
        """What a folder holds; of anything else, itself under its own name."""

        def look(state: TreeReading) -> list[Listed]:
            place = present(locate(state, path), path)
            assert place.inode is not None
            if place.inode.kind is Kind.FOLDER:
                return list(children(state, place.inode))
            return [Listed(place.name, place.inode)]

        return await self.look(look, at=at)

    async def walk(self, path: bytes, *, at: int | None = None) -> list[Listed]:
        """Everything below a folder, itself first under the empty path."""

        def look(state: TreeReading) -> list[Listed]:
            top = find(state, path)
            below = walk(state, top) if top.kind is Kind.FOLDER else iter(())
            return [Listed(b"", top), *below]

        return await self.look(look, at=at)

    async def target(self, path: bytes, *, at: int | None = None) -> bytes:
        """Where a symbolic link points to."""

        def look(state: TreeReading) -> bytes:
            inode = find(state, path, follow=False)
            if inode.kind is not Kind.SYMLINK:
                raise InvalidRequest(reason=f"{path_text(path)} is not a symbolic link")
            return link_target(state, inode)

        return await self.look(look, at=at)

    async def history(self, path: bytes) -> list[FileVersion]:
        """All contents that a file has had, the oldest first."""
        inode = await self.find(path)
        return list(await self._volume.run(lambda: self._volume.view.history(inode.inode)))

    # --- changing -----------------------------------------------------------------------------

    async def change(
        self, make: Callable[[TreeReading], Iterable[Operation]], message: str = ""
    ) -> Committed:
        """Any operations as one transaction.

        What the present state forbids is not even sent: no mistake stands in the log for ever.
        Raises: as `Volume.commit`.
        """
        return await self._commit(lambda state: Transaction(tuple(make(state)), message=message))

    async def _commit(self, plan: Plan) -> Committed:
        planned = 0

        def allowed(state: TreeReading) -> Transaction:
            nonlocal planned
            planned, transaction = self._volume.view.size, plan(state)
            _check(state, transaction, planned, self._volume.now_ns())
            return transaction

        try:
            return await self._volume.commit(allowed)
        except OperationRejected:
            if await self._volume.sync() == planned:
                raise
        return await self._volume.commit(allowed)  # what was known here was old

    async def make_folder(self, path: bytes, *, mode: int = 0o755, parents: bool = False) -> Committed:
        """Make a folder; with `parents`, also those above it, and no matter if it is there."""

        def make(state: TreeReading) -> Iterable[Operation]:
            facts = NewFacts(mode, self._volume.now_ns(), OWNER)
            if not parents:
                place = locate(state, path)
                return [facts.make(place.parent, place.name, Kind.FOLDER)]
            if _is_there(state, path):
                return [SetAttributes(find(state, path).inode)]
            return folder_made(state, path, facts, "").operations

        return await self.change(make)

    async def remove(self, *paths: bytes, recursive: bool = False) -> Committed:
        """Remove names; with `recursive` all below them too; one transaction.

        Raises: PathUnknown; OperationRejected: a folder that is not empty.
        """

        def make(state: TreeReading) -> Iterable[Operation]:
            for path in paths:
                place = named(locate(state, path, follow=False), path)
                assert place.inode is not None
                kind: type[RemoveTree | Rmdir | Unlink] = RemoveTree
                if not recursive:
                    kind = Rmdir if place.inode.kind is Kind.FOLDER else Unlink
                yield kind(place.parent, place.name, place.inode.inode)

        return await self.change(make)

    async def move(
        self, path: bytes | Sequence[bytes], new_path: bytes, *, replace: bool = True
    ) -> Committed:
        """Give something another name, into a folder if that is what `new_path` is; one transaction.

        Args:
            path: several must go into a folder.
        Raises: PathUnknown; OperationRejected: into itself, or the new name is taken.
        """
        paths = [path] if isinstance(path, bytes) else path

        def make(state: TreeReading) -> Iterable[Operation]:
            target = _target(state, new_path)
            if len(paths) > 1 and (target.inode is None or target.inode.kind is not Kind.FOLDER):
                raise InvalidRequest(reason=f"{path_text(new_path)} is not a folder")
            for one in paths:
                old = named(locate(state, one, follow=False), one)
                new = into(state, target, old.name)
                assert old.inode is not None
                replaced = new.inode.inode if new.inode is not None and replace else 0
                yield Rename(old.parent, old.name, old.inode.inode, new.parent, new.name, replaced)

        return await self.change(make)

    async def copy(self, path: bytes, new_path: bytes, *, at: int | None = None) -> Committed:
        """Copy a file, link or folder within the volume: names and references only, no content moves."""

        def plan(state: TreeReading) -> Transaction:
            past = state if at is None else self._reading(at)
            old = named(locate(past, path, follow=False), path)
            assert old.inode is not None
            new = into(state, _target(state, new_path), old.name)
            blobs: dict[BlobRef, int] = {}
            if new.inode is not None and not (new.inode.kind is Kind.FILE and old.inode.kind is Kind.FILE):
                raise InvalidRequest(reason=f"{path_text(new_path)} is there already")
            ops = list(copied(past, old.inode, state, new, blobs))
            return _transaction(ops, blobs)

        return await self._commit(plan)

    async def restore(self, path: bytes, at: int, *, message: str = "") -> Committed:
        """Bring a file or folder back to what it was after the entry `at`, in one transaction.

        What stands there now is replaced, and stays in the history.
        Raises: PathUnknown: it was not there; ContentPruned.
        """

        def plan(state: TreeReading) -> Transaction:
            past = self._reading(at)
            old = locate(past, path, follow=False)
            if old.inode is None:
                raise PathUnknown(path=path_text(path))
            blobs: dict[BlobRef, int] = {}
            now = locate(state, path, follow=False)
            if now.inode is not None and now.inode.kind is old.inode.kind is Kind.FOLDER:
                ops = list(folder_restored(past, old.inode, state, now.inode, blobs))
            else:
                ops = list(replaced(past, old.inode, state, now, blobs))
            if not ops:
                raise InvalidRequest(reason=f"{path_text(path)} is as it was then")
            return _transaction(ops, blobs, message)

        return await self._commit(plan)

    async def link(self, path: bytes, new_path: bytes) -> Committed:
        """Another name for a file."""

        def make(state: TreeReading) -> Iterable[Operation]:
            inode, new = find(state, path), locate(state, new_path, follow=False)
            return [Link(inode.inode, new.parent, new.name)]

        return await self.change(make)

    async def symlink(self, target: bytes, path: bytes) -> Committed:
        """A symbolic link under `path`."""

        def make(state: TreeReading) -> Iterable[Operation]:
            place = locate(state, path, follow=False)
            content = inline_content(target)
            when_ns, size = self._volume.now_ns(), len(target)
            return [Make(place.parent, place.name, Kind.SYMLINK, 0o777, *OWNER, when_ns, 0, content, size)]

        return await self.change(make)

    async def set_attributes(
        self,
        path: bytes,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
    ) -> Committed:
        """Change what is not None."""

        def make(state: TreeReading) -> Iterable[Operation]:
            return [SetAttributes(find(state, path).inode, mode, uid, gid, atime_ns, mtime_ns)]

        return await self.change(make)

    async def set_modes(
        self, paths: Sequence[bytes], mode_of: Callable[[Inode], int], *, recursive: bool = False
    ) -> Committed:
        """Change permissions; with `recursive` of all below too; one transaction."""

        def make(state: TreeReading) -> Iterable[Operation]:
            for path in paths:
                top = find(state, path)
                below = walk(state, top) if recursive and top.kind is Kind.FOLDER else iter(())
                for inode in (top, *(one.inode for one in below)):
                    if inode.kind is not Kind.SYMLINK:
                        yield SetAttributes(inode.inode, mode=mode_of(inode))

        return await self.change(make)

    async def touch(self, paths: Sequence[bytes], mtime_ns: int, *, create: bool = True) -> Committed | None:
        """Set the time of files and folders, and make empty files where there is nothing; one transaction.

        Returns: None if nothing was to do.
        """

        def touched(state: TreeReading) -> Iterable[Operation]:
            for path in paths:
                place = locate(state, path)
                if place.inode is not None:
                    yield SetAttributes(place.inode.inode, mtime_ns=mtime_ns)
                elif create:
                    yield NewFacts(0o644, mtime_ns, OWNER).make(place.parent, place.name, Kind.FILE)

        if not await self.look(lambda state: any(True for _ in touched(state))):
            return None
        return await self.change(touched)

    async def snapshot(self, name: bytes) -> Committed:
        """Give the present state a name.  Raises: OperationRejected: the name is used."""
        return await self.change(lambda _: [Snapshot(name)])


def _transaction(ops: list[Operation], blobs: dict[BlobRef, int], message: str = "") -> Transaction:
    """Raises: InvalidRequest: more than an entry can hold."""
    extents = sum(len(op.content) for op in ops if isinstance(op, Make | Write))
    if len(ops) > OPERATIONS_MAX or len(blobs) > ROWS_MAX or extents > TRANSACTION_EXTENTS_MAX:
        reason = (
            f"one change is at most {OPERATIONS_MAX} names, {ROWS_MAX} blobs and "
            f"{TRANSACTION_EXTENTS_MAX} pieces of files; do it folder by folder"
        )
        raise InvalidRequest(reason=reason)
    return Transaction(tuple(ops), tuple(blobs), message)


def _check(state: TreeReading, transaction: Transaction, index: int, time_ns: int) -> None:
    """Fold a short transaction before it is sent.

    Long ones, and those that remove trees, are made of what was found in the state, and would cost twice.
    Raises: OperationRejected: with the name that is concerned.
    """
    operations = transaction.operations
    if len(operations) > _CHECKED_MAX or any(isinstance(one, RemoveTree) for one in operations):
        return
    try:
        apply(state, transaction, index=index, time_ns=time_ns)
    except OperationRejected as error:
        name = _name_of(operations[error.operation])
        raise OperationRejected(
            why=error.why,
            operation=error.operation,
            reason=f"{name}: {error.reason}" if name else error.reason,
        ) from error


def _name_of(operation: Operation) -> str:
    match operation:
        case Rename(new_name=name) | Make(name=name) | Link(name=name) | Snapshot(name=name):
            return name.decode("utf-8", "replace")
        case Rmdir(name=name) | Unlink(name=name):
            return name.decode("utf-8", "replace")
    return ""


def _is_there(state: TreeReading, path: bytes) -> bool:
    try:
        return locate(state, path).inode is not None
    except PathUnknown:
        return False


def _target(state: TreeReading, path: bytes) -> Place:
    """Where something is to go: a link that leads to a folder is followed, any other may be replaced."""
    place = locate(state, path, follow=False)
    if place.inode is not None and place.inode.kind is Kind.SYMLINK:
        try:
            behind = locate(state, path)
        except (PathUnknown, InvalidRequest):
            return place
        if behind.inode is not None and behind.inode.kind is Kind.FOLDER:
            return behind
    return place
