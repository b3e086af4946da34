"""`VisibleQueue` in memory: for tests, simulation, and as the reference of its contract."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

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

_NO_STEP: Final = QueuedStep(-1, "", b"", last=False)


@dataclass(slots=True)
class _Entry:
    """A job, of which `job.step`, `steps_left` and `boxes` are filled in when it is looked at."""

    job: QueuedJob
    steps: list[QueuedStep] = field(default_factory=list)
    boxes: dict[str, bytes] = field(default_factory=dict)
    next_number: int = 0

    def seen(self) -> QueuedJob:
        return replace(self.job, step=self.steps[0], steps_left=len(self.steps), boxes=dict(self.boxes))

    def extend(self, steps: Sequence[NewStep]) -> None:
        for step in steps:
            self.steps.append(QueuedStep(self.next_number, step.name, step.args, step.last))
            self.next_number += 1
        self.steps.sort(key=lambda step: (step.last, step.number))


class MemoryQueue:
    """One queue, gone with its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[JobId, _Entry] = {}
        self._names: dict[tuple[str, str], JobId] = {}
        self._last_id = 0
        self._seen_s = 0.0

    def add(self, jobs: Sequence[NewJob], now_s: float) -> list[JobId]:
        with self._lock:
            return [self._add(job, now_s) for job in jobs]

    def _add(self, new: NewJob, now_s: float) -> JobId:
        equal = self._names.get((new.kind, new.key))
        if equal is not None:
            entry = self._entries[equal]
            job = replace(entry.job, priority=min(entry.job.priority, new.priority))
            if job.aside and new.again:
                job = replace(job, aside=False, tries=0, due_s=new.due_s)
            elif not job.tries:
                job = replace(job, due_s=min(job.due_s, new.due_s))
            entry.job = job
            return equal
        self._last_id += 1
        entry = _Entry(
            QueuedJob(
                id=JobId(self._last_id), kind=new.kind, key=new.key, args=new.args, priority=new.priority,
                added_s=now_s, due_s=new.due_s, tries=0, error="", aside=False, changes=0, done=0, total=0,
                step=_NO_STEP, steps_left=0, boxes={},
            )
        )  # fmt: skip
        entry.extend(new.steps)
        self._entries[entry.job.id] = entry
        self._names[new.kind, new.key] = entry.job.id
        return entry.job.id

    def _remove(self, job: JobId) -> bool:
        entry = self._entries.pop(job, None)
        if entry is not None:
            del self._names[entry.job.kind, entry.job.key]
        return entry is not None

    def ready(self, now_s: float, kinds: Collection[str], *, without: Collection[JobId], limit: int) -> Ready:
        with self._lock:
            self._follow_clock(now_s)
            waiting = [
                entry
                for entry in self._entries.values()
                if entry.job.kind in kinds and entry.job.id not in without and not entry.job.aside
            ]
            due = [entry for entry in waiting if entry.job.due_s <= now_s]
            due.sort(key=lambda entry: (entry.job.priority, entry.job.id))
            later = min((entry.job.due_s for entry in waiting if entry.job.due_s > now_s), default=None)
            return Ready(tuple(entry.seen() for entry in due[:limit]), later)

    def _follow_clock(self, now_s: float) -> None:
        """Have everything wait as long as it was to, though the clock was set back."""
        if abs(now_s - self._seen_s) <= CLOCK_SLACK_S:
            return
        back_s, self._seen_s = self._seen_s - now_s, now_s
        for entry in self._entries.values() if back_s > 0 else ():
            if entry.job.due_s > 0 and not entry.job.aside:
                entry.job = replace(entry.job, due_s=entry.job.due_s - back_s)

    def done(self, job: QueuedJob, outcome: Outcome, now_s: float) -> bool:
        with self._lock:
            entry = self._unchanged(job)
            if entry is None:
                return False
            if not outcome.again:
                del entry.steps[0]
            entry.extend(outcome.steps)
            for name, value in outcome.boxes.items():
                entry.boxes.pop(name, None)
                if value is not None:
                    entry.boxes[name] = value
            done, total = outcome.progress or (entry.job.done, entry.job.total)
            entry.job = replace(
                entry.job, due_s=outcome.due_s, tries=0, error="", aside=False,
                changes=job.changes + 1, done=done, total=total,
            )  # fmt: skip
            if not entry.steps:
                self._remove(job.id)
            for new in outcome.jobs:
                self._add(new, now_s)
            return True

    def failed(self, job: QueuedJob, error: str, *, due_s: float | None) -> bool:
        with self._lock:
            entry = self._unchanged(job)
            if entry is None:
                return False
            entry.job = replace(
                entry.job, tries=entry.job.tries + 1, error=error, changes=job.changes + 1,
                aside=due_s is None, due_s=due_s or 0.0,
            )  # fmt: skip
            return True

    def _unchanged(self, job: QueuedJob) -> _Entry | None:
        entry = self._entries.get(job.id)
        return entry if entry is not None and entry.job.changes == job.changes else None

    def counts(self) -> Mapping[str, KindCount]:
        with self._lock:
            found = Counter((entry.job.kind, entry.job.aside) for entry in self._entries.values())
            kinds = sorted({kind for kind, _ in found})
            return {kind: KindCount(found[kind, False], found[kind, True]) for kind in kinds}

    def jobs(self, *, after: JobId | None = None, limit: int) -> Sequence[QueuedJob]:
        with self._lock:
            return [entry.seen() for id_, entry in self._entries.items() if id_ > (after or 0)][:limit]

    def job(self, job: JobId) -> tuple[QueuedJob, tuple[QueuedStep, ...]] | None:
        with self._lock:
            entry = self._entries.get(job)
            return None if entry is None else (entry.seen(), tuple(entry.steps))

    def retry(self, job: JobId) -> bool:
        with self._lock:
            entry = self._entries.get(job)
            if entry is not None:
                entry.job = replace(entry.job, aside=False, tries=0, due_s=0.0)
            return entry is not None

    def drop(self, job: JobId) -> bool:
        with self._lock:
            return self._remove(job)

    def close(self) -> None:
        """Nothing to give back."""
