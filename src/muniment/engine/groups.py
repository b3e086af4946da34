"""Task groups as callers see them: the first error, plain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """`asyncio.TaskGroup` that ends in the error which ended it, and not in a group of errors.

    At the end no task of it runs.  Cancelled, it cancels and awaits its tasks as any task group does.
    Raises: what `first_error` finds.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        error = first_error(errors)
        raise error from error.__cause__


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a task group: callers handle one leaf of the error tree, not a group of them.

    The others are what happened to its siblings on the way out; they are attached as notes.
    """
    errors: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending = [*error.exceptions, *pending]
        elif not isinstance(error, asyncio.CancelledError):
            errors.append(error)
    first, *others = errors or [group]
    for other in others:
        if str(other) != str(first):
            first.add_note(f"and then: {other}")
    return first
