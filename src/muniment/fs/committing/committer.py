"""The one task that brings changes into the log: all that wait become one entry while the last is ordered.

So the log's latency bounds nobody but him who asks for durability: under load each entry carries what came in
during the one before.  When nobody waits for it, a change lingers a moment for company.

What becomes of failures:
- A change that the newest state does not allow, since another client was faster, fails alone.  Its error is
  told to whoever waits for it, else to the next fsync or close of a file or folder that it was about.
- What the log cannot take as one entry is divided, until it can; a change that it cannot take alone fails.
- Others are faster again and again: that is nobody's error.  The batch is planned anew on what they left,
  after pauses by chance, until it has its turn.
- The volume may not be written any more (removed, role taken, log forked): all that waits fails, and so does
  every later change.
- Anything else, such as a log service that cannot be reached or a full disk here: the batch is sent again and
  again; who waits is told at his deadline, and so is who wants to add to a full queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final

from muniment.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LogForked,
    MunimentError,
    NotCapable,
    NotMember,
    OperationRejected,
    Overtaken,
    RoleForbids,
)
from muniment.fs.committing.changes import Change
from muniment.fs.deadlines import Patience
from muniment.fs.names.present import Present
from muniment.fs.store import Outcome, Store

Changed = Callable[[int, int], None]
"""Told that others have changed something between two entries."""

_QUEUE_MAX: Final = 8192
_ERRORS_MAX: Final = 4096
_HURRY: Final = 1024
"""So many changes are company enough, each counted once more when it is run again for what others changed."""

_COMPANY_MAX: Final = 64
_COMPANY_S: Final = 0.003
"""Who was just answered comes back so soon with his next change, and shares its entry with the others."""

_OVERTAKEN_S: Final = 0.2
"""So long at most until a batch that was overtaken is sent again: several who write much take turns."""

_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_log = logging.getLogger(__name__)


class Committer:
    """See the module.

    Args:
        present: whose changes it commits.
        store: where to.
        linger_s: so long a change waits for others if nobody waits for it.
        patience: so long anybody waits.
        changed: hears of others' changes.
    """

    def __init__(
        self, present: Present, store: Store, *, linger_s: float, patience: Patience, changed: Changed
    ) -> None:
        self._present, self._store, self._changed = present, store, changed
        self._linger_s, self._patience = linger_s, patience
        self._expected = 0
        self._work, self._progress = asyncio.Event(), asyncio.Event()
        self._is_waited_for = False  # somebody waits for what is queued
        self._errors: dict[int, MunimentError] = {}
        self._trouble: MunimentError | None = None
        self._broken: MunimentError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to commit."""
        self._task = asyncio.create_task(self._run(), name="committer")

    async def aclose(self) -> None:
        """End; what waits is in no entry then, or in one that was sent and not answered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def is_broken(self) -> bool:
        """Whether the volume cannot be written any more, and what waited was given up."""
        return self._broken is not None

    # --- for callers --------------------------------------------------------------------------

    def wake(self) -> None:
        """There is a new change, or the log may have something new of others."""
        self._work.set()

    async def admit(self) -> None:
        """Wait until the queue has room.  Raises: DeadlineExceeded; what broke it."""
        await self._until(lambda: self._present.waiting < _QUEUE_MAX)

    async def durable(self, number: int) -> None:
        """Wait until every change up to this number is in the log, or will never be.

        Raises: DeadlineExceeded: it is not yet; what broke it.  What failed alone is in `Change.error` and
            `error_of`.
        """
        await self._until(lambda: self._present.done >= number)

    async def caught_up(self, at: int) -> None:
        """Wait until callers see the state after an entry.  Raises: as `durable`."""
        await self._until(lambda: self._present.at >= at, hurry=False)

    def tell(self, ino: int, error: MunimentError) -> None:
        """Let whoever asks for the error of this inode next have it, unless there is an earlier one."""
        self._errors.setdefault(ino, error)
        if len(self._errors) > _ERRORS_MAX:
            del self._errors[next(iter(self._errors))]

    def error_of(self, inodes: Iterable[int]) -> MunimentError | None:
        """What failed of these since somebody last asked; told once."""
        found = [error for ino in inodes if (error := self._errors.pop(ino, None)) is not None]
        return found[0] if found else None

    async def _until(self, done: Callable[[], bool], *, hurry: bool = True) -> None:
        try:
            async with asyncio.timeout(self._patience.left_s):
                while not done():
                    if self._broken is not None:
                        raise self._broken
                    self._is_waited_for |= hurry
                    self._work.set()
                    await self._progress.wait()
        except TimeoutError as error:
            raise DeadlineExceeded(node=b"", call="commit", deadline_s=self._patience.deadline_s) from (
                self._trouble or error
            )
        if self._broken is not None:
            raise self._broken

    # --- the task -----------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                if self._present.waiting:
                    await self._linger()
                    await self._commit()
                self._advance()
                failures, self._trouble = 0, None
                self._tell()
            except Overtaken as error:
                _log.info("changes of this client are still to be committed: %s", error)
                self._trouble = error
                self._work.set()
                await asyncio.sleep(_OVERTAKEN_S * random.random())  # noqa: S311 # no secret
            except (NotCapable, NotMember, RoleForbids, LogForked) as error:
                self._break(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, what waits is not lost
                self._trouble = error if isinstance(error, MunimentError) else None
                self._work.set()
                bug = None if isinstance(error, MunimentError | OSError) else error
                _log.warning("changes cannot be committed at present: %s", error, exc_info=bug)
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1

    async def _linger(self) -> None:
        """Let changes find company; what others have changed is taken in meanwhile."""
        again = self._take_in()  # who asked for that may have done so before this task had its turn
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                while not self._is_waited_for and self._present.waiting + again < _HURRY:
                    again += await self._woken()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COMPANY_S):
                while self._present.waiting < self._expected:
                    await self._woken()

    async def _woken(self) -> int:
        await self._work.wait()
        self._work.clear()
        return self._take_in()

    def _take_in(self) -> int:
        """Take in what is new, unless a batch is under way; returns how many changes are run again for it."""
        if self._present.under_way or self._store.newest == self._present.at:
            return 0
        count = self._present.waiting
        self._advance()
        self._tell()
        return count

    async def _commit(self) -> None:
        # What could not be committed stays one batch: its entry may be in the log already.
        batch = self._present.under_way or self._present.take()
        while (outcome := await self._outcome(batch)) is None:
            batch = self._present.halve()
        self._present.settled(outcome.index, [change for change, _ in outcome.failed])
        self._fail(outcome.failed)
        self._advance()
        self._expected = min(len(batch) + self._present.waiting, _COMPANY_MAX)
        if self._present.waiting:
            self._work.set()
        self._is_waited_for = False  # who still waits says so again
        self._tell()

    async def _outcome(self, batch: tuple[Change, ...]) -> Outcome | None:
        """What becomes of a batch; None: the log cannot take it as one entry."""
        if all(change.local for change in batch):
            return Outcome(None, ())
        try:
            return await self._store.commit(batch, self._present.at)
        except (OperationRejected, InvalidRequest) as error:
            if self._store.unanswered() is not None:  # a service says so, which may be wrong
                raise
            return None if len(batch) > 1 else Outcome(None, ((batch[0], error),))

    def _advance(self) -> None:
        before, newest = self._present.at, self._store.newest
        self._fail(self._present.advance(newest, self._store.state))
        if newest > before:
            self._changed(before, newest)

    def _fail(self, failed: Iterable[tuple[Change, MunimentError]]) -> None:
        for change, error in failed:
            _log.warning("a change of this client was not possible any more: %s", error)
            change.error = error
            for ino in change.inodes:
                self.tell(ino, error)

    def _break(self, error: MunimentError) -> None:
        _log.error("this volume cannot be written any more: %s", error)
        self._broken = error
        dropped = self._present.drop_all(self._store.newest, self._store.state)
        self._fail((change, error) for change in dropped)
        self._tell()

    def _tell(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
