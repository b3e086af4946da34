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
import contextlib
import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from muniment.core.capabilities import weaken
from muniment.core.manifesting import content_row, nested_row
from muniment.core.placement import Candidate, Slot
from muniment.core.room import room_bytes
from muniment.core.sealing import code_sealed
from muniment.engine.blobs import BlobWriter
from muniment.engine.cached import CachedBlobs
from muniment.engine.check import Check, Depth
from muniment.engine.covered import covered_blobs
from muniment.engine.download import Download, Part
from muniment.engine.fetcher import Fetcher
from muniment.engine.health import BlobHealth, Health, ShareState
from muniment.engine.keeping.repair import Repairer, RepairResult
from muniment.engine.keeping.throttle import Throttle
from muniment.engine.kernels import Kernels
from muniment.engine.lane import Lane
from muniment.engine.many import ManyUpload
from muniment.engine.new_shares import NewShares
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import (
    DownloadTally,
    FilePut,
    GetResult,
    ProgressCallback,
    PutResult,
    Skipped,
    UploadTally,
)
from muniment.engine.room import require_room
from muniment.engine.sender import Sender
from muniment.engine.source import SourceLike, open_source
from muniment.engine.spans import row_spans
from muniment.engine.status import NodeSummary, summarise
from muniment.engine.target import Writable, open_target
from muniment.engine.threads import Threads
from muniment.engine.tree_download import TreeParts
from muniment.engine.tree_upload import TreeUpload
from muniment.engine.tree_writer import TreeWriter
from muniment.engine.upload import StreamUpload
from muniment.engine.usage import NodeUsage, account_usage
from muniment.errors import MunimentError, NotCapable, NotHappy, RangeOutOfBounds
from muniment.ids import BlobId, NodeId
from muniment.ports import BlobCache, BlobCondition, Clock, Connector, Roster
from muniment.spec.blob import BlobName, BlobRef
from muniment.spec.cap import (
    BlobFile,
    Cap,
    LiteralFile,
    LiteralFileVerify,
    ManifestFile,
    ReadCap,
    TreeReadCap,
    cap_text,
)
from muniment.spec.limits import HAVE_BLOBS_MAX
from muniment.spec.manifest import Row
from muniment.spec.share import BlobShape

FILE_THREADS = 2

Alone = Callable[[], AbstractContextManager[bool]]
"""Entered, tells whether nobody else has used the account since this client began, and holds others up."""

_ALONE: Final[Alone] = lambda: contextlib.nullcontext(True)  # noqa: E731


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
        cache: keeps blobs that were read on this machine, still sealed; not closed here.
        alone: asked before anything is given up that a failed upload has stored; whoever gives none sees to
            it that no other client of the account stores the same content at the same time.
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
        cache: BlobCache | None = None,
        alone: Alone = _ALONE,
    ) -> None:
        self._alone = alone
        self._cache = cache
        self._cached: CachedBlobs | None = None
        self._roster = roster
        self._connector = connector
        self._clock = clock
        self._secret = secret
        self._policy = policy or Policy()
        self._limits = limits or Limits()
        self._started = False
        self._other_kernels: dict[bytes, Kernels] = {}

    async def start(self) -> Self:
        """Load the roster and make ready.  Raises: RosterEmpty: no node is known, now or from earlier."""
        await self._roster.start()
        self._streams = asyncio.Semaphore(self._limits.streams)
        self._nodes = Nodes(self._roster, self._connector, self._limits)
        self._kernels = Kernels(self._secret, self._clock)
        self._files = Threads("file", FILE_THREADS, self._clock)
        self._sender = Sender(self._nodes, self._limits)
        limits, kernels, clock = self._limits, self._kernels, self._clock
        if self._cache is not None:  # half of the memory at most: who reads never waits for what is written
            held_bytes = limits.open_bytes // 2
            self._cached = CachedBlobs(self._cache, kernels, clock, held_bytes, limits.linger_s)
        placement = self._policy.placement
        self._fetcher = Fetcher(self._nodes, kernels, clock, limits, placement, self._cached)
        await self._nodes.start()
        self._started = True
        return self

    def hurry(self, wait_s: float) -> None:
        """What is broken off or closed from now on waits no longer than this for nodes."""
        self._sender.hurry(wait_s)

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
            if self._cached is not None:
                await self._cached.aclose()
            for kernels in self._other_kernels.values():
                kernels.close()
            self._other_kernels.clear()
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
        row, size_bytes = file_row(cap)
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

    async def require_room(self, size_bytes: int, policy: Policy | None = None) -> None:
        """Find out before a large upload whether it can fit, from the free space that nodes tell.

        Args:
            size_bytes: of content; below `room.LARGE_BYTES` nobody is asked.
        Raises: GridFull.
        """
        await require_room(self._nodes, size_bytes, policy or self._policy)

    # --- what has failed

    async def take_back(self, tally: UploadTally, only: Collection[BlobId] | None = None) -> None:
        """Give up what an operation has newly stored: nothing will refer to it.

        Not what anything else of this client has asked for meanwhile, and nothing at all where another client
        of the account might have.  Best effort, in `Limits.cleanup_s`.
        """
        with self._alone() as alone:
            if alone:
                await self._sender.take_back(tally.fresh, only)

    async def give_up(self, wanted: Callable[[], Collection[BlobId]]) -> Collection[BlobId]:
        """Give up this account's leases on blobs that nothing refers to.

        Nothing happens where another client of the account might count on them.  What nodes do not hear of in
        `Limits.cleanup_s` stays until its lease ends.

        Args:
            wanted: which; asked a second time when the nodes have said what they hold.
        Returns: those of which every node has said what it holds.
        """
        blobs, fresh = list(wanted()), NewShares()

        async def ask(lane: Lane) -> bool:
            try:
                for at in range(0, len(blobs), HAVE_BLOBS_MAX):
                    held = await lane.connection.have(blobs[at : at + HAVE_BLOBS_MAX])
                    for blob, numbers in held.items():
                        fresh.of(blob).extend(Slot(number, lane.node) for number in numbers)
            except MunimentError:
                return False
            return True

        answered = await asyncio.gather(*map(ask, self.lanes()))
        with self._alone() as alone:
            only = frozenset(blobs).intersection(wanted()) if alone else frozenset[BlobId]()
            await self._sender.take_back(fresh, only)
        return only if all(answered) else frozenset()

    @contextlib.asynccontextmanager
    async def _taking_back(self, tally: UploadTally) -> AsyncIterator[None]:
        try:
            yield
        except NotHappy:
            await self.take_back(tally)
            raise

    # --- for volumes

    def blob_writer(self, secret: bytes, policy: Policy, tally: UploadTally) -> BlobWriter:
        """What stores blobs under another convergence secret than the account's.  Raises: RosterEmpty."""
        self._nodes.require_nodes()
        kernels = self._other_kernels.get(secret)
        if kernels is None:
            kernels = self._other_kernels[secret] = Kernels(secret, self._clock)
        return BlobWriter(kernels, self._sender, policy, tally)

    async def read_parts(
        self,
        parts: AsyncGenerator[Part, None],
        thread: Threads,
        tally: DownloadTally,
        total_bytes: int,
        progress: ProgressCallback | None,
    ) -> int:
        """Fetch blobs ahead and hand their bytes over in order; returns how many bytes.

        Raises: TooFewShares, BlobCorrupt; what the parts' writers raise.
        """
        async with self._streams:
            return await Download(self._fetcher, thread, tally, lambda: total_bytes, progress).run(parts)

    async def read_blob(self, ref: BlobRef, tally: DownloadTally) -> bytes:
        """The plaintext of a whole blob.  Raises: TooFewShares, BlobCorrupt; RosterEmpty."""
        opened = await self._fetcher.open(ref, tally)
        try:
            return bytes(opened.plain)
        finally:
            self._fetcher.give_back(opened)

    async def room_bytes(self, policy: Policy | None = None) -> tuple[int, int]:
        """How much content the nodes of the grid can hold under a policy: of all their space, and now.

        A node that does not answer has no space.
        """
        chosen, nodes = policy or self._policy, await self.status()
        there = [node for node in nodes if node.reachable]
        sizes = [node.capacity_bytes for node in there], [node.free_bytes for node in there]
        whole, free = (room_bytes(each, chosen.happy) * chosen.coding.k for each in sizes)
        return whole, free

    @property
    def clock(self) -> Clock:
        """What stages are measured with."""
        return self._clock

    # --- looking

    async def check(self, cap: Cap, *, verify: bool = False) -> Health:
        """Find out which nodes hold which shares of a file or tree.

        Args:
            cap: any capability; the verify right is enough, and all that is used.
            verify: read every share and hold it against the BlobId instead of believing the nodes.
        Returns: the state of every share at every node; damage and absence are findings, not errors.
        Raises: RosterEmpty; MalformedRecord: manifests are nested without end.
        """
        weak = weaken(cap)
        if not isinstance(weak, LiteralFileVerify):
            self._nodes.require_nodes()
        check = self.checker(Depth.READ if verify else Depth.ASKED)
        return await check.run(weak)

    async def repair(
        self,
        cap: Cap,
        *,
        seed: bytes,
        verify: bool = False,
        below: int | None = None,
        move: bool = False,
        bytes_per_s: float = math.inf,
    ) -> RepairResult:
        """Rebuild what is missing of a file or tree, and bring it to nodes that have none of it.

        Args:
            cap: any capability; the verify right is enough, and all that is used.
            seed: 32 unpredictable bytes: which leaf of each share its node is to prove.
            verify: read every share instead of having one leaf of it proven.
            below: rebuild when fewer distinct shares of a blob are live; None: as soon as one is missing.
            move: also bring shares to where placement wants them, and give up further copies.
            bytes_per_s: read and sent together at most.
        Returns: what was found and done; blobs that cannot be repaired are in it, and stop no other.

        Can be broken off and run again at any time: what has landed is found held.
        Raises: RosterEmpty; MalformedRecord: manifests are nested without end.
        """
        weak = weaken(cap)
        if not isinstance(weak, LiteralFileVerify):
            self._nodes.require_nodes()
        check = self.checker(Depth.READ if verify else Depth.PROVEN, seed)
        repairer = self.repairer(Throttle(bytes_per_s), below=below, move=move)
        covered = covered_blobs(self._fetcher, weak, repairer.result.unread)
        return await repairer.run((name async for name, _ in covered), check)

    async def check_blobs(self, names: Sequence[BlobName], *, verify: bool = False) -> list[BlobCondition]:
        """The port `BlobChecker`: find out what the nodes have of each blob, in order.

        A share that nobody shows counts as missing only if every node of the roster answers.
        """
        self._nodes.require_nodes()
        check = self.checker(Depth.READ if verify else Depth.ASKED, fit=verify)
        found = await check.blobs(names)
        return [_condition(health, everybody=not check.offline) for health in found]

    async def status(self) -> list[NodeSummary]:
        """Ask every node of the roster how it is; those that do not answer are in the list as well."""
        return await summarise(self._nodes, self._clock)

    async def usage(self) -> list[NodeUsage]:
        """What this account has on every node; those that do not answer are in the list as well.

        Cost: the account's whole list of shares at each node, a page of 1000 at a time.
        """
        return await account_usage(self._nodes)

    def zones(self) -> dict[NodeId, str]:
        """The zone that each node of the roster says it is in; empty where it names none."""
        return {lane.node: self._nodes.record(lane.node).zone for lane in self._nodes.lanes()}

    # --- for keepers

    def checker(
        self, depth: Depth, seed: bytes = b"", *, fit: bool = False, silent: Set[NodeId] = frozenset()
    ) -> Check:
        """What looks for blobs; one for each round, since it remembers who did not answer.

        Args:
            seed: of the challenges, for PROVEN.
            fit: whether a blob's shares are of one content is looked at too.
            silent: nodes that are not asked, and count as offline.
        """
        placement = self._policy.placement
        return Check(
            self._nodes, self._fetcher, self._kernels, placement, depth, seed=seed, fit=fit, silent=silent
        )

    def repairer(self, throttle: Throttle, *, below: int | None = None, move: bool = False) -> Repairer:
        """What carries out plans; see `repair`."""
        return Repairer(
            self._nodes, self._fetcher, self._sender, self._kernels, throttle, repair_below=below, move=move
        )

    async def store_sealed(self, sealed: bytes, policy: Policy) -> BlobName:
        """Store bytes that are encrypted already, as a blob that describes itself.

        Args:
            sealed: 1 to SEALED_BYTES_MAX bytes.
        Returns: its name; durable on `policy.happy` nodes.
        Raises: NotHappy, InvalidCoding; RosterEmpty.
        """
        self._nodes.require_nodes()
        coding = policy.coding
        buffers = await self._sender.buffers_for(BlobShape(coding.codec, coding.k, coding.n, len(sealed)))
        try:
            coded, _ = await self._kernels.run(code_sealed, sealed, coding, buffers.blob)
        except BaseException:
            self._sender.give_back(buffers)
            raise
        await self._sender.send(coded, buffers, policy, UploadTally())
        return coded.name

    async def fetch_sealed(self, name: BlobName, tally: DownloadTally) -> bytes:
        """The bytes of such a blob, of which k shares were checked.

        Raises: TooFewShares, BlobInconsistent; RosterEmpty.
        """
        return await self._fetcher.sealed(name, tally)

    def lanes(self) -> tuple[Lane, ...]:
        """Every node of the roster."""
        return self._nodes.lanes()

    def lane(self, node: NodeId) -> Lane | None:
        """One node of the roster; None if it has left."""
        return self._nodes.lane(node)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The nodes of the roster as placement sees them."""
        return self._nodes.candidates

    async def wait_other(self, known: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Return when the candidates are not these, with those of then."""
        return await self._nodes.wait_other(known)


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
    raise NotCapable(needed="file read", given=_kind(cap))


def _condition(health: BlobHealth, *, everybody: bool) -> BlobCondition:
    states = Counter(share.state for share in health.shares)
    damaged = sum(state is ShareState.DAMAGED for share in health.shares for _, state in share.nodes)
    missing, offline = states[ShareState.MISSING], states[ShareState.OFFLINE]
    if not everybody:
        missing, offline = 0, missing + offline
    return BlobCondition(health.name, health.live, damaged, missing, offline, health.consistent)


def _kind(cap: Cap) -> str:
    """What a capability is, for messages."""
    _, what, right, _ = cap_text(cap).split(":")
    return f"{what} {right}"


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
