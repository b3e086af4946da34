"""Jobs of the durable queue as values: what is asked for, what is kept, and what a step brought about.

Arguments and boxes are canonical CBOR (`spec.canonical`): integers, byte strings, text, null and lists of
these.  They are kept in clear in the home of whoever runs the queue, and shown by `muni queue show`: no
secret belongs into them.  Source: docs/keeping.md section 11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from muniment.errors import InvalidRequest
from muniment.ids import JobId
from muniment.spec import canonical

NAME_CHARS_MAX: Final = 64
"""Of the name of a kind, step or box."""

KEY_CHARS_MAX: Final = 200
"""Room for three identifiers as text."""

VALUE_BYTES_MAX: Final = 64 * 1024
"""Of encoded arguments, and of all boxes of a job together: jobs name data, they do not carry it."""

CLOCK_SLACK_S: Final = 60.0
"""A clock that is corrected by less changes nothing; one that is set back by more, when jobs are due."""

PRIORITY_MAX: Final = 2**31 - 1

_NAME = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{NAME_CHARS_MAX - 1}}}", re.ASCII)
_FORMAT: Final = "value of a job"
_NULL: Final = canonical.dump(None)


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step that is to be done.

    Attributes:
        name: tells the handler what to do.
        args: canonical CBOR.
        last: it waits until no step that is not `last` is left.
    """

    name: str
    args: bytes = _NULL
    last: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is to be done; make it by `new_job`.

    Attributes:
        kind: which handler does it.
        key: of what; equal (kind, key) is one job as long as it is in the queue.
        args: canonical CBOR.
        steps: done in this order, those that are `last` behind the others.
        priority: smaller goes first.
        due_s: not before this time (seconds since the epoch); 0: at once.
        again: an equal job that was set aside is taken up again.
    """

    kind: str
    key: str
    args: bytes
    steps: tuple[NewStep, ...]
    priority: int = 0
    due_s: float = 0.0
    again: bool = False


@dataclass(frozen=True, slots=True)
class QueuedStep:
    """A step in the queue; `number` grows within its job and is never given twice."""

    number: int
    name: str
    args: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job in the queue.

    Attributes:
        id: never given twice; rises in the order in which jobs were added.
        kind, key, args, priority: as in `NewJob`.
        added_s: when it was added (seconds since the epoch).
        due_s: its next step is not begun before; 0: at once.
        tries: failures of that step in a row.
        error: what the last failure said; empty if the step before went well.
        aside: it is out of tries, and waits for a person.
        changes: how often a step of it was noted; whoever notes one says which count he has seen.
        done, total: progress as its steps told it, in units of their own; total 0: not known.
        step: the next one.
        steps_left: how many there are, this one included.
        boxes: values that its steps keep for each other.
    """

    id: JobId
    kind: str
    key: str
    args: bytes
    priority: int
    added_s: float
    due_s: float
    tries: int
    error: str
    aside: bool
    changes: int
    done: int
    total: int
    step: QueuedStep
    steps_left: int
    boxes: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step that went well brings about, all of it or (if the queue fails) nothing.

    Attributes:
        again: the step stays the next one.
        steps: added to the job; a job without steps is done and gone, with its boxes.
        boxes: set, or taken away where the value is None.
        jobs: added to the queue; after the job has gone, if it goes, so that it can add itself.
        progress: (done, total), or None as it was.
        due_s: the job's next step is not begun before; 0: at once.
    """

    again: bool = False
    steps: tuple[NewStep, ...] = ()
    boxes: Mapping[str, bytes | None] = field(default_factory=dict)
    jobs: tuple[NewJob, ...] = ()
    progress: tuple[int, int] | None = None
    due_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ready:
    """Jobs whose next step may begin, the most urgent first.

    Attributes:
        next_due_s: when the next of the others is due (seconds since the epoch); None: no other waits.
    """

    jobs: tuple[QueuedJob, ...]
    next_due_s: float | None


@dataclass(frozen=True, slots=True)
class KindCount:
    """How many jobs of a kind are in the queue: to be done, and set aside."""

    waiting: int
    aside: int


def new_job(
    kind: str,
    key: str,
    args: object = None,
    *,
    steps: Sequence[str] = ("run",),
    last: Sequence[str] = (),
    priority: int = 0,
    due_s: float = 0.0,
    again: bool = False,
) -> NewJob:
    """A job whose first steps have no arguments of their own; see `NewJob`.

    Raises: InvalidRequest: a name, key, value or priority that no job can have, or no step.
    """
    planned = tuple(new_step(name) for name in steps) + tuple(new_step(name, last=True) for name in last)
    if not planned:
        raise InvalidRequest(reason="a job needs a step")
    if not 0 < len(key) <= KEY_CHARS_MAX or not key.isprintable():
        raise InvalidRequest(reason=f"the key of a job is a line of 1 to {KEY_CHARS_MAX} characters")
    if abs(priority) > PRIORITY_MAX:
        raise InvalidRequest(reason=f"a priority is a number up to {PRIORITY_MAX}")
    return NewJob(checked_name(kind), key, encoded(args), planned, priority, due_s, again)


def new_step(name: str, args: object = None, *, last: bool = False) -> NewStep:
    """A step.  Raises: InvalidRequest: its name or arguments are none."""
    return NewStep(checked_name(name), encoded(args), last=last)


def checked_name(name: str) -> str:
    """The name of a kind, step or box.  Raises: InvalidRequest: it is none."""
    if not _NAME.fullmatch(name):
        reason = f"{name!r} is no name: 1 to {NAME_CHARS_MAX} of a-z, 0-9 and '-._', no sign in front"
        raise InvalidRequest(reason=reason)
    return name


def encoded(value: object) -> bytes:
    """A value as the queue keeps it.

    Raises: InvalidRequest: longer than VALUE_BYTES_MAX, or neither integer, bytes, text, None nor a list.
    """
    try:
        data = canonical.dump(value)
        if len(data) <= VALUE_BYTES_MAX:
            canonical.load(data, format=_FORMAT)
    except Exception as error:  # of an encoder that was given anything
        raise InvalidRequest(reason=f"a {type(value).__name__} is no {_FORMAT}: {error}") from error
    if len(data) > VALUE_BYTES_MAX:
        raise InvalidRequest(reason=f"a {_FORMAT} has at most {VALUE_BYTES_MAX} bytes, not {len(data)}")
    return data


def decoded(data: bytes) -> Any:
    """A value from the queue.  Raises: MalformedRecord: it was not `encoded`."""
    return canonical.load(data, format=_FORMAT)
