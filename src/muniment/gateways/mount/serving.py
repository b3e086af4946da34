"""Mounting a volume and serving it until somebody unmounts it or a signal comes.

However it ends in order, written pages come out of the kernel first, then all is saved and committed, then
the mount goes; no dead mount stays behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from muniment.durable_file import flush_all
from muniment.errors import InvalidRequest, MunimentError
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount.device import attach, detach
from muniment.gateways.mount.machine import read_far_ahead
from muniment.gateways.mount.operations import WANTED, MountOperations
from muniment.gateways.mount.places import MountedAt, absolute, find_mounted
from muniment.gateways.mount.session import Session

_DRAIN_S: Final = 5.0
_ROOTS: Final = frozenset(("suid", "dev"))
_log = logging.getLogger(__name__)


async def serve(
    files: FileSystem,
    operations: MountOperations,
    folder: Path,
    source: str,
    *,
    kernel: Collection[str],
    read_only: bool,
    ready: Callable[[], None],
) -> None:
    """Serve a file system at a folder until it is unmounted; cancelled, unmount it.

    Args:
        files: started; all is saved on return, and it is not closed.
        source: what `mount` and `df` show.
        kernel: options of fusermount3: allow_other, suid, dev, noexec.
        ready: called when it is mounted.
    Raises: InvalidRequest: the folder is none, or in use; ConfigInvalid: this machine cannot mount; what kept
        the last changes from being saved.
    """
    folder = absolute(folder)
    await _prepare(folder)
    if os.geteuid() != 0 and (refused := _ROOTS.intersection(kernel)):
        raise InvalidRequest(reason=f"only root can mount with {' and '.join(sorted(refused))}")
    options = ["default_permissions", f"fsname={source}", "subtype=muniment", *sorted(kernel)]
    options += ["ro"] if read_only else []
    try:
        device = await attach(folder, options)
    except BaseException:
        await _detach(find_mounted(folder))  # whoever broke it off came too late
        raise
    mounted = find_mounted(folder)
    session = Session(device, operations.at_once, operations.in_task, WANTED, operations.agree)
    try:
        await session.start()
        operations.notices.begin(device)
        await asyncio.to_thread(read_far_ahead, folder)
        ready()
        await asyncio.wait({session.ended})
    finally:
        await _end(files, mounted, operations, session)


async def _prepare(folder: Path) -> None:
    try:
        if not await asyncio.to_thread(_is_folder, folder):
            raise InvalidRequest(reason=f"{folder} is not a folder")
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise InvalidRequest(reason=f"{folder}: {error.strerror}") from error
        _log.warning("a dead mount at %s is taken away", folder)
        await detach(folder, lazy=True)
    if find_mounted(folder) is not None:
        raise InvalidRequest(reason=f"a volume is mounted at {folder} already; 'muni umount' takes it away")


def _is_folder(folder: Path) -> bool:
    """Raises: OSError: ENOTCONN: a dead mount."""
    if folder.is_dir():
        os.statvfs(folder)  # attributes the kernel may know for a second after a mount has died, this it asks
        return True
    return False


async def _end(
    files: FileSystem, mounted: MountedAt | None, operations: MountOperations, session: Session
) -> None:
    files.ending()
    try:
        if not session.ended.done():
            if mounted is not None and _is_there(mounted):
                try:
                    await asyncio.to_thread(flush_all, mounted.folder)
                except OSError as error:
                    _log.warning("written pages did not all come out of the kernel: %s", error)
            with contextlib.suppress(MunimentError):  # it is told, or kept, when the file system ends
                await files.sync_all()
    finally:
        await operations.notices.aclose()
        if not session.ended.done():
            await _detach(mounted)
            await asyncio.wait({session.ended}, timeout=_DRAIN_S)  # for as long, who has it open is served
        failure = session.ended.exception() if session.ended.done() else None
        await session.aclose()
        if failure is not None:
            _log.error("serving the kernel has failed", exc_info=failure)
            await _detach(mounted)


def _is_there(mounted: MountedAt) -> bool:
    """Whether it is what can be seen at its folder: taken away lazily, it may be another one by now."""
    return find_mounted(mounted.folder) == mounted


async def _detach(mounted: MountedAt | None) -> None:
    """Take a mount away if it is there."""
    try:
        if mounted is not None and _is_there(mounted):
            await detach(mounted.folder, lazy=True)
    except MunimentError as error:
        _log.warning("%s", error)
