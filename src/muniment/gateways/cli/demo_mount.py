"""The demo's last act: the volume as a folder of this machine, which any program can work in."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from muniment.errors import ConfigInvalid, InternalError
from muniment.gateways.cli import demo_tree
from muniment.gateways.cli.context import Context
from muniment.gateways.cli.demo_grid import DemoGrid, DemoProcess
from muniment.gateways.cli.demo_volume import NAME, Story, unlocked
from muniment.gateways.cli.show import count_text

_MOUNTED: Final = re.compile(r"^(.+) is mounted at ", re.MULTILINE)
_END_S: Final = 30.0
_COPY: Final = "by other programs"


async def play_mount(context: Context, grid: DemoGrid, place: Path, story: Story) -> None:
    """Copy a tree into the mounted volume, unmount, and read it with our own commands' means.

    Raises: InternalError: something is not as it must be.
    """
    try:
        context.composition.check_mounts()
    except ConfigInvalid as error:
        story.tell("mounted", f"not on this machine: {error}", mounted=False)
        return
    context.remark("mounting the volume: any program can use it")
    home, source, back = place / "anna", place / "books", place / "unmounted"
    before = await asyncio.to_thread(demo_tree.fingerprint, source)
    folder, begun = place / "mounted", time.monotonic()
    await asyncio.to_thread(folder.mkdir)
    async with _mounted(home, grid.address, folder):
        await asyncio.to_thread(shutil.copytree, source, folder / _COPY, symlinks=True)
        same = await asyncio.to_thread(demo_tree.fingerprint, folder / _COPY) == before
    took_s = time.monotonic() - begun
    async with context.composition.open_files(home, NAME, grid.address, unlocked) as (opened, files):
        await opened.volume.sync()
        await files.get_tree(_COPY.encode(), back)
    if not same or await asyncio.to_thread(demo_tree.fingerprint, back) != before:
        raise InternalError(reason="what was copied into the mount is not what was there")
    story.tell(
        "mounted",
        f"as a folder: {count_text(len(before), 'name')} copied in, compared, unmounted in {took_s:.1f} s; "
        "in the volume they are identical",
        mounted=True,
        mounted_s=round(took_s, 3),
    )


@contextlib.asynccontextmanager
async def _mounted(home: Path, grid: str, folder: Path) -> AsyncIterator[None]:
    """The volume at this folder, served by a process of its own, which ends before this is left."""
    mount = ["mount", "--foreground", "-o", "lazy_close", NAME, str(folder)]
    command = ["muniment", "--home", str(home), "--grid", grid, *mount]
    process = DemoProcess(folder, command, keep=False)
    try:
        await process.wait_said(_MOUNTED)
        yield
    finally:
        process.terminate()
        await process.wait_ended(time.monotonic() + _END_S)
