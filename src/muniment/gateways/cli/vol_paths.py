"""`VOL:/path` in a command line: a volume by the user's name or the beginning of its id, and a path in it.

Anything with `:` and then `/` or nothing is one, unless a `/` comes before: `./a:/b` is a file here.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from muniment.engine.volume_names import VolumeNames
from muniment.engine.volume_tree import children, find, locate, split_path
from muniment.errors import InvalidRequest, PathUnknown
from muniment.gateways.cli.context import Context, Refusal
from muniment.gateways.cli.passphrases import passphrase_of

if TYPE_CHECKING:
    from muniment.core.tree_state import TreeReading
    from muniment.engine.opened import OpenVolume
    from muniment.engine.volume_files import VolumeFiles

METAVAR: Final = "VOL:/PATH"
_SHAPE: Final = re.compile(r"([^/:]+):(/.*)?", re.DOTALL)
_MAGIC: Final = re.compile(rb"[*?\[]")


@dataclass(frozen=True, slots=True)
class VolPath:
    """A path in a volume.

    Attributes:
        volume: as the user calls it.
        path: components joined by `/`; empty for the root.
        folder: it was written with `/` at its end, so it must be a folder.
    """

    volume: str
    path: bytes
    folder: bool = False

    @property
    def name(self) -> bytes:
        """The last component; empty for the root."""
        return self.path.rpartition(b"/")[2]

    def __str__(self) -> str:
        return shown(self.volume, self.path)

    def joined(self, name: bytes) -> VolPath:
        """What has this name in it."""
        return VolPath(self.volume, self.path + b"/" + name if self.path else name)


def parse_vol_path(text: str) -> VolPath | None:
    """`VOL:/path` or `VOL:`; None if it is something else, such as a file here or a capability."""
    found = _SHAPE.fullmatch(text)
    if found is None or found[1] == "mun":
        return None
    path = found[2] or ""
    return VolPath(found[1], b"/".join(split_path(os.fsencode(path))), len(path) > 1 and path.endswith("/"))


def shown(volume: str, path: bytes) -> str:
    """For people, in one line."""
    return f"{volume}:/{path_text(path)}"


def path_text(path: bytes) -> str:
    """A name or path as text in one line; bytes that are no text stay distinguishable."""
    return os.fsdecode(path).replace("\n", "\\n")


class VolPathType(click.ParamType[VolPath]):
    """An argument that must be a path in a volume."""

    name = "volume path"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> VolPath:
        if isinstance(value, VolPath):
            return value
        parsed = parse_vol_path(str(value))
        if parsed is None:
            self.fail(f"{value!r} is not of the form VOL:/path", param, ctx)
        return parsed


paths_argument = click.argument("paths", nargs=-1, required=True, type=VolPathType(), metavar=f"{METAVAR}...")


def volume_of(paths: Iterable[VolPath]) -> str:
    """The one volume that they are in.  Raises: Refusal: there are several."""
    volumes = dict.fromkeys(path.volume for path in paths)
    if len(volumes) > 1:
        raise Refusal(
            f"these paths are in several volumes: {', '.join(volumes)}",
            "work on one volume at a time; from one into another, get the content and put it there",
        )
    return next(iter(volumes))


def expand(state: TreeReading, path: bytes) -> list[bytes]:
    """The paths that a pattern (`*`, `?`, `[...]` in any component) stands for; itself if it names something.

    As in shells: `*` does not match a leading dot.
    Raises: PathUnknown: nothing matches.
    """
    if not _MAGIC.search(path):
        return [path]
    with contextlib.suppress(PathUnknown, InvalidRequest):
        if locate(state, path, follow=False).inode is not None:
            return [path]
    found = [b""]
    for part in split_path(path):
        found = [inner for above in found for inner in _matching(state, above, part)]
    if not found:
        raise PathUnknown(path="/" + path_text(path))
    return found


def _matching(state: TreeReading, above: bytes, part: bytes) -> list[bytes]:
    def joined(name: bytes) -> bytes:
        return above + b"/" + name if above else name

    try:
        if not _MAGIC.search(part):
            known = locate(state, joined(part), follow=False).inode is not None
            return [joined(part)] if known else []
        names = [one.path for one in children(state, find(state, above))]
    except (PathUnknown, InvalidRequest):
        return []
    dotted = part.startswith(b".")
    return [
        joined(name)
        for name in names
        if fnmatch.fnmatchcase(name, part) and (dotted or not name.startswith(b"."))
    ]


async def expanded(
    names: VolumeNames, paths: Sequence[VolPath], at: int | None = None, *, may_be_new: bool = False
) -> list[VolPath]:
    """All paths with their patterns resolved, in one state; each once.

    Args:
        may_be_new: what matches nothing is meant as it is.
    """

    def expand_one(state: TreeReading, path: bytes) -> list[bytes]:
        try:
            return expand(state, path)
        except PathUnknown:
            if may_be_new:
                return [path]
            raise

    def look(state: TreeReading) -> list[VolPath]:
        return [
            VolPath(one.volume, path, one.folder) for one in paths for path in expand_one(state, one.path)
        ]

    return list(dict.fromkeys(await names.look(look, at=at)))


@contextlib.asynccontextmanager
async def names_of(context: Context, volume: str) -> AsyncIterator[tuple[OpenVolume, VolumeNames]]:
    """A volume for commands that need no node."""
    async with context.composition.open_volume(context.home, volume, passphrase_of(context)) as opened:
        yield opened, VolumeNames(opened.volume)


@contextlib.asynccontextmanager
async def files_of(context: Context, volume: str) -> AsyncIterator[tuple[OpenVolume, VolumeFiles]]:
    """A volume with the grid that has its content."""
    opening = context.composition.open_files(context.home, volume, context.grid, passphrase_of(context))
    async with opening as both:
        yield both
