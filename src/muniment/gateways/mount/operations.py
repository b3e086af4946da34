"""The kernel's calls, each translated to one of the file system: no other logic is here.

Every number that the kernel is told it knows until it forgets it, as often as it was told; `FileSystem.know`
counts with it.  Permissions are the kernel's (`default_permissions`).
"""

from __future__ import annotations

import errno
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, InodeT, ModeT, XAttrNameT

from muniment.core.history import Difference
from muniment.core.tree_state import Inode
from muniment.errors import InternalError, MunimentError
from muniment.fs.errnos import errno_of
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount.attributes import attributes_of, kind_of
from muniment.spec.operation import NAME_BYTES_MAX, Kind

_BLOCK_BYTES: Final = 4096
_DOTS: Final = 2
"""Entries of a folder before its names: itself and the one above."""

_FILES: Final = 1 << 40
"""What `df -i` shows: there is no limit below."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def _translated(call: Callable[_P, Awaitable[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """Errors as numbers; what is not the caller's own fault is logged."""

    @functools.wraps(call)
    async def translated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await call(*args, **kwargs)
        except MunimentError as error:
            number = errno_of(error)
            if number in (errno.EIO, errno.ETIMEDOUT, errno.ENOSPC, errno.ESTALE):
                _log.warning("%s: %s", call.__name__, error, exc_info=isinstance(error, InternalError))
            raise pyfuse3.FUSEError(number) from error

    return translated


class MountOperations(pyfuse3.Operations):
    """See the module.

    Args:
        files: the volume.
        timeout_s: so long the kernel keeps names and attributes; what other clients change it hears at once.
    """

    def __init__(self, files: FileSystem, timeout_s: float) -> None:
        super().__init__()
        self._files, self._timeout_s = files, timeout_s
        self._stale: set[int] = set()  # files of which the kernel may have old pages

    def _entry(self, row: Inode) -> EntryAttributes:
        return attributes_of(row, self._timeout_s)

    def _known(self, row: Inode) -> EntryAttributes:
        """Of an entry that the kernel keeps until it forgets it."""
        self._files.know(row.inode)
        return self._entry(row)

    def invalidate(self, changed: Difference) -> None:
        """Let the kernel forget what other clients have changed."""
        here = self._files.here
        for one in changed.inodes:
            self._stale.add(here(one.inode))
            _forgotten(pyfuse3.invalidate_inode, InodeT(here(one.inode)), attr_only=True)
        for name in changed.names:
            # In pyfuse3's own thread: the kernel may hold the folder's lock while it waits for this loop.
            pyfuse3.invalidate_entry_async(
                InodeT(here(name.parent)), FileNameT(name.name), ignore_enoent=True
            )

    # --- names --------------------------------------------------------------------------------

    @_translated
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        return self._known(self._files.lookup(parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for ino, count in inode_list:
            self._files.forget(ino, count)
            self._stale.discard(ino)

    @_translated
    async def mknod(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        kind = kind_of(mode)
        return self._known(
            await self._files.make(parent_inode, name, kind, mode & 0o7777, ctx.uid, ctx.gid, rdev=rdev)
        )

    @_translated
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        return self._known(
            await self._files.make(parent_inode, name, Kind.FOLDER, mode & 0o7777, ctx.uid, ctx.gid)
        )

    @_translated
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        return self._known(
            await self._files.make(
                parent_inode, name, Kind.SYMLINK, 0o777, ctx.uid, ctx.gid, target=bytes(target)
            )
        )

    @_translated
    async def link(
        self,
        inode: InodeT,
        new_parent_inode: InodeT,
        new_name: FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        return self._known(await self._files.link(inode, new_parent_inode, new_name))

    @_translated
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._files.unlink(parent_inode, name)

    @_translated
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._files.rmdir(parent_inode, name)

    @_translated
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags & ~(pyfuse3.RENAME_EXCHANGE | pyfuse3.RENAME_NOREPLACE):
            raise pyfuse3.FUSEError(errno.EINVAL)
        await self._files.rename(
            parent_inode_old,
            name_old,
            parent_inode_new,
            name_new,
            replace=not flags & pyfuse3.RENAME_NOREPLACE,
            exchange=bool(flags & pyfuse3.RENAME_EXCHANGE),
        )

    @_translated
    async def readlink(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> FileNameT:
        return FileNameT(self._files.readlink(inode))

    # --- attributes ---------------------------------------------------------------------------

    @_translated
    async def getattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        return self._entry(self._files.inode(inode))

    @_translated
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        row = await self._files.set_attributes(
            inode,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            size=attr.st_size if fields.update_size else None,
        )
        return self._entry(row)

    @_translated
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: pyfuse3.RequestContext) -> bytes:
        return self._files.xattr(inode, name)

    @_translated
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        await self._files.set_xattr(inode, name, value)

    @_translated
    async def listxattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in self._files.xattrs(inode)]

    @_translated
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: pyfuse3.RequestContext) -> None:
        await self._files.remove_xattr(inode, name)

    @_translated
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        whole, free = await self._files.room_bytes()
        found = pyfuse3.StatvfsData()
        found.f_bsize = found.f_frsize = _BLOCK_BYTES
        found.f_blocks = whole // _BLOCK_BYTES
        found.f_bfree = found.f_bavail = free // _BLOCK_BYTES
        found.f_files = found.f_ffree = found.f_favail = _FILES
        found.f_namemax = NAME_BYTES_MAX
        return found

    # --- open files ---------------------------------------------------------------------------

    @_translated
    async def open(self, inode: InodeT, flags: FlagT, ctx: pyfuse3.RequestContext) -> FileInfo:
        handle = await self._files.open(inode, flags, uid=ctx.uid)
        if flags & os.O_TRUNC:  # which may have taken bits s, and nobody shall run it with them meanwhile
            _forgotten(pyfuse3.invalidate_inode, inode, attr_only=True)
        keep = inode not in self._stale
        self._stale.discard(inode)
        return FileInfo(fh=FileHandleT(handle), keep_cache=keep)

    @_translated
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        handle, row = await self._files.create(
            parent_inode, name, mode & 0o7777, ctx.uid, ctx.gid, flags | os.O_CREAT
        )
        return FileInfo(fh=FileHandleT(handle), keep_cache=True), self._known(row)

    @_translated
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return await self._files.read(fh, off, size)  # type: ignore[return-value] # any buffer will do

    @_translated
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._files.write(fh, off, buf)

    @_translated
    async def flush(self, fh: FileHandleT) -> None:
        await self._files.flush(fh)

    @_translated
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._files.fsync(fh)

    async def release(self, fh: FileHandleT) -> None:
        self._files.release(fh)

    # --- open folders -------------------------------------------------------------------------

    @_translated
    async def opendir(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> FileHandleT:
        return FileHandleT(await self._files.open_folder(inode))

    @_translated
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        files = self._files
        names = files.names(fh, again=start_id == 0)
        folder = files.folder(fh)
        for at in range(start_id, _DOTS):
            name, ino = ((b".", folder.inode), (b"..", folder.parent))[at]
            entry = self._entry(files.inode(ino))
            if not pyfuse3.readdir_reply(token, FileNameT(name), entry, at + 1):
                return
        for at in range(max(0, start_id - _DOTS), len(names)):
            row = files.find(names[at].inode)
            if row is None:
                continue  # removed since
            if not pyfuse3.readdir_reply(token, FileNameT(names[at].name), self._entry(row), at + _DOTS + 1):
                return
            files.know(row.inode)

    async def releasedir(self, fh: FileHandleT) -> None:
        self._files.release(fh)

    @_translated
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._files.fsync(fh)


def _forgotten(call: Callable[..., None], *arguments: object, **options: object) -> None:
    """Tell the kernel to forget something that it may never have known."""
    try:
        call(*arguments, **options)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.debug("the kernel did not take an invalidation: %s", error)
