"""The composition root's part for volumes: which log client, replica, view and grid make one.

create_volume    found one at a log service, or on this machine
join_volume      ask for membership by an invitation, or recover a volume by a capability
open_volume      follow its log
fetch_volume     its whole log, if only its end is here
open_offline     the same without asking the log service
open_files       the same with the grid that has its content
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from muniment.crypto.entries import volume_id
from muniment.crypto.identity import Identity
from muniment.crypto.member import MemberSecret
from muniment.engine.local_log import LocalLog
from muniment.engine.members import Members, founding_entry
from muniment.engine.opened import LOCAL, Holding, KnownVolume, OpenVolume
from muniment.engine.rehost import rehost
from muniment.engine.volume import Volume
from muniment.engine.volume_tree import children, find
from muniment.errors import IntegrityError, InvalidRequest, MunimentError, PeerError, UnavailableError
from muniment.ids import MemberId, VolumeId, id_text
from muniment.logs.sqlite import SqliteLog
from muniment.net.log_client import HttpLogService
from muniment.node import config as files
from muniment.node import newcomers
from muniment.node.clock import SystemClock
from muniment.node.folder import FolderLock, make_identity, read_identity, wait_lock
from muniment.node.log_host import SUFFIX, LogHost
from muniment.node.volume_home import (
    LOCAL_KEY_FILE,
    LOCAL_LOGS_FOLDER,
    REPLICA_FILE,
    VIEW_FILE,
    Passphrase,
    check_name,
    find_volume,
    handed_over,
    holding,
    keep_handed_over,
    keep_volume,
    move_kept,
    secret_of,
    volumes,
)
from muniment.node.volume_home import (
    read_identity as read_member,
)
from muniment.ports import LogClient
from muniment.spec.act import Role, VolumePolicy
from muniment.spec.address import PeerKind, parse_address
from muniment.spec.operation import Kind
from muniment.spec.volume_cap import VolumeCap, parse_volume_cap
from muniment.views.sqlite import SqliteView

if TYPE_CHECKING:
    from muniment.engine.grid import Grid
    from muniment.engine.volume_files import VolumeFiles


_HAND_OVER_S: Final = 20.0
"""A command takes so much longer at most for what is only tidy."""

_log = logging.getLogger(__name__)


async def create_volume(
    home: Path,
    name: str,
    log: str,
    policy: VolumePolicy,
    *,
    own_name: str,
    passphrase: Passphrase,
) -> KnownVolume:
    """Found a volume whose first owner is the home's identity; durable on return.

    Args:
        log: `mun:log:...`, or `local`: this machine orders the log itself.
    Raises: AccountRefused: one may not found there; InvalidRequest: the name is taken here.
    """
    check_name(home, name)  # before there is a volume that nobody has remembered
    secret, clock = read_member(home, passphrase), SystemClock()
    signed = founding_entry(secret, name, own_name, policy, clock, os.urandom)
    async with log_service(home, log) as service:
        volume, log_key = await service.found(signed)
        known = keep_volume(home, volume, name, log, log_key, None)
        async with _opened(home, known, secret, service.client(volume)):
            pass  # its replica is there from the beginning
    return known


async def join_volume(
    home: Path,
    text: str,
    *,
    name: str | None,
    role: Role,
    own_name: str,
    note: str,
    passphrase: Passphrase,
) -> KnownVolume:
    """Ask for membership by an invitation, or use a volume by a capability; remembered on return.

    Args:
        text: of the invitation or capability.
        name: what the volume is called here; its own name if None.
    One who waits for that role already, or has it, asks for nothing again.
    Raises: InvalidCap; VolumeUnknown; EntryRefused: he waits for another role; InvalidRequest: the name.
    """
    cap = parse_volume_cap(text)
    held = secret_of(cap) if isinstance(cap, VolumeCap) else read_member(home, passphrase)
    log, kept = str(cap.log), cap if isinstance(cap, VolumeCap) else None
    before = next((one for one in volumes(home) if one.volume == cap.volume), None)
    called = name or (before.name if before else f"volume-{cap.volume.hex()[:8]}")
    check_name(home, called, cap.volume)
    async with log_service(home, log) as service:
        log_key = await service.log_key()
        known = keep_volume(home, cap.volume, called, log, log_key, kept)
        followed = False
        try:
            if isinstance(held, MemberSecret) and kept is None and before is None:
                client = service.client(cap.volume)
                with contextlib.suppress(IntegrityError, UnavailableError, PeerError, InvalidRequest):
                    own = await newcomers.ask_to_join(known, held, client, own_name, role, note)
                    if own is not None:
                        followed = True
                        return known if name else _named(home, known, own, kept)
            async with _opened(home, known, held, service.client(cap.volume)) as opened:
                followed = True
                if name is None and before is None:
                    known = _named(home, known, opened.volume.membership.name, kept)
                if isinstance(held, MemberSecret) and kept is None:
                    await _ask(opened, held, own_name, role, note)
        finally:
            if before is None and not followed:  # nothing is known of it, nor was asked
                shutil.rmtree(known.folder, ignore_errors=True)
    return known


async def _ask(opened: OpenVolume, held: MemberSecret, own_name: str, role: Role, note: str) -> None:
    """Join, unless that was done before."""
    state = opened.volume.membership
    present, waiting = state.members.get(held.member), state.joins().get(held.member)
    if (present is None or role < present.role) and (waiting is None or waiting.role is not role):
        await opened.members.join(held, own_name, role, note)


def _named(home: Path, known: KnownVolume, name: str, cap: VolumeCap | None) -> KnownVolume:
    """Call it what its members call it, unless something else is called so here."""
    with contextlib.suppress(InvalidRequest):
        return keep_volume(home, known.volume, name, known.log, known.log_key, cap)
    return known


@contextlib.asynccontextmanager
async def open_volume(
    home: Path, name: str, passphrase: Passphrase, roster: str | None = None
) -> AsyncIterator[OpenVolume]:
    """A volume of the home, in step with its log.

    The first time on this machine it begins with a view snapshot, if one can be had.
    Waits for another process that uses it.
    Raises: VolumeUnknown, PassphraseWrong; LogForked; as `LogClient`.
    """
    known = find_volume(home, name)
    held = holding(home, known, passphrase)
    async with (
        log_service(home, known.log) as service,
        _opened(home, known, held, service.client(known.volume), roster) as opened,
    ):
        yield opened


async def fetch_volume(home: Path, name: str, passphrase: Passphrase) -> int:
    """Have a volume's whole log on this machine, where it began with a view snapshot.

    Returns: how many entries are here then; 0: nothing was missing.
    Raises: VolumeUnknown, PassphraseWrong; LogForked; as `LogClient`.
    """
    known = find_volume(home, name)
    held = holding(home, known, passphrase)
    lock = await wait_lock(known.folder)
    try:
        async with log_service(home, known.log) as service:
            return await newcomers.fetch_whole(known, held, service.client(known.volume))
    finally:
        lock.close()


@contextlib.asynccontextmanager
async def open_offline(home: Path, name: str, passphrase: Passphrase) -> AsyncIterator[OpenVolume]:
    """A volume of the home as far as its log was followed before; nobody is asked until its caller does.

    Raises: VolumeUnknown, PassphraseWrong.
    """
    known = find_volume(home, name)
    held = holding(home, known, passphrase)
    async with (
        log_service(home, known.log) as service,
        _followed(known, held, service.client(known.volume)) as opened,
    ):
        yield opened


def rehost_volume(home: Path, name: str, folder: Path) -> int:
    """Put a home's replica of a log into the log service of a folder; returns how many entries it has then.

    Raises: VolumeUnknown; ConfigInvalid: no such service; FolderBusy: it runs; InvalidRequest: it has another
        history; StoreFailed, DiskFull.
    """
    known = find_volume(home, name)
    files.load_log_config(folder)
    with contextlib.ExitStack() as stack:
        stack.callback(FolderLock(known.folder, wait=True).close)
        stack.callback(FolderLock(folder).close)
        logs = folder / files.LOGS_FOLDER
        logs.mkdir(mode=0o700, exist_ok=True)
        replica = SqliteLog(known.folder / REPLICA_FILE)
        stack.callback(replica.close)
        target = SqliteLog(logs / f"{id_text(known.volume)}{SUFFIX}")
        stack.callback(target.close)
        rehost(replica, target, read_identity(folder / files.KEY_FILE))
        return target.size


async def move_volume(home: Path, name: str, log: str, passphrase: Passphrase) -> KnownVolume:
    """Follow another log service from now on, if it continues what was seen; remembered on return.

    Raises: VolumeUnknown; LogForked: it lacks entries that were seen, or has others; as `LogClient`.
    """
    known = find_volume(home, name)
    held = holding(home, known, passphrase)
    async with log_service(home, log) as service:
        log_key = await service.log_key()
        client = service.client(known.volume)
        async with _followed(known, held, client) as opened:
            await opened.volume.move_to(client, log_key)
        return move_kept(known, log, log_key)


def names(home: Path, name: str, folder: bytes) -> list[tuple[bytes, bool]]:
    """What a folder of a volume holds as far as its log was followed, and which of it are folders.

    Raises: VolumeUnknown, PathUnknown; InvalidRequest: it is no folder.
    """
    view = SqliteView(find_volume(home, name).folder / VIEW_FILE)
    try:
        state = view.reading()
        found = children(state, find(state, folder))
        return [(one.path, one.inode.kind is Kind.FOLDER) for one in found]
    finally:
        view.close()


@contextlib.asynccontextmanager
async def open_files(
    home: Path, name: str, roster: str | None, passphrase: Passphrase
) -> AsyncIterator[tuple[OpenVolume, VolumeFiles]]:
    """As `open_volume`, with the grid.  Raises: also GridUnknown, RosterEmpty."""
    # What servers and transfers need is slow to import, and listings need none of it.
    from muniment.engine.volume_files import VolumeFiles
    from muniment.node import compose

    async with open_volume(home, name, passphrase, roster) as opened, compose.open_grid(home, roster) as grid:
        yield opened, VolumeFiles(opened.volume, grid)
        if isinstance(opened.held, MemberSecret):
            await hand_over_kept(opened.known, opened.volume, opened.held.member, grid)


async def hand_over_kept(known: KnownVolume, volume: Volume, member: MemberId, grid: Grid) -> None:
    """Leave to keepers what this home stored and they have leased; what fails is for the next time.

    Args:
        volume: followed.
        grid: under the home's own account.
    """
    from muniment.engine.keeping.handover import hand_over

    try:
        async with asyncio.timeout(_HAND_OVER_S):
            done = partial(keep_handed_over, known)
            shares = await hand_over(volume, grid, member, handed_over(known), done)
    except (MunimentError, TimeoutError) as error:
        _log.info("not all that keepers have was handed over to them: %s", error)
    else:
        _log.info("%d leases were handed over to keepers", shares)


@contextlib.asynccontextmanager
async def _opened(
    home: Path, known: KnownVolume, held: Holding, log: LogClient, roster: str | None = None
) -> AsyncIterator[OpenVolume]:
    async with _followed(known, held, log) as opened:
        if opened.volume.follower.frontier.size == 0:
            await newcomers.begin(known, opened.volume, log, home, roster)
        await opened.volume.sync()
        yield opened


@contextlib.asynccontextmanager
async def _followed(known: KnownVolume, held: Holding, log: LogClient) -> AsyncIterator[OpenVolume]:
    """As far as the log was followed before."""
    with contextlib.ExitStack() as stack:
        lock = await wait_lock(known.folder)
        stack.callback(lock.close)
        secret = held.read if isinstance(held, MemberSecret) else held
        follower = await asyncio.to_thread(newcomers.open_follower, known, secret, stack)
        writer = held if isinstance(held, MemberSecret) else None
        volume = Volume(follower, writer, log, SystemClock(), os.urandom)
        stack.pop_all()  # from here on they are closed below
    try:
        yield OpenVolume(known, held, volume, Members(volume, os.urandom))
    finally:
        await volume.aclose()
        lock.close()


# --- log services ---------------------------------------------------------------------------------


class RemoteLogs:
    """A log service somewhere."""

    def __init__(self, service: HttpLogService) -> None:
        self._service = service

    async def log_key(self) -> bytes:
        return await self._service.public_key()

    async def found(self, signed: bytes) -> tuple[VolumeId, bytes]:
        key = await self._service.public_key()
        await self._service.found(signed)
        return volume_id(signed), key

    def client(self, volume: VolumeId) -> LogClient:
        return self._service.volume(volume)


class LocalLogs:
    """Logs in the home itself."""

    def __init__(self, host: LogHost) -> None:
        self._host = host

    async def log_key(self) -> bytes:
        return self._host.identity.public_key

    async def found(self, signed: bytes) -> tuple[VolumeId, bytes]:
        return (await self._host.found(signed)).volume, self._host.identity.public_key

    def client(self, volume: VolumeId) -> LogClient:
        return LocalLog(lambda: self._host.sequencer(volume))


@contextlib.asynccontextmanager
async def log_service(home: Path, log: str) -> AsyncIterator[RemoteLogs | LocalLogs]:
    """The service that a volume names: `mun:log:...`, or `local`.  Raises: InvalidRequest: no address."""
    if log != LOCAL:
        service = HttpLogService(parse_address(log, PeerKind.LOG))
        try:
            yield RemoteLogs(service)
        finally:
            await service.aclose()
        return
    host = LogHost(
        home / LOCAL_LOGS_FOLDER, _local_key(home), SystemClock(), may_found=lambda _: True, volumes_max=1000
    )
    try:
        yield LocalLogs(host)
    finally:
        await host.aclose()


def _local_key(home: Path) -> Identity:
    path = home / LOCAL_KEY_FILE
    return read_identity(path) if path.exists() else make_identity(path, os.urandom)
