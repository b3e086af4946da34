"""Looking into a volume's tree: paths, listings and walks on one state (`TreeReading`); no I/O of its own.

A path is bytes, components joined by "/", from the root; "." and "" mean the root itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from muniment.core.tree_state import Inode, TreeReading
from muniment.errors import InvalidRequest, PathUnknown
from muniment.spec.operation import ROOT, Kind, check_name

LINKS_MAX: Final = 40
"""Symbolic links followed on one path, as Linux has it."""

_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads.

    Attributes:
        parent: the folder it is in; the root's is itself.
        name: in that folder; empty for the root.
        inode: what is there, or None where the name is free.
    """

    parent: int
    name: bytes
    inode: Inode | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One name of a folder or walk.

    Attributes:
        path: relative to what was listed.
        inode: what it leads to.
    """

    path: bytes
    inode: Inode


def split_path(path: bytes) -> list[bytes]:
    """The components; `..` is resolved without looking at links.

    Raises: InvalidRequest: a component that no folder can hold; MalformedRecord.
    """
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidRequest(reason="the path leaves the volume")
            parts.pop()
        elif part not in (b"", b"."):
            check_name(part)
            parts.append(part)
    return parts


def locate(state: TreeReading, path: bytes, *, follow: bool = True) -> Place:
    """Where a path leads; the last name may be free, all before it must be folders.

    Args:
        follow: a symbolic link at the end too; those on the way always are.
    Raises: PathUnknown: something on the way is missing; InvalidRequest: or no folder, or too many links.
    """
    pending, links = split_path(path)[::-1], 0
    trail = [_required(state, ROOT)]
    names: list[bytes] = []
    while pending:
        name = pending.pop()
        if name == b"..":
            if len(trail) > 1:
                trail.pop()
                names.pop()
            continue
        folder = trail[-1]
        if folder.kind is not Kind.FOLDER:
            raise InvalidRequest(reason=f"{_shown(names)} is not a folder")
        child = state.child(folder.inode, name)
        if child is None:
            if pending:
                raise PathUnknown(path=_shown([*names, name]))
            return Place(folder.inode, name, None)
        inode = _required(state, child.inode)
        if inode.kind is Kind.SYMLINK and (pending or follow):
            links += 1
            if links > LINKS_MAX:
                raise InvalidRequest(reason=f"{_shown([*names, name])}: too many symbolic links")
            target = link_target(state, inode)
            if target.startswith(b"/"):
                del trail[1:], names[:]
            pending += [part for part in target.split(b"/")[::-1] if part not in (b"", b".")]
            continue
        trail.append(inode)
        names.append(name)
    if len(trail) == 1:
        return Place(ROOT, b"", trail[0])
    return Place(trail[-2].inode, names[-1], trail[-1])


def find(state: TreeReading, path: bytes, *, follow: bool = True) -> Inode:
    """What stands under a path.  Raises: PathUnknown; as `locate`."""
    place = locate(state, path, follow=follow)
    if place.inode is None:
        raise PathUnknown(path=path_text(path))
    return place.inode


def children(state: TreeReading, folder: Inode) -> Iterator[Listed]:
    """What a folder holds, in byte order.  Raises: InvalidRequest: it is none."""
    if folder.kind is not Kind.FOLDER:
        raise InvalidRequest(reason="this is not a folder")
    after = b""
    while True:
        page = state.listing(folder.inode, after, _PAGE)
        for name, inode in page:
            yield Listed(name, inode)
        if len(page) < _PAGE:
            return
        after = page[-1][0]


def walk(state: TreeReading, folder: Inode) -> Iterator[Listed]:
    """Everything below a folder, each folder before its content, names in byte order; links not followed."""
    levels = [(b"", children(state, folder))]
    while levels:
        above, names = levels[-1]
        listed = next(names, None)
        if listed is None:
            levels.pop()
            continue
        path = above + listed.path
        yield Listed(path, listed.inode)
        if listed.inode.kind is Kind.FOLDER:
            levels.append((path + b"/", children(state, listed.inode)))


def link_target(state: TreeReading, inode: Inode) -> bytes:
    """Where a symbolic link points to."""
    extents = state.extents(inode.inode, 0, inode.size)
    return b"".join(extent.source for extent in extents if isinstance(extent.source, bytes))


def _required(state: TreeReading, ino: int) -> Inode:
    inode = state.inode(ino)
    assert inode is not None
    return inode


def _shown(names: list[bytes]) -> str:
    return path_text(b"/".join(names))


def path_text(path: bytes) -> str:
    """A path from the root, for people."""
    return "/" + path.decode("utf-8", "replace")
