"""What a mount could not save when it ended: kept on this machine, and brought into the volume by the next.

Kept are changes that are in no entry, and written bytes that no entry names (`file`).  The next mount
makes the changes again on the newest state, in their order; what that forbids goes beside (`bringing_back`).
The file goes when all of it is in the log.  A mount that is killed in between leaves it, and the one after it
begins anew: what was in the log already may then stand beside itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.errors import MunimentError, UnavailableError
from muniment.fs.committing.changes import Change, renumbered
from muniment.fs.content.dirty import Dirty, NotNamed
from muniment.fs.names.numbers import LOCAL_FIRST, Numbers
from muniment.fs.names.present import Present
from muniment.fs.store import Store
from muniment.fs.unsaved.bringing_back import BringingBack, Brought
from muniment.fs.unsaved.file import read_unsaved, write_unsaved
from muniment.spec.operation import Kind, SetAttributes, Write, inodes_of
from muniment.spec.unsaved import UnsavedChange, UnsavedFile, UnsavedHead, UnsavedPiece, UnsavedRecord

_PATIENCE_S: Final = 5.0
"""So long a mount that begins waits until what it brings back is in the log; then that goes on beside it."""

_PAUSE_S: Final = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept.

    Attributes:
        changes: of names and attributes, and writes of what is on the grid already.
        files: of which bytes are kept.
        size_bytes: so many.
        path: where.
    """

    changes: int
    files: int
    size_bytes: int
    path: Path


class Unsaved:
    """See the module.

    Args:
        present: has the changes.
        dirty: has the bytes.
        store: has the keys.
        numbers: of this file system.
        bring: saves and commits everything.
    """

    def __init__(
        self,
        present: Present,
        dirty: Dirty,
        store: Store,
        numbers: Numbers,
        bring: Callable[[], Awaitable[None]],
    ) -> None:
        self._present, self._dirty, self._store, self._numbers = present, dirty, store, numbers
        self._bring = bring
        self._brought: list[Path] = []
        self._task: asyncio.Task[None] | None = None

    # --- at the end ---------------------------------------------------------------------------

    async def keep(self, folder: Path) -> Kept | None:
        """Keep what is not saved; nothing changes any more.  None: all is.

        Returns: when it is durable in a file of its own.
        Raises: NotMember, NotCapable: who may not write any more keeps nothing; DiskFull, StoreFailed.
        """
        changes = [change for change in self._present.unsettled() if not change.local]
        files = {ino: self._dirty.unsaved(ino) for ino in self._dirty if self._has_name(ino)}
        if not changes and not files:
            return None
        now_ns = self._store.now_ns()
        path = folder / f"unsaved-{now_ns}"
        records = self._records(now_ns, changes, files)
        await asyncio.to_thread(write_unsaved, path, records, await self._store.newest_keys())
        pieces = [piece for one in files.values() for piece in one.pieces]
        named = sum(len(one.stored) for one in files.values())
        size = sum(piece.stop - piece.start for piece in pieces)
        kept = Kept(len(changes) + named, len(files), size, path)
        _log.warning("what could not be saved is kept: %s", kept)
        return kept

    def _has_name(self, ino: int) -> bool:
        row = self._present.tree.inode(ino)
        return row is not None and row.links > 0

    def _records(
        self, now_ns: int, changes: list[Change], files: dict[int, NotNamed]
    ) -> Iterator[UnsavedRecord]:
        at, sent, place = self._present.at, self._store.unanswered(), self._numbers.settled
        yield UnsavedHead(now_ns, at, sent.entry if sent else b"", sent.made if sent else ())
        state = self._store.state(at)
        times: dict[int, int | None] = {
            place(ino): None for change in changes for ino in inodes_of(change.operation)
        }
        times |= {place(ino): one.mtime_ns for ino, one in files.items()}
        for ino, mtime_ns in times.items():
            row = state.inode(ino) if ino < LOCAL_FIRST else None
            if mtime_ns is not None or (row is not None and row.kind is Kind.FILE):
                yield UnsavedFile(ino, 0 if row is None else row.version, mtime_ns)
        for change in changes:
            was_sent = sent is not None and change.number in sent.changes
            operation = renumbered(change.operation, place)
            yield UnsavedChange(operation, change.blobs, change.time_ns, change.made, was_sent)
        for here, one in files.items():
            ino = place(here)
            for saved in one.stored:
                yield UnsavedChange(Write(ino, None, saved.content), saved.blobs, now_ns, 0, was_sent=False)
            if one.stored:
                time_set = SetAttributes(ino, mtime_ns=one.mtime_ns)
                yield UnsavedChange(time_set, (), now_ns, 0, was_sent=False)
            for piece in one.pieces:
                data = bytes(piece.buffer.view(piece.skip, piece.skip + piece.stop - piece.start))
                yield UnsavedPiece(ino, piece.start, data)

    # --- at the next beginning ----------------------------------------------------------------

    async def bring_back(self, path: Path) -> Brought:
        """Make again what an earlier mount has kept; the file goes when all of it is in the log.

        Raises: MalformedRecord, UnknownVersion, NotCapable, StoreFailed: it cannot be read; nothing is done.
        """
        records = await asyncio.to_thread(read_unsaved, path, self._store.keys)
        back = BringingBack(self._present, self._dirty, self._store, self._numbers)
        brought = back.take(records)
        self._brought.append(path)
        if self._task is None:
            self._task = asyncio.create_task(self._until_saved(), name="bring back")
        await asyncio.wait({self._task}, timeout=_PATIENCE_S)
        return brought

    async def _until_saved(self) -> None:
        while self._brought:
            paths = tuple(self._brought)
            try:
                await self._bring()
            except UnavailableError as error:
                _log.info("what is brought back cannot be saved at present: %s", error)
                await asyncio.sleep(_PAUSE_S)
            except MunimentError as error:
                _log.warning("what is brought back stays on this machine: %s", error)
                break
            else:
                await asyncio.to_thread(_remove, paths)
                _log.info("all that was brought back is in the log")
                self._brought = [path for path in self._brought if path not in paths]
        self._task = None

    async def aclose(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def forget(self) -> None:
        """All that was brought back is in the log now, or was kept anew."""
        await asyncio.to_thread(_remove, tuple(self._brought))
        self._brought.clear()


def _remove(paths: tuple[Path, ...]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
