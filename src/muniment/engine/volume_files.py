"""Files and folders of a volume by their paths: what commands and gateways call.

    files = VolumeFiles(volume, grid)
    await files.put(Path("ledger.pdf"), b"books/ledger.pdf")
    await files.get(b"books/ledger.pdf", Path("copy.pdf"), at=index)

Content goes to the nodes first, under the present epoch's convergence secret; what then goes into the log is
one transaction for each leaf of a folder (up to 8192 entries), or one in all for everything else.  What was
stored for a change that is then rejected is found again by the next attempt, and collected later otherwise.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from muniment.core.history import FileVersion
from muniment.core.tree_state import Inode, TreeReading
from muniment.engine.blobs import BlobWriter
from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.engine.results import DownloadTally, ProgressCallback, Skipped, UploadTally
from muniment.engine.source import SourceLike, open_source
from muniment.engine.target import Writable, open_target
from muniment.engine.threads import Threads
from muniment.engine.tree_writer import TreeWriter
from muniment.engine.volume import Committed, Volume
from muniment.engine.volume_content import OrderedContent, store_stream
from muniment.engine.volume_plans import (
    copied,
    folder_made,
    into,
    merged,
    named,
    present,
    replaced,
    root_restored,
    written,
)
from muniment.engine.volume_restore import restored_entries, tree_parts
from muniment.engine.volume_tree import Listed, children, find, link_target, locate, path_text, walk
from muniment.engine.volume_upload import VolumeUpload
from muniment.erasure.codec import Coding
from muniment.errors import FileFailed, InvalidRequest, PathUnknown, RangeOutOfBounds
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    Extent,
    Kind,
    Link,
    Make,
    Operation,
    RemoveTree,
    Rename,
    Rmdir,
    SetAttributes,
    Snapshot,
    Unlink,
)
from muniment.spec.transaction import Transaction

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did.

    Attributes:
        committed: the last of its entries.
        size_bytes: of content.
        files: regular files.
        new_bytes: of shares that had to be sent.
        skipped: what could not be read.
    """

    committed: Committed
    size_bytes: int
    files: int
    new_bytes: int
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a get did."""

    size_bytes: int
    files: int
    skipped: tuple[Skipped, ...] = ()


class VolumeFiles:
    """The tree of one volume over a grid.

    Args:
        volume: followed by whoever calls; changes follow it themselves.
        grid: where content is; started.
    """

    def __init__(self, volume: Volume, grid: Grid) -> None:
        self._volume = volume
        self._grid = grid

    # --- looking ------------------------------------------------------------------------------

    async def find(self, path: bytes, *, at: int | None = None, follow: bool = True) -> Inode:
        """What stands under a path, now or after the entry `at`.  Raises: PathUnknown, InvalidRequest."""
        return await self._on(at, lambda state: find(state, path, follow=follow))

    async def listing(self, path: bytes, *, at: int | None = None) -> list[Listed]:
        """What a folder holds; of anything else, itself under its own name."""

        def look(state: TreeReading) -> list[Listed]:
            place = present(locate(state, path), path)
            assert place.inode is not None
            if place.inode.kind is Kind.FOLDER:
                return list(children(state, place.inode))
            return [Listed(place.name, place.inode)]

        return await self._on(at, look)

    async def walk(self, path: bytes, *, at: int | None = None) -> list[Listed]:
        """Everything below a folder, itself first under the empty path."""

        def look(state: TreeReading) -> list[Listed]:
            top = find(state, path)
            below = walk(state, top) if top.kind is Kind.FOLDER else iter(())
            return [Listed(b"", top), *below]

        return await self._on(at, look)

    async def target(self, path: bytes, *, at: int | None = None) -> bytes:
        """Where a symbolic link points to."""

        def look(state: TreeReading) -> bytes:
            inode = find(state, path, follow=False)
            if inode.kind is not Kind.SYMLINK:
                raise InvalidRequest(reason=f"{path_text(path)} is not a symbolic link")
            return link_target(state, inode)

        return await self._on(at, look)

    async def history(self, path: bytes) -> list[FileVersion]:
        """All contents that a file has had, the oldest first."""
        inode = await self.find(path)
        return list(await self._volume.run(lambda: self._volume.view.history(inode.inode)))

    async def _on(self, at: int | None, look: Callable[[TreeReading], _T]) -> _T:
        return await self._volume.run(lambda: look(self._volume.view.reading(at)))

    # --- putting ------------------------------------------------------------------------------

    async def put(
        self,
        source: SourceLike,
        path: bytes,
        *,
        mode: int = 0o644,
        mtime_ns: int | None = None,
        if_version: int | None = None,
        message: str = "",
        progress: ProgressCallback | None = None,
    ) -> Stored:
        """Store one file under a path; what was there as a file stays in its history.

        Args:
            source: a path, a file object, bytes, or an asynchronous iterator of bytes.
            mode, mtime_ns: of a new file; those of a source that is a path are taken from it.
            if_version: only if the file is still of this version.
            message: why, for the log.
        Durable on return, content on `happy` nodes and the entry in the log.
        Raises: NotHappy, FileFailed; PathUnknown: its folder; OperationRejected: somebody changed it.
        """
        tally = UploadTally()
        writer = await self._writer(tally)
        if isinstance(source, Path):
            facts = await asyncio.to_thread(_facts, source)
            mode, mtime_ns = stat.S_IMODE(facts.st_mode), facts.st_mtime_ns
        opened = open_source(source, writer.policy.chunk_bytes, self._grid.clock)
        try:
            stored = await store_stream(opened, writer, progress)
        finally:
            await opened.aclose()
        when_ns = int(self._grid.clock.now_s() * 1e9) if mtime_ns is None else mtime_ns

        def plan(state: TreeReading) -> Transaction:
            place = locate(state, path)
            if place.inode is None and if_version is not None:
                raise PathUnknown(path=path_text(path))
            ops = written(place.parent, place.name, place.inode, stored, mode, when_ns, if_version)
            return Transaction(tuple(ops), stored.blobs, message)

        committed = await self._volume.commit(plan)
        return Stored(committed, stored.size, 1, tally.new_bytes)

    async def put_tree(
        self, folder: Path, path: bytes, *, message: str = "", progress: ProgressCallback | None = None
    ) -> Stored:
        """Store a folder's content under a path, which is made; what is there already is merged.

        One entry for each 8192 names.  Cancelled, what was committed stays.  Raises: as `put`.
        """
        tally = UploadTally()
        upload = VolumeUpload(folder, await self._writer(tally), self._grid.clock, progress)
        mode = stat.S_IMODE((await asyncio.to_thread(_facts, folder)).st_mode)
        committed = await self._volume.commit(lambda state: folder_made(state, path, mode, message))
        leaves = upload.leaves()
        try:
            async for leaf in leaves:
                if leaf.entries:
                    committed = await self._volume.commit(partial(merged, leaf, path, message))
        finally:
            await leaves.aclose()
        return Stored(committed, upload.size_bytes, upload.files, tally.new_bytes, upload.skipped)

    async def _writer(self, tally: UploadTally) -> BlobWriter:
        keys = await self._volume.run(self._volume.newest_keys)
        agreed = self._volume.membership.policy
        policy = Policy(
            coding=Coding.from_text(agreed.coding), happy=agreed.happy, chunk_bytes=agreed.chunk_bytes
        )
        return self._grid.blob_writer(keys.convergence_secret(), policy, tally)

    # --- getting ------------------------------------------------------------------------------

    async def get(
        self,
        path: bytes,
        target: Path | Writable,
        *,
        at: int | None = None,
        start: int = 0,
        stop: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> Fetched:
        """Read a file, or bytes `start` to `stop` of it; a target path appears whole or not at all.

        Raises: PathUnknown; InvalidRequest: no file; RangeOutOfBounds; TooFewShares, BlobCorrupt; FileFailed.
        """

        def look(state: TreeReading) -> tuple[Inode, list[object]]:
            inode = find(state, path)
            if inode.kind is not Kind.FILE:
                raise InvalidRequest(reason=f"{path_text(path)} is not a file")
            return inode, list(state.extents(inode.inode, start, inode.size if stop is None else stop))

        inode, extents = await self._on(at, look)
        last = inode.size if stop is None else stop
        if not 0 <= start <= last <= inode.size:
            raise RangeOutOfBounds(start=start, stop=last, size_bytes=inode.size)
        opened, tally = open_target(target), DownloadTally()
        thread = Threads("file", 1, self._grid.clock)
        content = OrderedContent(extents, start, last, opened.write)  # type: ignore[arg-type]
        try:
            await thread.run(opened.begin)
            try:
                await self._grid.read_parts(content.parts(), thread, tally, last - start, progress)
                await thread.run(content.finish)
                await thread.run(opened.finish)
            finally:
                await thread.run(opened.abandon)
        finally:
            thread.close()
        return Fetched(last - start, 1)

    async def get_tree(
        self,
        path: bytes,
        folder: Path,
        *,
        at: int | None = None,
        replace: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Fetched:
        """Restore a folder, which appears whole and durable or not at all.

        Raises: as `get`; InvalidRequest: the local folder is not empty.
        """
        tally, thread = DownloadTally(), Threads("tree", 1, self._grid.clock)
        writer = TreeWriter(folder, replace=replace)
        try:
            await thread.run(writer.begin)
            uses, total = await self._on(at, lambda state: restored_entries(state, path, writer))
            parts = tree_parts(uses, writer)
            await self._grid.read_parts(parts, thread, tally, total, progress)
            await thread.run(writer.finish)
        finally:
            try:
                await thread.run(writer.abandon)
            finally:
                thread.close()
        return Fetched(writer.size_bytes, writer.files, tuple(writer.skipped))

    # --- changing -----------------------------------------------------------------------------

    async def change(
        self, make: Callable[[TreeReading], Iterable[Operation]], message: str = ""
    ) -> Committed:
        """Any operations as one transaction.  Raises: as `Volume.commit`."""
        return await self._volume.commit(lambda state: Transaction(tuple(make(state)), message=message))

    async def make_folder(self, path: bytes, *, mode: int = 0o755, parents: bool = False) -> Committed:
        """Make a folder; with `parents`, also those above it, and no matter if it is there."""

        def make(state: TreeReading) -> Iterable[Operation]:
            if not parents:
                place = locate(state, path)
                return [Make(place.parent, place.name, Kind.FOLDER, mode)]
            return folder_made(state, path, mode, "").operations

        return await self.change(make)

    async def remove(self, path: bytes, *, recursive: bool = False) -> Committed:
        """Remove a name; with `recursive` all below it too, in one transaction.

        Raises: PathUnknown; OperationRejected: a folder that is not empty.
        """

        def make(state: TreeReading) -> Iterable[Operation]:
            place = named(locate(state, path, follow=False), path)
            assert place.inode is not None
            if recursive:
                return [RemoveTree(place.parent, place.name, place.inode.inode)]
            kind = Rmdir if place.inode.kind is Kind.FOLDER else Unlink
            return [kind(place.parent, place.name, place.inode.inode)]

        return await self.change(make)

    async def move(self, path: bytes, new_path: bytes, *, replace: bool = True) -> Committed:
        """Give something another name, into a folder if that is what `new_path` is; one transaction.

        Raises: PathUnknown; OperationRejected: into itself, or the new name is taken.
        """

        def make(state: TreeReading) -> Iterable[Operation]:
            old = named(locate(state, path, follow=False), path)
            new = into(state, locate(state, new_path, follow=False), old.name)
            assert old.inode is not None
            replaced = new.inode.inode if new.inode is not None and replace else 0
            return [Rename(old.parent, old.name, old.inode.inode, new.parent, new.name, replaced)]

        return await self.change(make)

    async def copy(self, path: bytes, new_path: bytes, *, at: int | None = None) -> Committed:
        """Copy a file, link or folder within the volume: names and references only, no content moves."""

        def plan(state: TreeReading) -> Transaction:
            past = state if at is None else self._volume.view.reading(at)
            old = named(locate(past, path, follow=False), path)
            assert old.inode is not None
            new = into(state, locate(state, new_path, follow=False), old.name)
            blobs: dict[BlobRef, int] = {}
            if new.inode is not None and not (new.inode.kind is Kind.FILE and old.inode.kind is Kind.FILE):
                raise InvalidRequest(reason=f"{path_text(new_path)} is there already")
            ops = list(copied(past, old.inode, new, blobs))
            return Transaction(tuple(ops), tuple(blobs))

        return await self._volume.commit(plan)

    async def restore(self, path: bytes, at: int, *, message: str = "") -> Committed:
        """Bring a file or folder back to what it was after the entry `at`, in one transaction.

        What stands there now is replaced, and stays in the history.  Raises: PathUnknown: it was not there.
        """

        def plan(state: TreeReading) -> Transaction:
            past = self._volume.view.reading(at)
            old = locate(past, path, follow=False)
            if old.inode is None:
                raise PathUnknown(path=path_text(path))
            blobs: dict[BlobRef, int] = {}
            if not old.name:
                ops = list(root_restored(past, state, blobs))
            else:
                now = locate(state, path, follow=False)
                ops = list(replaced(past, old.inode, now, blobs))
            if not ops:
                raise InvalidRequest(reason=f"{path_text(path)} is as it was then")
            return Transaction(tuple(ops), tuple(blobs), message)

        return await self._volume.commit(plan)

    async def link(self, path: bytes, new_path: bytes) -> Committed:
        """Another name for a file."""

        def make(state: TreeReading) -> Iterable[Operation]:
            inode, new = find(state, path), locate(state, new_path, follow=False)
            return [Link(inode.inode, new.parent, new.name)]

        return await self.change(make)

    async def symlink(self, target: bytes, path: bytes) -> Committed:
        """A symbolic link under `path`."""

        def make(state: TreeReading) -> Iterable[Operation]:
            place = locate(state, path, follow=False)
            content = (Extent(0, len(target), target),)
            return [Make(place.parent, place.name, Kind.SYMLINK, 0o777, content=content, size=len(target))]

        return await self.change(make)

    async def set_attributes(
        self,
        path: bytes,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
    ) -> Committed:
        """Change what is not None."""

        def make(state: TreeReading) -> Iterable[Operation]:
            return [SetAttributes(find(state, path).inode, mode, uid, gid, atime_ns, mtime_ns)]

        return await self.change(make)

    async def snapshot(self, name: bytes) -> Committed:
        """Give the present state a name.  Raises: OperationRejected: the name is used."""
        return await self.change(lambda _: [Snapshot(name)])


def _facts(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise FileFailed(path=str(path), reason=error.strerror or str(error)) from error
