"""One volume as a POSIX file system, by inode numbers; what gateways are thin shells over.

    files = FileSystem(volume, grid, clock, Options())
    await files.start()
    row = files.lookup(ROOT, b"books")
    ...
    await files.aclose()

Within one of these everything is visible at once.  Callers' permissions are not checked here: a mount leaves
that to the kernel.  All raise MunimentErrors, which `errnos.errno_of` translates.

Belongs to one loop.  Between two awaits nothing changes but by the caller himself; each method looks and
changes without an await in between.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from muniment.core.fold import Why
from muniment.core.history import Difference
from muniment.core.tree_state import Inode, Name
from muniment.engine.grid import Grid
from muniment.engine.volume import Volume
from muniment.errors import FileRefused, MunimentError
from muniment.fs.committing.committer import Committer
from muniment.fs.committing.watching import Watching
from muniment.fs.content.chunk_cache import ChunkCache
from muniment.fs.content.dirty import Dirty
from muniment.fs.content.holes import Holes
from muniment.fs.content.saving import Saving
from muniment.fs.deadlines import Patience, within
from muniment.fs.errnos import Because
from muniment.fs.handles import Handle, Handles
from muniment.fs.locking.across import Across
from muniment.fs.locking.locks import Locks
from muniment.fs.names.attributes import Attributes
from muniment.fs.names.nameless import Nameless
from muniment.fs.names.numbers import Numbers
from muniment.fs.names.past import Past
from muniment.fs.names.present import Present
from muniment.fs.open_files import OpenFiles
from muniment.fs.options import Options
from muniment.fs.space import Space
from muniment.fs.store import Store
from muniment.fs.unsaved.keeping import Kept, Unsaved
from muniment.fs.unsaved.sent import SentBlobs
from muniment.fs.working_tree import WorkingTree, rejected
from muniment.ports import Clock
from muniment.spec.operation import (
    NAME_BYTES_MAX,
    ROOT,
    TIME_NS_MAX,
    Kind,
    Link,
    Make,
    Rename,
    Rmdir,
    SetAttributes,
    Unlink,
    inline_content,
)

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
        sent: a file of this machine for what a mount that is killed would leave leased; None: there is none.
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
        sent: Path | None = None,
    ) -> None:
        self.options = options
        self._ended = False
        self._numbers, self._handles = Numbers(), Handles()
        self._store = Store(volume, grid, self._numbers, SentBlobs(sent))
        begin = self._store.newest if at is None else at
        state = self._store.state(begin) if at is None else self._store.past(at)
        past = Past(self._store, clock, self._handles.numbers)
        self._present = Present(state, begin, self._numbers, self._is_needed, self._handles.opened, past)
        self._cache = ChunkCache(self._store.get, options.cache_bytes)
        patience = self._patience = Patience(options.deadline_s, clock)
        self._dirty = Dirty(self._store, self._cache, dirty_bytes=options.dirty_bytes, patience=patience)
        self._committer = Committer(
            self._present,
            self._store,
            linger_s=options.linger_s,
            patience=patience,
            changed=self._changed,
        )
        self._saving = Saving(self._present, self._dirty, self._committer, clock, options.writeback_s)
        watching = Watching(self._store, self._committer, clock, options.deadline_s)
        self._watching = watching if at is None else None
        self._tree = WorkingTree(
            self._present,
            self._dirty,
            self._committer,
            self._store,
            self._handles,
            self._watching if options.strict else None,
            read_only=options.read_only or at is not None,
            durable=options.sync,
        )
        files = self._open_files = OpenFiles(self._tree, self._saving, self._cache, options, patience)
        # Gateways call these for every block: they are handed on as they are, without a call in between.
        self.open, self.read, self.write = files.open, files.read, files.write
        self.flush, self.fsync, self.release = files.flush, files.fsync, files.release
        self.take_setid = files.take_setid
        self._invalidate = invalidate
        self._space = Space(self._store, clock)
        holes = Holes(self._tree, self._space)
        self.allocate, self.seek = holes.allocate, holes.seek
        across = Across(self._tree, self._saving, self._numbers, clock, patience)
        is_shared = options.shared_locks and self._watching is not None and not options.read_only
        self.locks = Locks(across if is_shared else None)
        self._tree.check_lock = self.locks.check
        self.unsaved = Unsaved(self._present, self._dirty, self._store, self._numbers, self.sync_all)
        held_by = self.attributes = Attributes(self._tree)
        self.xattrs, self.xattr = held_by.all, held_by.get
        self.set_xattr, self.remove_xattr = held_by.set, held_by.remove
        self._nameless = Nameless(self._tree, self._saving, self._numbers, self.attributes)
        self.make_nameless = self._nameless.make

    async def start(self) -> None:
        """Begin to follow the log, and to commit."""
        if self._watching is not None:
            self._committer.start()
            self._watching.start()
            self._saving.start()
            self.locks.start()

    def ending(self) -> None:
        """The end begins: whatever is waited for from now on is over one deadline from now, and who writes
        is held up no more.
        """
        self._patience.end()
        self._store.hurry(self._patience.breaking_off_s)
        self._dirty.ending()

    async def aclose(self, keep_in: Path | None = None) -> Kept | None:
        """Save and commit everything, and end all tasks, in one deadline from the beginning of the end.

        Args:
            keep_in: a folder of this machine for what could not be saved.
        Returns: what was kept there; None: all is saved.
        Raises: what kept it from being saved, if nothing could be kept; everything is ended all the same.

        Cancelled, it saves no more, and keeps what is left.
        """
        if self._ended:
            return None
        self._ended = True
        self.ending()
        failure: MunimentError | asyncio.CancelledError | None = None
        try:
            await self.unsaved.aclose()
            if self._watching is not None:
                await self.sync_all()
        except (MunimentError, asyncio.CancelledError) as error:
            failure = error
        finally:
            self._store.hurry(self._patience.left_s)
            await self.locks.aclose()
            await self._saving.aclose()
            if self._watching is not None:
                await self._watching.aclose()
            await self._committer.aclose()
            await self._dirty.aclose()
            await self._cache.aclose()
        try:
            if failure is not None and (keep_in is None or self._committer.is_broken):
                raise failure
            kept = None if failure is None or keep_in is None else await self.unsaved.keep(keep_in)
            await self.unsaved.forget()
        finally:
            await self._store.aclose(self._patience.left_s)
        if isinstance(failure, asyncio.CancelledError):
            raise failure
        return kept

    def give_up_left(self) -> None:
        """As `Store.give_up_left`, when all is brought back that earlier mounts have kept."""
        self._store.give_up_left()

    async def sync_all(self) -> None:
        """Everything is durable.  Raises: what kept the first file from being stored."""
        try:
            async with within("sync", self._patience):
                await self._saving.save_all()
        finally:
            await self._committer.durable(self._present.newest)

    # --- numbers ------------------------------------------------------------------------------

    def know(self, ino: int) -> None:
        """A caller keeps this number, until he says `forget`."""
        self._handles.know(ino)
        self._present.know(ino)

    def forget(self, ino: int, count: int = 1) -> None:
        """A caller forgets a number as often as he says."""
        if self._handles.forget(ino, count):
            self._tree.let_go(ino)

    def knows(self, ino: int) -> bool:
        """Whether a caller has this number, or something with it open; the root's everybody has."""
        return ino == ROOT or self._handles.is_held(ino)

    def _is_needed(self, ino: int) -> bool:
        return self._handles.is_held(ino) or self._dirty.get(ino) is not None

    def here(self, ino: int) -> int:
        """The number by which callers know an inode of the volume."""
        return self._numbers.here(ino)

    # --- looking ------------------------------------------------------------------------------

    def inode(self, ino: int) -> Inode:
        """What is known of an inode, with what was written to it lately.  Raises: OperationRejected."""
        return self._tree.inode(ino)

    def find(self, ino: int) -> Inode | None:
        """The same; None if it is not there."""
        return None if self._present.tree.inode(ino) is None else self.inode(ino)

    def lookup(self, parent: int, name: bytes) -> Inode:
        """What a name leads to.  Raises: OperationRejected: nothing, or `parent` is no folder."""
        if name in (b".", b".."):
            folder = self._tree.folder(parent)
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

    def _child(self, parent: int, name: bytes) -> Name:
        self._tree.folder(parent)
        found = self._present.tree.child(parent, name)
        if found is None:
            raise rejected(Why.NOT_FOUND, "there is no such name")
        return found

    def _changeable(self, parent: int, name: bytes) -> int:
        ino = self._child(parent, name).inode
        self._tree.check_changeable(ino)
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
        umask: int = 0,
        rdev: int = 0,
        target: bytes = b"",
    ) -> Inode:
        """A new file, folder, link, pipe or device; in a folder of mode g+s it gets that folder's group.

        Args:
            mode: permission bits.
            umask: of its maker, which counts unless the folder has a default list.
            target: of a symbolic link.
        """
        _check_name(name)
        await self._tree.admit(parent)
        folder = self.inode(parent)
        if folder.mode & stat.S_ISGID:
            gid = folder.gid
            mode |= stat.S_ISGID if kind is Kind.FOLDER else 0
        mode, lists = self.attributes.beginning(parent, kind, mode & 0o7777, umask)
        now_ns, made = self._store.now_ns(), self._numbers.fresh()
        content = inline_content(target)
        op = Make(parent, name, kind, mode, uid, gid, now_ns, rdev, content, len(target), lists)
        await self._tree.apply(op, made=made)
        return self.inode(made)

    async def create(
        self,
        parent: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        flags: int,
        *,
        umask: int = 0,
        takes_setid: bool = False,
    ) -> tuple[int, Inode]:
        """Make and open a file, or open the one there; returns the handle's number and the inode.

        What others have made before is seen, unless `flags` say that it must be new (O_EXCL).

        Args:
            mode, umask: as `make`.
            takes_setid: as `open`.
        """
        there = self._present.tree.child(parent, name)
        if there is None and not flags & os.O_EXCL:
            await self._tree.freshen()
            there = self._present.tree.child(parent, name)
        if there is not None and not flags & os.O_EXCL:
            opened = await self.open(there.inode, flags, takes_setid=takes_setid)
            return opened, self.inode(there.inode)
        row = await self.make(parent, name, Kind.FILE, mode, uid, gid, umask=umask)
        return self._handles.open(row.inode, flags), row

    async def link(self, ino: int, parent: int, name: bytes) -> Inode:
        """Another name for what is no folder."""
        _check_name(name)
        await self._tree.admit(ino, parent)
        if self._nameless.is_one(ino):
            await self._nameless.link(ino, parent, name)
        else:
            await self._tree.apply(Link(ino, parent, name))
        return self.inode(ino)

    async def unlink(self, parent: int, name: bytes) -> None:
        """Take a name from what is no folder."""
        await self._tree.admit(parent)
        ino = self._changeable(parent, name)
        await self._tree.apply(Unlink(parent, name, ino))
        self._tree.let_go(ino)

    async def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty folder."""
        await self._tree.admit(parent)
        await self._tree.apply(Rmdir(parent, name, self._changeable(parent, name)))

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
        await self._tree.admit(parent, new_parent)
        ino = self._changeable(parent, name)
        there = self._present.tree.child(new_parent, new_name)
        if exchange and there is None:
            raise rejected(Why.NOT_FOUND, "there is nothing to exchange it with")
        replaced = self._changeable(new_parent, new_name) if there and (replace or exchange) else 0
        await self._tree.apply(Rename(parent, name, ino, new_parent, new_name, replaced, exchange))
        if replaced:
            self._tree.let_go(replaced)

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
        """Change what is not None; a time that a volume cannot have becomes the nearest that it can."""
        atime_ns, mtime_ns = _time_ns(atime_ns), _time_ns(mtime_ns)
        await self._tree.admit(ino)
        self.inode(ino)
        if size is not None:
            await self._open_files.truncate(ino, size)
        values = (None if mode is None else mode & 0o7777, uid, gid, atime_ns, mtime_ns)
        if size is None or any(value is not None for value in values):
            dirty = self._dirty.get(ino)
            if dirty is not None and mtime_ns is not None:
                dirty.mtime_ns = mtime_ns
            await self._tree.apply(SetAttributes(ino, *values))
            if mode is not None:
                await self.attributes.follow_mode(ino, mode)
        return self.inode(ino)

    # --- open folders -------------------------------------------------------------------------

    async def open_folder(self, ino: int) -> int:
        """Open a folder; returns the handle's number.  What others have made before is seen from now on."""
        await self._tree.freshen()
        self._tree.folder(ino)
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

    def _changed(self, before: int, newest: int) -> None:
        self.locks.look()
        is_own = self._store.is_own(before + 1, newest + 1)
        self._store.taken_in(newest)
        if not is_own:
            self._invalidate(self._store.difference(before, newest))


def _time_ns(time_ns: int | None) -> int | None:
    return None if time_ns is None else max(-TIME_NS_MAX, min(time_ns, TIME_NS_MAX - 1))


def _check_name(name: bytes) -> None:
    if len(name) > NAME_BYTES_MAX:
        raise FileRefused(why=Because.NAME_TOO_LONG, reason="a name has at most 255 bytes")
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise FileRefused(why=Because.BAD_NAME, reason="nothing can be called so")
