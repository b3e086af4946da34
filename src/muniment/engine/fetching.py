"""Getting one blob from the nodes: runs the download machine on the lanes.

A `Fetching` is callbacks only; it owns no task.  Shares are received straight into the place they are opened
from.  Checking the k shares and opening the blob is one hop to a kernel thread; nothing is opened before all
k have been checked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from muniment.core.download import (
    Begin,
    Blame,
    Check,
    Checked,
    Download,
    DownloadEvent,
    Fail,
    Fetch,
    Finish,
    GiveUp,
    Late,
    Locate,
    Located,
    Lost,
    Missing,
    Received,
    Settled,
    Withdraw,
    Withdrawn,
)
from muniment.core.placement import Slot
from muniment.core.sealing import OpenBuffers
from muniment.engine import jobs
from muniment.engine.jobs import Answer, FetchJob, LocateJob
from muniment.engine.kernels import Kernels
from muniment.engine.lateness import Lateness
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits
from muniment.engine.results import DownloadTally
from muniment.errors import MunimentError, NodeLied, NodeUnreachable, ShareCorrupt, ShareUnknown
from muniment.ids import NodeId
from muniment.merkle.share_tree import check_share
from muniment.ports import Clock
from muniment.spec.blob import BlobName

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

Opener = Callable[[Sequence[int], OpenBuffers], _T]
"""What to do with k checked shares in their buffers, in a kernel thread."""


@dataclass(slots=True, eq=False)
class _Landing:
    """Where a share from one node goes.

    Attributes:
        in_place: the buffers are those of the OpenBuffers; otherwise a share of this number from another
            node has those, and this one has memory of its own.
    """

    head: memoryview
    data: memoryview
    in_place: bool


@dataclass(frozen=True, slots=True)
class _Verdict(Generic[_T]):
    """What a kernel thread found.

    Attributes:
        bad: shares that do not verify.
        opened: what the opener made of k good shares; None if there are bad ones, or too few.
        error: why k good shares do not open.
    """

    bad: tuple[tuple[Slot, str], ...]
    opened: _T | None
    error: MunimentError | None
    check_s: float
    open_s: float


class Fetching(Generic[_T]):
    """One blob on its way in.

    Args:
        name: the blob.
        nodes: the lanes.
        plan: slots to try first, and nodes to ask what they have (`Nodes.download_plan`).
        kernels: check and open.
        clock: measures them.
        limits: how patient to be.
        buffers: begun with the blob's shape by this object; in use until `settled` is done, and for what was
            opened as long as that is used.
        opener: see `Opener`.
        tally: what is counted, and who lied.

    Attributes:
        done: what the opener returned; TooFewShares, or what the opener raised.
        settled: done when nothing writes to the buffers any more.
    """

    def __init__(
        self,
        name: BlobName,
        nodes: Nodes,
        plan: tuple[Sequence[Slot], Sequence[NodeId]],
        kernels: Kernels,
        clock: Clock,
        limits: Limits,
        buffers: OpenBuffers,
        opener: Opener[_T],
        tally: DownloadTally,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._nodes = nodes
        self._machine = Download(name.blob, name.shape.k, *plan)
        self._kernels = kernels
        self._clock = clock
        self._limits = limits
        self._buffers = buffers
        self._opener = opener
        self._tally = tally
        self._jobs: dict[Slot, FetchJob] = {}
        self._landings: dict[Slot, _Landing] = {}
        self._in_place: dict[int, Slot] = {}
        self._verdict: _Verdict[_T] | None = None
        self._lateness = Lateness(name.shape.k, limits.get_patience_s, self._patience_s, self._late)
        self._begun_s = self._loop.time()
        buffers.begin(name.shape)
        self.done: asyncio.Future[_T] = self._loop.create_future()
        self.settled: asyncio.Future[None] = self._loop.create_future()

    def begin(self) -> None:
        """Start; `done` and `settled` follow."""
        self._lateness.start()
        self._feed(Begin())

    def give_up(self) -> None:
        """Break everything off; `settled` follows."""
        self._feed(GiveUp())

    # --- machine

    def _feed(self, event: DownloadEvent) -> None:
        for action in self._machine.handle(event):
            match action:
                case Fetch(slot):
                    self._fetch(slot)
                case Locate(node):
                    self._locate(node)
                case Check(slots, good):
                    work = self._kernels.start(self._check_and_open, slots, good)
                    work.add_done_callback(self._checked)
                case Blame(slot, reason):
                    self._blame(slot, reason)
                case Withdraw(slot):
                    lane = self._nodes.lane(slot.node)
                    if lane is not None:
                        lane.withdraw(self._jobs[slot])
                case Finish(slots):
                    self._finish(slots)
                case Fail(error):
                    self._fail(error)
                case Settled():
                    self._lateness.stop()
                    self.settled.set_result(None)
                    if not self.done.done():
                        self.done.cancel()

    def _fetch(self, slot: Slot) -> None:
        shape = self._name.shape
        if slot.share not in self._in_place:
            self._in_place[slot.share] = slot
            landing = _Landing(self._buffers.head(slot.share), self._buffers.data(slot.share), in_place=True)
        else:
            head, data = bytearray(shape.head_bytes), bytearray(shape.share_bytes)
            landing = _Landing(memoryview(head), memoryview(data), in_place=False)
        self._landings[slot] = landing
        key = self._name.share(slot.share)
        job = FetchJob(
            partial(self._fetched, slot), key, landing.head, landing.data, size_bytes=shape.record_bytes
        )
        self._jobs[slot] = job
        lane = self._nodes.lane(slot.node)
        if lane is not None:
            lane.fetch(job)
        else:
            self._loop.call_soon(job.done, self._left(slot.node))

    def _locate(self, node: NodeId) -> None:
        lane = self._nodes.lane(node)
        if lane is not None:
            lane.locate(LocateJob(partial(self._located, node), self._name.blob))
        else:
            self._loop.call_soon(self._located, node, self._left(node))

    def _left(self, node: NodeId) -> Answer:
        return jobs.Failed(NodeUnreachable(node=node, reason="it left the roster"))

    # --- answers

    def _fetched(self, slot: Slot, answer: Answer) -> None:
        if isinstance(answer, jobs.Got):
            self._tally.share_bytes += self._name.shape.record_bytes
            self._lateness.share_came()
            self._feed(Received(slot))
            return
        self._vacate(slot)
        match answer:
            case jobs.Withdrawn():
                self._feed(Withdrawn(slot))
            case jobs.Failed(ShareUnknown() | ShareCorrupt() as error):
                if isinstance(error, ShareCorrupt):  # an honest node: it noticed, and did not serve it
                    _log.warning("node %s found its share damaged: %s", slot.node.hex()[:12], error)
                self._feed(Missing(slot))
            case _:
                self._feed(Lost(slot))

    def _located(self, node: NodeId, answer: Answer) -> None:
        shares = answer.shares if isinstance(answer, jobs.Found) else frozenset()
        n = self._name.shape.n
        self._feed(Located(node, frozenset(share for share in shares if 0 <= share < n)))

    def _checked(self, work: asyncio.Future[tuple[_Verdict[_T], float]]) -> None:
        if work.cancelled():  # the kernels were closed under it
            self._feed(GiveUp())
            self._feed(Checked())
            return
        verdict, _ = work.result()
        self._tally.stages.check_s += verdict.check_s
        self._tally.stages.open_s += verdict.open_s
        self._verdict = verdict
        for slot, _ in verdict.bad:
            self._vacate(slot)
        self._feed(Checked(verdict.bad))

    def _vacate(self, slot: Slot) -> None:
        """Nobody writes to or reads from this share's buffers any more."""
        if self._in_place.get(slot.share) == slot:
            del self._in_place[slot.share]

    def _blame(self, slot: Slot, reason: str) -> None:
        lie = NodeLied(node=slot.node, blob=self._name.blob, share=slot.share, reason=reason)
        _log.warning("%s", lie)
        self._tally.liars[slot.node] += 1
        self._nodes.avoid([slot.node])

    # --- kernel thread

    def _check_and_open(self, fresh: Sequence[Slot], good: Sequence[Slot]) -> _Verdict[_T]:
        """In a kernel thread: hold shares against the BlobId; open the blob if all verify and are enough."""
        begun_s = self._clock.monotonic_s()
        bad = []
        for slot in fresh:
            landing = self._landings[slot]
            try:
                check_share(self._name, slot.share, landing.head, landing.data)
            except ShareCorrupt as error:
                bad.append((slot, error.reason))
        checked_s = self._clock.monotonic_s()
        opened: _T | None = None
        failure: MunimentError | None = None
        slots = sorted((*fresh, *good))
        if not bad and len(slots) == self._name.shape.k:
            try:
                opened = self._opener([slot.share for slot in slots], self._assembled(slots))
            except MunimentError as error:
                failure = error
        opened_s = self._clock.monotonic_s()
        return _Verdict(tuple(bad), opened, failure, checked_s - begun_s, opened_s - checked_s)

    def _assembled(self, slots: Sequence[Slot]) -> OpenBuffers:
        """The buffers with exactly these shares in place.

        If one of them had to be received elsewhere, its place may still be written to by the slow node that
        it was raced against: then all are copied, once, to new memory.
        """
        if all(self._landings[slot].in_place for slot in slots):
            return self._buffers
        fresh = OpenBuffers()
        fresh.begin(self._name.shape)
        for slot in slots:
            fresh.head(slot.share)[:] = self._landings[slot].head
            fresh.data(slot.share)[:] = self._landings[slot].data
        return fresh

    # --- lateness

    def _patience_s(self) -> float:
        return self._nodes.patience_s(self._name.shape.record_bytes, self._limits.get_patience_s)

    def _late(self) -> None:
        if self.done.done():
            return
        self._nodes.avoid({slot.node for slot, job in self._jobs.items() if not job.ended})
        self._lateness.start()
        self._feed(Late())

    # --- ends

    def _finish(self, slots: Sequence[Slot]) -> None:
        self._lateness.stop()
        verdict = self._verdict
        assert verdict is not None
        k = self._name.shape.k
        self._tally.blobs += 1
        self._tally.shares += k
        self._tally.decoded += any(slot.share >= k for slot in slots)
        self._tally.stages.fetch_s += self._loop.time() - self._begun_s
        if self.done.done():
            return
        if verdict.error is not None:
            self._set_error(verdict.error)
        else:
            self.done.set_result(verdict.opened)  # type: ignore[arg-type]  # _T may itself be None

    def _fail(self, error: MunimentError) -> None:
        self._lateness.stop()
        if not self.done.done():
            self._set_error(error)

    def _set_error(self, error: MunimentError) -> None:
        self.done.set_exception(error)
        self.done.exception()  # whoever waits hears it; nobody may be left to
