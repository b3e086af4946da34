"""The queue in a file against the one in memory, and a worker on it, in any order of calls and crashes."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.thoroughness import times

from muniment.core.keeping.job import NewJob, Outcome, QueuedJob, encoded, new_job, new_step
from muniment.engine.keeping.work import Patience, Work, Worker
from muniment.errors import NodeUnreachable, StoreFailed
from muniment.ids import JobId
from muniment.ports import VisibleQueue
from muniment.queues.memory import MemoryQueue
from muniment.queues.sqlite import SqliteQueue
from muniment.testing.contracts.work_queue import KINDS, NOW_S, all_jobs
from muniment.testing.virtual_time import LoopClock, run_virtual

KEYS = ("x", "y", "z")
NAMES = ("one", "two", "three")
LATER = st.sampled_from([0.0, 3.0, 8.0])

Place = tuple[bool, int]
"""Of a step in its job: whether it is last, and its number."""


class QueueMachine(RuleBasedStateMachine):
    """Makes each call to both; keeps a diary of its own of what was done of which job."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.opened = 0
        self.path = self.folder / "0"
        self.now_s = NOW_S
        self.busy: list[QueuedJob] = []
        self.steps: dict[JobId, set[Place]] = defaultdict(set)  # all that were ever added
        self.noted: dict[JobId, list[Place]] = defaultdict(list)
        self.dropped: set[JobId] = set()

    @initialize()
    def begin(self) -> None:
        self.real: VisibleQueue = SqliteQueue(self.path)
        self.oracle: VisibleQueue = MemoryQueue()

    def both(self, call: Callable[[VisibleQueue], object]) -> object:
        result = call(self.real)
        assert result == call(self.oracle)
        for job in all_jobs(self.oracle):
            found = self.oracle.job(job.id)
            assert found is not None
            self.steps[job.id] |= {(step.last, step.number) for step in found[1]}
        return result

    def new(self, kind: str, key: str, count: int, priority: int, later_s: float, again: bool) -> NewJob:
        return new_job(
            kind, key, [count], steps=NAMES[:count], last=["end"] if count != 2 else [],
            priority=priority, due_s=self.now_s + later_s if later_s else 0.0, again=again,
        )  # fmt: skip

    @rule(
        kind=st.sampled_from([*KINDS, "unknown"]),
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=3),
        count=st.integers(0, 3),
        priority=st.integers(0, 2),
        later_s=LATER,
        again=st.booleans(),
    )
    def add(self, kind: str, keys: list[str], count: int, priority: int, later_s: float, again: bool) -> None:
        new = [self.new(kind, key, count, priority, later_s, again) for key in keys]
        self.both(lambda queue: queue.add(new, self.now_s))

    @rule(limit=st.integers(1, 3))
    def take(self, limit: int) -> None:
        busy = tuple(job.id for job in self.busy)
        ready = self.oracle.ready(self.now_s, KINDS, without=busy, limit=limit)
        self.both(lambda queue: queue.ready(self.now_s, KINDS, without=busy, limit=limit))
        self.busy += ready.jobs

    @precondition(lambda self: self.busy)
    @rule(
        which=st.integers(0, 99),
        again=st.booleans(),
        added=st.lists(st.booleans(), max_size=2),
        box=st.sampled_from([None, 1, b"two", [3]]),
        later_s=LATER,
        itself=st.booleans(),
    )
    def done(
        self, which: int, again: bool, added: list[bool], box: object, later_s: float, itself: bool
    ) -> None:
        job = self.busy.pop(which % len(self.busy))
        outcome = Outcome(
            again=again,
            steps=tuple(new_step("more", last=last) for last in added),
            boxes={f"box{which % 2}": None if box is None else encoded(box)},
            jobs=(self.new(job.kind, job.key, 1, 1, later_s, False),) if itself else (),
            progress=(which, 99) if added else None,
            due_s=self.now_s + later_s if later_s else 0.0,
        )
        if self.both(lambda queue: queue.done(job, outcome, self.now_s)) and not again:
            self.noted[job.id].append((job.step.last, job.step.number))

    @precondition(lambda self: self.busy)
    @rule(which=st.integers(0, 99), later_s=st.sampled_from([None, 3.0, 8.0]))
    def fail(self, which: int, later_s: float | None) -> None:
        job = self.busy.pop(which % len(self.busy))
        due_s = None if later_s is None else self.now_s + later_s
        self.both(lambda queue: queue.failed(job, f"error {which}", due_s=due_s))

    @rule(which=st.integers(1, 12))
    def retry(self, which: int) -> None:
        self.both(lambda queue: queue.retry(JobId(which)))

    @rule(which=st.integers(1, 12))
    def drop(self, which: int) -> None:
        if self.both(lambda queue: queue.drop(JobId(which))):
            self.dropped.add(JobId(which))

    @rule(passes_s=st.sampled_from([1.0, 5.0]))
    def time_passes(self, passes_s: float) -> None:
        self.now_s += passes_s

    @rule(clean=st.booleans(), notes_late=st.booleans())
    def restart(self, clean: bool, notes_late: bool) -> None:
        """Steps under way are not noted; or by the former process, while the new one is at work."""
        if not notes_late:
            self.busy.clear()
        self.opened += 1
        former, self.path = self.path, self.folder / str(self.opened)
        if clean:
            self.real.close()
        for suffix in ("", "-wal"):
            source = former.with_name(former.name + suffix)
            if source.exists():
                shutil.copyfile(source, self.path.with_name(self.path.name + suffix))
        self.real.close()
        self.real = SqliteQueue(self.path)

    @invariant()
    def they_are_equal(self) -> None:
        jobs = all_jobs(self.oracle)
        assert all_jobs(self.real) == jobs
        assert [self.real.job(job.id) for job in jobs] == [self.oracle.job(job.id) for job in jobs]
        assert self.real.counts() == self.oracle.counts()
        assert len({(job.kind, job.key) for job in jobs}) == len(jobs)

    @invariant()
    def nothing_is_lost_and_order_is_kept(self) -> None:
        present = {job.id for job in all_jobs(self.real)}
        for job, steps in self.steps.items():
            noted = self.noted[job]
            assert len(noted) == len(set(noted))
            for last in (False, True):
                numbers = [number for is_last, number in noted if is_last is last]
                assert numbers == sorted(numbers)
            if job not in present and job not in self.dropped:
                assert set(noted) == steps
            if found := self.real.job(job):
                assert {(step.last, step.number) for step in found[1]} == steps - set(noted)

    def teardown(self) -> None:
        if hasattr(self, "real"):
            self.real.close()
        shutil.rmtree(self.folder)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=times(30), stateful_step_count=40)


# --- a worker that crashes ------------------------------------------------------------------------


class CrashingQueue:
    """Passes calls on; the process dies before or after some of its notes are written."""

    def __init__(self, inner: SqliteQueue, fates: Iterator[str]) -> None:
        self._inner, self._fates = inner, fates
        self.add, self.ready, self.counts, self.close = inner.add, inner.ready, inner.counts, inner.close
        self._dead = False

    def done(self, job: QueuedJob, outcome: Outcome, now_s: float) -> bool:
        return self._survived(lambda: self._inner.done(job, outcome, now_s))

    def failed(self, job: QueuedJob, error: str, *, due_s: float | None) -> bool:
        return self._survived(lambda: self._inner.failed(job, error, due_s=due_s))

    def _survived(self, note: Callable[[], bool]) -> bool:
        fate = "before" if self._dead else next(self._fates, "lives")
        noted = note() if fate != "before" else False
        if fate != "lives":
            self._dead = True
            raise StoreFailed(where="queue", reason="the process died")
        return noted


@settings(max_examples=times(20))
@given(
    plans=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    failures=st.lists(st.booleans(), max_size=20),
    fates=st.lists(st.sampled_from(["lives", "before", "after"]), max_size=12),
    parallel=st.integers(1, 3),
)
def test_a_worker_that_crashes_does_every_step_at_least_once_and_in_order(
    plans: list[int], failures: list[bool], fates: list[str], parallel: int
) -> None:
    did: dict[str, list[int]] = defaultdict(list)
    ids: dict[str, set[JobId]] = defaultdict(set)
    failing, fate, chance = iter(failures), iter(fates), random.Random(1)
    new = [new_job("a", f"job{at}", steps=[f"s{n}" for n in range(count)]) for at, count in enumerate(plans)]

    async def step(work: Work) -> None:
        await asyncio.sleep(chance.random())
        ids[work.key].add(work.job.id)
        did[work.key].append(work.job.step.number)
        if next(failing, False):
            raise NodeUnreachable(node=bytes(32), reason="down")
        # What the step before said is there, and was said once.
        assert work.box("before", -1) == work.job.step.number - 1
        work.put("before", work.job.step.number)
        if work.step == "s0":
            work.add(new_job("a", f"child of {work.key}"))

    async def lives_on(path: Path, clock: LoopClock) -> bool:
        queue = CrashingQueue(SqliteQueue(path), fate)
        worker = Worker(queue, clock=clock, chance=chance.random, parallel=parallel)
        worker.register("a", step, Patience(tries=100))
        if not did:
            await worker.add(*new, *new)
        try:
            await worker.flush(within_s=1e6)
        except StoreFailed:
            return False
        finally:
            queue.close()
        return True

    async def main(path: Path) -> None:
        clock = LoopClock(asyncio.get_running_loop())
        while not await lives_on(path, clock):
            pass

    with tempfile.TemporaryDirectory() as folder:
        run_virtual(main(Path(folder) / "queue"))
        queue = SqliteQueue(Path(folder) / "queue")
        assert all_jobs(queue) == []
        queue.close()
    expected = {f"job{at}": set(range(count)) for at, count in enumerate(plans)}
    expected |= {f"child of job{at}": {0} for at in range(len(plans))}
    assert {key: set(numbers) for key, numbers in did.items()} == expected
    assert all(numbers == sorted(numbers) for numbers in did.values())
    assert all(len(jobs) == 1 for jobs in ids.values())
    if not any(failures) and "before" not in fates:
        assert parallel > 1 or sum(map(len, did.values())) == sum(plans) + len(plans)
