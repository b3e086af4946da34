"""The worker over a queue in memory, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from muniment.core.keeping.job import KindCount, NewJob, Outcome, QueuedJob, new_job
from muniment.engine.keeping.work import Handler, Patience, Work, Worker
from muniment.errors import (
    DiskFull,
    InternalError,
    InvalidRequest,
    NodeUnreachable,
    NotCapable,
)
from muniment.queues.memory import MemoryQueue
from muniment.testing.virtual_time import LoopClock, run_virtual

DOWN = NodeUnreachable(node=bytes(32), reason="down")


def worker_of(queue: MemoryQueue, *, parallel: int = 8, chance: Callable[[], float] = lambda: 0.0) -> Worker:
    """One in the running loop's time."""
    clock = LoopClock(asyncio.get_running_loop())
    return Worker(queue, clock=clock, chance=chance, parallel=parallel)


class Log:
    """A handler that remembers what it did, and when."""

    def __init__(self, does: Callable[[Work], Awaitable[None]] | None = None) -> None:
        self.does = does
        self.steps: list[tuple[str, str]] = []
        self.times: list[float] = []

    async def __call__(self, work: Work) -> None:
        self.steps.append((work.key, work.step))
        self.times.append(asyncio.get_running_loop().time())
        if self.does is not None:
            await self.does(work)


def flushed(handler: Handler, *jobs: NewJob, within_s: float = 0.0, parallel: int = 8) -> MemoryQueue:
    """Do jobs of kind `a` until nothing is due; returns what is left."""
    queue = MemoryQueue()

    async def main() -> None:
        worker = worker_of(queue, parallel=parallel)
        worker.register("a", handler)
        await worker.add(*jobs)
        await worker.flush(within_s=within_s)

    run_virtual(main())
    return queue


def left(queue: MemoryQueue) -> list[QueuedJob]:
    return list(queue.jobs(limit=1000))


# --- order ----------------------------------------------------------------------------------------


def test_the_steps_of_a_job_are_done_in_order() -> None:
    log = Log()
    queue = flushed(log, new_job("a", "x", steps=["one", "two"], last=["end"]))
    assert log.steps == [("x", "one"), ("x", "two"), ("x", "end")]
    assert left(queue) == []


def test_jobs_run_beside_each_other_up_to_a_bound_and_one_step_of_each() -> None:
    running: list[str] = []
    most = 0

    async def step(work: Work) -> None:
        nonlocal most
        assert work.key not in running
        running.append(work.key)
        most = max(most, len(running))
        await asyncio.sleep(1)
        running.remove(work.key)

    log = Log(step)
    flushed(log, *(new_job("a", str(at), steps=["one", "two"]) for at in range(9)), parallel=3)
    assert most == 3
    assert len(log.steps) == 18
    assert max(log.times) == 5
    for at in range(9):
        assert [step for key, step in log.steps if key == str(at)] == ["one", "two"]


def test_the_most_urgent_go_first_also_between_the_steps_of_others() -> None:
    async def step(work: Work) -> None:
        if (work.key, work.step) == ("scrub", "one"):
            work.add(new_job("a", "repair", priority=1))

    log = Log(step)
    scrub = new_job("a", "scrub", steps=["one", "two"], priority=9)
    flushed(log, scrub, new_job("a", "other", priority=10), parallel=1)
    assert [key for key, _ in log.steps] == ["scrub", "repair", "scrub", "other"]


def test_equal_jobs_are_done_once() -> None:
    log = Log()
    flushed(log, new_job("a", "x"), new_job("a", "x"), new_job("a", "y"))
    assert sorted(log.steps) == [("x", "run"), ("y", "run")]


# --- what steps say -------------------------------------------------------------------------------


def test_a_step_leaves_boxes_for_the_next_and_adds_steps_and_jobs() -> None:
    seen: list[object] = []

    async def step(work: Work) -> None:
        match work.step:
            case "run":
                assert work.args == ["args", 1]
                assert work.box("page", b"none") == b"none"
                work.put("page", [1, b"two"])
                assert work.box("page") == [1, b"two"]
                work.put("gone", 1)
                work.then("more", [5])
                work.then("clean", last=True)
                work.add(new_job("a", "found"))
            case "more":
                seen.extend([work.step_args, work.box("page"), work.box("gone")])
                work.remove("gone")
                assert work.box("gone", "default") == "default"
            case "clean":
                seen.append(work.box("gone"))

    async def both(work: Work) -> None:
        if work.key == "x":
            await step(work)

    log = Log(both)
    assert left(flushed(log, new_job("a", "x", ["args", 1]))) == []
    assert seen == [[5], [1, b"two"], 1, None]
    assert set(log.steps) == {("x", "run"), ("x", "more"), ("x", "clean"), ("found", "run")}


def test_a_step_that_repeats_goes_on_from_its_box_and_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []

    async def page(work: Work) -> None:
        told.append((work.job.done, work.job.total))
        at = work.box("at", 0)
        if at < 4:
            work.put("at", at + 1)
            work.progress(work.progress_done + 10, 40)
            work.repeat(after_s=5)

    log = Log(page)
    assert left(flushed(log, new_job("a", "x"), within_s=100)) == []
    assert told == [(0, 0), (10, 40), (20, 40), (30, 40), (40, 40)]
    assert log.times == [0, 5, 10, 15, 20]


def test_a_step_that_fails_says_nothing() -> None:
    async def step(work: Work) -> None:
        work.put("box", 1)
        work.then("more")
        work.add(new_job("a", "other"))
        work.progress(5, 5)
        raise DOWN

    (job,) = left(flushed(step, new_job("a", "x")))
    assert (job.boxes, job.steps_left, job.done, job.tries) == ({}, 1, 0, 1)


def test_a_job_that_adds_itself_is_done_every_hour() -> None:
    async def hourly(work: Work) -> None:
        work.add(new_job("a", "x", due_s=clock_s() + 3600))

    def clock_s() -> float:
        return LoopClock(asyncio.get_running_loop()).now_s()

    log = Log(hourly)
    queue = flushed(log, new_job("a", "x"), within_s=2 * 3600)
    assert log.times == [0, 3600, 7200]
    assert len(left(queue)) == 1


def test_a_job_cannot_carry_data() -> None:
    async def step(work: Work) -> None:
        work.put("one", b"x" * 40_000)
        with pytest.raises(InvalidRequest):
            work.put("two", b"x" * 40_000)
        work.remove("one")
        work.put("two", b"x" * 40_000)
        with pytest.raises(InvalidRequest):
            work.put("Bad Name", 1)
        with pytest.raises(InvalidRequest):
            work.then("step", 1.5)

    assert left(flushed(step, new_job("a", "x"))) == []


# --- failures -------------------------------------------------------------------------------------


def test_a_failed_step_is_tried_again_with_growing_pauses_and_then_set_aside() -> None:
    async def step(work: Work) -> None:
        if work.step == "two":
            raise DOWN

    log = Log(step)
    (job,) = left(flushed(log, new_job("a", "x", steps=["one", "two", "three"]), within_s=10_000))
    assert log.steps == [("x", "one")] + [("x", "two")] * 10
    pauses = [after - before for before, after in zip(log.times[1:], log.times[2:], strict=False)]
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1280]
    assert (job.aside, job.tries, job.step.name, job.steps_left) == (True, 10, "two", 2)
    assert job.error == f"node-unreachable: {DOWN}"


def test_pauses_are_bounded_and_differ() -> None:
    patience = Patience(tries=100, first_s=1, longest_s=60)
    assert [patience.pause_s(at, 0.0) for at in (1, 2, 3, 6, 7, 8, 5000)] == [1, 2, 4, 32, 60, 60, 60]
    chance = random.Random(1)
    pauses = [patience.pause_s(7, chance.random()) for _ in range(100)]
    assert 30 < min(pauses) < 31
    assert 59 < max(pauses) <= 60
    assert len(set(pauses)) == 100


def test_a_step_that_goes_well_at_last_starts_the_next_with_all_tries() -> None:
    fails = iter([True, True, False, True, False])

    async def step(work: Work) -> None:
        if next(fails):
            raise DOWN

    log = Log(step)
    assert left(flushed(log, new_job("a", "x", steps=["one", "two"]), within_s=1000)) == []
    assert log.times == [0, 5, 15, 15, 20]


def test_what_can_never_succeed_is_set_aside_at_once() -> None:
    async def step(work: Work) -> None:
        raise NotCapable(needed="read", given="verify")

    log = Log(step)
    (job,) = left(flushed(log, new_job("a", "x"), within_s=1000))
    assert (job.aside, job.tries, log.times) == (True, 1, [0])
    assert job.error.startswith("not-capable: ")


@pytest.mark.parametrize("bug", [ZeroDivisionError("a secret"), asyncio.CancelledError("not by us")])
def test_a_bug_in_a_handler_costs_its_own_job_only(
    bug: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def step(work: Work) -> None:
        if work.key == "bad":
            raise bug

    log = Log(step)
    (job,) = left(flushed(log, new_job("a", "bad"), new_job("a", "good")))
    assert set(log.steps) == {("bad", "run"), ("good", "run")}
    assert (job.key, job.tries, job.aside) == ("bad", 1, False)
    assert job.error == f"internal-error: bug: {type(bug).__name__} in step 'run'; the log has more"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_arguments_that_cannot_be_read_set_a_job_aside() -> None:
    async def step(work: Work) -> None:
        assert work.args

    new = new_job("a", "x")
    (job,) = left(flushed(step, NewJob("a", "x", b"\xff", new.steps)))
    assert job.aside
    assert job.error.startswith("malformed-record")


def test_failing_jobs_do_not_hold_up_others() -> None:
    async def step(work: Work) -> None:
        if work.key.startswith("bad"):
            raise DOWN

    log = Log(step)
    jobs = [new_job("a", f"bad{at}") for at in range(5)] + [new_job("a", "good", priority=9)]
    flushed(log, *jobs, parallel=2)
    assert log.steps[-1] == ("good", "run")
    assert len(log.steps) == 6


# --- running --------------------------------------------------------------------------------------


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """`worker.run` as a task, cancelled at the end."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def in_virtual_time(test: Callable[[], Coroutine[object, object, None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtual(test())

    run.__name__ = test.__name__
    return run


@in_virtual_time
async def test_a_job_that_is_added_is_begun_at_once() -> None:
    worker, log = worker_of(MemoryQueue()), Log()
    worker.register("a", log)
    async with running(worker):
        await asyncio.sleep(100.5)
        await worker.add(new_job("a", "x"))
        await asyncio.sleep(0.5)
    assert log.times == [100.5]


@in_virtual_time
async def test_a_job_that_another_process_adds_or_retries_is_found_soon() -> None:
    queue = MemoryQueue()
    worker, log = worker_of(queue), Log()
    worker.register("a", log)
    async with running(worker):
        await asyncio.sleep(101)
        queue.add([new_job("a", "x")], 0)
        await asyncio.sleep(6)
    assert len(log.times) == 1
    assert 101 <= log.times[0] <= 106


@in_virtual_time
async def test_a_job_that_is_cancelled_stays_as_it_was() -> None:
    queue = MemoryQueue()
    worker = worker_of(queue)
    begun = asyncio.Event()
    cleaned = []

    async def step(work: Work) -> None:
        work.put("box", 1)
        begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            cleaned.append(work.key)

    worker.register("a", step)
    await worker.add(new_job("a", "x"), new_job("a", "y"))
    before = left(queue)
    async with running(worker):
        await begun.wait()
        assert (await worker.status()).under_way == 2
    assert left(queue) == before
    assert sorted(cleaned) == ["x", "y"]
    assert (await worker.status()).under_way == 0


@in_virtual_time
async def test_a_note_that_is_being_written_is_waited_for() -> None:
    class SlowQueue(MemoryQueue):
        def done(self, job: QueuedJob, outcome: Outcome, now_s: float) -> bool:
            asyncio.run_coroutine_threadsafe(stop(), loop).result()
            return super().done(job, outcome, now_s)

    async def stop() -> None:
        task.cancel()
        for _ in range(50):  # all that a worker that did not wait would need to end
            await asyncio.sleep(0)
        assert not task.done()

    async def step(work: Work) -> None:
        pass

    loop, queue = asyncio.get_running_loop(), SlowQueue()
    worker = worker_of(queue)
    worker.register("a", step)
    await worker.add(new_job("a", "x", steps=["one", "two"]))
    task = asyncio.create_task(worker.run())
    await asyncio.wait({task})
    assert task.cancelled()
    assert [job.step.name for job in left(queue)] == ["two"]


@in_virtual_time
async def test_the_worker_ends_with_the_queue_and_loses_nothing() -> None:
    class FullQueue(MemoryQueue):
        full = True

        def done(self, job: QueuedJob, outcome: Outcome, now_s: float) -> bool:
            if self.full and job.key == "x":
                raise DiskFull(where="queue")
            return super().done(job, outcome, now_s)

    async def step(work: Work) -> None:
        if work.key == "y":
            await asyncio.sleep(100)

    queue = FullQueue()
    worker = worker_of(queue)
    worker.register("a", step)
    await worker.add(new_job("a", "x"), new_job("a", "y"))
    with pytest.raises(DiskFull):
        await worker.run()
    assert [job.key for job in left(queue)] == ["x", "y"]
    queue.full = False
    await worker.flush()
    assert left(queue) == []


@in_virtual_time
async def test_a_job_that_is_dropped_under_way_is_not_missed() -> None:
    queue = MemoryQueue()
    worker = worker_of(queue)

    async def step(work: Work) -> None:
        await asyncio.sleep(1)
        work.add(new_job("a", "child"))

    worker.register("a", step)
    (job,) = await worker.add(new_job("a", "x"))
    async with running(worker):
        await asyncio.sleep(0.5)
        queue.drop(job)
        await asyncio.sleep(10)
    assert left(queue) == []


@in_virtual_time
async def test_two_workers_share_a_queue() -> None:
    queue, log = MemoryQueue(), Log()
    first, second = worker_of(queue), worker_of(queue)
    for worker in (first, second):
        worker.register("a", log)
    await first.add(*(new_job("a", str(at), steps=["one", "two", "three"]) for at in range(20)))
    await asyncio.gather(first.flush(), second.flush())
    assert left(queue) == []
    assert set(log.steps) == {(str(at), step) for at in range(20) for step in ("one", "two", "three")}


@in_virtual_time
async def test_a_worker_runs_once_at_a_time() -> None:
    worker = worker_of(MemoryQueue())

    async def step(work: Work) -> None:
        await asyncio.sleep(10)

    worker.register("a", step)
    await worker.add(new_job("a", "x"))
    async with running(worker):
        await asyncio.sleep(1)
        with pytest.raises(InternalError):
            await worker.flush()


def test_kinds_of_a_later_version_are_left_alone_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        queue, log = MemoryQueue(), Log()
        worker = worker_of(queue)
        worker.register("a", log)
        with pytest.raises(InvalidRequest):
            worker.register("a", log)
        await worker.add(new_job("from-tomorrow", "x"), new_job("a", "y"), new_job("a", "z", due_s=9e9))
        status = await worker.status()
        assert status.unknown == ("from-tomorrow",)
        assert status.kinds == {"a": KindCount(2, 0), "from-tomorrow": KindCount(1, 0)}
        async with running(worker):
            await asyncio.sleep(30)
        assert log.steps == [("y", "run")]
        assert [job.kind for job in left(queue)] == ["from-tomorrow", "a"]

    with caplog.at_level(logging.WARNING):
        run_virtual(main())
    assert "'from-tomorrow' are left alone" in caplog.text
