"""The kernel's calls on a volume: which opcode is which call of the file system.  No other logic is here.

Permissions are the kernel's (`default_permissions`).
"""

from __future__ import annotations

from typing import Final

from muniment.core.history import Difference
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount.attributes import Shown
from muniment.gateways.mount.locks import LockCalls
from muniment.gateways.mount.names import NameCalls
from muniment.gateways.mount.notices import Notices
from muniment.gateways.mount.open_files import FileCalls
from muniment.gateways.mount.protocol import AtOnce, InitFlag, InTask

WANTED: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.POSIX_LOCKS
    | InitFlag.FLOCK_LOCKS
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.EXPORT_SUPPORT
    | InitFlag.BIG_WRITES
    | InitFlag.DONT_MASK
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.POSIX_ACL
    | InitFlag.MAX_PAGES
    | InitFlag.HANDLE_KILLPRIV_V2
    | InitFlag.SETXATTR_EXT
)
"""What the kernel may do.

HANDLE_KILLPRIV_V2: it says when to take the bits s from a mode, and does not look at each write for itself
whether there is anything to take, which is a request for `security.capability`.  Not WRITEBACK_CACHE: pages
would wait in the kernel, where a crash loses them and other mounts' changes cannot be merged.
Not READDIRPLUS_AUTO: it lists big folders without attributes, and who then asks for them asks once for each.
"""


class MountOperations:
    """See the module.

    Args:
        files: the volume.
        timeout_s: so long the kernel keeps names and attributes; what other clients change it hears at once.

    Attributes:
        at_once: calls by opcode that are answered without an await.
        in_task: all others.
        notices: begun by whoever serves this.
    """

    def __init__(self, files: FileSystem, timeout_s: float) -> None:
        self._files, self._stale, self.notices = files, set[int](), Notices()
        shown = Shown(timeout_s)
        self._named = named = NameCalls(files, shown, self._stale)
        self._opened = opened = FileCalls(files, shown, self._stale, self.notices)
        locked = LockCalls(files)
        if files.locks.across is not None:
            files.locks.across.forget_content = self.notices.content_changed
        self.at_once: dict[int, AtOnce] = named.at_once() | opened.at_once()
        self.in_task: dict[int, InTask] = named.in_task() | opened.in_task() | locked.in_task()

    def agree(self, flags: InitFlag) -> None:
        """Hear what the kernel does, before its first call."""
        self._named.agree(flags)
        self._opened.agree(flags)
        self._files.attributes.has_access_lists = bool(flags & InitFlag.POSIX_ACL)

    def invalidate(self, changed: Difference) -> None:
        """Let the kernel forget what other clients have changed, of what it knows."""
        here, knows = self._files.here, self._files.knows
        for ino in filter(knows, (here(one.inode) for one in changed.inodes)):
            self._stale.add(ino)
            self.notices.attributes_changed(ino)
        names = ((here(one.parent), one.name) for one in changed.names)
        self.notices.names_changed((parent, name) for parent, name in names if knows(parent))
