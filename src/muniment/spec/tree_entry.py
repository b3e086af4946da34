"""One entry of a directory tree as a manifest lists it (docs/spec/manifest.md section 4).

Paths are bytes, relative, components joined by "/".  A path that could leave the folder it is restored into
is refused here, before anybody can join it to anything.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from muniment.errors import MalformedRecord

PATH_BYTES_MAX: Final = 4096
COMPONENT_BYTES_MAX: Final = 255
EXTENTS_MAX: Final = 1 << 20
_MODE_MAX: Final = 0o7777
_TIME_NS_MAX: Final = 1 << 63


class EntryType(enum.IntEnum):
    """What an entry is; other kinds of files are not stored."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes `offset` to `offset + length` of the content of row `row` of the same manifest."""

    row: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file, directory or symbolic link.

    Attributes:
        path: relative to the tree's root, e.g. b"src/main.c".
        type: what it is.
        mode: permission bits, 0 to 0o7777.
        mtime_ns: modification time, nanoseconds since the epoch.
        size_bytes: of a file's content; 0 otherwise.
        inline: a tiny file's whole content, or a symbolic link's target.
        extents: where a larger file's content lies, in order.
    """

    path: bytes
    type: EntryType
    mode: int
    mtime_ns: int
    size_bytes: int = 0
    inline: bytes = b""
    extents: tuple[Extent, ...] = ()

    def __post_init__(self) -> None:
        check_path(self.path)
        if not 0 <= self.mode <= _MODE_MAX or not -_TIME_NS_MAX <= self.mtime_ns < _TIME_NS_MAX:
            raise MalformedRecord(format="tree entry", reason="mode or time out of range")
        if self.type is EntryType.FILE:
            held = len(self.inline) + sum(extent.length for extent in self.extents)
            if held != self.size_bytes or (self.inline and self.extents):
                raise MalformedRecord(format="tree entry", reason="content and size differ")
        elif self.extents or self.size_bytes:
            raise MalformedRecord(format="tree entry", reason="content where none belongs")
        if self.type is EntryType.DIRECTORY and self.inline:
            raise MalformedRecord(format="tree entry", reason="content where none belongs")
        if self.type is EntryType.SYMLINK and not 0 < len(self.inline) < PATH_BYTES_MAX:
            raise MalformedRecord(format="tree entry", reason="link target out of range")
        if b"\0" in self.inline and self.type is EntryType.SYMLINK:
            raise MalformedRecord(format="tree entry", reason="NUL in a link target")


def check_path(path: bytes) -> bytes:
    """Return `path` if it stays below the folder it is joined to.  Raises: MalformedRecord."""
    if not 0 < len(path) <= PATH_BYTES_MAX or b"\0" in path:
        raise MalformedRecord(format="tree entry", reason="path empty, too long or with NUL")
    for component in path.split(b"/"):
        if component in (b"", b".", b"..") or len(component) > COMPONENT_BYTES_MAX:
            raise MalformedRecord(format="tree entry", reason="path with a forbidden component")
    return path


def pack_entry(entry: TreeEntry) -> list[object]:
    """The entry as plain CBOR values."""
    extents = [[e.row, e.offset, e.length] for e in entry.extents]
    return [
        entry.path,
        int(entry.type),
        entry.mode,
        entry.mtime_ns,
        entry.size_bytes,
        entry.inline,
        extents,
    ]


def unpack_entry(value: object) -> TreeEntry:
    """Read what `pack_entry` made.  Raises: MalformedRecord: for any other value."""
    match value:
        case [
            bytes(path),
            int(kind),
            int(mode),
            int(mtime_ns),
            int(size),
            bytes(inline),
            list(extents),
        ] if kind in EntryType.__members__.values() and len(extents) <= EXTENTS_MAX:
            return TreeEntry(
                path, EntryType(kind), mode, mtime_ns, size, inline, tuple(map(_unpack_extent, extents))
            )
    raise MalformedRecord(format="tree entry", reason="fields do not fit")


def _unpack_extent(value: object) -> Extent:
    match value:
        case [int(row), int(offset), int(length)] if row >= 0 and offset >= 0 and length > 0:
            return Extent(row, offset, length)
    raise MalformedRecord(format="tree entry", reason="extent out of range")


def check_order(entries: Iterable[TreeEntry]) -> None:
    """Paths must ascend component by component, without doubles, and nothing lies below a non-directory.

    Raises: MalformedRecord.
    """
    above: list[bytes] | None = None
    blocked: list[bytes] | None = None
    for entry in entries:
        path = entry.path.split(b"/")
        if above is not None and path <= above:
            raise MalformedRecord(format="tree entry", reason="paths out of order")
        if blocked is not None and path[: len(blocked)] == blocked:
            raise MalformedRecord(format="tree entry", reason="an entry below something not a directory")
        above = path
        if entry.type is not EntryType.DIRECTORY:
            blocked = path
