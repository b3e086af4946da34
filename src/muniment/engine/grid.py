"""The Python face of a grid, asynchronous; `muniment.SyncGrid` is the same for blocking programs.

    async with Grid(roster, connector, clock, secret) as grid:
        stored = await grid.put(Path("ledger.pdf"))
        print(cap_text(stored.cap))                       # whoever has this text can read the file
        await grid.get(stored.cap, Path("copy.pdf"))
        health = await grid.check(weaken(stored.cap))     # a verify capability is enough

`node.compose.open_grid` makes one from a user's configuration.  All methods may run at the same time; they
share memory, connections and what is known of the nodes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from muniment.core.manifesting import content_row, nested_row
from muniment.engine.blobs import BlobWriter
from muniment.engine.download import StreamDownload
from muniment.engine.fetcher import Fetcher
from muniment.engine.kernels import Kernels
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import (
    DownloadTally,
    GetResult,
    ProgressCallback,
    PutResult,
    Skipped,
    UploadTally,
)
from muniment.engine.sender import Sender
from muniment.engine.source import SourceLike, open_source
from muniment.engine.spans import row_spans
from muniment.engine.target import Writable, open_target
from muniment.engine.threads import Threads
from muniment.engine.upload import StreamUpload
from muniment.errors import NotCapable, RangeOutOfBounds
from muniment.ports import Clock, Connector, Roster
from muniment.spec.cap import BlobFile, Cap, LiteralFile, ManifestFile, ReadCap, TreeReadCap
from muniment.spec.manifest import Row

FILE_THREADS = 2


class Grid:
    """A client of the nodes a roster knows.

    Args:
        roster: who there is; started and closed with the grid.
        connector: makes connections to nodes.
        clock: measures stages.
        secret: the account's convergence secret, 32 bytes: equal content gives equal blobs under it, and
            nobody without it can test guesses.
        policy: for uploads that bring none, and where downloads look first.
        limits: memory, batches and patience.
    """

    def __init__(
        self,
        roster: Roster,
        connector: Connector,
        clock: Clock,
        secret: bytes,
        policy: Policy | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._roster = roster
        self._connector = connector
        self._clock = clock
        self._secret = secret
        self._policy = policy or Policy()
        self._limits = limits or Limits()
        self._started = False

    async def start(self) -> Self:
        """Load the roster and make ready.  Raises: RosterEmpty: no node is known, now or from earlier."""
        await self._roster.start()
        self._streams = asyncio.Semaphore(self._limits.streams)
        self._nodes = Nodes(self._roster, self._connector, self._limits)
        self._kernels = Kernels(self._secret, self._clock)
        self._files = Threads("file", FILE_THREADS, self._clock)
        self._sender = Sender(self._nodes, self._limits)
        self._fetcher = Fetcher(self._nodes, self._kernels, self._clock, self._limits, self._policy.placement)
        await self._nodes.start()
        self._started = True
        return self

    async def aclose(self) -> None:
        """Let background uploads finish (`Limits.linger_s`), then end everything; no task or thread is left.

        Operations that are still running fail; cancel and await them first.
        """
        if self._started:
            self._started = False
            await self._sender.aclose()
            await self._fetcher.aclose()
            await self._nodes.aclose()
            self._kernels.close()
            self._files.close()
        await self._roster.aclose()

    async def __aenter__(self) -> Self:
        try:
            return await self.start()
        except BaseException:
            await self.aclose()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

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
        what is missing.

        Raises: NotHappy: too few nodes take shares; RosterEmpty; InvalidCoding: the grid does not fit the
            policy; FileFailed: the path cannot be read; InvalidRequest: it is a folder, or no source.
        """
        self._nodes.require_nodes()
        policy = policy or self._policy
        tally = UploadTally()
        writer = BlobWriter(self._kernels, self._sender, policy, tally)
        async with self._streams:
            opened = await open_source(source, policy.chunk_bytes, self._clock, self._files)
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
        row, size_bytes = file_row(cap)
        last = size_bytes if stop is None else stop
        if not 0 <= start <= last <= size_bytes:
            raise RangeOutOfBounds(start=start, stop=last, size_bytes=size_bytes)
        async with self._streams:
            opened, _ = await self._files.run(open_target, target)
            try:
                if isinstance(row, Row):
                    spans = row_spans(self._fetcher, tally, row, start, last)
                    stream = StreamDownload(self._fetcher, self._files, tally, last - start, progress)
                    written = await stream.run(spans, opened)
                else:
                    await self._files.run(opened.write, memoryview(row)[start:last])
                    written = last - start
                _, busy_s = await self._files.run(opened.finish)
                tally.stages.write_s += busy_s
            finally:
                await self._files.run(opened.abandon)
        return get_result(written, tally)


def file_row(cap: Cap) -> tuple[Row | bytes, int]:
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
    kind = "tree read" if isinstance(cap, TreeReadCap) else "verify"
    raise NotCapable(needed="file read", given=kind)


def put_result(
    cap: ReadCap,
    size_bytes: int,
    tally: UploadTally,
    *,
    files: int = 1,
    skipped: tuple[Skipped, ...] = (),
) -> PutResult:
    """What an upload has come to."""
    return PutResult(
        cap=cap,
        size_bytes=size_bytes,
        placed=tally.placed or 0,
        new_bytes=tally.new_bytes,
        present_bytes=tally.present_bytes,
        missing=tally.missing,
        blobs=tally.blobs,
        files=files,
        skipped=skipped,
        stages=tally.stages,
    )


def get_result(
    size_bytes: int, tally: DownloadTally, *, files: int = 1, skipped: tuple[Skipped, ...] = ()
) -> GetResult:
    """What a download has come to."""
    return GetResult(
        size_bytes=size_bytes,
        files=files,
        liars=dict(tally.liars),
        blobs=tally.blobs,
        shares=tally.shares,
        share_bytes=tally.share_bytes,
        decoded=tally.decoded,
        skipped=skipped,
        stages=tally.stages,
    )
