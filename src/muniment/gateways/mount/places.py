"""Where volumes are mounted on this machine, as the kernel lists it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TYPE: Final = "fuse.muniment"
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


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


def _plain(field: bytes) -> bytes:
    """A field without the kernel's escapes."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)
