"""Runs the jobs of a durable queue (docs/keeping.md section 11).

A job is a kind, a key, and steps that are done one after the other; jobs run beside each other.  A kind has a
handler, which does one step at a time:

    async def scan(work: Work) -> None:
        after = work.box("after", b"")                    # what the step before left, or nothing
        page = await blobs_behind(after, limit=1000)
        work.add(*(new_job("repair", id_text(one), priority=margin(one)) for one in page if weak(one)))
        work.progress(work.progress_done + len(page), total)
        if page:
            work.put("after", page[-1])
            work.repeat()                                 # this step once more, also after a restart

    async def move(work: Work) -> None:
        key, source, target = work.args
        match work.step:
            case "copy": await copy(key, source, target)
            case "verify": await verify(key, target)      # raises: it is tried again, later and later
            case "give-up": await give_up(key, source)

    worker = Worker(queue, clock=clock, chance=random.random)
    worker.register("scan", scan)
    worker.register("move", move)
    await worker.add(new_job("scan", id_text(volume)), new_job("move", name, args, steps=["copy", "verify"],
                     last=["give-up"]))
    await worker.run()                                    # for ever; or: await worker.flush()

What a step says by `put`, `then`, `repeat`, `add` and `progress` becomes true in the one transaction that
notes the step as done, and not at all if it fails.  What it does to the world is done before that: after a
crash in between it is done again, so a step must be one that may be done twice.

Several keepers may have one queue: a key says of which volume something is, and where a process does the jobs
of some volumes only, the kind does too (`repair.VOLUME`): a worker leaves alone what it has no handler for.

Concurrency: everything runs on one loop; the queue is called in threads.  A step runs as a task that `run` or
`flush` owns.  Cancelling them cancels the steps, whose jobs stay as they were; a note that is being written
is waited for.  Several workers, also in several processes, may share a queue: they do some work twice, and
only one note of each step counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, TypeVarTuple

from muniment.core.keeping.job import (
    VALUE_BYTES_MAX,
    KindCount,
    NewJob,
    NewStep,
    Outcome,
    QueuedJob,
    checked_name,
    decoded,
    encoded,
    new_step,
)
from muniment.engine.threads import wait_ended
from muniment.errors import InternalError, InvalidRequest, MunimentError, Retry
from muniment.ids import JobId
from muniment.ports import Clock, WorkQueue

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_LOOK_S: Final = 5.0
"""How long a job that another process added, or a person retried, may go unnoticed."""

_ERROR_CHARS_MAX: Final = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How a step that fails is tried again: pauses double from `first_s` to `longest_s`.

    Each is cut by up to half at random, so that what failed together does not come back together.  An error
    whose `retry` is NEVER ends the tries at once.

    Attributes:
        tries: at most; then the job is set aside.  10 take about three quarters of an hour.
    """

    tries: int = 10
    first_s: float = 5.0
    longest_s: float = 3600.0

    def pause_s(self, failures: int, chance: float) -> float:
        """The pause after so many failures in a row, 1 or more; `chance` lies in [0, 1)."""
        doubled = self.first_s * 2.0 ** min(failures - 1, 64)
        return min(self.longest_s, doubled) * (1 - chance / 2)


class Work:
    """One step of a job, as its handler sees it; what is asked for takes effect when the step went well.

    Attributes:
        job: as it was when the step began.
    """

    def __init__(self, job: QueuedJob, clock: Clock) -> None:
        self.job = job
        self._clock = clock
        self._boxes: dict[str, bytes | None] = {}
        self._steps: list[NewStep] = []
        self._jobs: list[NewJob] = []
        self._again = False
        self._due_s = 0.0
        self._progress = (job.done, job.total)

    @property
    def kind(self) -> str:
        """The job's kind."""
        return self.job.kind

    @property
    def key(self) -> str:
        """The job's key."""
        return self.job.key

    @property
    def step(self) -> str:
        """The step's name."""
        return self.job.step.name

    @property
    def args(self) -> Any:
        """The job's arguments: integers, bytes, text, None and lists of these."""
        return decoded(self.job.args)

    @property
    def step_args(self) -> Any:
        """The step's own."""
        return decoded(self.job.step.args)

    @property
    def progress_done(self) -> int:
        """How far the job is, as `progress` told."""
        return self._progress[0]

    def box(self, name: str, default: object = None) -> Any:
        """The value that an earlier step, or this one, has put under a name; boxes end with their job."""
        data = self._boxes[name] if name in self._boxes else self.job.boxes.get(name)
        return default if data is None else decoded(data)

    def put(self, name: str, value: object) -> None:
        """Keep a value for later steps of this job.

        Raises: InvalidRequest: no value (`core.keeping.job`), or more than VALUE_BYTES_MAX in all boxes.
        """
        data = encoded(value)
        kept = {**self.job.boxes, **self._boxes, checked_name(name): data}
        if sum(map(len, filter(None, kept.values()))) > VALUE_BYTES_MAX:
            raise InvalidRequest(reason=f"the boxes of a job have at most {VALUE_BYTES_MAX} bytes in all")
        self._boxes[name] = data

    def remove(self, name: str) -> None:
        """Take a box away."""
        self._boxes[name] = None

    def then(self, name: str, args: object = None, *, last: bool = False) -> None:
        """Add a step behind those that the job has; behind all those that are not `last`, if it is."""
        self._steps.append(new_step(name, args, last=last))

    def repeat(self, *, after_s: float = 0.0) -> None:
        """Do this step once more before all others, so many seconds from now."""
        self._again = True
        if after_s:
            self.wait(after_s)

    def wait(self, after_s: float) -> None:
        """Do the next step of this job so many seconds from now."""
        self._due_s = self._clock.now_s() + after_s if after_s > 0 else 0.0

    def add(self, *jobs: NewJob) -> None:
        """Add jobs; see `Worker.add`.  One equal to this one is a new job if this step is its last."""
        self._jobs += jobs

    def progress(self, done: int, total: int = 0) -> None:
        """Tell how far the job is, in any unit; total 0: not known."""
        self._progress = (done, total)

    def outcome(self) -> Outcome:
        """What the queue is told."""
        return Outcome(
            self._again, tuple(self._steps), dict(self._boxes), tuple(self._jobs), self._progress, self._due_s
        )


Handler = Callable[[Work], Awaitable[None]]
"""Does the step that `work` names, in a way that may be done twice; raises if it could not."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How the work stands.

    Attributes:
        under_way: jobs of which a step runs now.
        kinds: what is in the queue.
        unknown: those of `kinds` that have no handler here; another process or a later version may have one.
    """

    under_way: int
    kinds: Mapping[str, KindCount]
    unknown: tuple[str, ...]


class Worker:
    """Does the jobs of one queue; see the module.

    Args:
        queue: stays the caller's to close, after `run` has ended.
        chance: numbers in [0, 1), for pauses.
        parallel: at most so many steps at a time, each of another job.
    """

    def __init__(
        self, queue: WorkQueue, *, clock: Clock, chance: Callable[[], float], parallel: int = 8
    ) -> None:
        self._queue, self._clock, self._chance, self._parallel = queue, clock, chance, parallel
        self._handlers: dict[str, tuple[Handler, Patience]] = {}
        self._busy: dict[JobId, asyncio.Task[None]] = {}
        self._added = asyncio.Event()

    def register(self, kind: str, handler: Handler, patience: Patience | None = None) -> None:
        """Have jobs of a kind done; before `run`.  Raises: InvalidRequest: no name, or a second handler."""
        if checked_name(kind) in self._handlers:
            raise InvalidRequest(reason=f"there are two handlers for jobs of kind {kind!r}")
        self._handlers[kind] = (handler, patience or Patience())

    async def add(self, *jobs: NewJob) -> list[JobId]:
        """Add jobs, durably; one whose kind and key are in the queue is that job (`WorkQueue.add`).

        Raises: DiskFull, StoreFailed.
        """
        ids = await _threaded(self._queue.add, jobs, self._clock.now_s())
        self._added.set()
        return ids

    async def run(self) -> None:
        """Work until cancelled.

        Raises: DiskFull, StoreFailed: the queue's own medium failed.  No job is lost by that.
        """
        status = await self.status()
        for kind in status.unknown:
            count = status.kinds[kind]
            _log.warning(
                "%d jobs of kind '%s' are left alone, as nothing in this process does them; "
                "'muni queue list' shows them",
                count.waiting + count.aside,
                kind,
            )
        await self._work(None)

    async def flush(self, *, within_s: float = 0.0) -> None:
        """Work until nothing is due, nor will be within so many seconds from the beginning.

        Raises: as `run`.
        """
        await self._work(self._clock.now_s() + within_s)

    async def status(self) -> WorkerStatus:
        """How the work stands.  Raises: StoreFailed."""
        kinds = await _threaded(self._queue.counts)
        return WorkerStatus(
            len(self._busy), kinds, tuple(kind for kind in kinds if kind not in self._handlers)
        )

    async def _work(self, end_s: float | None) -> None:
        if self._busy:
            raise InternalError(reason="a worker runs once at a time")
        try:
            while True:
                self._added.clear()
                next_due_s = await self._begin_ready()
                if not self._busy and end_s is not None and (next_due_s is None or next_due_s > end_s):
                    return
                await self._wait(next_due_s)
                for job, task in list(self._busy.items()):
                    if task.done():
                        del self._busy[job]
                        task.result()  # fails with the queue, not with the step
        finally:
            for task in self._busy.values():
                task.cancel()
            for task in self._busy.values():
                await wait_ended(task)
            self._busy.clear()

    async def _begin_ready(self) -> float | None:
        """Begin what may begin; returns when the next job is due."""
        free = self._parallel - len(self._busy)
        if not free:
            return None
        kinds, busy, now_s = tuple(self._handlers), tuple(self._busy), self._clock.now_s()
        ready = await _threaded(lambda: self._queue.ready(now_s, kinds, without=busy, limit=free))
        for job in ready.jobs:
            name = f"{job.kind} {job.key}"
            self._busy[job.id] = asyncio.create_task(self._do(job), name=name)
        return ready.next_due_s

    async def _wait(self, next_due_s: float | None) -> None:
        """Until a step has ended, a job was added, one becomes due, or it is time to look."""
        pause_s = _LOOK_S
        if next_due_s is not None:
            pause_s = min(pause_s, max(0.0, next_due_s - self._clock.now_s()))
        added = asyncio.create_task(self._added.wait())
        try:
            waits = {added, *self._busy.values()}
            await asyncio.wait(waits, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            added.cancel()

    async def _do(self, job: QueuedJob) -> None:
        """One step, and its note."""
        handler = self._handlers[job.kind][0]
        work = Work(job, self._clock)
        try:
            await handler(work)
        except MunimentError as error:
            await self._note_failure(job, error, hopeless=error.retry is Retry.NEVER)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # A bug must not end the work of others; and it may be one that does not always show.
            _log.exception("a step of job %d (%s %s) has a bug", job.id, job.kind, job.key)
            bug = InternalError(reason=f"{type(error).__name__} in step '{job.step.name}'; the log has more")
            await self._note_failure(job, bug, hopeless=False)
        else:
            if not await _threaded(self._queue.done, job, work.outcome(), self._clock.now_s()):
                _log.info("job %d (%s %s) was dropped, or done by others", job.id, job.kind, job.key)

    async def _note_failure(self, job: QueuedJob, error: MunimentError, *, hopeless: bool) -> None:
        patience, failures, due_s = self._handlers[job.kind][1], job.tries + 1, None
        if not hopeless and failures < patience.tries:
            due_s = self._clock.now_s() + patience.pause_s(failures, self._chance())
        text = f"{error.code}: {error}"[:_ERROR_CHARS_MAX]
        level, fate = (logging.WARNING, "set aside") if due_s is None else (logging.INFO, "tried again later")
        _log.log(
            level, "job %d (%s %s) failed in step '%s' and is %s: %s",
            job.id, job.kind, job.key, job.step.name, fate, text,
        )  # fmt: skip
        await _threaded(lambda: self._queue.failed(job, text, due_s=due_s))


async def _threaded(work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
    """Call the queue in a thread; if cancelled, when the call has ended, so that the queue may be closed."""
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await wait_ended(future)
        raise
