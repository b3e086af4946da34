"""Bringing written bytes into the log: when somebody asks for it, and after a while when nobody does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from muniment.errors import MunimentError
from muniment.fs.committing.committer import Committer
from muniment.fs.content.dirty import Dirty, DirtyFile
from muniment.fs.names.present import Present
from muniment.ports import Clock
from muniment.spec.operation import SetAttributes, Write

_log = logging.getLogger(__name__)


class Saving:
    """Owns the task that saves what lies about, and those of files that were closed.

    Args:
        present: where the `Write` goes.
        dirty: what is to be saved.
        committer: told of it.
        clock: of this machine.
        after_s: what was written is saved after so long.
    """

    def __init__(
        self, present: Present, dirty: Dirty, committer: Committer, clock: Clock, after_s: float
    ) -> None:
        self._present, self._dirty, self._committer = present, dirty, committer
        self._clock, self._after_s = clock, after_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._regular: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for what lies about."""
        self._regular = asyncio.create_task(self._look(), name="write back")

    async def aclose(self) -> None:
        """End the tasks; what is not saved stays where it is."""
        tasks = self._tasks | ({self._regular} if self._regular is not None else set())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def save(self, ino: int) -> None:
        """Store what was written to a file, and let the log have it; the caller waits for the entry himself.

        A file without a name is not saved: nobody will read it later.
        Raises: what kept it from being stored; the bytes are kept.
        """
        await self._committer.admit()
        while (file := self._dirty.get(ino)) is not None:
            async with file.saving:
                if self._dirty.get(ino) is not file:
                    continue
                if not self._has_name(ino):
                    return
                for saved in await self._dirty.save(ino):
                    if self._present.tree.inode(ino) is None:
                        return
                    now_ns = int(self._clock.now_s() * 1e9)
                    self._present.apply(Write(ino, None, saved.content), now_ns, saved.blobs)
                    self._present.apply(SetAttributes(ino, mtime_ns=file.mtime_ns), now_ns)
                    self._committer.wake()
                    self._dirty.saved(ino, saved)
                return

    def _has_name(self, ino: int) -> bool:
        row = self._present.tree.inode(ino)
        if row is None:  # somebody else has removed it, and nobody here has it open
            self._dirty.drop(ino)
        return row is not None and row.links > 0

    async def durable(self, ino: int) -> None:
        """Save a file; on return that and all changes are in the log.  If the caller gives up, it goes on."""
        await asyncio.shield(self._begun(self.save(ino)))
        await self._committer.durable(self._present.newest)

    async def save_all(self) -> None:
        """Save every file.  Raises: what kept the first from being stored, after all were tried."""
        results = await asyncio.gather(*map(self.save, self._dirty), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def soon(self, ino: int) -> None:
        """Save a file in the background."""
        if self._dirty.get(ino) is None or (self._regular is None):
            return
        self._begun(self._quietly(ino))

    def _begun(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="save file")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self) -> None:
        """Save at each look what was there at the one before: also what is written again and again."""
        before: dict[int, DirtyFile | None] = {}
        while True:
            await asyncio.sleep(self._after_s)
            due = [ino for ino, file in before.items() if file is self._dirty.get(ino)]
            failed = [error for ino in due if (error := await self._tried(ino)) is not None]
            if failed:
                _log.warning("%d files cannot be saved at present: %s", len(failed), failed[0])
            before = {ino: self._dirty.get(ino) for ino in self._dirty}

    async def _quietly(self, ino: int) -> None:
        if (error := await self._tried(ino)) is not None:
            _log.warning("a file cannot be saved at present: %s", error)

    async def _tried(self, ino: int) -> Exception | None:
        """Save a file; what keeps it from being saved, fsync is told, and it is tried again."""
        try:
            await self.save(ino)
        except MunimentError as error:
            return error
        except Exception as error:  # noqa: BLE001 - others are to be saved all the same
            _log.exception("bug: a file cannot be saved")
            return error
        return None
