"""All blobs on their way out, of all operations of one grid client.

Bounds their memory, joins equal blobs that are under way at the same time, keeps those whose last shares are
finished in the background, and sees that a cancelled or failed upload leaves nothing reserved, and one that
failed for good nothing stored that it stored itself.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from muniment.core.happiness import happiness
from muniment.core.placement import Placement, Slot
from muniment.core.sealing import BlobBuffers, coding_of
from muniment.engine.buffers import BufferPool, size_class
from muniment.engine.new_shares import NewShares
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import UploadTally
from muniment.engine.sending import OutgoingShares, Sending, Sent
from muniment.erasure.codec import Coding
from muniment.errors import MunimentError, NotHappy
from muniment.ids import BlobId, NodeId, ShareKey, id_text
from muniment.spec.limits import BATCH_SHARES_MAX, SEALED_BYTES_MAX
from muniment.spec.share import BlobShape, CodecId

_Kind = tuple[Coding, int]
_log = logging.getLogger(__name__)


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
        self._fresh: weakref.WeakSet[NewShares] = weakref.WeakSet()
        self._leaving: dict[BlobId, asyncio.Future[None]] = {}

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
                sending = self._begin(sealed, buffers, plan, policy.happy, tally.fresh)
            else:
                self._uses(sealed.name.blob, tally.fresh)
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

        A node gets several where the plan says so.  Takes the buffers over in any case.  Waits for an upload
        of the same blob that is under way.
        Raises: NotHappy: some are not; what landed stays.
        """
        try:
            blob = shares.name.blob
            while (other := self._under_way(blob)) is not None or blob in self._leaving:
                await asyncio.shield(self._leaving[blob] if other is None else other.settled)
            sending = self._begin(shares, buffers, plan, happiness(plan.slots), NewShares())
        except BaseException:
            self.give_back(buffers)
            raise
        return await self._outcome(sending)

    async def take_back(self, fresh: NewShares, only: Collection[BlobId] | None = None) -> None:
        """Give up shares that an operation has newly stored and that nothing will refer to.

        Best effort, `Limits.cleanup_s` at most: what nodes do not hear of stays until its lease ends.

        Args:
            only: of these blobs; None: of all.
        """
        wanted = {blob for blob, _ in fresh if only is None or blob in only}
        ending = [self._sendings[blob] for blob in wanted if blob in self._sendings]
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leaving |= dict.fromkeys(wanted, gone)  # who wants one now waits, and stores it again
        for sending in ending:
            sending.give_up()
        try:
            async with asyncio.timeout(self._limits.cleanup_s):
                for sending in ending:
                    await asyncio.shield(sending.settled)
                by_node: defaultdict[NodeId, list[ShareKey]] = defaultdict(list)
                for blob, slots in fresh:
                    for slot in slots if blob in wanted else ():
                        by_node[slot.node].append(ShareKey(blob, slot.share))
                await asyncio.gather(*(self._trash(node, keys) for node, keys in by_node.items()))
        except TimeoutError:
            _log.warning("some shares of an upload that failed stay at their nodes until their leases end")
        finally:
            fresh.keep(wanted)
            for blob in wanted:
                del self._leaving[blob]
            gone.set_result(None)

    async def _trash(self, node: NodeId, keys: Sequence[ShareKey]) -> None:
        lane = self._nodes.lane(node)
        if lane is None:
            return
        try:
            for at in range(0, len(keys), BATCH_SHARES_MAX):
                await lane.connection.trash(keys[at : at + BATCH_SHARES_MAX])
        except MunimentError as error:
            _log.warning(
                "node %s: %d shares of an upload that failed stay until their leases end: %s",
                id_text(node)[:12], len(keys) - at, error,
            )  # fmt: skip

    def hurry(self, wait_s: float) -> None:
        """From now on wait no longer than this until nodes have heard that something ends."""
        limits = self._limits
        cleanup_s, linger_s = min(limits.cleanup_s, wait_s), min(limits.linger_s, wait_s)
        self._limits = replace(limits, cleanup_s=cleanup_s, linger_s=linger_s)

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
        blob = sealed.name.blob
        while (other := self._under_way(blob)) is not None or blob in self._leaving:
            if blob in self._leaving:
                await asyncio.shield(self._leaving[blob])
                continue
            assert other is not None
            hopeful = other.succeeded or not (other.done.done() or other.given_up)
            if hopeful and other.happy >= policy.happy:
                return other
            await asyncio.shield(other.settled)
        return None

    def _under_way(self, blob: BlobId) -> Sending | None:
        """The sending of a blob that has not settled: one that has is forgotten a turn of the loop later, and
        who waited for it until then would not let that turn come.
        """
        other = self._sendings.get(blob)
        return None if other is None or other.settled.done() else other

    def _uses(self, blob: BlobId, fresh: NewShares) -> None:
        """An operation asks for this blob: no other one may take it back any more."""
        for other in self._fresh:
            if other is not fresh:
                other.keep((blob,))
        self._fresh.add(fresh)

    def _begin(
        self, shares: OutgoingShares, buffers: SealBuffers, plan: Placement, happy: int, fresh: NewShares
    ) -> Sending:
        blob = shares.name.blob
        self._uses(blob, fresh)
        slots: list[Slot] = fresh.of(blob)
        sending = Sending(
            shares,
            plan,
            happy,
            self._nodes,
            self._limits,
            lambda: self._free(sending, buffers),
            slots,
            direct=self._is_direct(shares),
        )
        self._memory[sending] = _measure(buffers.kind)
        sending.settled.add_done_callback(partial(self._settled, blob, sending))
        self._sendings[blob] = sending
        sending.begin()
        return sending

    def _is_direct(self, shares: OutgoingShares) -> bool:
        """Nothing else is under way: to ask for space first would double the time, and share no request."""
        small = shares.name.shape.record_bytes <= self._limits.direct_bytes
        return small and all(other.done.done() for other in self._sendings.values())

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

    def _settled(self, blob: BlobId, sending: Sending, _: asyncio.Future[None]) -> None:
        if self._sendings[blob] is sending:
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
