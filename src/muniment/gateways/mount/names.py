"""The kernel's calls about names and attributes, each one call of the file system.

Every number that the kernel is told it knows until it forgets it, as often as it was told; `FileSystem.know`
counts with it.
"""

from __future__ import annotations

import time
from typing import Final

from muniment.core.fold import Why
from muniment.core.tree_state import Inode
from muniment.errors import FileRefused, OperationRejected
from muniment.fs.errnos import Because
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount import protocol
from muniment.gateways.mount.attributes import Shown, kind_of
from muniment.gateways.mount.protocol import Answer, AtOnce, InitFlag, InTask, Opcode, Request, SetAttribute
from muniment.spec.operation import NAME_BYTES_MAX, Kind, XattrMode

_PERMISSIONS: Final = 0o7777
_BLOCK_BYTES: Final = 4096
_FILES: Final = 1 << 40
"""What `df -i` shows: there is no limit below."""


class NameCalls:
    """See the module.

    Args:
        files: the volume.
        shown: how inodes are told.
        stale: files of which the kernel may have old pages.
    """

    def __init__(self, files: FileSystem, shown: Shown, stale: set[int]) -> None:
        self._files, self._shown, self._stale = files, shown, stale
        self._setting = protocol.SETXATTR

    def agree(self, flags: InitFlag) -> None:
        """Hear what the kernel does."""
        self._setting = protocol.SETXATTR_EXT if flags & InitFlag.SETXATTR_EXT else protocol.SETXATTR

    def at_once(self) -> dict[int, AtOnce]:
        """Those that are answered without an await."""
        return {
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._forget_many,
            Opcode.READLINK: self._readlink,
            Opcode.GETATTR: self._getattr,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
        }

    def in_task(self) -> dict[int, InTask]:
        """Those that change something, or ask the grid."""
        return {
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.SYMLINK: self._symlink,
            Opcode.LINK: self._link,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename_as,
            Opcode.SETATTR: self._setattr,
            Opcode.SETXATTR: self._setxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.STATFS: self._statfs,
        }

    def _known(self, row: Inode) -> Answer:
        """An entry that the kernel keeps until it forgets it."""
        self._files.know(row.inode)
        return (self._shown.entry(row),)

    # --- names --------------------------------------------------------------------------------

    def _lookup(self, request: Request) -> Answer:
        (name,) = request.names(None, 1)
        try:
            row = self._files.lookup(request.node, name)
        except OperationRejected as error:
            if error.why != Why.NOT_FOUND:
                raise
            return (self._shown.nothing,)  # unlike an error this is kept, as long as an entry
        return self._known(row)

    def _forget(self, request: Request) -> Answer:
        (count,) = request.fields(protocol.FORGET)
        self._forgotten(request.node, count)
        return ()

    def _forget_many(self, request: Request) -> Answer:
        count, _ = request.fields(protocol.BATCH_FORGET)
        one = protocol.FORGET_ONE
        for node, times in one.iter_unpack(request.data(protocol.BATCH_FORGET.size, count * one.size)):
            self._forgotten(node, times)
        return ()

    def _forgotten(self, node: int, times: int) -> None:
        self._files.forget(node, times)
        self._stale.discard(node)

    async def _mknod(self, request: Request) -> Answer:
        mode, rdev, umask = request.fields(protocol.MKNOD)
        (name,) = request.names(protocol.MKNOD, 1)
        return await self._make(request, name, kind_of(mode), mode, umask, rdev=rdev)

    async def _mkdir(self, request: Request) -> Answer:
        mode, umask = request.fields(protocol.MKDIR)
        (name,) = request.names(protocol.MKDIR, 1)
        return await self._make(request, name, Kind.FOLDER, mode, umask)

    async def _symlink(self, request: Request) -> Answer:
        name, target = request.names(None, 2)
        return await self._make(request, name, Kind.SYMLINK, 0o777, 0, target=target)

    async def _make(
        self,
        request: Request,
        name: bytes,
        kind: Kind,
        mode: int,
        umask: int,
        *,
        rdev: int = 0,
        target: bytes = b"",
    ) -> Answer:
        row = await self._files.make(
            request.node,
            name,
            kind,
            mode & _PERMISSIONS,
            request.uid,
            request.gid,
            umask=umask,
            rdev=rdev,
            target=target,
        )
        return self._known(row)

    async def _link(self, request: Request) -> Answer:
        (node,) = request.fields(protocol.LINK)
        (name,) = request.names(protocol.LINK, 1)
        return self._known(await self._files.link(node, request.node, name))

    async def _unlink(self, request: Request) -> Answer:
        (name,) = request.names(None, 1)
        await self._files.unlink(request.node, name)
        return ()

    async def _rmdir(self, request: Request) -> Answer:
        (name,) = request.names(None, 1)
        await self._files.rmdir(request.node, name)
        return ()

    async def _rename(self, request: Request) -> Answer:
        (new_parent,) = request.fields(protocol.RENAME)
        name, new_name = request.names(protocol.RENAME, 2)
        await self._files.rename(request.node, name, new_parent, new_name)
        return ()

    async def _rename_as(self, request: Request) -> Answer:
        new_parent, flags = request.fields(protocol.RENAME2)
        name, new_name = request.names(protocol.RENAME2, 2)
        if flags & ~(protocol.RENAME_EXCHANGE | protocol.RENAME_NOREPLACE):
            raise FileRefused(why=Because.BAD_RANGE, reason="a name cannot be moved in this way")
        await self._files.rename(
            request.node,
            name,
            new_parent,
            new_name,
            replace=not flags & protocol.RENAME_NOREPLACE,
            exchange=bool(flags & protocol.RENAME_EXCHANGE),
        )
        return ()

    def _readlink(self, request: Request) -> Answer:
        return (self._files.readlink(request.node),)

    # --- attributes ---------------------------------------------------------------------------

    def _getattr(self, request: Request) -> Answer:
        return (self._shown.attributes(self._files.inode(request.node)),)

    async def _setattr(self, request: Request) -> Answer:
        fields = request.fields(protocol.SETATTR)
        valid, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, uid, gid = fields
        asked = valid & ~(SetAttribute.FH | SetAttribute.LOCK_OWNER)
        if not asked or asked & SetAttribute.KILL_SUIDGID:
            # What is about nothing is about these bits too: where the kernel has seen them before it writes,
            # makes room or sets the owner that a file has, it says no more.
            await self._files.take_setid(request.node)
        row = await self._files.set_attributes(
            request.node,
            mode=mode & _PERMISSIONS if valid & SetAttribute.MODE else None,
            uid=uid if valid & SetAttribute.UID else None,
            gid=gid if valid & SetAttribute.GID else None,
            atime_ns=_time_ns(valid, SetAttribute.ATIME, SetAttribute.ATIME_NOW, atime, atime_ns),
            mtime_ns=_time_ns(valid, SetAttribute.MTIME, SetAttribute.MTIME_NOW, mtime, mtime_ns),
            size=size if valid & SetAttribute.SIZE else None,
        )
        return (self._shown.attributes(row),)

    def _getxattr(self, request: Request) -> Answer:
        (room,) = request.fields(protocol.GETXATTR)
        (name,) = request.names(protocol.GETXATTR, 1)
        return _fitting(self._files.xattr(request.node, name), room)

    def _listxattr(self, request: Request) -> Answer:
        (room,) = request.fields(protocol.GETXATTR)
        return _fitting(b"".join(name + b"\0" for name in self._files.xattrs(request.node)), room)

    async def _setxattr(self, request: Request) -> Answer:
        size, flags, *more = request.fields(self._setting)
        name, ended, value = bytes(request.body[self._setting.size :]).partition(b"\0")
        if not ended or len(value) != size or flags not in iter(XattrMode):
            raise FileRefused(why=Because.BAD_RANGE, reason="no attribute can be set in this way")
        takes_setgid = bool(more and more[0] & protocol.SETXATTR_ACL_KILL_SGID)
        await self._files.set_xattr(request.node, name, value, XattrMode(flags), takes_setgid=takes_setgid)
        return ()

    async def _removexattr(self, request: Request) -> Answer:
        (name,) = request.names(None, 1)
        await self._files.remove_xattr(request.node, name)
        return ()

    async def _statfs(self, request: Request) -> Answer:
        whole, free = (size // _BLOCK_BYTES for size in await self._files.room_bytes())
        block, names = _BLOCK_BYTES, NAME_BYTES_MAX
        return (protocol.STATFS_OUT.pack(whole, free, free, _FILES, _FILES, block, names, block),)


def _time_ns(
    valid: int, given: SetAttribute, now: SetAttribute, seconds: int, nanoseconds: int
) -> int | None:
    if not valid & given:
        return None
    return time.time_ns() if valid & now else seconds * 1_000_000_000 + nanoseconds


def _fitting(value: bytes, room: int) -> Answer:
    """An attribute for a caller with so much room; 0: he asks how much he needs.  Raises: FileRefused."""
    if room == 0:
        return (protocol.GETXATTR_OUT.pack(len(value)),)
    if len(value) > room:
        raise FileRefused(why=Because.SMALL_BUFFER, reason="the caller has no room for it")
    return (value,)
