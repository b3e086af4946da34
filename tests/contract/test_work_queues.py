"""All drivers of `VisibleQueue` under one suite, and what only the durable one does."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from muniment.core.keeping.job import Outcome, encoded, new_job
from muniment.errors import DiskFull, StoreFailed, UnknownVersion
from muniment.queues.memory import MemoryQueue
from muniment.queues.sqlite import SqliteQueue
from muniment.testing.contracts.work_queue import (
    NOW_S,
    OpenQueue,
    WorkQueueContract,
    all_jobs,
    begin,
    drain,
    finish,
)


class TestMemoryQueue(WorkQueueContract):
    @pytest.fixture
    def opened(self) -> OpenQueue:
        queue = MemoryQueue()
        return lambda: queue


class TestSqliteQueue(WorkQueueContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "queue.sqlite"

    @pytest.fixture
    def opened(self, path: Path) -> Iterator[OpenQueue]:
        queues: list[SqliteQueue] = []

        def opened() -> SqliteQueue:
            queues.append(SqliteQueue(path))
            return queues[-1]

        yield opened
        for queue in queues:
            queue.close()

    def test_it_is_there_again(self, opened: OpenQueue) -> None:
        queue = opened()
        queue.add([new_job("a", "x", [1], steps=["one", "two"], last=["end"])], NOW_S)
        queue.add([new_job("b", "y", due_s=NOW_S + 5)], NOW_S)
        finish(queue, Outcome(boxes={"p": encoded(7)}, progress=(1, 3)))
        queue.failed(begin(queue), "no", due_s=NOW_S + 3)
        before = all_jobs(queue)
        queue.close()
        again = opened()
        assert all_jobs(again) == before
        assert drain(again, NOW_S + 5) == [("x", "two"), ("x", "end"), ("y", "run")]

    def test_another_process_sees_and_changes_it(self, opened: OpenQueue) -> None:
        keeper, person = opened(), opened()
        (job,) = keeper.add([new_job("a", "x")], NOW_S)
        keeper.failed(begin(keeper), "hopeless", due_s=None)
        assert [one.error for one in all_jobs(person)] == ["hopeless"]
        assert person.retry(job)
        under_way = begin(keeper)
        assert person.drop(job)
        assert not keeper.done(under_way, Outcome(), NOW_S)

    def test_only_its_owner_may_read_it(self, opened: OpenQueue, path: Path) -> None:
        opened().add([new_job("a", "x")], NOW_S)
        files = list(path.parent.iterdir())
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    def test_what_is_no_queue_is_refused_and_left_as_it_is(self, path: Path) -> None:
        path.write_bytes(b"no database at all " * 100)
        with pytest.raises(StoreFailed):
            SqliteQueue(path)
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE x (y)")
        other.close()
        before = path.read_bytes()
        with pytest.raises(StoreFailed, match="not a work queue"):
            SqliteQueue(path)
        assert path.read_bytes() == before

    def test_a_later_version_is_refused_and_left_as_it_is(self, opened: OpenQueue, path: Path) -> None:
        opened().close()
        with sqlite3.connect(path) as later:
            later.execute("PRAGMA user_version = 3")
        later.close()
        before = path.read_bytes()
        with pytest.raises(UnknownVersion, match="work queue has version 3"):
            SqliteQueue(path)
        assert path.read_bytes() == before

    def test_one_of_the_version_before_goes_on(self, opened: OpenQueue, path: Path) -> None:
        queue = opened()
        queue.add([new_job("a", "x", due_s=NOW_S + 5)], NOW_S)
        queue.close()
        with sqlite3.connect(path) as earlier:
            earlier.executescript("DROP TABLE clock; PRAGMA user_version = 1;")
        earlier.close()
        assert drain(opened(), NOW_S + 5) == [("x", "run")]

    def test_a_folder_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(StoreFailed):
            SqliteQueue(tmp_path / "no" / "queue.sqlite")

    def test_a_medium_that_fails_is_told_and_changes_nothing(self, opened: OpenQueue, path: Path) -> None:
        queue = opened()
        queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(
            "CREATE TRIGGER fails BEFORE INSERT ON boxes BEGIN SELECT raise(ABORT, 'the medium failed'); END"
        )
        job = begin(queue)
        with pytest.raises(StoreFailed, match="the medium failed"):
            queue.done(job, Outcome(boxes={"p": encoded(1)}), NOW_S)
        other.execute("DROP TRIGGER fails")
        other.close()
        assert begin(queue) == job

    def test_a_full_disk_is_told_and_changes_nothing(self, opened: OpenQueue, path: Path) -> None:
        queue = opened()
        assert isinstance(queue, SqliteQueue)
        queue.add([new_job("a", "x", steps=["one", "two"])], NOW_S)
        with queue._file.reading() as sqlite:
            pages = sqlite.execute("PRAGMA page_count").fetchone()[0]
            sqlite.execute(f"PRAGMA max_page_count = {pages}")
        job = begin(queue)
        with pytest.raises(DiskFull):
            queue.done(job, Outcome(boxes={"p": encoded(b"x" * 50_000)}), NOW_S)
        assert begin(queue) == job
        with queue._file.reading() as sqlite:
            sqlite.execute("PRAGMA max_page_count = 100000")
        assert drain(queue) == [("x", "one"), ("x", "two")]

    def test_the_urgent_are_found_without_looking_at_those_that_wait(self, opened: OpenQueue) -> None:
        queue = opened()
        assert isinstance(queue, SqliteQueue)
        queue.add([new_job("a", str(at), due_s=NOW_S + at) for at in range(50)], NOW_S)
        queue.ready(NOW_S, ["a"], without=(), limit=4)
        asked: list[str] = []
        with queue._file.reading() as sqlite:
            sqlite.set_trace_callback(asked.append)
        queue.ready(NOW_S + 9, ["a"], without=(), limit=4)
        with queue._file.reading() as sqlite:
            sqlite.set_trace_callback(None)
            plans = [
                " ".join(str(row[3]) for row in sqlite.execute(f"EXPLAIN QUERY PLAN {sql}"))
                for sql in asked
                if sql.lstrip().startswith(("SELECT", "UPDATE"))
            ]
        clock, makes_due, finds, *boxes, looks_ahead = plans
        assert clock == "SCAN clock"  # one row
        assert "jobs_waiting (due_s<" in makes_due
        assert "SCAN jobs USING INDEX jobs_due" in finds
        assert "TEMP B-TREE" not in finds
        assert len(boxes) == 4
        assert "SCAN jobs USING INDEX jobs_waiting" in looks_ahead
