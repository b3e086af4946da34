"""The kernel's calls about open files and folders, each one call of the file system."""

from __future__ import annotations

import os
from typing import Final

from muniment.core.tree_state import Inode
from muniment.engine.file_facts import FORMATS
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount import protocol
from muniment.gateways.mount.attributes import Shown
from muniment.gateways.mount.notices import Notices
from muniment.gateways.mount.protocol import Answer, AtOnce, InitFlag, InTask, Opcode, Request
from muniment.spec.operation import Kind

_DOTS: Final = 2
"""Entries of a folder before its names: itself and the one above."""

_UNKNOWN: Final = bytes(protocol.ENTRY.size)
"""Of `.` and `..`, which the kernel knows."""

_TYPES: Final = {kind: format_ >> 12 for kind, format_ in FORMATS.items()}


class FileCalls:
    """See the module.

    Args:
        files: the volume.
        shown: how inodes are told.
        stale: files of which the kernel may have old pages.
        notices: tell the kernel what to forget.
    """

    def __init__(self, files: FileSystem, shown: Shown, stale: set[int], notices: Notices) -> None:
        self._files, self._shown, self._stale, self._notices = files, shown, stale, notices
        self._is_told = False

    def agree(self, flags: InitFlag) -> None:
        """Hear what the kernel does."""
        self._is_told = bool(flags & InitFlag.HANDLE_KILLPRIV_V2)

    def _takes_setid(self, request: Request, open_flags: int) -> bool:
        """Whether a file that is truncated now loses the bits s of its mode: only root may keep them."""
        return bool(open_flags & protocol.OPEN_KILL_SUIDGID) if self._is_told else request.uid != 0

    def at_once(self) -> dict[int, AtOnce]:
        """Those that are answered without an await."""
        return {
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.READDIR: self._readdir,
            Opcode.LSEEK: self._lseek,
        }

    def in_task(self) -> dict[int, InTask]:
        """Those that read, write, or wait for what others have done."""
        return {
            Opcode.OPEN: self._open,
            Opcode.CREATE: self._create,
            Opcode.TMPFILE: self._make_nameless,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.FLUSH: self._flush,
            Opcode.RELEASE: self._release,
            Opcode.FSYNC: self._fsync,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.OPENDIR: self._opendir,
            Opcode.FSYNCDIR: self._fsync,
            Opcode.SYNCFS: self._syncfs,
        }

    # --- files --------------------------------------------------------------------------------

    async def _open(self, request: Request) -> Answer:
        flags, open_flags = request.fields(protocol.OPEN)
        takes = self._takes_setid(request, open_flags)
        handle = await self._files.open(request.node, flags, takes_setid=takes)
        if flags & os.O_TRUNC:  # which may have taken bits s, and nobody shall run it with them meanwhile
            self._notices.attributes_changed(request.node)
        return (self._handle(handle, request.node),)

    async def _create(self, request: Request) -> Answer:
        flags, mode, umask, open_flags = request.fields(protocol.CREATE)
        (name,) = request.names(protocol.CREATE, 1)
        handle, row = await self._files.create(
            request.node,
            name,
            mode & 0o7777,
            request.uid,
            request.gid,
            flags | os.O_CREAT,
            umask=umask,
            takes_setid=self._takes_setid(request, open_flags),
        )
        return self._opened(handle, row)

    async def _make_nameless(self, request: Request) -> Answer:
        flags, mode, umask, _ = request.fields(protocol.CREATE)
        handle, row = await self._files.make_nameless(
            request.node, mode & 0o7777, request.uid, request.gid, flags, umask=umask
        )
        return self._opened(handle, row)

    def _opened(self, handle: int, row: Inode) -> Answer:
        """A file by its name, which the kernel keeps until it forgets it."""
        self._files.know(row.inode)
        return (self._shown.entry(row), self._handle(handle, row.inode))

    def _handle(self, handle: int, node: int) -> bytes:
        """An open file; what others have changed, the kernel reads anew."""
        keep = 0 if node in self._stale else protocol.OPEN_KEEP_CACHE
        self._stale.discard(node)
        return protocol.OPEN_OUT.pack(handle, keep)

    async def _read(self, request: Request) -> Answer:
        handle, offset, size, _, _, _ = request.fields(protocol.READ)
        return (await self._files.read(handle, offset, size),)

    async def _write(self, request: Request) -> Answer:
        handle, offset, size, flags, _, _ = request.fields(protocol.WRITE)
        data = request.data(protocol.WRITE.size, size)
        written = await self._files.write(handle, offset, data)
        if flags & protocol.WRITE_KILL_SUIDGID and await self._files.take_setid(request.node):
            self._notices.attributes_changed(request.node)
        return (protocol.WRITE_OUT.pack(written),)

    async def _flush(self, request: Request) -> Answer:
        handle, owner = request.fields(protocol.FLUSH)
        try:
            await self._files.flush(handle)
        finally:  # a process that closes a file gives up all that it has locked of it
            await self._files.locks.clear(request.node, owner)
        return ()

    async def _fsync(self, request: Request) -> Answer:
        handle, _ = request.fields(protocol.FSYNC)
        await self._files.fsync(handle)
        return ()

    async def _syncfs(self, request: Request) -> Answer:
        await self._files.sync_all()
        return ()

    async def _release(self, request: Request) -> Answer:
        handle, _, flags, owner = request.fields(protocol.RELEASE)
        self._files.release(handle)
        if flags & protocol.RELEASE_FLOCK_UNLOCK:
            await self._files.locks.clear(request.node, owner, whole=True)
        return ()

    async def _fallocate(self, request: Request) -> Answer:
        handle, offset, length, mode = request.fields(protocol.FALLOCATE)
        await self._files.allocate(handle, mode, offset, length)
        return ()

    def _lseek(self, request: Request) -> Answer:
        handle, offset, whence = request.fields(protocol.LSEEK)
        return (protocol.LSEEK_OUT.pack(self._files.seek(handle, offset, whence)),)

    # --- folders ------------------------------------------------------------------------------

    def _releasedir(self, request: Request) -> Answer:
        handle, _, _, _ = request.fields(protocol.RELEASE)
        self._files.release(handle)
        return ()

    async def _opendir(self, request: Request) -> Answer:
        return (protocol.OPEN_OUT.pack(await self._files.open_folder(request.node), 0),)

    def _readdirplus(self, request: Request) -> Answer:
        return self._listed(request, plus=True)

    def _readdir(self, request: Request) -> Answer:
        return self._listed(request, plus=False)

    def _listed(self, request: Request, *, plus: bool) -> Answer:
        """As many entries as fit; each says where the next one begins."""
        handle, start, room, _, _, _ = request.fields(protocol.READ)
        files, found = self._files, bytearray()
        names, folder = files.names(handle, again=start == 0), files.folder(handle)
        dots = ((b".", folder.inode), (b"..", folder.parent))
        for at in range(start, _DOTS):
            name, node = dots[at]
            found += (_UNKNOWN if plus else b"") + _dirent(node, at + 1, name, Kind.FOLDER)
        for at in range(max(0, start - _DOTS), len(names)):
            name, node, kind = names[at].name, names[at].inode, names[at].kind
            entry = b""
            if plus:
                row = files.find(node)
                if row is None:
                    continue  # removed since
                entry = self._shown.entry(row)
            dirent = _dirent(node, at + _DOTS + 1, name, kind)
            if len(found) + len(entry) + len(dirent) > room:
                break
            found += entry
            found += dirent
            if plus:
                files.know(node)
        return (found,)


def _dirent(node: int, following: int, name: bytes, kind: Kind) -> bytes:
    return protocol.DIRENT.pack(node, following, len(name), _TYPES[kind]) + name + bytes(-len(name) % 8)
