"""A lane: everything the engine asks of one node, gathered into few requests.

Natural batching: while requests are under way, jobs pile up, and the next request takes what has piled up.
An idle node is asked at once, a busy one less often with more.  Claims wait while sends are queued or as many
are under way as may be: what they grant could not be sent yet, and more of them go in one request later.

Touched by the loop only.  Owns one task for each request under way and no other; limits are `Limits.requests`
puts and reads, and one request of every other kind.  `docs/transfer.md` section 4 has the whole picture.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from muniment.engine.jobs import (
    Answer,
    ClaimJob,
    Done,
    Failed,
    FetchJob,
    Found,
    Got,
    Job,
    LocateJob,
    ReleaseJob,
    SendJob,
    Withdrawn,
)
from muniment.engine.policy import Limits
from muniment.errors import (
    CapacityFull,
    DiskFull,
    InternalError,
    MunimentError,
    NodeDraining,
    NodeUnreachable,
    Overloaded,
    ProtocolViolation,
    QuotaFull,
    ShareCorrupt,
    ShareUnknown,
)
from muniment.ids import NodeId, id_text
from muniment.ports import Held, NodeConnection, Refused
from muniment.spec.limits import BATCH_SHARES_MAX, HAVE_BLOBS_MAX, KIB

_J = TypeVar("_J", bound=Job)
_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_SMOOTHING: Final = 0.2
"""Weight of the newest sample in the latency estimate: about the last ten count."""

_FIRST_PAUSE_S: Final = 0.05
"""Pause after a node said it is overloaded; doubles up to a second."""

_SMALL_BYTES: Final = 64 * KIB
"""Shares below this are timed apart: what a small one takes says nothing about a large one."""


class _Queue(deque[_J]):
    """Jobs of one kind at one node, and how many requests with them are under way.

    Args:
        call: makes one request of a batch.
        requests: at most so many at once.
        items: jobs in one request.
        size_bytes: share data in one request, unless one job is larger.
    """

    def __init__(
        self,
        call: Callable[[list[_J]], Coroutine[None, None, Sequence[Answer]]],
        *,
        requests: int = 1,
        items: int = BATCH_SHARES_MAX,
        size_bytes: int = 1 << 62,
    ) -> None:
        super().__init__()
        self.call = call
        self.requests = requests
        self.items = items
        self.size_bytes = size_bytes
        self.under_way = 0

    @property
    def waiting(self) -> bool:
        """Whether anything queued is still wanted."""
        while self and self[0].unwanted:
            self.popleft()
        return bool(self)

    def take(self) -> list[_J]:
        """The next batch: at least one job, within both limits otherwise."""
        batch: list[_J] = []
        total = 0
        while self.waiting and len(batch) < self.items:
            total += self[0].size_bytes
            if batch and total > self.size_bytes:
                break
            batch.append(self.popleft())
        return batch


class Lane:
    """All jobs of one node.

    Args:
        connection: the node; the lane closes it.
        limits: batch sizes and concurrency.

    Attributes:
        avoid_until_s: loop time until which the node comes after the others (it failed or was late).
        full_until_s: the same for uploads only (it has no room).
    """

    def __init__(self, connection: NodeConnection, limits: Limits) -> None:
        self.connection = connection
        self.node: NodeId = connection.node
        self.avoid_until_s = 0.0
        self.full_until_s = 0.0
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        requests = limits.requests
        self._releases = _Queue(self._release)
        self._claims = _Queue(self._reserve)
        self._sends = _Queue(self._put, requests=requests, size_bytes=limits.put_bytes)
        self._gets = _Queue(self._get, requests=requests, items=1)
        self._reads = _Queue(self._get_many, requests=requests, size_bytes=limits.get_bytes)
        self._locates = _Queue(self._have, items=HAVE_BLOBS_MAX)
        self._pump_planned = False
        self._paused_until_s = 0.0
        self._tasks: dict[asyncio.Task[Sequence[Answer]], Sequence[Job]] = {}
        self._latency_s: dict[bool, float] = {}
        self._closed = False

    # --- asking

    def claim(self, job: ClaimJob) -> None:
        """Ask for space."""
        self._add(self._claims, job)

    def send(self, job: SendJob) -> None:
        """Send a share for which space was granted, or is asked for with it."""
        self._add(self._sends, job)

    def fetch(self, job: FetchJob, *, alone: bool = False) -> None:
        """Receive a share; small ones in batches, which cannot tell a damaged share from a missing one.

        Args:
            job: which, and where to.
            alone: in a request of its own, whatever its size.
        """
        small = job.size_bytes <= self._limits.small_share_bytes
        self._add(self._reads if small and not alone else self._gets, job)

    def locate(self, job: LocateJob) -> None:
        """Ask which shares of a blob the node has."""
        self._add(self._locates, job)

    def release(self, job: ReleaseJob) -> None:
        """Give space back."""
        self._add(self._releases, job)

    def withdraw(self, job: Job) -> None:
        """Nobody wants this: drop it from the queue, or break its request off if all in it is unwanted.

        A claim or release under way is let finish: its answer says what there is to release.
        """
        if job.ended or job.unwanted:
            return
        job.unwanted = True
        for task, jobs in self._tasks.items():
            if job in jobs:
                if isinstance(job, SendJob | FetchJob) and all(one.unwanted for one in jobs):
                    task.cancel()
                return
        self._loop.call_soon(self._end, job, Withdrawn())

    def latency_s(self, *, small: bool) -> float | None:
        """What a share of this class took lately, from asking to answer; None before the first."""
        return self._latency_s.get(small)

    def avoid(self) -> None:
        """Let this node come after the others for a while."""
        self.avoid_until_s = self._loop.time() + self._limits.trouble_s

    def avoided(self, *, upload: bool) -> bool:
        """Whether the node comes after the others now."""
        now_s = self._loop.time()
        return self.avoid_until_s > now_s or (upload and self.full_until_s > now_s)

    async def aclose(self) -> None:
        """Break off what is under way, fail what is queued, close the connection."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        left = Failed(NodeUnreachable(node=self.node, reason="the client is closing"))
        queues: tuple[deque[Any], ...] = (
            self._releases,
            self._claims,
            self._sends,
            self._gets,
            self._reads,
            self._locates,
        )
        for queue in queues:
            while queue:
                self._end(queue.popleft(), left)
        await self.connection.aclose()

    # --- queues

    def _add(self, queue: _Queue[_J], job: _J) -> None:
        job.asked_s = self._loop.time()
        if self._closed:
            left = Failed(NodeUnreachable(node=self.node, reason="it left the roster"))
            self._loop.call_soon(self._end, job, left)
            return
        queue.append(job)
        self._plan_pump()

    def _plan_pump(self) -> None:
        """Start requests at the end of this turn of the loop, when all who ask now have asked."""
        if not self._pump_planned:
            self._pump_planned = True
            wait_s = self._paused_until_s - self._loop.time()
            if wait_s > 0:
                self._loop.call_later(wait_s, self._pump)
            else:
                self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_planned = False
        if self._closed:
            return
        if self._paused_until_s > self._loop.time():
            self._plan_pump()
            return
        self._start_from(self._releases)
        self._start_from(self._sends)
        if not self._sends.waiting and self._sends.under_way < self._sends.requests:
            self._start_from(self._claims)
        self._start_from(self._gets)
        self._start_from(self._reads)
        self._start_from(self._locates)

    def _start_from(self, queue: _Queue[_J]) -> None:
        while queue.under_way < queue.requests and queue.waiting:
            jobs = queue.take()
            queue.under_way += 1
            task = self._loop.create_task(queue.call(jobs))
            self._tasks[task] = jobs
            task.add_done_callback(partial(self._finished, queue, jobs))

    def _finished(self, queue: _Queue[_J], jobs: list[_J], task: asyncio.Task[Sequence[Answer]]) -> None:
        """A request has ended: give every job its answer, and see what has piled up.

        A callback and not the end of the task itself, because a task that is cancelled before its first step
        runs none of its code.
        """
        del self._tasks[task]
        queue.under_way -= 1
        answers: Sequence[Answer]
        error = None if task.cancelled() else task.exception()
        match error:
            case None if task.cancelled():
                answers = [Withdrawn()] * len(jobs)
            case None:
                answers = task.result()
            case Overloaded() if jobs[0].tries < self._limits.overload_tries and not self._closed:
                self._repeat(queue, jobs)
                answers = []
            case MunimentError():
                if not isinstance(error, ShareUnknown | ShareCorrupt):
                    self.avoid()
                answers = [Failed(error)] * len(jobs)
            case _:
                _log.error("a request to node %s ended in a bug", id_text(self.node)[:12], exc_info=error)
                answers = [Failed(InternalError(reason=repr(error)))] * len(jobs)
        for job, answer in zip(jobs, answers, strict=False):
            self._end(job, answer)
        self._plan_pump()

    def _repeat(self, queue: _Queue[_J], jobs: list[_J]) -> None:
        """The node is overloaded: pause, and ask again."""
        pause_s = min(1.0, _FIRST_PAUSE_S * 2 ** jobs[0].tries)
        self._paused_until_s = self._loop.time() + pause_s
        for job in reversed(jobs):
            job.tries += 1
            if job.unwanted:
                self._end(job, Withdrawn())
            else:
                queue.appendleft(job)

    def _end(self, job: Job, answer: Answer) -> None:
        if job.ended:
            return
        job.ended = True
        if isinstance(answer, Refused) and isinstance(
            answer.error, CapacityFull | DiskFull | QuotaFull | NodeDraining
        ):
            self.full_until_s = self._loop.time() + self._limits.trouble_s
        elif isinstance(job, SendJob | FetchJob) and isinstance(answer, Held | Got):
            self._note_latency(job)
        job.done(answer)

    def _note_latency(self, job: Job) -> None:
        small = job.size_bytes < _SMALL_BYTES
        taken_s = self._loop.time() - job.asked_s
        known_s = self._latency_s.get(small, taken_s)
        self._latency_s[small] = known_s + _SMOOTHING * (taken_s - known_s)

    # --- requests

    async def _reserve(self, jobs: list[ClaimJob]) -> Sequence[Answer]:
        outcomes = await self.connection.reserve([job.claim for job in jobs])
        return self._one_each(jobs, outcomes)

    async def _put(self, jobs: list[SendJob]) -> Sequence[Answer]:
        direct = any(job.direct for job in jobs)
        outcomes = await self.connection.put([job.upload for job in jobs], reserving=direct)
        return self._one_each(jobs, outcomes)

    async def _get(self, jobs: list[FetchJob]) -> Sequence[Answer]:
        (job,) = jobs
        await self.connection.get(job.key, job.head, job.data)
        return [Got()]

    async def _get_many(self, jobs: list[FetchJob]) -> Sequence[Answer]:
        records = self._one_each(jobs, await self.connection.get_many([job.key for job in jobs]))
        return [self._fill(job, record) for job, record in zip(jobs, records, strict=True)]

    def _fill(self, job: FetchJob, record: bytes | None) -> Answer:
        if record is None:
            return Failed(ShareUnknown(blob=job.key.blob, share=job.key.number))
        if len(record) != len(job.head) + len(job.data):
            return Failed(ProtocolViolation(node=self.node, reason=f"a share of {len(record)} bytes"))
        job.head[:] = record[: len(job.head)]
        job.data[:] = record[len(job.head) :]
        return Got()

    async def _have(self, jobs: list[LocateJob]) -> Sequence[Answer]:
        answer = await self.connection.have(list(dict.fromkeys(job.blob for job in jobs)))
        return [Found(answer.get(job.blob, frozenset())) for job in jobs]

    async def _release(self, jobs: list[ReleaseJob]) -> Sequence[Answer]:
        await self.connection.release([job.key for job in jobs])
        return [Done()] * len(jobs)

    def _one_each(self, jobs: Sequence[Job], outcomes: Sequence[_T]) -> Sequence[_T]:
        if len(outcomes) != len(jobs):
            reason = f"{len(outcomes)} outcomes for {len(jobs)} shares"
            raise ProtocolViolation(node=self.node, reason=reason)
        return outcomes
