"""What every `VisibleQueue` must do; a driver's test class inherits this suite and gives it queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from muniment.core.keeping.job import (
    KindCount,
    NewJob,
    Outcome,
    QueuedJob,
    decoded,
    encoded,
    new_job,
    new_step,
)
from muniment.errors import InvalidRequest
from muniment.ids import JobId
from muniment.ports import VisibleQueue

OpenQueue = Callable[[], VisibleQueue]
"""Opens the same queue again each time it is called."""

NOW_S = 1_800_000_000.0
KINDS = ("a", "b")


def begin(queue: VisibleQueue, now_s: float = NOW_S) -> QueuedJob:
    """The job whose turn it is."""
    return queue.ready(now_s, KINDS, without=(), limit=1).jobs[0]


def finish(queue: VisibleQueue, outcome: Outcome | None = None, now_s: float = NOW_S) -> QueuedJob:
    """Do the step whose turn it is; returns its job as it was before."""
    job = begin(queue, now_s)
    assert queue.done(job, outcome or Outcome(), now_s)
    return job


def drain(queue: VisibleQueue, now_s: float = NOW_S) -> list[tuple[str, str]]:
    """Do all steps that are due; returns them as (key, step)."""
    done = []
    while queue.ready(now_s, KINDS, without=(), limit=1).jobs:
        job = finish(queue, now_s=now_s)
        done.append((job.key, job.step.name))
    return done


def all_jobs(queue: VisibleQueue) -> list[QueuedJob]:
    """Everything that is in it."""
    return list(queue.jobs(limit=100_000))


class WorkQueueContract:
    """The suite; `opened` comes from the driver's test class."""

    @pytest.fixture
    def queue(self, opened: OpenQueue) -> VisibleQueue:
        """One that is empty."""
        return opened()

    @pytest.mark.parametrize("back_s", [3600.0, 1e9])
    def test_a_clock_that_is_set_back_makes_nothing_wait_longer(
        self, opened: OpenQueue, back_s: float
    ) -> None:
        queue = opened()
        queue.add([new_job("a", "x", due_s=NOW_S + 50), new_job("a", "failing"), new_job("a", "now")], NOW_S)
        assert begin(queue).key == "failing"
        assert queue.failed(begin(queue), "no", due_s=NOW_S + 100)
        queue.close()
        queue, now_s = opened(), NOW_S - back_s
        ready = queue.ready(now_s, KINDS, without=(), limit=9)
        assert ([job.key for job in ready.jobs], ready.next_due_s) == (["now"], now_s + 50)
        assert len(queue.ready(now_s + 49, KINDS, without=(), limit=9).jobs) == 1
        assert len(queue.ready(now_s + 51, KINDS, without=(), limit=9).jobs) == 2
        assert len(queue.ready(now_s + 101, KINDS, without=(), limit=9).jobs) == 3

    def test_a_clock_that_was_ahead_for_a_while_makes_nothing_wait_longer(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", due_s=NOW_S + 50)], NOW_S)
        begin(queue, NOW_S + 50)
        ahead = NOW_S + 1e8
        assert queue.done(begin(queue, ahead), Outcome(again=True, due_s=ahead + 60), ahead)
        assert queue.ready(NOW_S + 100, KINDS, without=(), limit=9).next_due_s == NOW_S + 160
        assert begin(queue, NOW_S + 160).key == "x"

    def test_a_clock_that_is_corrected_a_little_changes_no_time(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", due_s=NOW_S + 50)], NOW_S)
        for at in (0, 40, 10, 45, 0):
            assert queue.ready(NOW_S + at, KINDS, without=(), limit=9).next_due_s == NOW_S + 50

    def test_a_new_queue_is_empty(self, queue: VisibleQueue) -> None:
        ready = queue.ready(NOW_S, KINDS, without=(), limit=9)
        assert (ready.jobs, ready.next_due_s) == ((), None)
        assert (all_jobs(queue), dict(queue.counts()), queue.job(JobId(1))) == ([], {}, None)
        assert not queue.retry(JobId(1))
        assert not queue.drop(JobId(1))

    def test_a_job_comes_back_as_it_was_added(self, queue: VisibleQueue) -> None:
        new = new_job("a", "Käse", [1, b"x", None, "y"], steps=["one", "two"], last=["end"], priority=-3)
        (added,) = queue.add([new], NOW_S)
        job = begin(queue)
        assert (job.id, job.kind, job.key, decoded(job.args)) == (added, "a", "Käse", [1, b"x", None, "y"])
        assert (job.priority, job.added_s, job.due_s, job.tries, job.error) == (-3, NOW_S, 0, 0, "")
        assert (job.aside, job.done, job.total, job.steps_left, job.boxes) == (False, 0, 0, 3, {})
        assert all_jobs(queue) == [job]
        looked = queue.job(added)
        assert looked is not None
        assert looked[0] == job
        assert [(step.number, step.name, step.last) for step in looked[1]] == [
            (0, "one", False), (1, "two", False), (2, "end", True),
        ]  # fmt: skip
        assert looked[1][0] == job.step
        assert decoded(job.step.args) is None

    def test_steps_are_done_in_order_and_then_the_job_is_gone(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["one", "two"], last=["end"])], NOW_S)
        assert drain(queue) == [("x", "one"), ("x", "two"), ("x", "end")]
        assert all_jobs(queue) == []

    def test_the_tenth_step_follows_the_ninth_and_there_is_no_thousandth_wall(
        self, queue: VisibleQueue
    ) -> None:
        """Numbers sorted as text put 10 before 2; a predecessor stopped at 1000."""
        names = [f"s{at}" for at in range(1203)]
        queue.add([new_job("a", "x", steps=names[:1])], NOW_S)
        finish(queue, Outcome(steps=tuple(new_step(name) for name in names[1:])))
        found = queue.job(all_jobs(queue)[0].id)
        assert found is not None
        assert [step.name for step in found[1]] == names[1:]
        assert [step.number for step in found[1]] == list(range(1, 1203))
        for name in names[1:13]:
            assert finish(queue).step.name == name

    def test_a_number_is_never_given_twice(self, queue: VisibleQueue, opened: OpenQueue) -> None:
        """A predecessor numbered after a restart from what it saw, and wrote over a step that was pending."""
        queue.add([new_job("a", "x", steps=["one", "two", "three"])], NOW_S)
        finish(queue)
        again = opened()
        finish(again, Outcome(steps=(new_step("four", 4),)))
        again = opened()
        finish(again, Outcome(steps=(new_step("five"),)))
        found = again.job(all_jobs(again)[0].id)
        assert found is not None
        assert [(step.number, step.name, decoded(step.args)) for step in found[1]] == [
            (3, "four", 4), (4, "five", None),
        ]  # fmt: skip

    def test_jobs_too_are_never_numbered_twice(self, queue: VisibleQueue, opened: OpenQueue) -> None:
        (first,) = queue.add([new_job("a", "x")], NOW_S)
        assert queue.drop(first)
        (second,) = opened().add([new_job("a", "x")], NOW_S)
        assert second > first

    def test_steps_that_are_last_wait_for_those_that_come_later(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["one"], last=["clean", "close"])], NOW_S)
        finish(queue, Outcome(steps=(new_step("two"), new_step("late", last=True), new_step("three"))))
        assert [name for _, name in drain(queue)] == ["two", "three", "clean", "close", "late"]

    def test_a_last_step_may_add_one_that_goes_before_the_others(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=[], last=["clean", "close"])], NOW_S)
        finish(queue, Outcome(steps=(new_step("more"),)))
        assert [name for _, name in drain(queue)] == ["more", "close"]

    def test_a_step_that_is_done_again_stays_first(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["page", "end"])], NOW_S)
        for at in range(3):
            job = finish(queue, Outcome(again=True, boxes={"after": encoded(at)}, progress=(at + 1, 9)))
            assert (job.step.number, job.step.name, job.steps_left) == (0, "page", 2)
        job = begin(queue)
        assert (decoded(job.boxes["after"]), job.done, job.total) == (2, 3, 9)
        assert [name for _, name in drain(queue)] == ["page", "end"]

    def test_equal_jobs_are_one(self, queue: VisibleQueue) -> None:
        first = new_job("a", "x", 1, steps=["one", "two"], priority=5)
        ids = queue.add([first, new_job("b", "x", 2), new_job("a", "y", 3)], NOW_S)
        assert len(set(ids)) == 3
        finish(queue), finish(queue)
        assert finish(queue).step.name == "one"
        assert queue.add([new_job("a", "x", 9, steps=["other"], priority=7)], NOW_S + 1) == [ids[0]]
        (job,) = all_jobs(queue)
        assert (decoded(job.args), job.step.name, job.steps_left, job.added_s) == (1, "two", 1, NOW_S)
        assert job.priority == 5
        assert queue.add([new_job("a", "x", priority=2), new_job("a", "x")], NOW_S) == [ids[0], ids[0]]
        assert begin(queue).priority == 0

    def test_the_most_urgent_goes_first_and_then_the_oldest(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", f"scrub{at}", priority=9) for at in range(12)], NOW_S)
        queue.add([new_job("b", "repair1", priority=1), new_job("b", "repair0", priority=0)], NOW_S + 1)
        keys = [key for key, _ in drain(queue)]
        assert keys == ["repair0", "repair1", *(f"scrub{at}" for at in range(12))]

    def test_a_limit_takes_the_most_urgent(self, queue: VisibleQueue) -> None:
        ids = queue.add([new_job("a", str(at), priority=-at) for at in range(6)], NOW_S)
        jobs = queue.ready(NOW_S, KINDS, without=(), limit=4).jobs
        assert [job.key for job in jobs] == ["5", "4", "3", "2"]
        jobs = queue.ready(NOW_S, KINDS, without=ids[3:5], limit=2).jobs
        assert [job.key for job in jobs] == ["5", "2"]

    def test_other_kinds_are_left_alone(self, queue: VisibleQueue) -> None:
        queue.add([new_job("from-tomorrow", "x", due_s=NOW_S + 5), new_job("later", "y")], NOW_S)
        ready = queue.ready(NOW_S, KINDS, without=(), limit=9)
        assert (ready.jobs, ready.next_due_s) == ((), None)
        assert dict(queue.counts()) == {"from-tomorrow": KindCount(1, 0), "later": KindCount(1, 0)}
        assert [job.kind for job in all_jobs(queue)] == ["from-tomorrow", "later"]

    def test_a_job_can_wait_for_its_time(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", due_s=NOW_S + 10), new_job("a", "y", due_s=NOW_S + 20)], NOW_S)
        ready = queue.ready(NOW_S + 9, KINDS, without=(), limit=9)
        assert (ready.jobs, ready.next_due_s) == ((), NOW_S + 10)
        ready = queue.ready(NOW_S + 10, KINDS, without=(), limit=9)
        assert ([job.key for job in ready.jobs], ready.next_due_s) == (["x"], NOW_S + 20)
        busy = [ready.jobs[0].id]
        assert queue.ready(NOW_S + 11, KINDS, without=busy, limit=9).next_due_s == NOW_S + 20

    def test_an_equal_job_that_is_due_earlier_brings_it_forward(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", due_s=NOW_S + 10)], NOW_S)
        queue.add([new_job("a", "x", due_s=NOW_S + 30)], NOW_S)
        assert queue.ready(NOW_S, KINDS, without=(), limit=9).next_due_s == NOW_S + 10
        queue.add([new_job("a", "x")], NOW_S)
        assert begin(queue).due_s == 0

    def test_a_step_can_put_the_next_one_off(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        finish(queue, Outcome(due_s=NOW_S + 60))
        assert queue.ready(NOW_S, KINDS, without=(), limit=9).next_due_s == NOW_S + 60
        assert finish(queue, now_s=NOW_S + 60).step.name == "two"

    def test_a_failed_step_is_due_again_later(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        for at in range(3):
            assert queue.failed(begin(queue, NOW_S + at), f"error {at}", due_s=NOW_S + at + 1)
            assert queue.ready(NOW_S + at, KINDS, without=(), limit=9).jobs == ()
        job = finish(queue, now_s=NOW_S + 3)
        assert (job.step.name, job.tries, job.error, job.aside) == ("one", 3, "error 2", False)
        job = begin(queue)
        assert (job.step.name, job.tries, job.error) == ("two", 0, "")

    def test_equal_jobs_do_not_shorten_the_pause_of_one_that_failed(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x")], NOW_S)
        queue.failed(begin(queue), "no", due_s=NOW_S + 60)
        queue.add([new_job("a", "x", again=True)], NOW_S)
        ready = queue.ready(NOW_S, KINDS, without=(), limit=9)
        assert (ready.jobs, ready.next_due_s) == ((), NOW_S + 60)

    def test_a_job_that_is_set_aside_stays_until_it_is_retried(self, queue: VisibleQueue) -> None:
        (job_id,) = queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        finish(queue, Outcome(boxes={"kept": encoded(1)}))
        assert queue.failed(begin(queue), "hopeless", due_s=None)
        assert queue.add([new_job("a", "x")], NOW_S) == [job_id]
        ready = queue.ready(NOW_S + 1e9, KINDS, without=(), limit=9)
        assert (ready.jobs, ready.next_due_s) == ((), None)
        assert dict(queue.counts()) == {"a": KindCount(0, 1)}
        (job,) = all_jobs(queue)
        assert (job.aside, job.tries, job.error) == (True, 1, "hopeless")
        assert queue.retry(job_id)
        job = finish(queue)
        assert (job.step.name, job.aside, job.tries, job.error) == ("two", False, 0, "hopeless")
        assert decoded(job.boxes["kept"]) == 1
        assert all_jobs(queue) == []

    def test_whoever_knows_better_takes_up_again_what_was_set_aside(self, queue: VisibleQueue) -> None:
        (job_id,) = queue.add([new_job("a", "x")], NOW_S)
        queue.failed(begin(queue), "hopeless", due_s=None)
        assert queue.add([new_job("a", "x", again=True, due_s=NOW_S + 5)], NOW_S) == [job_id]
        assert queue.ready(NOW_S, KINDS, without=(), limit=9).next_due_s == NOW_S + 5
        job = begin(queue, NOW_S + 5)
        assert (job.id, job.tries, job.aside) == (job_id, 0, False)

    def test_a_retry_ends_a_pause(self, queue: VisibleQueue) -> None:
        (job_id,) = queue.add([new_job("a", "x")], NOW_S)
        queue.failed(begin(queue), "no", due_s=NOW_S + 60)
        assert queue.retry(job_id)
        assert begin(queue).tries == 0

    def test_boxes_live_as_long_as_their_job(self, queue: VisibleQueue) -> None:
        """A predecessor wiped the boxes and files of all jobs when its queue ran empty."""
        queue.add([new_job("a", "x", steps=["one", "two", "three"]), new_job("b", "y")], NOW_S)
        finish(queue, Outcome(boxes={"p": encoded([1]), "q": encoded(b"2"), "none": None}))
        finish(queue, Outcome(boxes={"p": encoded(3), "q": None}))
        job = begin(queue)
        assert job.boxes == {"p": encoded(3)}
        assert drain(queue) == [("x", "three"), ("y", "run")]
        queue.add([new_job("a", "x")], NOW_S)
        assert begin(queue).boxes == {}

    def test_boxes_of_different_jobs_are_apart(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["one", "two"]), new_job("a", "y", steps=["one", "two"])], NOW_S)
        x, y = queue.ready(NOW_S, KINDS, without=(), limit=2).jobs
        queue.done(y, Outcome(boxes={"p": encoded("y")}), NOW_S)
        queue.done(x, Outcome(boxes={"p": encoded("x")}), NOW_S)
        assert {job.key: decoded(job.boxes["p"]) for job in all_jobs(queue)} == {"x": "x", "y": "y"}

    def test_a_step_adds_jobs_with_its_note(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "scan", priority=5)], NOW_S)
        found = tuple(new_job("b", f"blob{at}") for at in range(1100))
        finish(queue, Outcome(jobs=(*found, found[0])), now_s=NOW_S + 7)
        jobs = all_jobs(queue)
        assert [job.key for job in jobs] == [f"blob{at}" for at in range(1100)]
        assert {job.added_s for job in jobs} == {NOW_S + 7}

    def test_the_last_step_can_add_its_own_job_anew(self, queue: VisibleQueue) -> None:
        (first,) = queue.add([new_job("a", "hourly", steps=["one", "two"])], NOW_S)
        hourly = new_job("a", "hourly", due_s=NOW_S + 3600)
        finish(queue, Outcome(jobs=(hourly,), boxes={"old": encoded(1)}))
        assert [job.id for job in all_jobs(queue)] == [first]
        finish(queue, Outcome(jobs=(hourly,)))
        (job,) = all_jobs(queue)
        assert job.id > first
        assert (job.due_s, job.step.number, job.boxes) == (NOW_S + 3600, 0, {})

    def test_a_note_on_what_somebody_else_has_noted_has_no_effect(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        job = begin(queue)
        finish(queue)
        late = Outcome(steps=(new_step("never"),), jobs=(new_job("b", "never"),), boxes={"p": encoded(1)})
        assert not queue.done(job, late, NOW_S)
        assert not queue.failed(job, "late", due_s=None)
        (left,) = all_jobs(queue)
        assert (left.step.name, left.steps_left, left.boxes, left.error) == ("two", 1, {}, "")

    def test_a_job_that_was_dropped_stays_dropped(self, queue: VisibleQueue) -> None:
        (job_id,) = queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        finish(queue, Outcome(boxes={"p": encoded(1)}))
        job = begin(queue)
        assert queue.drop(job_id)
        assert not queue.done(job, Outcome(again=True, jobs=(new_job("b", "y"),)), NOW_S)
        assert not queue.failed(job, "late", due_s=NOW_S)
        assert not queue.drop(job_id)
        assert all_jobs(queue) == []

    def test_a_step_under_way_counts_after_a_retry(self, queue: VisibleQueue) -> None:
        (job_id,) = queue.add([new_job("a", "x")], NOW_S)
        job = begin(queue)
        assert queue.retry(job_id)
        assert queue.done(job, Outcome(), NOW_S)
        assert all_jobs(queue) == []

    def test_jobs_come_in_pages(self, queue: VisibleQueue) -> None:
        ids = queue.add([new_job("a", str(at), priority=-at) for at in range(25)], NOW_S)
        found: list[JobId] = []
        while page := queue.jobs(after=found[-1] if found else None, limit=10):
            found += [job.id for job in page]
        assert found == ids

    def test_it_counts_by_kind(self, queue: VisibleQueue) -> None:
        queue.add([new_job("b", "x"), new_job("a", "y"), new_job("a", "z", due_s=NOW_S + 9)], NOW_S)
        queue.failed(queue.ready(NOW_S, ["a"], without=(), limit=1).jobs[0], "no", due_s=None)
        assert list(queue.counts().items()) == [("a", KindCount(1, 1)), ("b", KindCount(1, 0))]

    @pytest.mark.parametrize(
        "make",
        [
            lambda: new_job("a", "x", steps=[]),
            lambda: new_job("", "x"),
            lambda: new_job("A B", "x"),
            lambda: new_job("a", ""),
            lambda: new_job("a", "two\nlines"),
            lambda: new_job("a", "x" * 201),
            lambda: new_job("a", "x", 1.5),
            lambda: new_job("a", "x", {"a": 1}),
            lambda: new_job("a", "x", object()),
            lambda: new_job("a", "x", b"x" * 70_000),
            lambda: new_job("a", "x", priority=1 << 40),
            lambda: new_step("Name"),
        ],
    )
    def test_what_no_job_can_be_is_refused(self, make: Callable[[], NewJob]) -> None:
        with pytest.raises(InvalidRequest):
            make()

    def test_nothing_that_is_read_is_shared(self, queue: VisibleQueue) -> None:
        queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        job = finish(queue, Outcome(boxes={"p": encoded(1)}))
        assert job.boxes == {}
        assert replace(begin(queue), boxes={}).boxes != begin(queue).boxes
