"""The logs that one process serves: a file for each volume, opened when it is first asked for.

A log is made by its first entry, which its founder signs; who may found is the operator's choice.  After
that an entry is admitted by what it says itself, and whoever knows a VolumeId, which every capability of the
volume holds and nobody can guess, may read: the content is encrypted for members.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from muniment.crypto.entries import open_entry, volume_id
from muniment.crypto.identity import Identity
from muniment.engine.sequencer import Sequencer, found
from muniment.engine.strangers import Strangers
from muniment.errors import AccountRefused, Overloaded, StoreFailed, VolumeUnknown
from muniment.ids import MemberId, VolumeId, id_text
from muniment.logs.clear_file import FileClear
from muniment.logs.sqlite import SqliteLog
from muniment.ports import Clock

SUFFIX: Final = ".log"
CLEAR_SUFFIX: Final = ".clear"
"""Beside each log: its clear part in short, a cache."""

_T = TypeVar("_T")


def backup_logs(folder: Path, target: Path) -> list[Path]:
    """Copy all logs of a service's folder as they are now; the service may run meanwhile.

    Each copy appears whole or not at all, and replaces the one of an earlier backup; restored, it is the
    service's file.

    Args:
        folder: holds `<VolumeId>.log` files.
        target: another folder; made if missing.
    Returns: the copies.
    Raises: StoreFailed: a log is damaged, or has fewer entries than its copy: a log never shrinks, so the
        copy is the better one; DiskFull.
    """
    try:
        target.mkdir(mode=0o700, exist_ok=True)
        logs = sorted(folder.glob(f"*{SUFFIX}"))
        copies = {path: target / path.name for path in logs}
        before = {path: _entries(copy) if copy.exists() else 0 for path, copy in copies.items()}
    except OSError as error:
        raise StoreFailed(where=str(target), reason=f"the logs cannot be copied: {error}") from error
    for path, copy in copies.items():
        store = SqliteLog(path)
        try:
            if store.size < before[path]:
                reason = f"it has {store.size} entries, and its copy {copy} has {before[path]}"
                raise StoreFailed(where=str(path), reason=reason)
            store.backup(copy)
        finally:
            store.close()
    return list(copies.values())


def _entries(path: Path) -> int:
    store = SqliteLog(path)
    try:
        return store.size
    finally:
        store.close()


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """What a service has.

    Attributes:
        volumes: logs kept.
        file_bytes: of all their files.
        entries: how long each log is that is open now.
    """

    volumes: int
    file_bytes: int
    entries: dict[VolumeId, int]


class LogHost:
    """All logs of one folder.  Belongs to one event loop.

    Args:
        folder: holds `<VolumeId>.log` files; made if missing.
        identity: signs the checkpoints of all.
        clock: for entries' times.
        may_found: whether this member may found a volume here.
        volumes_max: logs kept at most.
        restoring: entries of long ago are taken as well (`Sequencer.restoring`).
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        clock: Clock,
        *,
        may_found: Callable[[MemberId], bool],
        volumes_max: int,
        restoring: bool = False,
    ) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder, self.identity, self.clock = folder, identity, clock
        self._may_found, self._volumes_max, self._restoring = may_found, volumes_max, restoring
        self._open: dict[VolumeId, asyncio.Task[Sequencer]] = {}
        self._founding = asyncio.Lock()
        self._strangers = Strangers(clock.monotonic_s)
        self._threads: list[ThreadPoolExecutor] = []

    async def found(self, signed: bytes) -> Sequencer:
        """Make a volume's log of its first entry, durably; one that exists already is returned.

        Raises: MalformedRecord, EntryRefused: it founds none; AccountRefused: its author may not here;
            Overloaded: there are too many.
        """
        volume, author = volume_id(signed), open_entry(signed).entry.author
        async with self._founding:
            if not self._path(volume).exists():
                if not self._may_found(author):
                    raise AccountRefused(account=author, reason="it is not among the founders")
                await self._in_thread(self._make, signed, volume)
        return await self.sequencer(volume)

    def _make(self, signed: bytes, volume: VolumeId) -> None:
        if len(list(self._folder.glob(f"*{SUFFIX}"))) >= self._volumes_max:
            raise Overloaded(limit=f"{self._volumes_max} volumes")
        # Under another name until it is whole: a file without a first entry would be no log.
        part = self._folder / f"{id_text(volume)}.new"
        for leftover in self._folder.glob(f"{part.name}*"):
            leftover.unlink()
        store = SqliteLog(part)
        try:
            found(signed, store, self.identity)
            store.backup(self._path(volume))
        finally:
            store.close()
            for leftover in self._folder.glob(f"{part.name}*"):
                leftover.unlink()

    async def sequencer(self, volume: VolumeId) -> Sequencer:
        """The service of one volume.  Raises: VolumeUnknown, StoreFailed."""
        task = self._open.get(volume)
        if task is None or (task.done() and task.exception() is not None):
            if not self._path(volume).exists():
                raise VolumeUnknown(volume=id_text(volume))
            task = asyncio.create_task(self._started(volume), name=f"open log {id_text(volume)[:12]}")
            self._open[volume] = task
        return task.result() if task.done() else await asyncio.shield(task)

    async def _started(self, volume: VolumeId) -> Sequencer:
        thread = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._threads.append(thread)
        loop = asyncio.get_running_loop()
        store = await loop.run_in_executor(thread, SqliteLog, self._path(volume))
        kept = FileClear(self._path(volume).with_suffix(CLEAR_SUFFIX))
        sequencer = Sequencer(volume, store, self.identity, self.clock, thread, kept, self._strangers)
        sequencer.restoring = self._restoring
        return sequencer

    async def cosign(self, volume: VolumeId, note: bytes) -> None:
        """Add a witness's cosignature to the newest checkpoint.

        Raises: VolumeUnknown; MalformedRecord, InvalidRequest: it is not one of the newest checkpoint.
        """
        sequencer = await self.sequencer(volume)

        await sequencer.cosign(note)

    def statistics(self) -> LogStatistics:
        """How much there is; looks at names and sizes of files only.  Blocking; any thread."""
        volumes = file_bytes = 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a part that has become a log meanwhile
                file_bytes += path.stat().st_size
            volumes += path.suffix == SUFFIX
        opened = [(volume, task) for volume, task in list(self._open.items()) if task.done()]
        entries = {volume: task.result().store.size for volume, task in opened if task.exception() is None}
        return LogStatistics(volumes, file_bytes, entries)

    def release_waiting(self) -> None:
        """Answer everybody who waits for a log to grow: the service stops."""
        for task in self._open.values():
            if task.done() and task.exception() is None:
                task.result().release_waiting()

    async def _in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    def _path(self, volume: VolumeId) -> Path:
        return self._folder / f"{id_text(volume)}{SUFFIX}"

    async def aclose(self) -> None:
        """Let queued entries become durable and close all logs."""
        for task in self._open.values():
            try:
                sequencer = await task
            except Exception:  # noqa: BLE001, S112 - it was told to who asked for it; nothing is open
                continue
            await sequencer.aclose()
            sequencer.store.close()
        self._open.clear()
        for thread in self._threads:
            thread.shutdown()
