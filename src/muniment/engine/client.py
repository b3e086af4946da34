"""What all calls of a grid client share: its nodes, memory and threads, which begin and end here.

`Grid` is this with files and folders (`client_files`) and what checks and keepers ask (`client_keeping`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

from muniment.core.placement import Candidate, Slot
from muniment.engine.blobs import BlobWriter
from muniment.engine.cached import CachedBlobs
from muniment.engine.download import Download, Part
from muniment.engine.fetcher import Fetcher
from muniment.engine.kernels import Kernels
from muniment.engine.lane import Lane
from muniment.engine.new_shares import NewShares
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import DownloadTally, ProgressCallback, UploadTally
from muniment.engine.sender import Sender
from muniment.engine.status import NodeSummary, summarise
from muniment.engine.threads import Threads
from muniment.engine.usage import NodeUsage, account_usage
from muniment.errors import MunimentError
from muniment.ids import BlobId, NodeId
from muniment.ports import BlobCache, Clock, Connector, Roster
from muniment.spec.blob import BlobRef
from muniment.spec.limits import HAVE_BLOBS_MAX

_FILE_THREADS: Final = 2

Alone = Callable[[], AbstractContextManager[bool]]
"""Entered, tells whether nobody else has used the account since this client began, and holds others up."""

_ALONE: Final[Alone] = lambda: contextlib.nullcontext(True)  # noqa: E731


class Client:
    """See the module.

    Args:
        roster: who there is; started and closed with the client.
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
        self._files = Threads("file", _FILE_THREADS, self._clock)
        self._sender = Sender(self._nodes, self._limits)
        limits, kernels, clock = self._limits, self._kernels, self._clock
        if self._cache is not None:  # half of the memory at most: who reads never waits for what is written
            held_bytes = limits.open_bytes // 2
            self._cached = CachedBlobs(self._cache, kernels, clock, held_bytes, limits.linger_s)
        placement = self._policy.placement
        self._fetcher = Fetcher(self._nodes, kernels, clock, limits, placement, self._cached)
        self._started = True  # threads may run from here on
        await self._nodes.start()
        return self

    def hurry(self, wait_s: float) -> None:
        """What is broken off or closed from now on waits no longer than this for nodes."""
        self._sender.hurry(wait_s)

    async def aclose(self) -> None:
        """Let background uploads finish (`Limits.linger_s`), then end everything; no task or thread is left.

        Operations that are still running fail; cancel and await them first.  Cancelled, it waits no longer
        for the background, and ends the rest all the same.
        """
        async with contextlib.AsyncExitStack() as ending:  # the last one first
            ending.push_async_callback(self._roster.aclose)
            if not self._started:
                return
            self._started = False
            ending.callback(self._files.close)
            for kernels in self._other_kernels.values():
                ending.callback(kernels.close)
            self._other_kernels.clear()
            if self._cached is not None:
                ending.push_async_callback(self._cached.aclose)
            ending.callback(self._kernels.close)
            ending.push_async_callback(self._nodes.aclose)
            ending.push_async_callback(self._fetcher.aclose)
            ending.push_async_callback(self._sender.aclose)

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

    # --- nodes

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

    def zones(self) -> dict[NodeId, str]:
        """The zone that each node of the roster says it is in; empty where it names none."""
        return {lane.node: self._nodes.record(lane.node).zone for lane in self._nodes.lanes()}

    async def status(self) -> list[NodeSummary]:
        """Ask every node of the roster how it is; those that do not answer are in the list as well."""
        return await summarise(self._nodes, self._clock)

    async def usage(self) -> list[NodeUsage]:
        """What this account has on every node; those that do not answer are in the list as well.

        Cost: the account's whole list of shares at each node, a page of 1000 at a time.
        """
        return await account_usage(self._nodes)

    # --- for volumes

    @property
    def clock(self) -> Clock:
        """What stages are measured with."""
        return self._clock

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

    async def read_blob(self, ref: BlobRef, tally: DownloadTally) -> memoryview:
        """The plaintext of a whole blob, to keep.  Raises: TooFewShares, BlobCorrupt; RosterEmpty."""
        return await self._fetcher.read(ref, tally)

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
