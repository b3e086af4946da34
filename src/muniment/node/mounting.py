"""The composition root's part for mounts: the volume, the file system over it, and FUSE in front."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from muniment.core.history import Difference
from muniment.errors import InvalidRequest, MunimentError
from muniment.fs.filesystem import FileSystem
from muniment.gateways.mount import places
from muniment.gateways.mount.device import detach
from muniment.gateways.mount.machine import check_machine
from muniment.node import mounts
from muniment.node.clock import SystemClock
from muniment.node.volume_home import Passphrase

if TYPE_CHECKING:
    from muniment.gateways.cli.composition import MountRequest
    from muniment.gateways.mount.operations import MountOperations

_NOT_SAVED: Final = (
    "not all could be saved: the rest is kept in %s, and the next 'muni mount' of the volume brings it there"
)
_log = logging.getLogger(__name__)


async def mount(
    home: Path,
    roster: str | None,
    request: MountRequest,
    passphrase: Passphrase,
    ready: Callable[[Path], None],
) -> None:
    """See `gateways.cli.composition.Composition.mount`."""
    check_machine()
    from muniment.gateways.mount.operations import MountOperations
    from muniment.gateways.mount.serving import serve

    shells: list[MountOperations] = []

    def invalidate(changed: Difference) -> None:
        for shell in shells:
            shell.invalidate(changed)

    cache_bytes = request.options.disk_cache_bytes
    with contextlib.closing(mounts.take_home(home, request.volume)) as place:
        async with mounts.open_mount(home, place, roster, passphrase, cache_bytes) as (opened, grid):
            at = await request.at(opened)
            writes = at is None and not request.options.read_only
            files = FileSystem(
                opened.volume,
                grid,
                SystemClock(),
                request.options,
                at=at,
                invalidate=invalidate,
                sent=await asyncio.to_thread(place.take_sent) if writes else None,
            )
            await files.start()
            try:
                if writes:
                    await _bring_back(files, place)
                    if not place.has_unsaved():
                        files.give_up_left()
                shell = MountOperations(files, request.names_s)

                def is_ready() -> None:
                    shells.append(shell)
                    if (there := places.find_mounted(request.folder)) is not None:
                        place.remember(there.folder, there.device)
                    ready(place.log_file())

                await serve(
                    files,
                    shell,
                    request.folder,
                    f"muniment:{opened.known.name}",
                    kernel=request.kernel,
                    read_only=request.options.read_only or at is not None,
                    ready=is_ready,
                )
            finally:
                shells.clear()
                kept = await files.aclose(place.folder)
                if kept is not None:
                    _log.warning(_NOT_SAVED, kept.path)


async def unmount(home: Path, folder: Path, *, lazy: bool) -> None:
    """See `gateways.cli.composition.Composition.unmount`."""
    there = places.find_mounted(folder)
    if there is None:
        raise InvalidRequest(reason=f"no volume is mounted at {folder}")
    serving = list(mounts.serving(home, there.folder, there.device))
    before = {path for own in serving for path in mounts.unsaved_in(own)}
    await detach(there.folder, lazy=lazy)
    for own in () if lazy else serving:
        await mounts.wait_ended(own)
        for path in mounts.unsaved_in(own):
            if path not in before:
                _log.warning(_NOT_SAVED, path)


async def _bring_back(files: FileSystem, place: mounts.MountHome) -> None:
    """Bring into the volume what earlier mounts of it could not save, and tell of it in a line."""
    for path in await asyncio.to_thread(place.take_unsaved):
        try:
            brought = await files.unsaved.bring_back(path)
        except MunimentError as error:
            _log.warning("what an earlier mount could not save stays in %s: %s", path, error)
        else:
            _log.warning("what an earlier mount could not save is brought into the volume: %s", brought)
