"""The kernel's calls about locks: `fcntl` on ranges, `flock` on whole files."""

from __future__ import annotations

import fcntl

from muniment.core.lock_ranges import Lock
from muniment.errors import FileRefused
from muniment.fs.errnos import Because
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount import protocol
from muniment.gateways.mount.protocol import Answer, InTask, Opcode, Request


class LockCalls:
    """See the module.

    Args:
        files: the volume.
    """

    def __init__(self, files: FileSystem) -> None:
        self._locks = files.locks

    def in_task(self) -> dict[int, InTask]:
        """All of them: other mounts may have locks too."""
        return {Opcode.GETLK: self._find, Opcode.SETLK: self._set, Opcode.SETLKW: self._set}

    async def _find(self, request: Request) -> Answer:
        _, owner, start, end, kind, pid, flags = request.fields(protocol.LOCK)
        wanted = Lock(owner, start, end + 1, exclusive=kind == fcntl.F_WRLCK, pid=pid)
        found = await self._locks.find(request.node, wanted, whole=bool(flags & protocol.LOCK_FLOCK))
        if found is None:
            return (protocol.LOCK_OUT.pack(start, end, fcntl.F_UNLCK, pid),)
        kind = fcntl.F_WRLCK if found.exclusive else fcntl.F_RDLCK
        return (protocol.LOCK_OUT.pack(found.start, found.stop - 1, kind, found.pid),)

    async def _set(self, request: Request) -> Answer:
        _, owner, start, end, kind, pid, flags = request.fields(protocol.LOCK)
        whole = bool(flags & protocol.LOCK_FLOCK)
        if kind == fcntl.F_UNLCK:
            await self._locks.clear(request.node, owner, start, end + 1, whole=whole)
        elif kind in (fcntl.F_RDLCK, fcntl.F_WRLCK):
            lock = Lock(owner, start, end + 1, exclusive=kind == fcntl.F_WRLCK, pid=pid)
            wait = request.opcode == Opcode.SETLKW
            await self._locks.set(request.node, lock, whole=whole, wait=wait)
        else:
            raise FileRefused(why=Because.BAD_RANGE, reason="there are no locks of this kind")
        return ()
