"""Mounting a volume and serving it until somebody unmounts it or a signal comes.

However it ends in order, written pages come out of the kernel first, then all is saved and committed, then
the mount goes; no dead mount stays behind.  One mount in a process: pyfuse3 has one session.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyfuse3
import pyfuse3.asyncio

from muniment.errors import ConfigInvalid, InvalidRequest, MunimentError
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount.machine import read_far_ahead
from muniment.gateways.mount.operations import MountOperations
from muniment.gateways.mount.places import detach, find_mounted

_TASKS: Final = 64
_DRAIN_S: Final = 5.0
_log = logging.getLogger(__name__)


async def serve(
    files: FileSystem,
    operations: MountOperations,
    folder: Path,
    source: str,
    *,
    allow_other: bool,
    read_only: bool,
    ready: Callable[[], None],
) -> None:
    """Serve a file system at a folder until it is unmounted; cancelled, unmount it.

    Args:
        files: started; all is saved on return, and it is not closed.
        source: what `mount` and `df` show.
        allow_other: other users may use it, as far as permissions say.
        ready: called when it is mounted.
    Raises: InvalidRequest: the folder is none, or in use; ConfigInvalid: this machine cannot mount; what kept
        the last changes from being saved.
    """
    await _prepare(folder)
    options = {"default_permissions", f"fsname={source}", "subtype=muniment"}
    wanted = {"allow_other": allow_other, "ro": read_only}
    if os.geteuid() == 0:  # the kernel lets nobody else have these
        wanted |= {"dev": True, "suid": True}
    options |= {name for name, is_wanted in wanted.items() if is_wanted}
    pyfuse3.asyncio.enable()
    try:
        pyfuse3.init(operations, str(folder), options)
    except RuntimeError as error:
        reason = (
            f"the kernel does not mount it at {folder}: see whether /dev/fuse is there, and user_allow_other"
        )
        raise ConfigInvalid(where="FUSE", reason=f"{reason} in /etc/fuse.conf") from error
    main = asyncio.create_task(pyfuse3.main(min_tasks=4, max_tasks=_TASKS), name="fuse")
    try:
        await asyncio.to_thread(read_far_ahead, folder)
        ready()
        await asyncio.wait({main})
    finally:
        await _end(files, folder, main)


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


async def _end(files: FileSystem, folder: Path, main: asyncio.Task[None]) -> None:
    files.ending()
    try:
        if not main.done():
            try:
                await asyncio.to_thread(pyfuse3.syncfs, str(folder))
            except OSError as error:
                _log.warning("written pages did not all come out of the kernel: %s", error)
            with contextlib.suppress(MunimentError):  # it is told, or kept, when the file system ends
                await files.sync_all()
    finally:
        if not main.done():
            try:
                await detach(folder, lazy=True)
            except MunimentError as error:
                _log.warning("%s", error)
            await asyncio.wait({main}, timeout=_DRAIN_S)
        if not main.done():
            pyfuse3.terminate()
            await asyncio.wait({main}, timeout=_DRAIN_S)
        pyfuse3.close(unmount=not main.done())
        failure = main.exception() if main.done() and not main.cancelled() else None
        if failure is not None:
            _log.error("serving the kernel has failed", exc_info=failure)
            await _detach_quietly(folder)


async def _detach_quietly(folder: Path) -> None:
    """Take a mount away if there is one."""
    try:
        if find_mounted(folder) is not None:
            await detach(folder, lazy=True)
    except MunimentError as error:
        _log.warning("%s", error)
