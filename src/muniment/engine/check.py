"""Checking a file or tree: who holds which share; asked, proven, or read and verified.

Needs a verify right only.  Blobs are taken in batches; each node is asked once for a batch.  To prove, a node
sends one leaf of every share that it says it holds, drawn by a challenge; to be read, all of it.  Both are
held against the BlobId, within a bounded amount of memory.  A node that does not answer is offline for the
rest of the check.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from muniment.core.keeping.challenge import challenged_leaf
from muniment.core.placement import Slot
from muniment.engine.buffers import BufferPool, size_class
from muniment.engine.covered import covered_blobs
from muniment.engine.fetcher import Fetcher
from muniment.engine.groups import task_group
from muniment.engine.health import BlobHealth, Health, ShareHealth, ShareState
from muniment.engine.jobs import Answer, Failed, FetchJob, Found, Got, LocateJob
from muniment.engine.kernels import Kernels
from muniment.engine.lane import Lane
from muniment.engine.nodes import Nodes
from muniment.engine.policy import PlacementName
from muniment.engine.results import DownloadTally
from muniment.errors import (
    BlobInconsistent,
    MunimentError,
    NodeUnreachable,
    ShareCorrupt,
    ShareUnknown,
    TooFewShares,
)
from muniment.ids import NodeId, ShareNumber, id_text
from muniment.merkle.share_tree import check_proof, check_share
from muniment.ports import ShareProof
from muniment.spec.blob import BlobName
from muniment.spec.cap import VerifyCap
from muniment.spec.limits import MIB, PUT_BODY_BYTES_MAX

_log = logging.getLogger(__name__)

_BATCH: Final = 256
"""Blobs asked for together."""

_VERIFY_BYTES: Final = 48 * MIB
"""Memory for shares being read to be verified."""


class Depth(enum.Enum):
    """How much a node is believed."""

    ASKED = "asked"
    """What it says it holds is held."""
    PROVEN = "proven"
    """It proves one leaf of each share."""
    READ = "read"
    """Every byte is read and verified."""


@dataclass(slots=True)
class _Target:
    """A blob to check, and what was found of it.

    Attributes:
        name: the blob.
        manifest: whether it is one.
        states: of every (share, node) that a node says it holds.
        consistent: its shares are of one content, as far as that was looked at.
        liars: nodes that sent what does not verify.
    """

    name: BlobName
    manifest: bool
    states: dict[Slot, ShareState] = field(default_factory=dict)
    consistent: bool = True
    liars: set[NodeId] = field(default_factory=set)


class Check:
    """One check.

    Args:
        nodes: who is asked.
        fetcher: reads manifests' verify halves.
        kernels: verify shares.
        placement: says where shares should be.
        depth: how much nodes are believed.
        seed: of the challenge, 32 bytes that no node could know before; for PROVEN.
        fit: whether shares are of one content is looked at too, which takes k shares of each blob once more.
        silent: nodes that are not asked, and count as offline.
    """

    def __init__(
        self,
        nodes: Nodes,
        fetcher: Fetcher,
        kernels: Kernels,
        placement: PlacementName,
        depth: Depth,
        *,
        seed: bytes = b"",
        fit: bool = False,
        silent: Set[NodeId] = frozenset(),
    ) -> None:
        self._fit = fit
        self._nodes = nodes
        self._fetcher = fetcher
        self._kernels = kernels
        self._placement = placement
        self._depth = depth
        self._seed = seed
        self._health = Health(verified=depth is Depth.READ)
        self._offline = set(silent)
        self._pool: BufferPool[int, memoryview] = BufferPool(
            _VERIFY_BYTES, lambda size: memoryview(bytearray(size)), lambda size: size
        )

    async def run(self, cap: VerifyCap) -> Health:
        """Check everything the capability covers."""
        batch: list[_Target] = []
        async for name, manifest in covered_blobs(self._fetcher, cap, self._health.unread):
            batch.append(_Target(name, manifest))
            if len(batch) == _BATCH:
                self._count(await self._check(batch))
                batch = []
        self._count(await self._check(batch))
        self._health.trim()
        return self._health

    async def blobs(self, names: Sequence[BlobName]) -> list[BlobHealth]:
        """Check these blobs; one health for each, in order."""
        found: list[BlobHealth] = []
        for start in range(0, len(names), _BATCH):
            batch = [_Target(name, manifest=False) for name in names[start : start + _BATCH]]
            found += await self._check(batch)
        return found

    @property
    def offline(self) -> frozenset[NodeId]:
        """Nodes that have not answered up to now."""
        return frozenset(self._offline)

    def _count(self, blobs: Sequence[BlobHealth]) -> None:
        for blob in blobs:
            self._health.add(blob)

    # --- asking

    async def _check(self, batch: Sequence[_Target]) -> list[BlobHealth]:
        """Find the state of every share of these blobs."""
        lanes = [lane for lane in self._nodes.lanes() if lane.node not in self._offline]
        answers = await asyncio.gather(*(self._locate(lane, batch) for lane in lanes))
        for lane, held in zip(lanes, answers, strict=True):
            if held is None:
                self._offline.add(lane.node)
                continue
            for target, shares in zip(batch, held, strict=True):
                for share in shares:
                    if 0 <= share < target.name.shape.n:
                        target.states[Slot(share, lane.node)] = ShareState.HELD
        match self._depth:
            case Depth.PROVEN:
                await asyncio.gather(*(self._prove_all(lane, batch) for lane in lanes))
            case Depth.READ:
                await self._verify_all(batch)
        if self._fit:
            await self._fit_all(batch)
        return [self._blob(target) for target in batch]

    async def _locate(self, lane: Lane, batch: Sequence[_Target]) -> list[frozenset[ShareNumber]] | None:
        """What one node says it has of each blob; None if it does not answer."""
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Answer]] = []
        for target in batch:
            answer: asyncio.Future[Answer] = loop.create_future()
            lane.locate(LocateJob(answer.set_result, target.name.blob))
            answers.append(answer)
        held = []
        for answer in answers:
            match await asyncio.shield(answer):
                case Found(shares):
                    held.append(shares)
                case _:
                    return None
        return held

    def _blob(self, target: _Target) -> BlobHealth:
        n = target.name.shape.n
        nodes: list[dict[NodeId, ShareState]] = [{} for _ in range(n)]
        for slot, state in target.states.items():
            nodes[slot.share][slot.node] = state
        for slot in self._nodes.download_plan(target.name.blob, n, self._placement)[0]:
            offline = slot.node in self._offline
            nodes[slot.share].setdefault(slot.node, ShareState.OFFLINE if offline else ShareState.MISSING)
        shares = tuple(
            ShareHealth(ShareNumber(at), tuple(sorted(found.items(), key=lambda item: item[0])))
            for at, found in enumerate(nodes)
        )
        return BlobHealth(target.name, target.manifest, shares, target.consistent, frozenset(target.liars))

    # --- fitting

    async def _fit_all(self, batch: Sequence[_Target]) -> None:
        """Put down which blobs are of more than one content; the fetcher bounds how many are read at once."""
        async with task_group() as group:
            for target in batch:
                group.create_task(self._fit_one(target))

    async def _fit_one(self, target: _Target) -> None:
        live = {slot.share for slot, state in target.states.items() if state is ShareState.HELD}
        if len(live) < target.name.shape.k:
            return
        try:
            await self._fetcher.check_fit(target.name, DownloadTally())
        except BlobInconsistent:
            target.consistent = False
        except TooFewShares:
            return  # what is missing, damaged or offline was told before

    # --- proving

    async def _prove_all(self, lane: Lane, batch: Sequence[_Target]) -> None:
        """Have one node prove a leaf of each share that it says it holds."""
        node = lane.node
        asked = [
            (
                target,
                slot,
                challenged_leaf(self._seed, target.name.share(slot.share), target.name.shape.leaf_count),
            )
            for target in batch
            for slot in target.states
            if slot.node == node
        ]
        challenges = [(target.name.share(slot.share), leaf) for target, slot, leaf in asked]
        try:
            proofs = await lane.connection.prove(challenges) if challenges else []
        except MunimentError as error:
            _log.warning("node %s does not prove what it holds: %s", id_text(node)[:12], error)
            self._offline.add(node)
            for target, slot, _ in asked:
                target.states[slot] = ShareState.OFFLINE
            return
        for (target, slot, leaf), proof in zip(asked, proofs, strict=True):
            target.states[slot] = _proven(target.name, slot, leaf, proof)
            if target.states[slot] is ShareState.DAMAGED:
                target.liars.add(node)

    # --- verifying

    async def _verify_all(self, batch: Sequence[_Target]) -> None:
        """Read every share that is said to be held, and put down what came of it."""
        async with task_group() as group:
            for target in batch:
                kind = size_class(target.name.shape.record_bytes, PUT_BODY_BYTES_MAX)
                for slot in list(target.states):
                    buffer = await self._pool.acquire(kind)
                    group.create_task(self._verify_one(target, slot, kind, buffer))

    async def _verify_one(self, target: _Target, slot: Slot, kind: int, buffer: memoryview) -> None:
        name, shape = target.name, target.name.shape
        head, data = buffer[: shape.head_bytes], buffer[shape.head_bytes : shape.record_bytes]
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        job = FetchJob(answer.set_result, name.share(slot.share), head, data, size_bytes=shape.record_bytes)
        lane = self._nodes.lane(slot.node)
        if lane is None:
            answer.set_result(Failed(NodeUnreachable(node=slot.node, reason="it left the roster")))
        else:
            lane.fetch(job, alone=True)
        try:
            heard = await asyncio.shield(answer)
            target.states[slot] = await self._state(name, slot.share, head, data, heard)
            if isinstance(heard, Got) and target.states[slot] is ShareState.DAMAGED:
                target.liars.add(slot.node)
        finally:
            if lane is not None:
                lane.withdraw(job)
            answer.add_done_callback(lambda _: self._pool.release(kind, buffer))

    async def _state(
        self, name: BlobName, share: ShareNumber, head: memoryview, data: memoryview, answer: Answer
    ) -> ShareState:
        match answer:
            case Got():
                try:
                    await self._kernels.run(check_share, name, share, head, data)
                except ShareCorrupt:
                    return ShareState.DAMAGED
                return ShareState.HELD
            case Failed(ShareCorrupt()):
                return ShareState.DAMAGED
            case Failed(ShareUnknown()):
                return ShareState.MISSING
        return ShareState.OFFLINE


def _proven(name: BlobName, slot: Slot, leaf: int, proof: ShareProof | None) -> ShareState:
    """What an answer to a challenge says of the share."""
    if proof is None:
        return ShareState.MISSING
    try:
        check_proof(name, slot.share, leaf, proof.header, proof.data, proof.path)
    except ShareCorrupt as error:
        _log.warning("node %s proves what is not so: %s", id_text(slot.node)[:12], error)
        return ShareState.DAMAGED
    return ShareState.HELD
