"""`VisibleQueue` in one SQLite file (docs/drivers/queue-sqlite.md).

WAL with synchronous=FULL: what a method returned for survives power loss.  Each method is one transaction.
Other processes may look and write at the same time; they wait for each other as SQLite has it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from muniment.core.keeping.job import (
    CLOCK_SLACK_S,
    KindCount,
    NewJob,
    NewStep,
    Outcome,
    QueuedJob,
    QueuedStep,
    Ready,
)
from muniment.ids import JobId
from muniment.queues.sqlite_schema import ASIDE, DUE, QUEUE, WAITING
from muniment.sqlite_file import SqliteFile

_JOB: Final = """
SELECT jobs.id, kind, key, jobs.args, priority, added_s, due_s, tries, error, state, changes, done, total,
    number, name, steps.args, last, (SELECT count(*) FROM steps AS s WHERE s.job = jobs.id)
FROM jobs JOIN steps ON steps.job = jobs.id AND (last, number) =
    (SELECT last, number FROM steps AS s WHERE s.job = jobs.id ORDER BY last, number LIMIT 1)
"""
# The sign before `kind` keeps SQLite from the index over it: what comes first is found by order.
_CHOSEN: Final = """
+kind IN (SELECT value FROM json_each(:kinds)) AND jobs.id NOT IN (SELECT value FROM json_each(:without))
"""
_NEXT_DUE: Final = f"SELECT due_s FROM jobs WHERE state = 1 AND {_CHOSEN} ORDER BY due_s LIMIT 1"  # noqa: S608


class SqliteQueue:
    """One queue.

    Args:
        path: the file; made if missing, its folder must exist.

    Raises:
        UnknownVersion: a later version of this program wrote it.
        StoreFailed: it is not a queue, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, QUEUE)

    def add(self, jobs: Sequence[NewJob], now_s: float) -> list[JobId]:
        with self._file.transaction() as sqlite:
            return [_add(sqlite, job, now_s) for job in jobs]

    def ready(self, now_s: float, kinds: Collection[str], *, without: Collection[JobId], limit: int) -> Ready:
        chosen = {"kinds": json.dumps(sorted(kinds)), "without": json.dumps(sorted(without)), "limit": limit}
        with self._file.transaction() as sqlite:
            _follow_clock(sqlite, now_s)
            # Whatever is due is found by priority alone, and what is not is never looked at.
            sqlite.execute("UPDATE jobs SET state = ? WHERE state = ? AND due_s <= ?", (DUE, WAITING, now_s))
            rows = sqlite.execute(
                f"{_JOB} WHERE state = 0 AND {_CHOSEN} ORDER BY priority, jobs.id LIMIT :limit", chosen
            )
            found = _with_boxes(sqlite, rows.fetchall())
            later = sqlite.execute(_NEXT_DUE, chosen).fetchone()
        return Ready(tuple(found), later[0] if later else None)

    def done(self, job: QueuedJob, outcome: Outcome, now_s: float) -> bool:
        done, total = outcome.progress or (None, None)
        with self._file.transaction() as sqlite:
            if not _note(
                sqlite,
                job,
                "tries = 0, error = '', state = iif(:due_s > 0, 1, 0), due_s = :due_s,"
                " done = coalesce(:done, done), total = coalesce(:total, total)",
                {"due_s": outcome.due_s, "done": done, "total": total},
            ):
                return False
            if not outcome.again:
                at = (job.id, job.step.last, job.step.number)
                sqlite.execute("DELETE FROM steps WHERE job = ? AND last = ? AND number = ?", at)
            _add_steps(sqlite, job.id, outcome.steps)
            for name, value in outcome.boxes.items():
                sqlite.execute("DELETE FROM boxes WHERE job = ? AND name = ?", (job.id, name))
                if value is not None:
                    sqlite.execute("INSERT INTO boxes VALUES (?, ?, ?)", (job.id, name, value))
            sqlite.execute(
                "DELETE FROM jobs WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM steps WHERE job = ?1)",
                (job.id,),
            )
            for new in outcome.jobs:
                _add(sqlite, new, now_s)
        return True

    def failed(self, job: QueuedJob, error: str, *, due_s: float | None) -> bool:
        state = ASIDE if due_s is None else WAITING
        values = {"error": error, "state": state, "due_s": due_s or 0.0}
        with self._file.transaction() as sqlite:
            return _note(
                sqlite, job, "tries = tries + 1, error = :error, state = :state, due_s = :due_s", values
            )

    def counts(self) -> Mapping[str, KindCount]:
        with self._file.reading() as sqlite:
            rows = sqlite.execute(
                "SELECT kind, sum(state <> 2), sum(state = 2) FROM jobs GROUP BY kind ORDER BY kind"
            )
            return {kind: KindCount(waiting, aside) for kind, waiting, aside in rows}

    def jobs(self, *, after: JobId | None = None, limit: int) -> Sequence[QueuedJob]:
        with self._file.reading() as sqlite:
            rows = sqlite.execute(f"{_JOB} WHERE jobs.id > ? ORDER BY jobs.id LIMIT ?", (after or 0, limit))
            return _with_boxes(sqlite, rows.fetchall())

    def job(self, job: JobId) -> tuple[QueuedJob, tuple[QueuedStep, ...]] | None:
        with self._file.reading() as sqlite:
            found = _with_boxes(sqlite, sqlite.execute(f"{_JOB} WHERE jobs.id = ?", (job,)).fetchall())
            steps = sqlite.execute(
                "SELECT number, name, args, last FROM steps WHERE job = ? ORDER BY last, number", (job,)
            ).fetchall()
        if not found:
            return None
        return found[0], tuple(QueuedStep(at, name, args, bool(last)) for at, name, args, last in steps)

    def retry(self, job: JobId) -> bool:
        with self._file.transaction() as sqlite:
            sql = "UPDATE jobs SET state = ?, tries = 0, due_s = 0 WHERE id = ?"
            return sqlite.execute(sql, (DUE, job)).rowcount > 0

    def drop(self, job: JobId) -> bool:
        with self._file.transaction() as sqlite:
            return sqlite.execute("DELETE FROM jobs WHERE id = ?", (job,)).rowcount > 0

    def close(self) -> None:
        self._file.close()


def _follow_clock(sqlite: sqlite3.Connection, now_s: float) -> None:
    """Have everything wait as long as it was to, though the clock was set back."""
    ((seen_s,),) = sqlite.execute("SELECT seen_s FROM clock").fetchall()
    if abs(now_s - seen_s) <= CLOCK_SLACK_S:
        return  # nothing is written, so that looking costs no flush
    if now_s < seen_s:
        sqlite.execute(
            "UPDATE jobs SET due_s = due_s - ? WHERE due_s > 0 AND state <> ?", (seen_s - now_s, ASIDE)
        )
    sqlite.execute("UPDATE clock SET seen_s = ?", (now_s,))


def _add(sqlite: sqlite3.Connection, new: NewJob, now_s: float) -> JobId:
    """One job, which may be there; `state` follows from `due_s` at the next `ready`."""
    values = {
        "kind": new.kind, "key": new.key, "args": new.args, "priority": new.priority, "now_s": now_s,
        "due_s": new.due_s, "again": new.again,
    }  # fmt: skip
    row = sqlite.execute("SELECT id FROM jobs WHERE kind = :kind AND key = :key", values).fetchone()
    if row is not None:
        sqlite.execute(
            """UPDATE jobs SET priority = min(priority, :priority),
                due_s = CASE WHEN state = 2 AND :again THEN :due_s
                    WHEN tries = 0 THEN min(due_s, :due_s) ELSE due_s END,
                tries = iif(state = 2 AND :again, 0, tries),
                state = iif(state = 2 AND :again, 1, state)
            WHERE kind = :kind AND key = :key""",
            values,
        )
        return JobId(row[0])
    added = sqlite.execute(
        """INSERT INTO jobs (kind, key, args, priority, added_s, due_s, state)
        VALUES (:kind, :key, :args, :priority, :now_s, :due_s, iif(:due_s > 0, 1, 0))""",
        values,
    )
    job = JobId(added.lastrowid or 0)
    _add_steps(sqlite, job, new.steps)
    return job


def _add_steps(sqlite: sqlite3.Connection, job: JobId, steps: Sequence[NewStep]) -> None:
    """Behind those that are there; a number that was given is never given again, whatever became of it."""
    if not steps:
        return
    sql = "UPDATE jobs SET next_number = next_number + ? WHERE id = ? RETURNING next_number - ?"
    ((first,),) = sqlite.execute(sql, (len(steps), job, len(steps))).fetchall()
    sqlite.executemany(
        "INSERT INTO steps VALUES (?, ?, ?, ?, ?)",
        [(job, step.last, first + at, step.name, step.args) for at, step in enumerate(steps)],
    )


def _note(sqlite: sqlite3.Connection, job: QueuedJob, change: str, values: Mapping[str, object]) -> bool:
    """Change a job's row if nobody has noted a step of it since it was read."""
    sql = f"UPDATE jobs SET changes = changes + 1, {change} WHERE id = :id AND changes = :changes"  # noqa: S608
    return sqlite.execute(sql, {**values, "id": job.id, "changes": job.changes}).rowcount > 0


def _with_boxes(sqlite: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> list[QueuedJob]:
    jobs = []
    for (
        id_, kind, key, args, priority, added_s, due_s, tries, error, state, changes, done, total,
        number, name, step_args, last, steps_left,
    ) in rows:  # fmt: skip
        boxes = dict(sqlite.execute("SELECT name, value FROM boxes WHERE job = ?", (id_,)).fetchall())
        step = QueuedStep(number, name, step_args, bool(last))
        jobs.append(
            QueuedJob(
                JobId(id_), kind, key, args, priority, added_s, due_s, tries, error, state == ASIDE, changes,
                done, total, step, steps_left, boxes,
            )
        )  # fmt: skip
    return jobs
