"""One thing of a folder with all that a file system knows of it: what readers find and writers make.

A manifest lists less (`TreeEntry`: no owners, attributes, holes, devices or second names), a volume all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from muniment.errors import MalformedRecord
from muniment.spec.operation import Content, Extent, Kind
from muniment.spec.tree_entry import PATH_BYTES_MAX, EntryType, TreeEntry, check_path
from muniment.spec.tree_entry import Extent as TreeExtent

_TIME_NS_MAX: Final = 1 << 63
_KINDS: Final = {
    Kind.FILE: EntryType.FILE,
    Kind.FOLDER: EntryType.DIRECTORY,
    Kind.SYMLINK: EntryType.SYMLINK,
}
_TYPES: Final = {entry: kind for kind, entry in _KINDS.items()}

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Names and values, in byte order of the names."""


@dataclass(frozen=True, slots=True)
class TreeItem:
    """A file, folder, link, named pipe or device.

    Attributes:
        path: relative to the tree's root, e.g. b"src/main.c".
        mode: permission bits, 0 to 0o7777.
        mtime_ns: nanoseconds since the epoch.
        size_bytes: of a file's content, holes included; 0 otherwise.
        inline: a tiny file's whole content, or a symbolic link's target.
        extents: where a larger file's content lies, by rows; what none covers is a hole.
        owner: user and group as numbers; None if they are not known.
        rdev: of a device.
        xattrs: extended attributes.
        same_as: path of an earlier item that is the same inode; then nothing else but the path counts.
        shared: it has other names, in this tree or elsewhere.
    Raises: MalformedRecord: a path that leaves the tree, a time or link target out of range.
    """

    path: bytes
    kind: Kind
    mode: int
    mtime_ns: int
    size_bytes: int = 0
    inline: bytes = b""
    extents: Content = ()
    owner: tuple[int, int] | None = None
    rdev: int = 0
    xattrs: Xattrs = field(default=(), repr=False)
    same_as: bytes = b""
    shared: bool = False

    def __post_init__(self) -> None:
        check_path(self.path)
        if not -_TIME_NS_MAX <= self.mtime_ns < _TIME_NS_MAX:
            raise MalformedRecord(format="tree entry", reason="mode or time out of range")
        if self.kind is Kind.SYMLINK and not self.same_as and not 0 < len(self.inline) < PATH_BYTES_MAX:
            raise MalformedRecord(format="tree entry", reason="link target out of range")

    @property
    def is_file(self) -> bool:
        """Whether it has content."""
        return self.kind is Kind.FILE

    @property
    def cost_bytes(self) -> int:
        """About what it takes in a manifest or log entry."""
        attributes = sum(len(name) + len(value) for name, value in self.xattrs)
        return (
            len(self.path) + len(self.same_as) + len(self.inline) + attributes + 48 + 12 * len(self.extents)
        )


def manifest_entry(item: TreeItem) -> TreeEntry:
    """What a manifest can say of it.  Raises: KeyError: it has no place in one."""
    extents = tuple(TreeExtent(_row(one), one.source_offset, one.length) for one in item.extents)
    kind = _KINDS[item.kind]
    return TreeEntry(item.path, kind, item.mode, item.mtime_ns, item.size_bytes, item.inline, extents)


def manifest_item(entry: TreeEntry) -> TreeItem:
    """What a manifest says, without its extents: they are the reader's."""
    kind = _TYPES[entry.type]
    return TreeItem(entry.path, kind, entry.mode, entry.mtime_ns, entry.size_bytes, entry.inline)


def _row(extent: Extent) -> int:
    assert isinstance(extent.source, int)
    return extent.source
