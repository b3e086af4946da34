"""What locks across mounts need of the file system: who has them next sees what was saved under them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muniment.errors import FileRefused
from muniment.fs.content.saving import Saving
from muniment.fs.deadlines import Patience, within
from muniment.fs.errnos import Because
from muniment.fs.locking.shared_locks import SharedLocks
from muniment.fs.names.numbers import PAST_FIRST, Numbers
from muniment.fs.working_tree import WorkingTree
from muniment.ports import Clock
from muniment.spec.operation import SIZE_MAX


class Across:
    """See the module.

    Args:
        tree: whose files.
        saving: brings what was written into the log.
        numbers: of the file system.
        clock: of this machine.

    Attributes:
        shared: what this mount has claimed.
        patience: how long any call waits.
        forget_content: called with an inode that others may have written since it was read here; a gateway
            whose kernel keeps pages lets it forget them.
    """

    def __init__(
        self, tree: WorkingTree, saving: Saving, numbers: Numbers, clock: Clock, patience: Patience
    ) -> None:
        self._tree, self._saving, self._numbers, self.patience = tree, saving, numbers, patience
        self.shared = SharedLocks(tree.store, clock)
        self.forget_content: Callable[[int], Awaitable[None]] = _nothing

    async def number(self, ino: int) -> int:
        """An inode's number in the volume, into which it is brought; 0: nobody else can know it."""
        row = self._tree.present.tree.inode(ino)
        if row is None or row.links == 0 or ino >= PAST_FIRST:
            return 0
        if not self._numbers.in_volume(ino):
            await self._tree.committer.durable(self._tree.present.newest)
        return self._numbers.in_volume(ino)

    async def save(self, ino: int) -> None:
        """Let the log have what was written to a file.  Raises: what keeps it."""
        async with within("sync", self.patience):
            await self._saving.durable(ino)

    async def enter(self, ino: int) -> None:
        """Let callers see what others saved before they gave up their locks."""
        await self._tree.committer.caught_up(self._tree.store.newest)
        await self.forget_content(ino)

    def drop(self, ino: int, *, tell: bool) -> None:
        """What was written and is not saved must not come after what others write now.

        Args:
            tell: the next `fsync` or close says so.
        """
        if self._tree.dirty.get(ino) is None:
            return
        self._tree.dirty.cut(ino, 0, SIZE_MAX)
        if tell:
            reason = "the lock under which it was written was lost before it was saved"
            self._tree.committer.tell(ino, FileRefused(why=Because.LOCK_LOST, reason=reason))


async def _nothing(ino: int) -> None:
    """Nobody keeps pages."""
