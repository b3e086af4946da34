"""A process that works on a queue is killed at any statement, or the power fails at any byte.

What the queue must hold after each call is known from making the same calls to one in memory.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.thoroughness import along, chance, times

from muniment.core.keeping.job import Outcome, QueuedJob, QueuedStep, encoded, new_job, new_step
from muniment.ports import VisibleQueue
from muniment.queues.memory import MemoryQueue
from muniment.queues.sqlite import SqliteQueue
from muniment.testing.contracts.work_queue import NOW_S, all_jobs, begin, drain

Contents = list[tuple[QueuedJob, Sequence[QueuedStep]] | None]

CALLS = 9


def calls(queue: VisibleQueue) -> Iterator[None]:
    """One of each call that writes, each made when the iterator is advanced."""
    first, _ = queue.add([new_job("a", "x", steps=["one", "two"], last=["end"]), new_job("b", "y")], NOW_S)
    yield
    job = begin(queue)
    boxes, steps = {"p": encoded(1), "q": encoded(b"2" * 5000)}, (new_step("three"),)
    queue.done(job, Outcome(boxes=boxes, steps=steps, progress=(1, 4)), NOW_S)
    yield
    queue.failed(begin(queue), "down", due_s=NOW_S + 5)
    yield
    children = tuple(new_job("b", f"child{at}", priority=at) for at in range(20))
    queue.done(begin(queue), Outcome(jobs=children), NOW_S)
    yield
    queue.done(begin(queue, NOW_S + 5), Outcome(again=True, boxes={"q": None, "p": encoded(3)}), NOW_S)
    yield
    queue.failed(begin(queue), "hopeless", due_s=None)
    yield
    queue.retry(first)
    yield
    queue.add([new_job("b", "child3", priority=-1), new_job("a", "late", due_s=NOW_S + 50)], NOW_S)
    yield
    queue.drop(begin(queue).id)
    yield


def contents(queue: VisibleQueue) -> Contents:
    return [queue.job(job.id) for job in all_jobs(queue)]


def expected() -> list[Contents]:
    """What is there after each number of calls."""
    queue = MemoryQueue()
    return [contents(queue), *(contents(queue) for _ in calls(queue))]


def check(path: Path, after: list[Contents], told: int) -> int:
    """Open what is left: all calls that returned, or one more; everything in it can be done."""
    queue = SqliteQueue(path)
    found = contents(queue)
    made = next(at for at in (told, told + 1) if after[at] == found)
    for job in all_jobs(queue):
        queue.retry(job.id)
    done = drain(queue, NOW_S + 100)
    steps = [(job.key, step.name) for job, left in filter(None, found) for step in left]
    assert sorted(done) == sorted(steps)
    assert all_jobs(queue) == []
    queue.close()
    return made


def killed_at(path: Path, statement: int) -> tuple[int, bool]:
    """Make the calls in a process that dies at a statement; returns how many returned, and if it died."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        left = statement

        def trace(_: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        queue = SqliteQueue(path)
        queue._file._sqlite.set_trace_callback(trace)
        for _ in calls(queue):
            os.write(into, b".")
        os._exit(0)
    os.close(into)
    _, status = os.waitpid(child, 0)
    with os.fdopen(out, "rb") as pipe:
        return len(pipe.read()), os.WIFSIGNALED(status)


def statements(path: Path) -> int:
    """How many all the calls take."""
    seen: list[str] = []
    queue = SqliteQueue(path)
    queue._file._sqlite.set_trace_callback(seen.append)
    assert sum(1 for _ in calls(queue)) == CALLS
    queue._file._sqlite.set_trace_callback(None)
    queue.close()
    return len(seen)


def test_killed_at_any_statement(tmp_path: Path) -> None:
    after, cut_off = expected(), 0
    assert len(after) == CALLS + 1
    for statement in along(0, statements(tmp_path / "whole"), 5):
        path = tmp_path / str(statement)
        told, died = killed_at(path, statement)
        assert died
        cut_off += check(path, after, told) == told
    assert cut_off > CALLS


def test_power_fails_while_the_file_is_written(tmp_path: Path) -> None:
    """Any prefix of SQLite's write-ahead log: later calls are gone, and no part of one is there."""
    after, path = expected(), tmp_path / "queue"
    queue = SqliteQueue(path)
    log = path.with_name("queue-wal")
    lengths = [log.stat().st_size, *(log.stat().st_size for _ in calls(queue))]
    written = log.read_bytes()
    assert lengths == sorted(set(lengths))
    assert len(written) == lengths[-1]
    cuts = {*lengths, *(length - 1 for length in lengths[1:]), *(length + 1 for length in lengths[:-1])}
    cuts |= set(chance("cuts").sample(range(lengths[0], lengths[-1]), times(15)))
    for cut in sorted(cuts):
        left = tmp_path / f"after-{cut}"
        shutil.copyfile(path, left)
        left.with_name(left.name + "-wal").write_bytes(written[:cut])
        whole = sum(length <= cut for length in lengths[1:])
        assert check(left, after, whole) == whole
    queue.close()


@pytest.mark.parametrize("statement", range(14))
def test_killed_while_the_file_is_made(tmp_path: Path, statement: int) -> None:
    """It is made whole or found empty and made anew."""
    path = tmp_path / "queue"
    child = os.fork()
    if not child:
        import sqlite3

        left = statement

        def trace(_: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        class Traced(sqlite3.Connection):
            def __init__(self, *args: object, **words: object) -> None:
                super().__init__(*args, **words)  # type: ignore[arg-type]  # passed on as they came
                self.set_trace_callback(trace)

        connect = sqlite3.connect
        # The file's own maker of connections: nothing else sees the first statements.
        sqlite3.connect = lambda *args, **words: connect(*args, factory=Traced, **words)  # type: ignore[assignment]
        SqliteQueue(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    queue = SqliteQueue(path)
    queue.add([new_job("a", "x")], NOW_S)
    assert drain(queue) == [("x", "run")]
    queue.close()
