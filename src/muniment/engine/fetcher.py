"""All blobs on their way in, of all operations of one grid client: bounds their memory, opens them.

`Fetcher.open` gives the plaintext in a buffer that the caller must give back; manifests are decoded and their
buffers given back at once.
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
    open_blob,
    open_manifest,
    open_verify_half,
)
from muniment.crypto.cipher import TAG_BYTES
from muniment.engine.buffers import BufferPool, size_class
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
    """Buffers in use by a fetch, and by whoever reads what it opened; given back by the last of the two."""

    kind: int
    buffers: OpenBuffers
    users: int = 2


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
    """

    def __init__(
        self, nodes: Nodes, kernels: Kernels, clock: Clock, limits: Limits, placement: PlacementName
    ) -> None:
        self._nodes = nodes
        self._kernels = kernels
        self._clock = clock
        self._limits = limits
        self._placement = placement
        self._fetchings: set[Fetching[Any]] = set()
        self._pool: BufferPool[int, OpenBuffers] = BufferPool(
            limits.open_bytes, lambda _: OpenBuffers(), lambda kind: 2 * kind
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
        return Opened(*await self._fetch(ref.name, ref.plain_bytes, partial(open_blob, ref), tally))

    def give_back(self, opened: Opened) -> None:
        """The plaintext is used."""
        self._leave(opened.lease)

    async def manifest(self, ref: BlobRef, tally: DownloadTally) -> Manifest:
        """Both halves of a manifest.  Raises: TooFewShares, BlobCorrupt, MalformedRecord, UnknownVersion."""
        return await self._taken(ref.name, partial(open_manifest, ref), tally)

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

    async def _fetch(
        self, name: BlobName, plain_bytes: int, opener: Opener[_T], tally: DownloadTally
    ) -> tuple[_T, _Lease]:
        self._nodes.require_nodes()
        sealed_bytes = name.shape.length - TAG_BYTES  # as long as the plaintext, or shorter
        kind = size_class(max(plain_bytes, sealed_bytes), SEALED_BYTES_MAX)
        lease = _Lease(kind, await self._pool.acquire(kind))
        plan = self._nodes.download_plan(name.blob, name.shape.n, self._placement)
        fetching = Fetching(
            name, self._nodes, plan, self._kernels, self._clock, self._limits, lease.buffers, opener, tally
        )
        self._fetchings.add(fetching)
        fetching.settled.add_done_callback(lambda _: self._ended(fetching, lease))
        fetching.begin()
        try:
            return await asyncio.shield(fetching.done), lease
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
