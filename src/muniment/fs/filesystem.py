"""One volume as a POSIX file system, by inode numbers; what gateways are thin shells over.

    files = FileSystem(volume, grid, clock, Options())
    await files.start()
    row = await files.lookup(ROOT, b"books")
    ...
    await files.aclose()

Within one of these everything is visible at once.  Callers' permissions are not checked here: a mount leaves
that to the kernel.  All raise MunimentErrors, which `errnos.errno_of` translates.

Belongs to one loop.  Between two awaits nothing changes but by the caller himself; each method looks and
changes without an await in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from muniment.core.fold import Why
from muniment.core.history import Difference
from muniment.core.tree_state import Inode, Name
from muniment.engine.grid import Grid
from muniment.engine.volume import Volume
from muniment.errors import FileRefused, OperationRejected
from muniment.fs.chunk_cache import ChunkCache
from muniment.fs.committer import Committer
from muniment.fs.content import gathered, places, read_ahead
from muniment.fs.deadlines import within
from muniment.fs.dirty import Dirty
from muniment.fs.errnos import Because
from muniment.fs.handles import Handle, Handles
from muniment.fs.numbers import PAST_FIRST, Numbers
from muniment.fs.options import Options
from muniment.fs.past import Past
from muniment.fs.present import Present
from muniment.fs.saving import Saving
from muniment.fs.space import Space
from muniment.fs.store import Store
from muniment.fs.watching import Watching
from muniment.ports import Clock
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    NAME_BYTES_MAX,
    SIZE_MAX,
    XATTR_BYTES_MAX,
    Kind,
    Link,
    Make,
    Operation,
    RemoveXattr,
    Rename,
    Rmdir,
    SetAttributes,
    SetXattr,
    Truncate,
    Unlink,
    XattrMode,
    inline_content,
)

_AHEAD_CHUNKS: Final = 4

Invalidate = Callable[[Difference], None]
"""Told what other clients have changed: numbers are the volume's, see `FileSystem.here`."""


class FileSystem:
    """See the module.

    Args:
        volume: in step with its log.
        grid: started.
        clock: of this machine.
        options: see there.
        at: show the state after this entry, and let nobody change it; None: the present.
        invalidate: hears of what others change.
    """

    def __init__(
        self,
        volume: Volume,
        grid: Grid,
        clock: Clock,
        options: Options,
        *,
        at: int | None = None,
        invalidate: Invalidate = lambda _: None,
    ) -> None:
        self.options = options
        self._read_only = options.read_only or at is not None
        self._numbers, self._handles = Numbers(), Handles()
        self._store = Store(volume, grid, self._numbers)
        begin = self._store.newest if at is None else at
        state = self._store.state(begin) if at is None else self._store.past(at)
        held, opened = self._handles.is_held, self._handles.opened
        past = Past(self._store, clock, self._handles.numbers)
        self._present = Present(state, begin, self._numbers, held, opened, past)
        self._cache = ChunkCache(self._store.get, options.cache_bytes)
        deadline_s = options.deadline_s
        self._dirty = Dirty(self._store, dirty_bytes=options.dirty_bytes, deadline_s=deadline_s)
        self._committer = Committer(
            self._present,
            self._store,
            linger_s=options.linger_s,
            deadline_s=deadline_s,
            changed=self._changed,
        )
        self._saving = Saving(self._present, self._dirty, self._committer, clock, options.writeback_s)
        self._watching = Watching(self._store, self._committer, clock, deadline_s) if at is None else None
        self._invalidate = invalidate
        self._space = Space(self._store, clock)

    async def start(self) -> None:
        """Begin to follow the log, and to commit."""
        if self._watching is not None:
            self._committer.start()
            self._watching.start()
            self._saving.start()

    async def aclose(self) -> None:
        """Save and commit everything, and end all tasks.

        Raises: what kept it from being saved; everything is ended all the same.
        """
        try:
            if self._watching is not None:
                await self.sync_all()
        finally:
            await self._saving.aclose()
            if self._watching is not None:
                await self._watching.aclose()
            try:
                await self._committer.aclose()
            finally:
                await self._dirty.aclose()
                await self._cache.aclose()

    # --- numbers ------------------------------------------------------------------------------

    def know(self, ino: int) -> None:
        """A caller keeps this number, until he says `forget`."""
        self._handles.know(ino)

    def forget(self, ino: int, count: int = 1) -> None:
        """A caller forgets a number as often as he says."""
        if self._handles.forget(ino, count):
            self._let_go(ino)

    def here(self, ino: int) -> int:
        """The number by which callers know an inode of the volume."""
        return self._numbers.here(ino)

    # --- looking ------------------------------------------------------------------------------

    def inode(self, ino: int) -> Inode:
        """What is known of an inode, with what was written to it lately.  Raises: OperationRejected."""
        row = self._present.tree.inode(ino)
        if row is None:
            raise _rejected(Why.NOT_FOUND, "it is not there any more")
        dirty = self._dirty.get(ino)
        if dirty is not None and dirty.mtime_ns is not None:
            newer = dirty.mtime_ns
            row = row._replace(
                size=max(row.size, dirty.pieces.stop), mtime_ns=newer, ctime_ns=max(newer, row.ctime_ns)
            )
        return row

    def find(self, ino: int) -> Inode | None:
        """The same; None if it is not there."""
        return None if self._present.tree.inode(ino) is None else self.inode(ino)

    def lookup(self, parent: int, name: bytes) -> Inode:
        """What a name leads to.  Raises: OperationRejected: nothing, or `parent` is no folder."""
        if name in (b".", b".."):
            folder = self._folder(parent)
            return folder if name == b"." else self.inode(folder.parent)
        _check_name(name)
        return self.inode(self._child(parent, name).inode)

    def readlink(self, ino: int) -> bytes:
        """Where a symbolic link points to."""
        row = self.inode(ino)
        if row.kind is not Kind.SYMLINK:
            raise FileRefused(why=Because.BAD_NAME, reason="it is no symbolic link")
        sources = (one.source for one in self._present.tree.extents(ino, 0, row.size))
        return b"".join(source for source in sources if isinstance(source, bytes))

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        """All extended attributes."""
        self.inode(ino)
        return self._present.tree.attributes(ino)

    def xattr(self, ino: int, name: bytes) -> bytes:
        """One of them.  Raises: OperationRejected: it is not there."""
        _check_namespace(name)
        try:
            return self.xattrs(ino)[name]
        except KeyError:
            raise _rejected(Why.NO_SUCH_ATTRIBUTE, "it has no such attribute") from None

    def _folder(self, ino: int) -> Inode:
        row = self.inode(ino)
        if row.kind is not Kind.FOLDER:
            raise _rejected(Why.NOT_A_FOLDER, "it is no folder")
        return row

    def _child(self, parent: int, name: bytes) -> Name:
        self._folder(parent)
        found = self._present.tree.child(parent, name)
        if found is None:
            raise _rejected(Why.NOT_FOUND, "there is no such name")
        return found

    def _changeable(self, parent: int, name: bytes) -> int:
        ino = self._child(parent, name).inode
        if ino >= PAST_FIRST:
            raise _read_only()
        return ino

    async def room_bytes(self) -> tuple[int, int]:
        """What the grid has room for under the volume's policy: of all, and free."""
        return await self._space.room_bytes()

    # --- names --------------------------------------------------------------------------------

    async def make(
        self,
        parent: int,
        name: bytes,
        kind: Kind,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes = b"",
    ) -> Inode:
        """A new file, folder, link, pipe or device; in a folder of mode g+s it gets that folder's group.

        Args:
            mode: permission bits.
            target: of a symbolic link.
        """
        _check_name(name)
        await self._admit(parent)
        folder = self.inode(parent)
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            mode |= stat.S_ISGID if kind is Kind.FOLDER else 0
        now_ns, made = self._store.now_ns(), self._numbers.fresh()
        op = Make(
            parent, name, kind, mode & 0o7777, uid, gid, now_ns, rdev, inline_content(target), len(target)
        )
        await self._apply(op, made=made)
        return self.inode(made)

    async def link(self, ino: int, parent: int, name: bytes) -> Inode:
        """Another name for what is no folder."""
        _check_name(name)
        await self._admit(ino, parent)
        await self._apply(Link(ino, parent, name))
        return self.inode(ino)

    async def unlink(self, parent: int, name: bytes) -> None:
        """Take a name from what is no folder."""
        await self._admit(parent)
        ino = self._changeable(parent, name)
        await self._apply(Unlink(parent, name, ino))
        self._let_go(ino)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty folder."""
        await self._admit(parent)
        await self._apply(Rmdir(parent, name, self._changeable(parent, name)))

    async def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        *,
        replace: bool = True,
        exchange: bool = False,
    ) -> None:
        """Move a name; what stands under the new one vanishes, or takes the old one."""
        _check_name(new_name)
        await self._admit(parent, new_parent)
        ino = self._changeable(parent, name)
        there = self._present.tree.child(new_parent, new_name)
        if exchange and there is None:
            raise _rejected(Why.NOT_FOUND, "there is nothing to exchange it with")
        replaced = self._changeable(new_parent, new_name) if there and (replace or exchange) else 0
        await self._apply(Rename(parent, name, ino, new_parent, new_name, replaced, exchange))
        if replaced:
            self._let_go(replaced)

    # --- attributes ---------------------------------------------------------------------------

    async def set_attributes(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        size: int | None = None,
    ) -> Inode:
        """Change what is not None."""
        await self._admit(ino)
        self.inode(ino)
        if size is not None:
            await self._truncate(ino, size)
        values = (None if mode is None else mode & 0o7777, uid, gid, atime_ns, mtime_ns)
        if size is None or any(value is not None for value in values):
            dirty = self._dirty.get(ino)
            if dirty is not None and mtime_ns is not None:
                dirty.mtime_ns = mtime_ns
            await self._apply(SetAttributes(ino, *values))
        return self.inode(ino)

    async def _truncate(self, ino: int, size: int) -> None:
        if size > SIZE_MAX:
            raise FileRefused(why=Because.TOO_LARGE, reason="no file can be that long")
        operation, now_ns = Truncate(ino, None, size), self._store.now_ns()
        self._dirty.cut(ino, size, SIZE_MAX)
        dirty = self._dirty.get(ino)
        if dirty is not None:
            dirty.mtime_ns = now_ns
        await self._apply(operation)

    async def set_xattr(self, ino: int, name: bytes, value: bytes, mode: XattrMode = XattrMode.ANY) -> None:
        """Set an extended attribute."""
        if not 0 < len(name) <= NAME_BYTES_MAX or b"\0" in name:
            raise FileRefused(why=Because.NAME_TOO_LONG, reason="no attribute can be called so")
        _check_namespace(name)
        if len(value) > XATTR_BYTES_MAX:
            raise FileRefused(why=Because.VALUE_TOO_LARGE, reason="no attribute can be that long")
        await self._admit(ino)
        await self._apply(SetXattr(ino, name, value, mode))

    async def remove_xattr(self, ino: int, name: bytes) -> None:
        """Remove an extended attribute."""
        await self._admit(ino)
        await self._apply(RemoveXattr(ino, name))

    # --- open files ---------------------------------------------------------------------------

    async def open(self, ino: int, flags: int, *, uid: int = 0) -> int:
        """Open a file; returns the handle's number.  What others have saved before is seen from now on.

        Args:
            uid: of who opens it: truncated by anybody but root, a file loses the bits s of its mode.
        """
        writable = (flags & os.O_ACCMODE) != os.O_RDONLY
        if writable and (self._read_only or ino >= PAST_FIRST):
            raise _read_only()
        await self._freshen()
        row = self.inode(ino)
        if row.kind is Kind.FOLDER:
            raise _rejected(Why.IS_A_FOLDER, "a folder has no content")
        if flags & os.O_TRUNC and writable:
            mode = _without_setid(row.mode) if uid else row.mode
            await self.set_attributes(ino, size=0, mode=mode if mode != row.mode else None)
        return self._handles.add(Handle(ino, writable, bool(flags & os.O_APPEND)))

    async def create(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, flags: int
    ) -> tuple[int, Inode]:
        """Make and open a file, or open the one there; returns the handle's number and the inode."""
        there = self._present.tree.child(parent, name)
        if there is not None and not flags & os.O_EXCL:
            return await self.open(there.inode, flags, uid=uid), self.inode(there.inode)
        row = await self.make(parent, name, Kind.FILE, mode, uid, gid)
        return self._handles.add(Handle(row.inode, writable=True, append=bool(flags & os.O_APPEND))), row

    async def read(self, number: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes of an open file; fewer at its end.  Raises: TooFewShares, BlobCorrupt, DeadlineExceeded."""
        handle = self._handles.get(number)
        ino = handle.inode
        stop = min(offset + size, self.inode(ino).size)
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
        async with within("read", self.options.deadline_s):
            return await gathered(where, self._cache)

    async def write(self, number: int, offset: int, data: bytes | memoryview) -> int:
        """Write into an open file; durable when it is flushed or synced."""
        handle = self._handles.get(number)
        if not handle.writable:
            raise FileRefused(why=Because.NO_SUCH_HANDLE, reason="it is not open for writing")
        view = memoryview(data)
        if handle.append:
            offset = self.inode(handle.inode).size
        if offset + len(view) > SIZE_MAX:
            raise FileRefused(why=Because.TOO_LARGE, reason="no file can be that long")
        self.inode(handle.inode)
        await self._dirty.write(handle.inode, offset, view, self._store.now_ns())
        handle.written = True
        return len(view)

    async def flush(self, number: int) -> None:
        """Somebody closes an open file: what was written by this handle is durable then.

        Raises: what kept it from being stored; it is kept, and tried again.
        """
        handle = self._handles.get(number)
        if not handle.written:
            return
        if self.options.durable_close:
            await self._sync(handle.inode)
        else:
            self._saving.soon(handle.inode)
        handle.written = False

    async def fsync(self, number: int) -> None:
        """All of a file or folder is durable: content on the grid, names and attributes in the log."""
        handle = self._handles.get(number)
        await self._sync(handle.inode)
        handle.written = False

    async def _sync(self, ino: int) -> None:
        async with within("sync", self.options.deadline_s):
            await self._saving.save_on(ino)
            await self._committer.durable(self._present.newest)
        error = self._committer.error_of([ino])
        if error is not None:
            raise error

    async def sync_all(self) -> None:
        """Everything is durable.  Raises: what kept the first file from being stored."""
        await self._saving.save_all()
        await self._committer.durable(self._present.newest)

    def release(self, number: int) -> None:
        """The last copy of a handle is gone."""
        handle = self._handles.remove(number)
        self._let_go(handle.inode)
        if not self._handles.is_open(handle.inode):
            self._saving.soon(handle.inode)

    def _let_go(self, ino: int) -> None:
        """What nobody can reach any more is forgotten."""
        if self._handles.is_held(ino):
            return
        row = self._present.tree.inode(ino)
        if row is None or row.links == 0:
            self._dirty.drop(ino)
        self._present.forget(ino)

    # --- open folders -------------------------------------------------------------------------

    async def open_folder(self, ino: int) -> int:
        """Open a folder; returns the handle's number.  What others have made before is seen from now on."""
        await self._freshen()
        self._folder(ino)
        return self._handles.add(Handle(ino))

    def folder(self, number: int) -> Inode:
        """What an open folder is."""
        return self.inode(self._handles.get(number).inode)

    def names(self, number: int, *, again: bool = False) -> Sequence[Name]:
        """The names in an open folder, in byte order; they stay as they are until they are read `again`."""
        handle = self._handles.get(number)
        if handle.names is None or again:
            handle.names = self._present.tree.names(handle.inode)
        return handle.names

    # --- changing -----------------------------------------------------------------------------

    async def _freshen(self) -> None:
        if self._watching is not None and self.options.strict:
            await self._watching.freshen()

    async def _admit(self, *inodes: int) -> None:
        if self._read_only or any(ino >= PAST_FIRST for ino in inodes):
            raise _read_only()
        await self._committer.admit()

    async def _apply(self, operation: Operation, blobs: Sequence[BlobRef] = (), *, made: int = 0) -> None:
        """Make a change; nothing is awaited before callers see it."""
        change = self._present.apply(operation, self._store.now_ns(), blobs, made=made)
        self._committer.queued()
        if self.options.sync:
            await self._committer.durable(change.number)
            if change.error is not None:
                raise change.error

    def _changed(self, before: int, newest: int) -> None:
        if not self._store.is_own(before + 1, newest + 1):
            self._invalidate(self._store.difference(before, newest))


def _check_name(name: bytes) -> None:
    if len(name) > NAME_BYTES_MAX:
        raise FileRefused(why=Because.NAME_TOO_LONG, reason="a name has at most 255 bytes")
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise FileRefused(why=Because.BAD_NAME, reason="nothing can be called so")


def _without_setid(mode: int) -> int:
    """What is left of a mode when somebody else has changed the content; without g+x, g+s has no power."""
    return mode & ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))


def _check_namespace(name: bytes) -> None:
    """The kernel's own attributes are none: who sets an access list and is not refused expects it to hold."""
    if name.startswith(b"system."):
        raise FileRefused(why=Because.NOT_SUPPORTED, reason="there are no attributes of this kind")


def _read_only() -> FileRefused:
    return FileRefused(why=Because.READ_ONLY, reason="nothing can be changed here")


def _rejected(why: Why, reason: str) -> OperationRejected:
    return OperationRejected(why=why, operation=0, reason=reason)
