"""The composition root's part for archived logs: a round by hand, a keeper's archiver, and a log restored.

What is written and read lies at the nodes under the archive account of one member and volume
(docs/spec/archive.md); on this machine nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.crypto.identity import Identity
from muniment.crypto.keeping import archive_account, archive_secret
from muniment.crypto.member import VerifySecret
from muniment.engine.grid import Grid
from muniment.engine.keeping.archive import ArchiveDuties, LogArchiver, Standing, VolumeLog
from muniment.engine.keeping.restore import LogRestorer, Restored
from muniment.engine.keeping.shelf import TileShelf
from muniment.engine.opened import Holding, KnownVolume, verify_secret_of
from muniment.engine.rehost import rehost
from muniment.engine.volume import Volume
from muniment.errors import InvalidRequest, NotCapable
from muniment.ids import AccountId, VolumeId, id_text
from muniment.logs.sqlite import SqliteLog
from muniment.node import config as files
from muniment.node import volumes
from muniment.node.clock import SystemClock
from muniment.node.folder import FolderLock, read_identity, wait_lock
from muniment.node.log_host import SUFFIX
from muniment.node.volume_home import (
    REPLICA_FILE,
    Passphrase,
    check_name,
    find_volume,
    holding,
    keep_volume,
    secret_of,
)
from muniment.node.volume_home import volumes as known_volumes
from muniment.ports import LogStore
from muniment.spec.address import PeerAddress, PeerKind
from muniment.spec.volume_cap import VOLUME_PREFIX, VolumeCap, parse_volume_cap

_PART_SUFFIX: Final = ".restoring"

OpenGrid = Callable[[Identity], AbstractAsyncContextManager[Grid]]
"""Makes a client of the grid for an account."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A volume's archive after a round.

    Attributes:
        known: the volume.
        account: under which the tiles lie; nodes that serve invited accounts only must admit it.
        standing: how far it is.
    """

    known: KnownVolume
    account: AccountId
    standing: Standing


@dataclass(frozen=True, slots=True)
class Rehosted:
    """A log service's folder that has a log from the grid.

    Attributes:
        volume: whose log it is.
        entries: that are in it now.
        restored: from what.
        kept: the volume in this home, which follows the new service; None: it is known here as before.
    """

    volume: VolumeId
    entries: int
    restored: Restored
    kept: KnownVolume | None


async def open_archiver(
    stack: contextlib.AsyncExitStack,
    volume: Volume,
    secret: VerifySecret,
    open_grid: OpenGrid,
    duties: ArchiveDuties | None = None,
) -> LogArchiver:
    """What archives the log of a volume that is open already.

    Args:
        stack: closes the client of the grid; before the volume is closed.
        secret: of the member.
    Raises: RosterEmpty, GridUnknown.
    """
    grid = await stack.enter_async_context(open_grid(archive_account(secret, volume.id)))
    shelf = TileShelf(grid, archive_secret(secret, volume.id), os.urandom)
    return LogArchiver(VolumeLog(volume), shelf, grid, SystemClock(), secret.member, duties)


async def archive_once(
    home: Path, name: str, open_grid: OpenGrid, passphrase: Passphrase, *, write: bool = True
) -> Archived:
    """One round for a volume of the home, everything that is in its log; or (not `write`) only a look.

    Raises: VolumeUnknown, PassphraseWrong; LogForked; NotHappy; HistoryMissing: entries that are not archived
        are not on this machine; RosterEmpty, GridUnknown; as `LogClient`.
    """
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(volumes.open_volume(home, name, passphrase))
        secret = verify_secret_of(opened.held)
        archiver = await open_archiver(stack, opened.volume, secret, open_grid)
        standing = await archiver.round(everything=True, write=write)
        account = archive_account(secret, opened.volume.id).account
        return Archived(opened.known, account, standing)


async def rehost_from_grid(
    home: Path,
    text: str,
    folder: Path,
    open_grid: OpenGrid,
    passphrase: Passphrase,
    *,
    name: str | None = None,
    incomplete: bool = False,
    told: Callable[[int], None] = lambda entries: None,
) -> Rehosted:
    """Make the log of a new service of the tiles that the nodes hold.

    What the home's replica or the service's folder has of the same log already is used as well, where it goes
    further or has what the archive lacks.

    Args:
        text: a volume of the home, or a capability's text, which the home then remembers at the new service.
        folder: of the new service, which does not run.
        name: what a volume of a capability is called here; its own name if None.
        incomplete: entries before the first gap will do.
        told: hears how many entries there are.

    Broken off, it is begun again.
    Raises: InvalidCap, VolumeUnknown, NotCapable: an invitation; LogIncomplete; InvalidRequest: this machine
        has another history; ConfigInvalid: no such service; FolderBusy: it runs; RosterEmpty, GridUnknown;
        StoreFailed, DiskFull.
    """
    cap, volume, held = _meant(home, text, passphrase)
    if name is not None:
        check_name(home, name, volume)
    known = next((one for one in known_volumes(home) if one.volume == volume), None)
    secret = verify_secret_of(held)
    config = files.load_log_config(folder)
    async with contextlib.AsyncExitStack() as stack:
        if known is not None:
            lock = await wait_lock(known.folder)
            stack.callback(lock.close)
        stack.callback(FolderLock(folder).close)
        identity = read_identity(folder / files.KEY_FILE)
        logs = folder / files.LOGS_FOLDER
        logs.mkdir(mode=0o700, exist_ok=True)
        path = logs / f"{id_text(volume)}{SUFFIX}"
        own: list[LogStore] = [_opened(stack, path)] if path.exists() else []
        if known is not None and (known.folder / REPLICA_FILE).exists():
            own.append(_opened(stack, known.folder / REPLICA_FILE))
        part = path.with_suffix(_PART_SUFFIX)
        _remove(part)
        stack.callback(_remove, part)
        restoring = _opened(stack, part)
        grid = await stack.enter_async_context(open_grid(archive_account(secret, volume)))
        shelf = TileShelf(grid, archive_secret(secret, volume), os.urandom)
        restored = await LogRestorer(volume, shelf, restoring, own, told).run()
        if restored.missing is not None and not (incomplete and restored.entries):
            raise restored.missing
        target = own[0] if path.exists() else _opened(stack, path)
        await asyncio.to_thread(rehost, restoring, target, identity)
        entries = target.size
    kept = None
    if cap is not None and known is None and config.port:  # else nobody knows where it will be
        where = PeerAddress(PeerKind.LOG, identity.node, files.advertised(config, config.port)[0])
        kept = _kept(home, cap, where, identity, name or restored.name)
    return Rehosted(volume, entries, restored, kept)


def _meant(home: Path, text: str, passphrase: Passphrase) -> tuple[VolumeCap | None, VolumeId, Holding]:
    """A capability and what it is of, or a volume of the home."""
    if not text.startswith(VOLUME_PREFIX):
        known = find_volume(home, text)
        return None, known.volume, holding(home, known, passphrase)
    cap = parse_volume_cap(text)
    if not isinstance(cap, VolumeCap):
        raise NotCapable(needed="volume verify", given="volume invite")
    return cap, cap.volume, secret_of(cap)


def _kept(home: Path, cap: VolumeCap, where: PeerAddress, identity: Identity, name: str) -> KnownVolume:
    """Remember the volume of a capability at its new service."""
    try:
        check_name(home, name, cap.volume)
    except InvalidRequest:  # another volume has its own name here
        name = f"volume-{cap.volume.hex()[:8]}"
    moved = dataclasses.replace(cap, log=where)
    return keep_volume(home, cap.volume, name, str(where), identity.public_key, moved)


def _opened(stack: contextlib.AsyncExitStack, path: Path) -> SqliteLog:
    store = SqliteLog(path)
    stack.callback(store.close)
    return store


def _remove(path: Path) -> None:
    for tail in ("", "-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
