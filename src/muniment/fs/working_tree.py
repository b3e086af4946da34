"""The tree as callers work on it: the present with what was written on top, and how it is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muniment.core.fold import Why
from muniment.core.tree_state import Inode
from muniment.errors import FileRefused, OperationRejected
from muniment.fs.committing.committer import Committer
from muniment.fs.committing.watching import Watching
from muniment.fs.content.dirty import Dirty
from muniment.fs.errnos import Because
from muniment.fs.handles import Handles
from muniment.fs.names.numbers import PAST_FIRST
from muniment.fs.names.present import Present
from muniment.fs.store import Store
from muniment.spec.blob import BlobRef
from muniment.spec.operation import Kind, Operation


class WorkingTree:
    """What looking, changing and open files share.

    Attributes:
        present: names and attributes.
        dirty: written bytes.
        committer: told of each change.
        store: has the clock.
        handles: who has what open.
        check_lock: raises FileRefused if a lock was lost that somebody here counts on to write to a file.

    Args:
        watching: asks what is new, before a file is opened; None: nobody does.
        read_only: nothing can be changed.
        durable: a change is in the log before it returns.
    """

    def __init__(
        self,
        present: Present,
        dirty: Dirty,
        committer: Committer,
        store: Store,
        handles: Handles,
        watching: Watching | None,
        *,
        read_only: bool,
        durable: bool,
    ) -> None:
        self.present, self.dirty, self.committer = present, dirty, committer
        self.store, self.handles, self._watching = store, handles, watching
        self._read_only, self._durable = read_only, durable
        self.check_lock: Callable[[int], None] = lambda _: None

    # --- looking ------------------------------------------------------------------------------

    def inode(self, ino: int) -> Inode:
        """What is known of an inode, with what was written to it lately.  Raises: OperationRejected."""
        row = self.present.tree.inode(ino)
        if row is None:
            raise rejected(Why.NOT_FOUND, "it is not there any more")
        dirty = self.dirty.get(ino)
        if dirty is not None:
            newer = dirty.mtime_ns
            row = row._replace(
                size=max(row.size, dirty.pieces.stop), mtime_ns=newer, ctime_ns=max(newer, row.ctime_ns)
            )
        return row

    def folder(self, ino: int) -> Inode:
        """The same of a folder.  Raises: OperationRejected: it is none."""
        row = self.inode(ino)
        if row.kind is not Kind.FOLDER:
            raise rejected(Why.NOT_A_FOLDER, "it is no folder")
        return row

    async def freshen(self) -> None:
        """Let callers see what others have committed before now."""
        if self._watching is not None:
            await self._watching.freshen()

    def let_go(self, ino: int) -> None:
        """What nobody can reach any more is forgotten."""
        if self.handles.is_held(ino):
            return
        row = self.present.tree.inode(ino)
        if row is None or row.links == 0:
            self.dirty.drop(ino)
        self.present.forget(ino)

    # --- changing -----------------------------------------------------------------------------

    def check_changeable(self, *inodes: int) -> None:
        """Raises: FileRefused: nothing can be changed here, or one of these is of the past."""
        if self._read_only or any(ino >= PAST_FIRST for ino in inodes):
            raise FileRefused(why=Because.READ_ONLY, reason="nothing can be changed here")

    async def admit(self, *inodes: int) -> None:
        """Wait until a change of these may be made.  Raises: FileRefused, DeadlineExceeded."""
        self.check_changeable(*inodes)
        await self.committer.admit()

    async def apply(self, operation: Operation, blobs: Sequence[BlobRef] = (), *, made: int = 0) -> None:
        """Make a change; nothing is awaited before callers see it."""
        change = self.present.apply(operation, self.store.now_ns(), blobs, made=made)
        self.committer.wake()
        if self._durable:
            await self.committer.durable(change.number)
            if change.error is not None:
                raise change.error


def rejected(why: Why, reason: str) -> OperationRejected:
    """As a fold would refuse it."""
    return OperationRejected(why=why, operation=0, reason=reason)
