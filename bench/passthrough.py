"""A folder shown again by the plainest pyfuse3 file system: what FUSE in Python costs by itself.

    python -m bench.passthrough SOURCE FOLDER       serves until it is unmounted

Only the calls that `bench.mount` makes are here.
"""

# Plain calls, as in the file system that is measured:
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH116, PTH208

from __future__ import annotations

import asyncio
import errno
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

import pyfuse3
import pyfuse3.asyncio
import uvloop
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, InodeT, ModeT

_P = ParamSpec("_P")
_T = TypeVar("_T")
_OURS = os.O_CREAT | os.O_EXCL | os.O_TRUNC
_TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")
_PLAIN = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_blksize", "st_blocks")


def _translated(call: Callable[_P, Awaitable[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    @functools.wraps(call)
    async def translated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await call(*args, **kwargs)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error

    return translated


class Passthrough(pyfuse3.Operations):
    """Inodes are known by a path each; who is open is a descriptor of the source.

    Args:
        source: what is shown.
        timeout_s: so long the kernel keeps names and attributes, as in our mount.
    """

    def __init__(self, source: str, timeout_s: float) -> None:
        super().__init__()
        self._timeout_s = timeout_s
        self._paths = {int(pyfuse3.ROOT_INODE): source}
        self._root = os.stat(source).st_ino
        self._folders: dict[int, list[str]] = {}

    def _entry(self, path: str, *, known: bool = True) -> EntryAttributes:
        status, entry = os.lstat(path), EntryAttributes()
        for name in _TIMES + _PLAIN:
            setattr(entry, name, getattr(status, name))
        number = int(pyfuse3.ROOT_INODE) if status.st_ino == self._root else status.st_ino
        entry.st_ino = InodeT(number)
        entry.entry_timeout = entry.attr_timeout = self._timeout_s
        if known:
            self._paths[number] = path
        return entry

    def _path(self, parent: int, name: bytes) -> str:
        return f"{self._paths[parent]}/{os.fsdecode(name)}"

    @_translated
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        return self._entry(self._path(parent_inode, name))

    @_translated
    async def getattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> EntryAttributes:
        return self._entry(self._paths[inode])

    @_translated
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> EntryAttributes:
        if fields.update_size:
            os.truncate(self._paths[inode], attr.st_size)
        if fields.update_mode:
            os.chmod(self._paths[inode], attr.st_mode & 0o7777)
        return self._entry(self._paths[inode])

    @_translated
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: pyfuse3.RequestContext
    ) -> EntryAttributes:
        os.mkdir(self._path(parent_inode, name), mode & 0o7777)
        return self._entry(self._path(parent_inode, name))

    @_translated
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext) -> None:
        os.unlink(self._path(parent_inode, name))

    @_translated
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext) -> None:
        os.rmdir(self._path(parent_inode, name))

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
        if flags:
            raise OSError(errno.EINVAL, "plain moves only")
        old, new = self._path(parent_inode_old, name_old), self._path(parent_inode_new, name_new)
        os.rename(old, new)
        for number, path in self._paths.items():
            if path == old or path.startswith(f"{old}/"):
                self._paths[number] = new + path[len(old) :]

    @_translated
    async def open(self, inode: InodeT, flags: FlagT, ctx: pyfuse3.RequestContext) -> FileInfo:
        return FileInfo(fh=FileHandleT(os.open(self._paths[inode], flags & ~_OURS)), keep_cache=True)

    @_translated
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        path = self._path(parent_inode, name)
        handle = os.open(path, flags | os.O_CREAT, mode & 0o7777)
        return FileInfo(fh=FileHandleT(handle), keep_cache=True), self._entry(path)

    @_translated
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    @_translated
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return os.pwrite(fh, buf, off)

    @_translated
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await asyncio.to_thread(os.fsync, fh)

    async def flush(self, fh: FileHandleT) -> None:
        pass

    async def release(self, fh: FileHandleT) -> None:
        os.close(fh)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        pass  # paths are kept

    @_translated
    async def opendir(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> FileHandleT:
        self._folders[inode] = sorted(os.listdir(self._paths[inode]))
        return FileHandleT(inode)

    @_translated
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        names = self._folders[fh]
        for at in range(start_id, len(names)):
            name = os.fsencode(names[at])
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._entry(self._path(fh, name)), at + 1):
                return

    async def releasedir(self, fh: FileHandleT) -> None:
        pass

    @_translated
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        found, there = pyfuse3.StatvfsData(), os.statvfs(self._paths[int(pyfuse3.ROOT_INODE)])
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree"):
            setattr(found, name, getattr(there, name))
        return found


async def _serve(source: str, folder: str) -> None:
    pyfuse3.asyncio.enable()
    pyfuse3.init(Passthrough(source, 1.0), folder, {"default_permissions", "fsname=passthrough"})
    print("mounted", flush=True)
    try:
        await pyfuse3.main(min_tasks=4, max_tasks=64)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2]))
