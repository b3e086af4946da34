"""Keeping up with what others commit: a task that hears of it, and a question before a file is opened."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from muniment.errors import MunimentError
from muniment.fs.committing.committer import Committer
from muniment.fs.store import Store
from muniment.ports import Clock

_WAIT_S: Final = 30.0
_QUICK_S: Final = 0.1
_PAUSE_S: Final = 1.0
"""After a quick answer with nothing new: a log on this machine answers at once."""

_BREATH_S: Final = 0.05
"""After a quick answer with something new: more is coming, and is taken in together."""

_PATIENCE_S: Final = 5.0
_OFFLINE_S: Final = 5.0
"""So long the log service is not asked again after it could not be reached: what is known here is shown."""

_log = logging.getLogger(__name__)


class Watching:
    """Owns the task that follows the log.

    Args:
        store: follows.
        committer: takes in what came.
        clock: of this machine.
        deadline_s: so long anybody waits at most.
    """

    def __init__(self, store: Store, committer: Committer, clock: Clock, deadline_s: float) -> None:
        self._store, self._committer, self._clock = store, committer, clock
        self._patience_s = min(_PATIENCE_S, deadline_s)
        self._ask_after_s = float("-inf")
        self._asking = asyncio.Lock()
        self._asked = self._answered = 0  # questions, by number
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow(), name="follow log")

    async def aclose(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def freshen(self) -> None:
        """Let callers see what was in the log when this was called; one small request if that is nothing new.

        Callers who wait for a question to end share the next one.  If the log service does not answer within
        5 s, callers see what is known here.
        """
        enough = self._asked + 1  # one that is begun from now on
        async with self._asking:
            if self._answered < enough and self._clock.monotonic_s() >= self._ask_after_s:
                self._asked += 1
                await self._ask()
                self._answered = self._asked

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._store.follow()
                await self._committer.caught_up(self._store.newest)
        except (MunimentError, TimeoutError) as error:
            _log.warning("what others have changed is not known: %s", str(error) or "no answer")
            self._ask_after_s = self._clock.monotonic_s() + _OFFLINE_S

    async def _follow(self) -> None:
        while True:
            begun_s = self._clock.monotonic_s()
            try:
                is_new = await self._store.wait_change(_WAIT_S)
            except Exception as error:  # noqa: BLE001 - whatever it is, others' changes are looked for again
                bug = None if isinstance(error, MunimentError) else error
                _log.warning("the log cannot be followed at present: %s", error, exc_info=bug)
                await asyncio.sleep(_OFFLINE_S)
                continue
            if is_new:
                self._committer.wake()
            if self._clock.monotonic_s() - begun_s < _QUICK_S:
                await asyncio.sleep(_BREATH_S if is_new else _PAUSE_S)
