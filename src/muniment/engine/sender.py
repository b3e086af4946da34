"""All blobs on their way out, of all operations of one grid client.

Bounds their memory, joins equal blobs that are under way at the same time, keeps those whose last shares are
finished in the background, and sees that a cancelled or failed upload leaves nothing reserved.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from muniment.core.placement import Placement
from muniment.core.sealing import BlobBuffers, coding_of
from muniment.engine.buffers import BufferPool, size_class
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import UploadTally
from muniment.engine.sending import OutgoingShares, Sending, Sent
from muniment.erasure.codec import Coding
from muniment.errors import NotHappy
from muniment.ids import BlobId
from muniment.spec.limits import SEALED_BYTES_MAX
from muniment.spec.share import BlobShape, CodecId

_Kind = tuple[Coding, int]


@dataclass(slots=True)
class SealBuffers:
    """Buffers for one blob; given back once, to the pool they came from.

    Attributes:
        kind: coding and plaintext bytes they are meant for.
        blob: the memory.
    """

    kind: _Kind
    blob: BlobBuffers


class Sender:
    """See the module.

    Args:
        nodes: where blobs go.
        limits: memory, patience and times.
    """

    def __init__(self, nodes: Nodes, limits: Limits) -> None:
        self._nodes = nodes
        self._limits = limits
        self._pool: BufferPool[_Kind, BlobBuffers] = BufferPool(
            limits.share_bytes, _make, _measure, self._make_room
        )
        self._sendings: dict[BlobId, Sending] = {}
        self._memory: dict[Sending, int] = {}
        self._background: dict[Sending, int] = {}

    @property
    def pool(self) -> BufferPool[_Kind, BlobBuffers]:
        """The memory of all blobs on their way; `buffers` and `send` take from it and give back to it."""
        return self._pool

    async def buffers(self, policy: Policy, plain_bytes: int) -> SealBuffers:
        """Room to seal `plain_bytes` into; waits until earlier blobs have left enough."""
        kind = (policy.coding, size_class(plain_bytes, policy.chunk_bytes))
        return SealBuffers(kind, await self._pool.acquire(kind))

    async def buffers_for(self, shape: BlobShape) -> SealBuffers:
        """Room for the shares of a blob of this shape; waits likewise."""
        kind = (coding_of(shape), size_class(shape.length, SEALED_BYTES_MAX))
        return SealBuffers(kind, await self._pool.acquire(kind))

    def buffers_nowait(self, policy: Policy, plain_bytes: int) -> SealBuffers | None:
        """As `buffers`, or None if that would wait: for those who hold some already."""
        kind = (policy.coding, size_class(plain_bytes, policy.chunk_bytes))
        blob = self._pool.acquire_nowait(kind)
        return None if blob is None else SealBuffers(kind, blob)

    def give_back(self, buffers: SealBuffers) -> None:
        """Buffers that were not handed to `send`, or that nothing sends from any more."""
        self._pool.release(buffers.kind, buffers.blob)

    async def send(
        self, sealed: OutgoingShares, buffers: SealBuffers, policy: Policy, tally: UploadTally
    ) -> None:
        """Bring a sealed blob to the nodes; it is durable on `policy.happy` of them on return.

        Takes the buffers over in any case.  Cancelled or failed, it returns when everything it reserved is
        released, at the latest after `Limits.cleanup_s`.

        Raises: NotHappy: too few nodes take a share; InvalidCoding: the grid does not fit the placement.
        """
        try:
            sending = await self._joined(sealed, policy)
            joined = sending is not None
            if sending is None:
                name = sealed.name
                plan = self._nodes.upload_plan(name.blob, name.shape.n, policy.placement)
                sending = self._begin(sealed, buffers, plan, policy.happy)
        except BaseException:
            self.give_back(buffers)
            raise
        if joined:
            self.give_back(buffers)
        sent = await self._outcome(sending)
        tally.placed = sent.nodes if tally.placed is None else min(tally.placed, sent.nodes)
        tally.blobs += 1
        tally.missing += sent.missing
        if not joined:
            tally.new_bytes += sent.new_bytes
            tally.present_bytes += sent.present_bytes
            tally.stages.reserve_s += sent.reserve_s
            tally.stages.send_s += sent.send_s

    async def bring(self, shares: OutgoingShares, buffers: SealBuffers, plan: Placement) -> Sent:
        """Bring the shares of a plan to its nodes, or to its spares; all are durable on return.

        Takes the buffers over in any case.  Waits for an upload of the same blob that is under way.
        Raises: NotHappy: some are not; what landed stays.
        """
        try:
            while (other := self._sendings.get(shares.name.blob)) is not None:
                await asyncio.shield(other.settled)
            sending = self._begin(shares, buffers, plan, len(plan.slots))
        except BaseException:
            self.give_back(buffers)
            raise
        return await self._outcome(sending)

    async def aclose(self) -> None:
        """Let the background finish for `linger_s`, then release everything; nothing is left after it."""
        await self._wait_settled(self._limits.linger_s)
        for sending in list(self._sendings.values()):
            sending.give_up()
        await self._wait_settled(self._limits.cleanup_s)

    # --- one blob

    async def _joined(self, sealed: OutgoingShares, policy: Policy) -> Sending | None:
        """The same blob under way already, on terms that satisfy this policy; waits for one that is ending.

        Two uploads of one blob at once would release each other's reservations.
        """
        while (other := self._sendings.get(sealed.name.blob)) is not None:
            hopeful = other.succeeded or not (other.done.done() or other.given_up)
            if hopeful and other.happy >= policy.happy:
                return other
            await asyncio.shield(other.settled)
        return None

    def _begin(self, shares: OutgoingShares, buffers: SealBuffers, plan: Placement, happy: int) -> Sending:
        blob = shares.name.blob
        sending = Sending(
            shares, plan, happy, self._nodes, self._limits, lambda: self._free(sending, buffers)
        )
        self._memory[sending] = _measure(buffers.kind)
        sending.settled.add_done_callback(partial(self._settled, blob))
        self._sendings[blob] = sending
        sending.begin()
        return sending

    async def _outcome(self, sending: Sending) -> Sent:
        sending.waiters += 1
        try:
            sent = await asyncio.shield(sending.done)
        except asyncio.CancelledError:
            if sending.waiters == 1 and not sending.succeeded:
                sending.give_up()
                await self._settle(sending)
            raise
        except NotHappy:
            await self._settle(sending)
            raise
        finally:
            sending.waiters -= 1
        if not sending.freed and sending not in self._background:
            self._background[sending] = self._memory[sending]
            self._make_room()
        return sent

    async def _settle(self, sending: Sending) -> None:
        """Wait until everything is released, through cancellations, but not for ever."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._limits.cleanup_s
        cancelled = False
        while not sending.settled.done() and loop.time() < end_s:
            try:
                await asyncio.wait({sending.settled}, timeout=end_s - loop.time())
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _wait_settled(self, timeout_s: float) -> None:
        settled = {sending.settled for sending in self._sendings.values()}
        if settled:
            await asyncio.wait(settled, timeout=timeout_s)

    def _settled(self, blob: BlobId, _: asyncio.Future[None]) -> None:
        del self._sendings[blob]

    def _free(self, sending: Sending, buffers: SealBuffers) -> None:
        del self._memory[sending]
        self._background.pop(sending, None)
        self.give_back(buffers)

    def _make_room(self) -> None:
        """Give up the oldest blobs in the background while they keep new ones from starting.

        They are happy already; a quarter of the memory is theirs, so that one slow node neither stops the
        upload nor loses all its shares.  But if no blob is left that will give memory back by itself, all
        are given up: one that was given up may still be held by a request that it shares with one that was
        not.
        """
        while self._pool.contended and self._background:
            idle_bytes = sum(size for one, size in self._memory.items() if one.succeeded or one.given_up)
            few = sum(self._background.values()) <= self._limits.share_bytes // 4
            if few and idle_bytes < self._pool.used_bytes:
                return
            sending = next(iter(self._background))
            del self._background[sending]
            sending.give_up()


def _make(kind: _Kind) -> BlobBuffers:
    return BlobBuffers(*kind)


def _measure(kind: _Kind) -> int:
    """Memory of BlobBuffers: all n shares, but one for all copies of a replicated blob."""
    coding, plain_bytes = kind
    return plain_bytes if coding.codec is CodecId.REP else plain_bytes * coding.n // coding.k
