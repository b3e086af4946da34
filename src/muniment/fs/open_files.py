"""Open files: what is read from them and written to them, and when it is durable."""

from __future__ import annotations

import os
import stat
from typing import Final

from muniment.core.fold import Why
from muniment.errors import FileRefused
from muniment.fs.content.chunk_cache import ChunkCache
from muniment.fs.content.places import gathered, places, read_ahead
from muniment.fs.content.saving import Saving
from muniment.fs.deadlines import Patience, within
from muniment.fs.errnos import Because
from muniment.fs.handles import Handle, writes
from muniment.fs.options import Options
from muniment.fs.working_tree import WorkingTree, rejected
from muniment.spec.operation import SIZE_MAX, Kind, SetAttributes, Truncate

_AHEAD_CHUNKS: Final = 4


class OpenFiles:
    """See the module; `FileSystem` hands its methods to gateways.

    Args:
        tree: what they are files of.
        saving: brings what was written into the log.
        cache: of chunks.
        options: see there.
        patience: so long anybody waits.
    """

    def __init__(
        self, tree: WorkingTree, saving: Saving, cache: ChunkCache, options: Options, patience: Patience
    ) -> None:
        self._tree, self._present, self._dirty = tree, tree.present, tree.dirty
        self._committer, self._store, self._handles = tree.committer, tree.store, tree.handles
        self._saving, self._cache, self._options, self._patience = saving, cache, options, patience

    async def open(self, ino: int, flags: int, *, takes_setid: bool = False) -> int:
        """Open a file; returns the handle's number.  What others have saved before is seen from now on.

        Args:
            takes_setid: truncated now, a file loses the bits s of its mode.
        Raises: OperationRejected, FileRefused: it is no file, or cannot be changed.  Where a symbolic link
            leads is the caller's to say, and what a pipe or a device is.
        """
        writable = writes(flags)
        if writable:
            self._tree.check_changeable(ino)
        await self._tree.freshen()
        row = self._tree.inode(ino)
        if row.kind is Kind.FOLDER:
            raise rejected(Why.IS_A_FOLDER, "a folder has no content")
        if row.kind is Kind.SYMLINK:
            raise FileRefused(why=Because.IS_A_LINK, reason="a symbolic link has no content")
        if row.kind is not Kind.FILE:
            raise rejected(Why.NOT_A_FILE, "it is no file")
        if flags & os.O_TRUNC and writable:
            await self._tree.admit(ino)
            if takes_setid:
                await self.take_setid(ino)
            await self.truncate(ino, 0)
        return self._handles.open(ino, flags)

    async def read(self, number: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes of an open file; fewer at its end.  Raises: TooFewShares, BlobCorrupt, DeadlineExceeded."""
        handle = self._handles.get(number)
        ino = handle.inode
        stop = min(offset + size, self._tree.inode(ino).size)
        if offset >= stop:
            return b""
        dirty, tree = self._dirty.get(ino), self._present.tree
        pieces = dirty.pieces.within(offset, stop) if dirty is not None else ()
        where = places(offset, stop, pieces, tree.extents(ino, offset, stop))
        if offset and handle.next_offset == offset:
            chunk = self._store.chunk_bytes
            if offset // chunk != stop // chunk or offset % chunk < size:
                read_ahead(tree.extents(ino, stop, stop + _AHEAD_CHUNKS * chunk), self._cache)
        handle.next_offset = stop
        async with within("read", self._patience):
            return await gathered(where, self._cache)

    async def write(self, number: int, offset: int, data: bytes | memoryview) -> int:
        """Write into an open file; durable when it is flushed or synced."""
        handle, view = self._handles.writable(number), memoryview(data)
        await self._dirty.wait_room()
        row = self._tree.inode(handle.inode)
        if handle.append:
            offset = row.size
        if offset + len(view) > SIZE_MAX:
            raise FileRefused(why=Because.TOO_LARGE, reason="no file can be that long")
        self._tree.check_lock(handle.inode)
        self._dirty.write(handle.inode, offset, view, self._store.now_ns())
        handle.writes += 1
        return len(view)

    async def flush(self, number: int) -> None:
        """Somebody closes an open file: what was written by this handle is durable then.

        Raises: what kept it from being stored; it is kept, and tried again.
        """
        handle = self._handles.get(number)
        if handle.saved == handle.writes:
            return
        if self._options.durable_close:
            await self._sync(handle)
        else:
            self._saving.soon(handle.inode)

    async def fsync(self, number: int) -> None:
        """All of a file or folder is durable: content on the grid, names and attributes in the log."""
        await self._sync(self._handles.get(number))

    async def _sync(self, handle: Handle) -> None:
        ino, so_far = handle.inode, handle.writes
        self._tree.check_lock(ino)
        async with within("sync", self._patience):
            await self._saving.durable(ino)
        error = self._committer.error_of([ino])
        if error is not None:
            raise error
        handle.saved = max(handle.saved, so_far)  # others that this program has written meanwhile are not

    def release(self, number: int) -> None:
        """The last copy of a handle is gone."""
        handle = self._handles.remove(number)
        self._tree.let_go(handle.inode)
        if not self._handles.is_open(handle.inode):
            self._saving.soon(handle.inode)

    async def take_setid(self, ino: int) -> bool:
        """Take the bits s from a file's mode, since somebody else changes what it is; whether it had them."""
        if not self._tree.inode(ino).mode & (stat.S_ISUID | stat.S_ISGID):
            return False
        await self._tree.admit(ino)
        row = self._tree.inode(ino)
        mode = row.mode if row.kind is Kind.FOLDER else _without_setid(row.mode)
        if mode != row.mode:
            await self._tree.apply(SetAttributes(ino, mode))
        return mode != row.mode

    async def truncate(self, ino: int, size: int) -> None:
        """Cut a file or let it end in zeros; the caller was admitted."""
        if size > SIZE_MAX:
            raise FileRefused(why=Because.TOO_LARGE, reason="no file can be that long")
        self._tree.check_lock(ino)
        operation, now_ns = Truncate(ino, None, size), self._store.now_ns()
        self._dirty.cut(ino, size, SIZE_MAX)
        dirty = self._dirty.get(ino)
        if dirty is not None:
            dirty.mtime_ns = now_ns
        await self._tree.apply(operation)


def _without_setid(mode: int) -> int:
    """What is left of a mode when somebody else has changed the content; without g+x, g+s has no power."""
    return mode & ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
