"""The composition root's part for mounts: a replica and a view of its own for each, so that all else goes on.

volumes/<VolumeId>/mounts/<number>/     one mount at a time: replica, view, checkpoints, log of what happened

The first time a number is used, what the home has of the volume is copied; from then on it follows the log
itself.  A mount holds its own folder and not the volume's: commands, and other mounts, work beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from muniment.crypto.member import MemberSecret
from muniment.durable_file import failed, flush, write_whole
from muniment.engine.members import Members
from muniment.engine.opened import LOCAL, KnownVolume, OpenVolume
from muniment.engine.volume import Volume
from muniment.errors import FolderBusy, InvalidRequest, StoreFailed
from muniment.node import compose, newcomers, volumes
from muniment.node.clock import SystemClock
from muniment.node.folder import FolderLock, wait_lock
from muniment.node.shared_log import SharedLocalLog
from muniment.node.volume_home import (
    CHECKPOINTS_FOLDER,
    REPLICA_FILE,
    VIEW_FILE,
    Passphrase,
    find_volume,
    holding,
)
from muniment.node.volume_home import volumes as all_volumes
from muniment.spec.unsaved import split_sent

if TYPE_CHECKING:
    from muniment.engine.grid import Grid
    from muniment.ports import LogClient

MOUNTS_FOLDER: Final = "mounts"
LOG_FILE: Final = "mount.log"
UNSAVED: Final = "unsaved-*[0-9]"
SENT_FILE: Final = "sent"
_PLACE_FILE: Final = "mount.json"
_MOUNTS_MAX: Final = 64
_LOG_BYTES_MAX: Final = 4 << 20


class _Place(msgspec.Struct):
    """mount.json.

    Attributes:
        folder: where it is mounted.
        device: the kernel's number of the mount.
        process: that serves it.
    """

    folder: str
    device: str
    process: int


@dataclass(frozen=True, slots=True)
class MountHome:
    """A mount's folder, held until `close`."""

    known: KnownVolume
    folder: Path
    lock: FolderLock

    def remember(self, folder: Path, device: str) -> None:
        """Where it is mounted, for who wants to wait for its end."""
        place = _Place(str(folder), device, os.getpid())
        write_whole(self.folder / _PLACE_FILE, msgspec.json.encode(place))

    def log_file(self) -> Path:
        """Where a mount in the background writes what happens; what is long is put aside first."""
        path = self.folder / LOG_FILE
        try:
            if path.exists() and path.stat().st_size > _LOG_BYTES_MAX:
                path.replace(path.with_suffix(".old"))
        except OSError as error:
            raise failed(path, error) from error
        return path

    def take_unsaved(self) -> list[Path]:
        """What mounts of this volume could not save when they ended, the oldest first; it is in this folder
        then.  Raises: StoreFailed.
        """
        with self._translated():
            for unfinished in self.folder.glob("unsaved-*.new"):  # its mount died while it wrote this
                unfinished.unlink()
            for folder in self._others(UNSAVED):
                with contextlib.suppress(FolderBusy), contextlib.closing(FolderLock(folder)):
                    for path in folder.glob(UNSAVED):
                        path.rename(self.folder / path.name)
            return unsaved_in(self.folder)

    def take_sent(self) -> Path:
        """The list of what mounts of this volume have sent and nothing names, with that of all that are not
        mounted now.  Raises: DiskFull, StoreFailed.
        """
        own = self.folder / SENT_FILE
        with self._translated():
            for folder in self._others(SENT_FILE):
                with contextlib.suppress(FolderBusy), contextlib.closing(FolderLock(folder)):
                    path = folder / SENT_FILE
                    found = split_sent(own.read_bytes() if own.exists() else b"")
                    write_whole(own, (*found, *split_sent(path.read_bytes())), mode=0o600)
                    path.unlink()
        return own

    def _others(self, pattern: str) -> list[Path]:
        """Folders of other mounts that have such files."""
        folders = sorted(self.folder.parent.iterdir())
        return [folder for folder in folders if folder != self.folder and any(folder.glob(pattern))]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failed(self.folder, error) from error

    def has_unsaved(self) -> bool:
        """Whether anything is kept for this volume that is in no log yet."""
        return any(self.folder.parent.glob(f"*/{UNSAVED}"))

    def close(self) -> None:
        """Let another mount have it."""
        (self.folder / _PLACE_FILE).unlink(missing_ok=True)
        self.lock.close()


def unsaved_in(folder: Path) -> list[Path]:
    """What is kept in a mount's folder and in no volume yet, the oldest first."""
    return sorted(folder.glob(UNSAVED), key=lambda path: int(path.name.rpartition("-")[2]))


def take_home(home: Path, name: str) -> MountHome:
    """A folder for one more mount of a volume.  Raises: VolumeUnknown; InvalidRequest: there are too many."""
    known = find_volume(home, name)
    for number in range(1, _MOUNTS_MAX + 1):
        folder = known.folder / MOUNTS_FOLDER / str(number)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise failed(folder, error) from error
        with contextlib.suppress(FolderBusy):
            taken = MountHome(known, folder, FolderLock(folder))
            (folder / _PLACE_FILE).unlink(missing_ok=True)  # of one that was killed, and was elsewhere
            return taken
    raise InvalidRequest(reason=f"{name} is mounted {_MOUNTS_MAX} times by this home")


@contextlib.asynccontextmanager
async def open_mount(
    home: Path, place: MountHome, roster: str | None, passphrase: Passphrase, cache_bytes: int = 0
) -> AsyncIterator[tuple[OpenVolume, Grid]]:
    """A volume for one mount, in step with its log, and the grid that has its content.

    Args:
        cache_bytes: as `compose.open_grid`.
    Raises: PassphraseWrong; LogForked; as `LogClient`; GridUnknown, RosterEmpty.
    """
    known = place.known
    held = holding(home, known, passphrase)
    if not (place.folder / REPLICA_FILE).exists():
        async with volumes.open_volume(home, known.name, passphrase, roster):
            await asyncio.to_thread(_copy, known.folder, place.folder)
    async with contextlib.AsyncExitStack() as stack:
        log: LogClient = SharedLocalLog(home, known)
        if known.log != LOCAL:
            service = await stack.enter_async_context(volumes.log_service(home, known.log))
            log = service.client(known.volume)
        secret = held.read if isinstance(held, MemberSecret) else held
        with contextlib.ExitStack() as opening:
            follower = await asyncio.to_thread(
                newcomers.open_follower, known, secret, opening, folder=place.folder
            )
            opening.pop_all()
        writer = held if isinstance(held, MemberSecret) else None
        volume = Volume(follower, writer, log, SystemClock(), os.urandom)
        stack.push_async_callback(volume.aclose)
        await volume.sync()
        grid = await stack.enter_async_context(compose.open_grid(home, roster, cache_bytes=cache_bytes))
        yield OpenVolume(known, held, volume, Members(volume, os.urandom)), grid


def serving(home: Path, folder: Path, device: str) -> Iterator[Path]:
    """The folder of its own of each mount of a home that is mounted there, as it has said."""
    for known in all_volumes(home, damaged=True):
        for path in sorted((known.folder / MOUNTS_FOLDER).glob(f"*/{_PLACE_FILE}")):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                place = msgspec.json.decode(path.read_bytes(), type=_Place)
                if (place.folder, place.device) == (str(folder), device):
                    yield path.parent


async def wait_ended(folder: Path) -> None:
    """Until the mount that holds this folder of its own has saved everything and ended."""
    (await wait_lock(folder)).close()


def _copy(source: Path, target: Path) -> None:
    """What the home has of a volume, which is held by the caller."""
    for name in (VIEW_FILE, newcomers.CLEAR_FILE, REPLICA_FILE):  # the last one says that all are there
        if not (source / name).exists():
            continue
        part = target / f"{name}.part"
        try:
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if name == newcomers.CLEAR_FILE:
                shutil.copyfile(source / name, part)
            else:
                _copy_database(source / name, part)
            flush(part)
            part.replace(target / name)
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed(where=str(target), reason=f"it cannot be copied: {error}") from error
    (target / CHECKPOINTS_FOLDER).mkdir(mode=0o700, exist_ok=True)


def _copy_database(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
