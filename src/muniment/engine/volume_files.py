"""Files and folders of a volume by their paths: what commands and gateways call.

    files = VolumeFiles(volume, grid)
    await files.put(Path("ledger.pdf"), b"books/ledger.pdf")
    await files.get(b"books/ledger.pdf", Path("copy.pdf"), at=index)

Content goes to the nodes first, under the present epoch's convergence secret (`EpochWriter`); what then goes
into the log is one transaction for each leaf of a folder (up to 8192 entries), or one in all for everything
else.  What was stored for a change that fails for good is given up again, unless the log may refer to it
(docs/transfer.md section 7).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from muniment.core.tree_state import StoredExtent, TreeReading
from muniment.engine.epoch_writer import EpochWriter
from muniment.engine.file_facts import LeftOut, Settler, read_xattrs
from muniment.engine.grid import Grid
from muniment.engine.results import DownloadTally, ProgressCallback, Skipped, UploadTally
from muniment.engine.snapshot_content import storing
from muniment.engine.source import Source, SourceLike, open_source
from muniment.engine.sparse_source import SparseSource
from muniment.engine.stored_content import StoredLeaf
from muniment.engine.target import PathTarget, Writable, open_target
from muniment.engine.threads import Threads
from muniment.engine.tree_item import TreeItem
from muniment.engine.tree_writer import TreeWriter
from muniment.engine.view_snapshot import SnapshotMade, snapshot_view
from muniment.engine.volume import Committed, Volume
from muniment.engine.volume_across import Across, Found, found
from muniment.engine.volume_content import OrderedContent, store_stream
from muniment.engine.volume_names import OWNER, VolumeNames
from muniment.engine.volume_plans import Merge, NewFacts, folder_made, written
from muniment.engine.volume_restore import item_of, restored_entries, tree_parts
from muniment.engine.volume_share import Share, what_to_share
from muniment.engine.volume_tree import Listed, find, locate, path_text
from muniment.engine.volume_upload import VolumeUpload
from muniment.errors import FileFailed, InvalidRequest, PathUnknown, RangeOutOfBounds
from muniment.spec.blob import BlobRef
from muniment.spec.cap import ReadCap
from muniment.spec.operation import Kind, Write
from muniment.spec.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did.

    Attributes:
        committed: the last of its entries.
        size_bytes: of content.
        files: regular files.
        new_bytes: of shares that had to be sent.
        skipped: what could not be read.
        left_out: of what was stored, the facts that could not be read.
    """

    committed: Committed
    size_bytes: int
    files: int
    new_bytes: int
    skipped: tuple[Skipped, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a get did.

    Attributes:
        skipped: what could not be restored.
        left_out: of what was restored, the facts that this process may not set here.
    """

    size_bytes: int
    files: int
    skipped: tuple[Skipped, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)


class VolumeFiles(VolumeNames):
    """The tree of one volume over a grid.

    Args:
        volume: followed by whoever calls; changes follow it themselves.
        grid: where content is; started.
    """

    def __init__(self, volume: Volume, grid: Grid) -> None:
        super().__init__(volume)
        self._grid = grid

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
        writer = await self._writer(tally, progress)
        left_out = LeftOut()
        if isinstance(source, Path):
            facts = await asyncio.to_thread(_facts, source, left_out)
        else:
            when_ns = int(self._grid.clock.now_s() * 1e9) if mtime_ns is None else mtime_ns
            facts = NewFacts(mode, when_ns)

        def plan(state: TreeReading, blobs: tuple[BlobRef, ...]) -> Transaction:
            place = locate(state, path)
            if place.inode is None and if_version is not None:
                raise PathUnknown(path=path_text(path))
            wanted = replace(facts, owner=OWNER) if place.inode is None and facts.owner is None else facts
            ops = written(state, place, stored, wanted, if_version)
            return Transaction(tuple(ops), blobs, message)

        opened = self._open(source, writer.policy.chunk_bytes)
        async with writer.taking_back():
            try:
                stored = await store_stream(opened, writer, progress)
            finally:
                await opened.aclose()
            committed = await writer.commit(stored.blobs, plan)
        return Stored(committed, stored.size, 1, tally.new_bytes, left_out=left_out)

    async def require_room(self, size_bytes: int) -> None:
        """As `Grid.require_room`, under the volume's policy.  Raises: GridFull; NotMember, NotCapable."""
        writer = await self._writer(UploadTally())
        await self._grid.require_room(size_bytes, writer.policy)

    def _open(self, source: SourceLike, chunk_bytes: int) -> Source:
        sparse = SparseSource.of(source, chunk_bytes, self._grid.clock) if isinstance(source, Path) else None
        return sparse or open_source(source, chunk_bytes, self._grid.clock)

    async def write(
        self, path: bytes, offset: int, source: SourceLike, *, if_version: int | None = None
    ) -> Stored:
        """Replace bytes of a file from `offset` on, or add behind its end; only what is written is stored.

        Raises: PathUnknown; InvalidRequest: no file, or nothing to write; as `put`.
        """
        tally = UploadTally()
        writer = await self._writer(tally)

        def plan(state: TreeReading, blobs: tuple[BlobRef, ...]) -> Transaction:
            inode = find(state, path)
            if inode.kind is not Kind.FILE:
                raise InvalidRequest(reason=f"{path_text(path)} is not a file")
            content = tuple(replace(extent, offset=extent.offset + offset) for extent in stored.extents)
            return Transaction((Write(inode.inode, if_version, content),), blobs)

        opened = open_source(source, writer.policy.chunk_bytes, self._grid.clock)
        async with writer.taking_back():
            try:
                stored = await store_stream(opened, writer, None)
            finally:
                await opened.aclose()
            if not stored.size:
                raise InvalidRequest(reason="there is nothing to write")
            committed = await writer.commit(stored.blobs, plan)
        return Stored(committed, stored.size, 1, tally.new_bytes)

    async def put_tree(
        self, folder: Path, path: bytes, *, message: str = "", progress: ProgressCallback | None = None
    ) -> Stored:
        """Store a folder's content under a path, which is made; what is there already is merged.

        One entry for each 8192 names.  Cancelled, what was committed stays.  Raises: as `put`.
        """
        left_out = LeftOut()
        facts = await asyncio.to_thread(_facts, folder, left_out)
        made = await self._volume.commit(lambda state: folder_made(state, path, facts, message))
        merge = Merge(path, facts.mtime_ns if path else None, message)
        stored = await self._upload(folder, merge, progress, made)
        return replace(stored, left_out=left_out + stored.left_out)

    async def put_files(
        self,
        files: Mapping[bytes, Path],
        path: bytes,
        *,
        message: str = "",
        progress: ProgressCallback | None = None,
    ) -> Stored:
        """Store files under these names in the folder `path`; one entry for each 8192 of them, or 2 MiB of
        names and small content.

        Raises: as `put`; InvalidRequest: there are none, or a folder has such a name.
        """
        return await self._upload(files, Merge(path, None, message), progress, None)

    async def snapshot_view(
        self, folder: Path, *, message: str = "", progress: ProgressCallback | None = None
    ) -> SnapshotMade:
        """Store the newest state for newcomers, who then need no entries from before, and sign for it.

        Args:
            folder: for a file without a name, as large as the snapshot.
        Raises: as `view_snapshot.snapshot_view`.
        """
        writer = await self._writer(UploadTally(), progress)
        store = storing(writer, self._grid.clock, progress)
        return await snapshot_view(self._volume, store, writer.commit, folder, message)

    async def copy_across(
        self, other: VolumeFiles, path: bytes, new_path: bytes, *, at: int | None = None, message: str = ""
    ) -> Stored:
        """Copy a file or folder of another volume to a path of this one, with all that is known of it.

        Content is read and stored again under this volume's keys; a folder is merged with what is there.
        Entries as of `put_tree`.
        Raises: PathUnknown; InvalidRequest: the root, or something else stands there; as `put` and `get`.
        """
        into, _, name = new_path.rpartition(b"/")

        def look(state: TreeReading) -> tuple[TreeItem, list[Found]]:
            top = Listed(name or b"root", find(state, path, follow=False))
            return item_of(state, top), found(state, top)

        (top, everything), committed = await other.look(look, at=at), None
        folder = top.kind is Kind.FOLDER
        if folder:
            into, facts = new_path, NewFacts.of(top)
            committed = await self._volume.commit(lambda state: folder_made(state, new_path, facts, message))
        elif not name:
            raise InvalidRequest(reason="a file cannot take the place of the root")
        tally = UploadTally()
        writer = await self._writer(tally)
        across = Across(self._grid, writer)
        merge = Merge(into, top.mtime_ns if folder and into else None, message)
        committed = await self._merge(across.leaves(everything), merge, writer, committed)
        assert committed is not None
        return Stored(committed, across.size_bytes, across.files, tally.new_bytes)

    async def _upload(
        self,
        source: Path | Mapping[bytes, Path],
        merge: Merge,
        progress: ProgressCallback | None,
        committed: Committed | None,
    ) -> Stored:
        tally = UploadTally()
        writer = await self._writer(tally, progress)
        upload = VolumeUpload(source, writer, self._grid.clock, progress)
        committed = await self._merge(upload.leaves(), merge, writer, committed)
        if committed is None:
            first = upload.skipped[0] if upload.skipped else Skipped("", "there is nothing to store")
            raise FileFailed(path=first.path, reason=first.reason)
        sizes = upload.size_bytes, upload.files, tally.new_bytes
        return Stored(committed, *sizes, upload.skipped, upload.left_out)

    async def _merge(
        self,
        leaves: AsyncGenerator[StoredLeaf, None],
        merge: Merge,
        writer: EpochWriter,
        committed: Committed | None,
    ) -> Committed | None:
        """Commit leaves as they come; returns the last entry."""
        async with writer.taking_back(), contextlib.aclosing(leaves):
            async for leaf in leaves:
                if leaf.entries:
                    merge.take(leaf)
                    committed = await writer.commit(
                        leaf.blobs,
                        lambda state, blobs, of=leaf: merge.plan(replace(of, blobs=blobs), state),  # type: ignore[misc]
                    )
        return committed

    async def _writer(self, tally: UploadTally, progress: ProgressCallback | None = None) -> EpochWriter:
        return await EpochWriter.begin(self._volume, self._grid, tally, progress)

    # --- getting ------------------------------------------------------------------------------

    async def get(
        self,
        path: bytes,
        target: Path | Writable,
        *,
        at: int | None = None,
        start: int = 0,
        stop: int | None = None,
        owners: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> Fetched:
        """Read a file, or bytes `start` to `stop` of it; a target path appears whole or not at all.

        A whole file under a path has its holes, time and attributes again; one that is new there also its
        permissions and, with `owners`, its owner (None: if this process is root's).
        Raises: PathUnknown; InvalidRequest: no file; RangeOutOfBounds; TooFewShares, BlobCorrupt; FileFailed.
        """

        def look(state: TreeReading) -> tuple[TreeItem, list[StoredExtent]]:
            inode = find(state, path)
            if inode.kind is not Kind.FILE:
                raise InvalidRequest(reason=f"{path_text(path)} is not a file")
            extents = state.extents(inode.inode, start, inode.size if stop is None else stop)
            return item_of(state, Listed(b"file", inode)), list(extents)

        item, extents = await self.look(look, at=at)
        last = item.size_bytes if stop is None else stop
        if not 0 <= start <= last <= item.size_bytes:
            raise RangeOutOfBounds(start=start, stop=last, size_bytes=item.size_bytes)
        settler, whole = Settler(owners=owners), (start, last) == (0, item.size_bytes)

        def settle(fd: int, replaces: bool) -> None:
            settler.settle(fd, item, permissions=not replaces)

        opened, tally = open_target(target, settle if whole else None), DownloadTally()
        thread = Threads("file", 1, self._grid.clock)
        skip = opened.skip if isinstance(opened, PathTarget) else None
        content = OrderedContent(extents, start, last, opened.write, skip)
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
        return Fetched(last - start, 1, left_out=settler.left_out)

    async def get_tree(
        self,
        path: bytes,
        folder: Path,
        *,
        at: int | None = None,
        replace: bool = False,
        owners: bool | None = None,
        progress: ProgressCallback | None = None,
    ) -> Fetched:
        """Restore a folder, which appears whole and durable or not at all.

        Args:
            replace: what is there already.
            owners: users and groups too, and with them set-user bits; None: if this process is root's.

        Raises: as `get`; InvalidRequest: the local folder is not empty.
        """
        tally, thread = DownloadTally(), Threads("tree", 1, self._grid.clock)
        writer = TreeWriter(folder, replace=replace, owners=owners)
        try:
            await thread.run(writer.begin)
            uses, total = await self.look(lambda state: restored_entries(state, path, writer), at=at)
            parts = tree_parts(uses, writer)
            await self._grid.read_parts(parts, thread, tally, total, progress)
            await thread.run(writer.finish)
        finally:
            try:
                await thread.run(writer.abandon)
            finally:
                thread.close()
        return Fetched(writer.size_bytes, writer.files, tuple(writer.skipped), writer.left_out)

    # --- sharing ------------------------------------------------------------------------------

    async def share(self, path: bytes, *, at: int | None = None) -> ReadCap:
        """A capability of a file or folder as it is now, or was: whoever has it can read that, and no more.

        Content stays where it is unless its blob has anything else in it; that is stored anew.
        Raises: PathUnknown; NotHappy; TooFewShares, BlobCorrupt.
        """
        what = await self.look(lambda state: what_to_share(state, path), at=at)
        return await Share(self._grid, (await self._writer(UploadTally())).blobs).run(what)


def _facts(path: Path, left_out: LeftOut) -> NewFacts:
    """Those of a file or folder that is to be stored; a link is followed."""
    try:
        facts = path.stat()
        xattrs = read_xattrs(os.fsencode(path.resolve()), left_out)
    except OSError as error:
        raise FileFailed(path=str(path), reason=error.strerror or str(error)) from error
    return NewFacts(stat.S_IMODE(facts.st_mode), facts.st_mtime_ns, (facts.st_uid, facts.st_gid), xattrs)
