"""All blobs on their way in, of all operations of one grid client: bounds their memory, opens them.

`Fetcher.open` gives the plaintext in a buffer that the caller must give back; manifests are decoded and their
buffers given back at once.  Both are looked for in the cache on this machine first, if there is one; what is
about shares (`rebuild`, `check_fit`) always asks the nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from muniment.core.rebuilding import check_fit, rebuild
from muniment.core.sealing import (
    BlobBuffers,
    CodedShares,
    OpenBuffers,
    open_apart,
    open_blob,
    open_manifest,
    open_verify_half,
)
from muniment.crypto.cipher import TAG_BYTES
from muniment.engine.buffers import BufferPool, size_class
from muniment.engine.cached import CachedBlobs, Noting
from muniment.engine.fetching import Fetching, Opener
from muniment.engine.kernels import Kernels
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits, PlacementName
from muniment.engine.results import DownloadTally
from muniment.ports import Clock
from muniment.spec.blob import BlobName, BlobRef
from muniment.spec.limits import SEALED_BYTES_MAX
from muniment.spec.manifest import Manifest, VerifyHalf

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Lease:
    """Buffers in use by whoever reads what is opened in them, by the fetch that fills them, and by the cache
    that writes what was fetched; given back by the last of these.
    """

    kind: int
    buffers: OpenBuffers
    users: int = 1


@dataclass(slots=True, eq=False)
class Opened:
    """A blob's plaintext.

    Attributes:
        plain: valid until `Fetcher.give_back`.
    """

    plain: memoryview
    lease: _Lease


class Fetcher:
    """See the module.

    Args:
        nodes: where blobs come from.
        kernels: check and open.
        clock: measures them.
        limits: memory and patience.
        placement: where to look first.
        cache: where to look before; None: nowhere.
    """

    def __init__(
        self,
        nodes: Nodes,
        kernels: Kernels,
        clock: Clock,
        limits: Limits,
        placement: PlacementName,
        cache: CachedBlobs | None = None,
    ) -> None:
        self._nodes = nodes
        self._kernels = kernels
        self._clock = clock
        self._limits = limits
        self._placement = placement
        self._cache = cache
        self._fetchings: set[Fetching[Any]] = set()
        self._pool: BufferPool[int, OpenBuffers] = BufferPool(
            limits.open_bytes, lambda _: OpenBuffers(), _memory_bytes
        )

    @property
    def pool(self) -> BufferPool[int, OpenBuffers]:
        """The memory of all blobs on their way in, shares and plaintext."""
        return self._pool

    async def open(self, ref: BlobRef, tally: DownloadTally) -> Opened:
        """Fetch, check and open a blob; waits until earlier ones have left enough memory.

        Cancelled, it returns when nothing writes to its buffers any more.
        Raises: TooFewShares, BlobCorrupt.
        """
        return Opened(*await self._found(ref.name, ref.plain_bytes, partial(open_blob, ref), tally))

    async def read(self, ref: BlobRef, tally: DownloadTally) -> memoryview:
        """As `open`, for those who keep the plaintext: it has memory of its own.  Raises: as `open`."""
        plain, lease = await self._found(ref.name, ref.plain_bytes, partial(open_apart, ref), tally)
        self._leave(lease)
        return plain

    def give_back(self, opened: Opened) -> None:
        """The plaintext is used."""
        self._leave(opened.lease)

    async def manifest(self, ref: BlobRef, tally: DownloadTally) -> Manifest:
        """Both halves of a manifest.  Raises: TooFewShares, BlobCorrupt, MalformedRecord, UnknownVersion."""
        name = ref.name
        manifest, lease = await self._found(name, name.shape.length, partial(open_manifest, ref), tally)
        self._leave(lease)
        return manifest

    async def verify_half(self, name: BlobName, key: bytes, tally: DownloadTally) -> VerifyHalf:
        """A manifest's verify half.  Raises: as `manifest`."""
        return await self._taken(name, partial(open_verify_half, name, key), tally)

    async def sealed(self, name: BlobName, tally: DownloadTally) -> bytes:
        """Fetch and check a blob, and leave it closed: for those that describe themselves.

        Raises: TooFewShares, BlobInconsistent.
        """
        return await self._taken(name, lambda numbers, given: bytes(given.assemble(name, numbers)), tally)

    async def rebuild(
        self, name: BlobName, wanted: Sequence[int], target: BlobBuffers, tally: DownloadTally
    ) -> CodedShares:
        """Fetch and check k shares, and compute others into `target`, without opening the blob.

        Raises: TooFewShares, BlobInconsistent.
        """
        return await self._taken(
            name, lambda numbers, given: rebuild(name, numbers, given, wanted, target), tally
        )

    async def check_fit(self, name: BlobName, tally: DownloadTally) -> None:
        """Fetch and check k shares, and hold all others against what they must be then.

        Raises: TooFewShares; BlobInconsistent: the shares are not those of one content.
        """
        await self._taken(name, partial(check_fit, name), tally)

    async def aclose(self) -> None:
        """Break off every fetch."""
        for fetching in list(self._fetchings):
            fetching.give_up()
        while self._fetchings:
            await asyncio.wait({fetching.settled for fetching in self._fetchings})
            await asyncio.sleep(0)

    async def _taken(self, name: BlobName, opener: Opener[_T], tally: DownloadTally) -> _T:
        """What an opener makes of a blob that needs its buffers no more then."""
        taken, lease = await self._fetch(name, name.shape.length, opener, tally)
        self._leave(lease)
        return taken

    async def _found(
        self, name: BlobName, plain_bytes: int, opener: Opener[_T], tally: DownloadTally
    ) -> tuple[_T, _Lease]:
        """From the cache, or from the nodes and then into the cache."""
        cache = self._cache
        if cache is None:
            return await self._fetch(name, plain_bytes, opener, tally)
        lease = await self._lease(name, plain_bytes)
        try:
            opened = await cache.open(name, lease.buffers, opener)
        except BaseException:
            self._leave(lease)
            raise
        if opened is not None:
            tally.blobs += 1
            tally.cached += 1
            return opened, lease
        noting = Noting(opener)
        opened = await self._fetch_into(lease, name, noting, tally)
        lease.users += 1
        cache.keep(name, noting.whole, _memory_bytes(lease.kind), partial(self._leave, lease))
        return opened, lease

    async def _fetch(
        self, name: BlobName, plain_bytes: int, opener: Opener[_T], tally: DownloadTally
    ) -> tuple[_T, _Lease]:
        self._nodes.require_nodes()
        lease = await self._lease(name, plain_bytes)
        return await self._fetch_into(lease, name, opener, tally), lease

    async def _lease(self, name: BlobName, plain_bytes: int) -> _Lease:
        sealed_bytes = name.shape.length - TAG_BYTES  # as long as the plaintext, or shorter
        kind = size_class(max(plain_bytes, sealed_bytes), SEALED_BYTES_MAX)
        return _Lease(kind, await self._pool.acquire(kind))

    async def _fetch_into(
        self, lease: _Lease, name: BlobName, opener: Opener[_T], tally: DownloadTally
    ) -> _T:
        """Where it fails, the caller does not use the lease any more."""
        try:
            self._nodes.require_nodes()
            plan = self._nodes.download_plan(name.blob, name.shape.n, self._placement)
            fetching = Fetching(
                name,
                self._nodes,
                plan,
                self._kernels,
                self._clock,
                self._limits,
                lease.buffers,
                opener,
                tally,
            )
        except BaseException:
            self._leave(lease)
            raise
        lease.users += 1
        self._fetchings.add(fetching)
        fetching.settled.add_done_callback(lambda _: self._ended(fetching, lease))
        fetching.begin()
        try:
            return await asyncio.shield(fetching.done)
        except asyncio.CancelledError:
            self._leave(lease)
            fetching.give_up()
            await asyncio.wait({fetching.settled}, timeout=self._limits.cleanup_s)
            raise
        except BaseException:
            self._leave(lease)
            raise

    def _ended(self, fetching: Fetching[_T], lease: _Lease) -> None:
        self._fetchings.discard(fetching)
        self._leave(lease)

    def _leave(self, lease: _Lease) -> None:
        lease.users -= 1
        if lease.users == 0:
            self._pool.release(lease.kind, lease.buffers)


def _memory_bytes(kind: int) -> int:
    """Shares and plaintext of a blob of this size."""
    return 2 * kind
