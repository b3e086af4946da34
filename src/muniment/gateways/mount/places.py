"""Where volumes are mounted on this machine, as the kernel lists it, and taking a mount away."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.errors import ConfigInvalid, InvalidRequest

TYPE: Final = "fuse.muniment"
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_HELPER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class MountedAt:
    """A mount of a volume.

    Attributes:
        folder: where.
        source: what was mounted, as `mount` and `df` show it.
    """

    folder: Path
    source: str


def mounted() -> list[MountedAt]:
    """All mounts of volumes that this process can see, the newest last."""
    found = []
    for line in _MOUNTS.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        kind, source = after.split(b" ")[:2]
        if kind == TYPE.encode():
            folder = Path(os.fsdecode(_plain(before.split(b" ")[4])))
            found.append(MountedAt(folder, os.fsdecode(_plain(source))))
    return found


def find_mounted(folder: Path) -> MountedAt | None:
    """The volume that is mounted at this folder."""
    wanted = absolute(folder)
    return next((one for one in reversed(mounted()) if one.folder == wanted), None)


def absolute(folder: Path) -> Path:
    """The folder as the kernel lists it; itself is not looked at, since a dead mount cannot be."""
    return Path(os.path.realpath(folder.parent)) / folder.name if folder.name else Path("/")


async def detach(folder: Path, *, lazy: bool) -> None:
    """Take a mount away.

    Args:
        lazy: at once, though somebody uses it; who does so can go on until he is done.
    Raises: InvalidRequest: somebody uses it, or this user may not; ConfigInvalid: the helper is missing.
    """
    helper = shutil.which("fusermount3")
    if helper is None:
        raise ConfigInvalid(where="fusermount3", reason="it is missing; type: apt-get install fuse3")
    options = ["-u", "-z"] if lazy else ["-u"]
    process = await asyncio.create_subprocess_exec(
        helper,
        *options,
        "--",
        str(folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_HELPER_S):
            _, said = await process.communicate()
    except TimeoutError as error:
        process.kill()
        raise InvalidRequest(reason=f"{folder} cannot be unmounted within {_HELPER_S:.0f} s") from error
    if process.returncode:
        reason = said.decode(errors="replace").strip().removeprefix("fusermount3: ")
        raise InvalidRequest(reason=reason or f"{folder} cannot be unmounted")


def _plain(field: bytes) -> bytes:
    """A field without the kernel's escapes."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)
