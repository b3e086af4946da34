"""What happened in a volume: its entries as events, and what differs between two states, by paths.

Blocking; runs in the volume's thread (`Volume.run`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from muniment.core.history import Difference, FoldedEntry
from muniment.core.tree_state import Inode, TreeReading
from muniment.crypto.entries import known_entry
from muniment.engine.volume import Volume
from muniment.engine.volume_tree import find, path_text, walk
from muniment.errors import InvalidRequest, PathUnknown
from muniment.spec.act import Act
from muniment.spec.operation import Kind

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the log and what came of it.

    Attributes:
        folded: index, author, time, message, and why it was rejected if it was.
        act: of membership; None for a transaction.
        added, removed, moved: names.
        changed: files with other content.
    """

    folded: FoldedEntry
    act: Act | None
    added: int = 0
    removed: int = 0
    moved: int = 0
    changed: int = 0


def events(volume: Volume, start: int, stop: int) -> Iterator[Event]:
    """The entries `start` to `stop` - 1.  Cost: O(rows they touched)."""
    for folded in volume.view.entries(start, stop):
        at = folded.index
        (signed, *_) = volume.follower.replica.read(at, at + 1, bytes_max=_READ_BYTES)
        act = known_entry(signed).entry.act
        if folded.changed:
            yield _counted(folded, volume.view.changed_between(at - 1, at))
        else:
            yield Event(folded, act)


def _counted(folded: FoldedEntry, found: Difference) -> Event:
    gone = [one.before.inode for one in found.names if one.before is not None and one.after is None]
    came = [one.after.inode for one in found.names if one.after is not None and one.before is None]
    moved = len(set(gone) & set(came))
    changed = sum(
        one.before is not None
        and one.after is not None
        and one.after.kind is Kind.FILE
        and one.before.version != one.after.version
        for one in found.inodes
    )
    return Event(folded, None, len(came) - moved, len(gone) - moved, moved, changed)


class Differs(enum.Enum):
    """How a path differs between two states."""

    ADDED = "added"
    REMOVED = "removed"
    MOVED = "moved"
    CHANGED = "changed"
    """Other content, or something else."""
    ATTRIBUTES = "attributes"
    """Permissions, owner or time only."""


@dataclass(frozen=True, slots=True)
class PathDifference:
    """One path in two states.

    Attributes:
        path: from the root; where it was, if it was removed.
        old_path: where it was, if it moved.
        before, after: what is there; None where nothing is.
    """

    how: Differs
    path: bytes
    before: Inode | None
    after: Inode | None
    old_path: bytes = b""


def path_differences(before: TreeReading, after: TreeReading, path: bytes) -> list[PathDifference]:
    """What differs at and below a path, in order of paths; of a folder that moved as it is, itself alone.

    Cost: O(names below the path in both states).
    Raises: PathUnknown: nothing is there in either state.
    """
    was, now = _all(before, path), _all(after, path)
    if not was and not now:
        raise PathUnknown(path=path_text(path))
    gone = {name: inode for name, inode in was.items() if name not in now}
    came = {name: inode for name, inode in now.items() if name not in was}
    origins = {inode.inode: name for name, inode in gone.items()}
    moves = {name: origins[inode.inode] for name, inode in came.items() if inode.inode in origins}
    left = set(moves.values())
    found = [PathDifference(Differs.REMOVED, name, inode, None) for name, inode in gone.items()]
    found = [one for one in found if one.path not in left]

    def how(inode: Inode, other: Inode) -> Differs | None:
        if inode == other:
            return None
        if inode.kind is not other.kind or not _same_content(before, inode, after, other):
            return Differs.CHANGED
        if (inode.mode, inode.uid, inode.gid) != (other.mode, other.uid, other.gid):
            return Differs.ATTRIBUTES
        same_time = inode.kind is Kind.FOLDER or inode.mtime_ns == other.mtime_ns
        return None if same_time else Differs.ATTRIBUTES

    for name, inode in now.items():
        if name in moves:
            old = moves[name]
            if not _went_along(moves, old, name):
                found.append(PathDifference(Differs.MOVED, name, was[old], inode, old))
            elif how(was[old], inode) is Differs.CHANGED:
                found.append(PathDifference(Differs.CHANGED, name, was[old], inode, old))
        elif name not in was:
            found.append(PathDifference(Differs.ADDED, name, None, inode))
        elif (differs := how(was[name], inode)) is not None:
            found.append(PathDifference(differs, name, was[name], inode))
    return sorted(found, key=lambda one: one.path.split(b"/"))


def _all(state: TreeReading, path: bytes) -> dict[bytes, Inode]:
    """Paths and inodes, the path itself first; empty if nothing is there."""
    try:
        top = find(state, path, follow=False)
    except (PathUnknown, InvalidRequest):
        return {}
    found = {path: top} if path else {}
    if top.kind is Kind.FOLDER:
        above = path + b"/" if path else b""
        found |= {above + one.path: one.inode for one in walk(state, top)}
        return found or {path: top}
    return found


def _went_along(moves: dict[bytes, bytes], old: bytes, new: bytes) -> bool:
    """Whether the folder that it is in moved, and it with it."""
    old_above, _, old_name = old.rpartition(b"/")
    new_above, _, new_name = new.rpartition(b"/")
    return old_name == new_name and moves.get(new_above) == old_above


def _same_content(before: TreeReading, inode: Inode, after: TreeReading, other: Inode) -> bool:
    """Also where it was written anew: what is compared is where the content lies."""
    if inode.kind is Kind.FOLDER or (inode.inode == other.inode and inode.version == other.version):
        return True
    if (inode.size, inode.rdev) != (other.size, other.rdev):
        return False
    was = before.extents(inode.inode, 0, inode.size)
    return list(was) == list(after.extents(other.inode, 0, other.size))
