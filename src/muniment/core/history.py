"""What a view tells of a volume's past: entries with their outcome, versions of a file, differences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from muniment.core.tree_state import Changes, Inode, Name, Rejection, TreeReading
from muniment.ids import EntryHash, MemberId
from muniment.spec.lock_attributes import without_own


@dataclass(frozen=True, slots=True)
class EntryMeta:
    """Of an entry what readers of the history want to know.

    Attributes:
        hash: its leaf hash.
        author: who signed it.
        time_ns: by the author's clock, nanoseconds since the epoch.
        epoch: of its keys.
        message: why, in the author's words; empty for an act.
    """

    hash: EntryHash
    author: MemberId
    time_ns: int
    epoch: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class FoldedEntry:
    """An entry of the log as it was folded.

    Attributes:
        index: in the log, from 0.
        meta: of the entry.
        changed: whether it was a transaction that took effect; an act and what was rejected did not.
        rejection: why not, if it was rejected.
    """

    index: int
    meta: EntryMeta
    changed: bool
    rejection: Rejection | None


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One content of a file.

    Attributes:
        index: of the entry that brought it; `reading(index)` has it.
        size: bytes.
        author: of that entry.
        time_ns: of that entry, by its author's clock.
    """

    index: int
    size: int
    author: MemberId
    time_ns: int


@dataclass(frozen=True, slots=True)
class InodeDifference:
    """An inode in two states; None where it is not there.

    The two rows are equal where only extended attributes differ.
    """

    inode: int
    before: Inode | None
    after: Inode | None


@dataclass(frozen=True, slots=True)
class NameDifference:
    """A name in two states; None where it is not there."""

    parent: int
    name: bytes
    before: Name | None
    after: Name | None


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs between two states, in order of inodes, and of folders and names."""

    inodes: tuple[InodeDifference, ...]
    names: tuple[NameDifference, ...]


def touched_by(changes: Changes) -> tuple[list[int], list[tuple[int, bytes]]]:
    """The inodes and the names (with their folders) that an entry touched.

    Whoever changes content changes the inode's version, so extents add nothing; attributes may.
    """
    inos = [row.inode for one in changes.inodes if (row := one.before or one.after)]
    if changes.xattrs:
        inos = list(dict.fromkeys([*inos, *(one.inode for one in changes.xattrs)]))
    names = [(name.parent, name.name) for one in changes.names if (name := one.before or one.after)]
    return inos, names


def difference(
    before: TreeReading, after: TreeReading, inos: Iterable[int], names: Iterable[tuple[int, bytes]]
) -> Difference:
    """What differs between two states among these inodes and names, none of which is given twice."""
    inodes = []
    for ino in sorted(inos):
        was, now = before.inode(ino), after.inode(ino)
        if was != now or (was is not None and _attributes(before, ino) != _attributes(after, ino)):
            inodes.append(InodeDifference(ino, was, now))
    found = []
    for parent, name in sorted(names):
        led, leads = before.child(parent, name), after.child(parent, name)
        if led != leads:
            found.append(NameDifference(parent, name, led, leads))
    return Difference(tuple(inodes), tuple(found))


def _attributes(state: TreeReading, ino: int) -> dict[bytes, bytes]:
    return without_own(state.xattrs(ino))
