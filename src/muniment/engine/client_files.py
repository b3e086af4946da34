"""Files and folders under capabilities: the part of a grid client that stores and reads them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from muniment.core.manifesting import content_row, nested_row
from muniment.core.room import room_bytes
from muniment.engine.blobs import BlobWriter
from muniment.engine.client import Client
from muniment.engine.download import Download, Part
from muniment.engine.many import ManyUpload
from muniment.engine.policy import Policy
from muniment.engine.results import (
    DownloadTally,
    FilePut,
    GetResult,
    ProgressCallback,
    PutResult,
    UploadTally,
    get_result,
    put_result,
)
from muniment.engine.room import require_room
from muniment.engine.source import SourceLike, open_source
from muniment.engine.spans import row_spans
from muniment.engine.target import Writable, open_target
from muniment.engine.threads import Threads
from muniment.engine.tree_download import TreeParts
from muniment.engine.tree_upload import TreeUpload
from muniment.engine.tree_writer import TreeWriter
from muniment.engine.upload import StreamUpload
from muniment.errors import MunimentError, NotCapable, NotHappy, RangeOutOfBounds
from muniment.spec.cap import BlobFile, Cap, LiteralFile, ManifestFile, TreeReadCap, cap_text
from muniment.spec.manifest import Row


class FileClient(Client):
    """See the module; arguments as `Client`."""

    # --- files

    async def put(
        self,
        source: SourceLike,
        *,
        policy: Policy | None = None,
        progress: ProgressCallback | None = None,
    ) -> PutResult:
        """Store one file, read once from beginning to end, in constant memory.

        Args:
            source: a path, a file object (a pipe will do), bytes, or an asynchronous iterator of bytes.
            policy: instead of the grid's.
            progress: told after each chunk.
        Returns: its capability and what was done.  Everything the capability needs is durable on
            `policy.happy` nodes; shares of slow nodes may still be finished in the background.

        Cancelled or failed, nothing stays reserved on any node.  Putting the same content again sends only
        what is missing.  What it has newly stored is given up again if it fails with NotHappy, else it stays.

        Raises: NotHappy: too few nodes take shares; RosterEmpty; InvalidCoding: the grid does not fit the
            policy; FileFailed: the path cannot be read; InvalidRequest: it is a folder, or no source.
        """
        self._nodes.require_nodes()
        policy = policy or self._policy
        tally = UploadTally()
        writer = BlobWriter(self._kernels, self._sender, policy, tally)
        async with self._streams, self._taking_back(tally):
            opened = open_source(source, policy.chunk_bytes, self._clock)
            try:
                cap, size_bytes = await StreamUpload(opened, writer, progress).run()
            finally:
                await opened.aclose()
        tally.stages.read_s += opened.read_s
        return put_result(cap, size_bytes, tally)

    async def get(
        self,
        cap: Cap,
        target: Path | Writable,
        *,
        start: int = 0,
        stop: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> GetResult:
        """Read a file, or bytes `start` to `stop` of it, fetching only the chunks that are needed.

        Args:
            cap: a read capability of a file.
            target: a path, which appears whole and durable or not at all, or an object with `write`.
            start: first byte.
            stop: end of the range, exclusive; the file's end if None.
            progress: told after each chunk.

        Only verified bytes are written.  Raises: TooFewShares, BlobCorrupt, MalformedRecord, UnknownVersion;
            NotCapable: not a read capability of a file; RangeOutOfBounds; FileFailed, DiskFull: the path
            cannot be written; what a target object raises passes as it is.
        """
        tally = DownloadTally()
        row, size_bytes = _file_row(cap)
        last = size_bytes if stop is None else stop
        if not 0 <= start <= last <= size_bytes:
            raise RangeOutOfBounds(start=start, stop=last, size_bytes=size_bytes)
        async with self._streams:
            opened = open_target(target)
            try:
                await self._files.run(opened.begin)
                if isinstance(row, Row):
                    spans = row_spans(self._fetcher, tally, row, start, last)
                    download = Download(self._fetcher, self._files, tally, lambda: last - start, progress)
                    written = await download.run(Part(span, opened.write) async for span in spans)
                else:
                    await self._files.run(opened.write, memoryview(row)[start:last])
                    written = last - start
                _, busy_s = await self._files.run(opened.finish)
                tally.stages.write_s += busy_s
            finally:
                await self._files.run(opened.abandon)
        return get_result(written, tally)

    async def put_many(
        self,
        paths: Iterable[Path],
        *,
        policy: Policy | None = None,
        told: Callable[[FilePut], None] | None = None,
    ) -> list[FilePut]:
        """Store many files, each under a capability of its own; far faster than one `put` after the other.

        Args:
            paths: taken from lazily.
            policy: instead of the grid's.
            told: hears of each file as it is done, on the loop.
        Returns: one result for each path, in order; a file that cannot be read or stored has an error instead
            of a capability and does not stop the others.

        Cancellation: as `put`.  Raises: RosterEmpty.
        """
        self._nodes.require_nodes()
        chosen = policy or self._policy

        async def stream(path: Path) -> FilePut:
            try:
                result = await self.put(path, policy=chosen)
            except MunimentError as error:
                return FilePut(str(path), None, 0, error)
            assert isinstance(result.cap, BlobFile | LiteralFile | ManifestFile)
            return FilePut(str(path), result.cap, result.size_bytes)

        thread = Threads("read", 1, self._clock)
        try:
            tally = UploadTally()
            many = ManyUpload(
                self._kernels, self._sender, chosen, thread, stream, told, tally, self.take_back
            )
            return await many.run(paths)
        finally:
            thread.close()

    # --- folders

    async def put_tree(
        self,
        folder: Path,
        *,
        policy: Policy | None = None,
        progress: ProgressCallback | None = None,
    ) -> PutResult:
        """Store a folder's files, folders and symbolic links, with permissions and times, under one cap.

        Small files are packed together, large ones stored as `put` stores them.  A file is stored as long as
        it was when it was opened; what cannot be read is left out and listed in `PutResult.skipped`.

        Cancellation and errors: as `put`.  Raises: InvalidRequest: it is not a folder.
        """
        self._nodes.require_nodes()
        tally = UploadTally()
        writer = BlobWriter(self._kernels, self._sender, policy or self._policy, tally)
        async with self._streams, self._taking_back(tally):
            upload = TreeUpload(folder, writer, self._clock, progress)
            cap = await upload.run()
        tally.stages.read_s += upload.read_s
        return put_result(cap, upload.size_bytes, tally, files=upload.files, skipped=upload.skipped)

    async def get_tree(
        self,
        cap: Cap,
        folder: Path,
        *,
        replace: bool = False,
        progress: ProgressCallback | None = None,
    ) -> GetResult:
        """Restore a folder, which appears whole and durable or not at all.

        Args:
            cap: a tree's read capability.
            folder: where; must not exist or be empty, unless `replace`.
            replace: delete what is there when the restored folder takes its place.
            progress: told after each blob.

        Nothing is written outside `folder`, whoever made the capability; what this file system cannot hold
        is left out and listed in `GetResult.skipped`.
        Raises: as `get`; InvalidRequest: the folder is not empty.
        """
        if not isinstance(cap, TreeReadCap):
            raise NotCapable(needed="tree read", given=_kind(cap))
        tally = DownloadTally()
        async with self._streams:
            thread = Threads("tree", 1, self._clock)  # a writer of trees is used by one thread
            writer = TreeWriter(folder, replace=replace)
            try:
                await thread.run(writer.begin)
                tree = TreeParts(self._fetcher, thread, tally, writer)
                download = Download(self._fetcher, thread, tally, lambda: tree.total_bytes, progress)
                await download.run(tree.parts(cap.ref))
                _, busy_s = await thread.run(writer.finish)
                tally.stages.write_s += busy_s
            finally:
                try:
                    await thread.run(writer.abandon)
                finally:
                    thread.close()
        return get_result(writer.size_bytes, tally, files=writer.files, skipped=tuple(writer.skipped))

    # --- room

    async def require_room(self, size_bytes: int, policy: Policy | None = None) -> None:
        """Find out before a large upload whether it can fit, from the free space that nodes tell.

        Args:
            size_bytes: of content; below `room.LARGE_BYTES` nobody is asked.
        Raises: GridFull.
        """
        await require_room(self._nodes, size_bytes, policy or self._policy)

    async def room_bytes(self, policy: Policy | None = None) -> tuple[int, int]:
        """How much content the nodes of the grid can hold under a policy: of all their space, and now.

        A node that does not answer has no space.
        """
        chosen, nodes = policy or self._policy, await self.status()
        there = [node for node in nodes if node.reachable]
        sizes = [node.capacity_bytes for node in there], [node.free_bytes for node in there]
        whole, free = (room_bytes(each, chosen.happy) * chosen.coding.k for each in sizes)
        return whole, free

    @contextlib.asynccontextmanager
    async def _taking_back(self, tally: UploadTally) -> AsyncIterator[None]:
        try:
            yield
        except NotHappy:
            await self.take_back(tally)
            raise


def _file_row(cap: Cap) -> tuple[Row | bytes, int]:
    """The row of a file's whole content (or the content of a literal), and its size.

    Raises: NotCapable: it is not a read capability of a file.
    """
    match cap:
        case LiteralFile(data):
            return data, len(data)
        case BlobFile(ref):
            return content_row(ref), ref.plain_bytes
        case ManifestFile(ref, size_bytes):
            return nested_row(ref, size_bytes), size_bytes
    raise NotCapable(needed="file read", given=_kind(cap))


def _kind(cap: Cap) -> str:
    """What a capability is, for messages."""
    _, what, right, _ = cap_text(cap).split(":")
    return f"{what} {right}"
