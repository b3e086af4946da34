"""`muni queue`: the work that a keeper of this home has still to do, and what it could not do."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import click

from muniment.core.keeping.job import KindCount, QueuedJob, decoded
from muniment.errors import JobUnknown, MalformedRecord
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.show import count_text, table
from muniment.gateways.cli.when import moment_text
from muniment.ids import JobId
from muniment.ports import VisibleQueue

_PAGE: Final = 1000
_CELL_CHARS: Final = 26
"""Of a kind or key in the list: enough to tell them apart; `show` and --json have it whole."""


@click.group()
@json_option
def queue() -> None:
    """See and mend the work that a keeper has still to do."""


@queue.command("list")
@click.option("--aside", is_flag=True, help="Only jobs that are set aside: those that failed too often.")
@click.option("--kind", metavar="KIND", help="Only jobs of this kind.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many; 0 shows all.",
)
@json_option
@pass_context
def queue_list(context: Context, aside: bool, kind: str | None, limit: int) -> None:
    """List the jobs of this home's queue, the oldest first.

    A job that is set aside waits for 'muni queue retry' or 'muni queue drop'.
    """
    with context.composition.open_queue(context.home) as opened:
        counts = opened.counts()
        chosen = (job for job in _all(opened) if (job.aside or not aside) and kind in (None, job.kind))
        jobs = list(itertools.islice(chosen, limit or None))
        more = next(chosen, None) is not None
    now_s = time.time()
    context.emit(
        {
            "jobs": [_facts(job, now_s) for job in jobs],
            "complete": not more,
            "kinds": {name: {"waiting": one.waiting, "aside": one.aside} for name, one in counts.items()},
        },
        _table(jobs, counts, now_s),
    )
    if more:
        context.remark(f"only the first {limit} are shown; '--limit 0' shows all")


@queue.command("show")
@click.argument("job_id", metavar="ID", type=click.IntRange(min=1))
@json_option
@pass_context
def queue_show(context: Context, job_id: int) -> None:
    """Tell all of one job: its arguments, the steps that are left, what they keep, why it failed."""
    with context.composition.open_queue(context.home) as opened:
        found = opened.job(JobId(job_id))
    if found is None:
        raise JobUnknown(job=job_id)
    job, steps = found
    now_s, args = time.time(), _value(job.args)
    boxes = {name: _value(value) for name, value in job.boxes.items()}
    rows = [
        ["job", str(job.id)],
        ["kind", job.kind],
        ["key", job.key],
        ["state", _state_text(job, now_s)],
        *([["error", job.error]] if job.error else []),
        ["added", moment_text(int(job.added_s * 1e9))],
        ["priority", str(job.priority)],
        *([["progress", _progress_text(job)]] if job.done or job.total else []),
        *([["arguments", _text(args)]] if args is not None else []),
    ]
    for step in steps:
        words = [step.name, *([] if (own := _value(step.args)) is None else [_text(own)])]
        rows.append([f"step {step.number}", " ".join([*words, *(["(last)"] if step.last else [])])])
    rows += [[f"box {name}", _text(value)] for name, value in boxes.items()]
    document = _facts(job, now_s) | {
        "args": args,
        "steps": [
            {"number": step.number, "name": step.name, "last": step.last, "args": _value(step.args)}
            for step in steps
        ],
        "boxes": boxes,
    }
    context.emit(document, table(rows))


@queue.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(min=1))
@click.option("--all", "every", is_flag=True, help="All that are set aside.")
@json_option
@pass_context
def queue_retry(context: Context, ids: tuple[int, ...], every: bool) -> None:
    """Take up jobs again at once, with as many tries as new ones have.

    A keeper that runs begins within seconds.
    """
    if bool(ids) == every:
        raise Refusal("name jobs, or give --all", "'muni queue list' shows their ids")
    with context.composition.open_queue(context.home) as opened:
        chosen = [job.id for job in _all(opened) if job.aside] if every else _known(opened, ids)
        retried = _each(chosen, opened.retry)
    context.emit({"retried": retried}, f"{count_text(len(retried), 'job')} taken up again")


@queue.command("drop")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=click.IntRange(min=1))
@json_option
@pass_context
def queue_drop(context: Context, ids: tuple[int, ...]) -> None:
    """Forget jobs, with what is left of them.

    Nothing that is stored anywhere is deleted by that; what still needs to be done, a keeper finds anew.
    """
    with context.composition.open_queue(context.home) as opened:
        dropped = _each(_known(opened, ids), opened.drop)
    context.emit({"dropped": dropped}, f"{count_text(len(dropped), 'job')} dropped")


def _all(opened: VisibleQueue) -> Iterator[QueuedJob]:
    after: JobId | None = None
    while page := opened.jobs(after=after, limit=_PAGE):
        yield from page
        after = page[-1].id


def _known(opened: VisibleQueue, ids: tuple[int, ...]) -> list[JobId]:
    """The jobs, if all of them are there: who mistypes one changes none.  Raises: JobUnknown."""
    for job in ids:
        if opened.job(JobId(job)) is None:
            raise JobUnknown(job=job)
    return [JobId(job) for job in dict.fromkeys(ids)]


def _each(jobs: list[JobId], change: Callable[[JobId], bool]) -> list[JobId]:
    """Those that were still there to be changed."""
    return [job for job in jobs if change(job)]


def _facts(job: QueuedJob, now_s: float) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "key": job.key,
        "state": _state(job, now_s),
        "step": job.step.name,
        "steps_left": job.steps_left,
        "priority": job.priority,
        "added_s": job.added_s,
        "due_s": job.due_s,
        "tries": job.tries,
        "done": job.done,
        "total": job.total,
        "error": job.error,
    }


def _table(jobs: list[QueuedJob], counts: Mapping[str, KindCount], now_s: float) -> str:
    waiting, aside = sum(one.waiting for one in counts.values()), sum(one.aside for one in counts.values())
    summary = f"{count_text(waiting, 'job')} to do, {aside} set aside"
    if not jobs:
        return summary
    rows = [["id", "kind", "key", "step", "left", "progress", "state", "error"]]
    for job in jobs:
        progress = _progress_text(job) if job.done or job.total else "-"
        state = _state_text(job, now_s)
        rows.append(
            [
                str(job.id),
                _cut(job.kind),
                _cut(job.key),
                job.step.name,
                str(job.steps_left),
                progress,
                state,
                job.error,
            ]
        )
    return "\n".join([table(rows, right=[0, 4]), summary])


def _cut(text: str) -> str:
    return text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 1] + "…"


def _state(job: QueuedJob, now_s: float) -> str:
    if job.aside:
        return "aside"
    return "waiting" if job.due_s > now_s else "due"


def _state_text(job: QueuedJob, now_s: float) -> str:
    tried = f" after {count_text(job.tries, 'try', 'tries')}" if job.tries else ""
    match _state(job, now_s):
        case "aside":
            return f"set aside{tried}"
        case "due":
            return f"due{tried}"
    return f"waits until {moment_text(int(job.due_s * 1e9))}{tried}"


def _progress_text(job: QueuedJob) -> str:
    return f"{job.done} of {job.total}" if job.total else str(job.done)


def _value(data: bytes) -> Any:
    """A value with bytes as base32, as identifiers are written; what cannot be read, wholly so."""
    try:
        return _readable(decoded(data))
    except MalformedRecord:
        return _readable(data)


def _readable(value: object) -> Any:
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, bytes):
        return base64.b32encode(value).decode().rstrip("=").lower()
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
