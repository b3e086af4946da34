"""Where volumes are mounted on this machine, as the kernel lists it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
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
        device: the kernel's number of this very mount, while anybody uses it.
    """

    folder: Path
    source: str
    device: str


def mounted() -> list[MountedAt]:
    """All mounts of volumes that this process can see, the newest last."""
    return [one for kind, one in _listed() if kind == TYPE]


def find_mounted(folder: Path) -> MountedAt | None:
    """The volume that is mounted at this folder; None if it is anything else, or nothing."""
    wanted = absolute(folder)
    there = [(kind, one) for kind, one in _listed() if one.folder == wanted]
    return there[-1][1] if there and there[-1][0] == TYPE else None


def _listed() -> Iterator[tuple[str, MountedAt]]:
    """All mounts with their types, the newest last."""
    for line in _MOUNTS.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        device, _, folder = before.split(b" ")[2:5]
        kind, source = after.split(b" ")[:2]
        where, what = (os.fsdecode(_plain(field)) for field in (folder, source))
        yield kind.decode(), MountedAt(Path(where), what, device.decode())


def absolute(folder: Path) -> Path:
    """The folder as the kernel lists it; itself is not looked at, since a dead mount cannot be."""
    with contextlib.suppress(OSError):
        os.readlink(folder)  # noqa: PTH115 - which needs nobody who serves it; it is a link
        return Path(os.path.realpath(folder))
    return Path(os.path.realpath(folder.parent)) / folder.name if folder.name else Path("/")


def _plain(field: bytes) -> bytes:
    """A field without the kernel's escapes."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)
