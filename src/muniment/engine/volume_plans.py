"""What transactions consist of: plans for changes of a volume's tree, made on the state they change.

Pure: a state is read, operations come out.  Called again on a newer state if somebody was faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from muniment.core.tree_state import Inode, TreeReading
from muniment.engine.stored_content import StoredContent, StoredLeaf, content_of
from muniment.engine.volume_tree import Place, children, find, locate, path_text, walk
from muniment.errors import InvalidRequest, PathUnknown
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    Extent,
    Kind,
    Make,
    Operation,
    RemoveTree,
    SetAttributes,
    Truncate,
    Unlink,
    Write,
)
from muniment.spec.transaction import Transaction
from muniment.spec.tree_entry import EntryType, TreeEntry

_ALL = 1 << 62


def written(
    parent: int,
    name: bytes,
    inode: Inode | None,
    stored: StoredContent,
    mode: int,
    mtime_ns: int,
    if_version: int | None = None,
) -> Iterable[Operation]:
    """A file's whole content under a name: a new file, or a new version of the one there."""
    if inode is None:
        yield Make(parent, name, Kind.FILE, mode, mtime_ns=mtime_ns, content=stored.extents, size=stored.size)
        return
    if inode.kind is not Kind.FILE:
        raise InvalidRequest(reason=f"{path_text(name)} is not a file")
    yield Truncate(inode.inode, if_version, 0)
    if stored.extents:
        yield Write(inode.inode, None, stored.extents)
    yield SetAttributes(inode.inode, mode=mode, mtime_ns=mtime_ns)


def folder_made(state: TreeReading, path: bytes, mode: int, message: str, mtime_ns: int) -> Transaction:
    """A folder and those above it; where all are there, its permissions alone are set."""
    ops: list[Operation] = []
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    for count in range(1, len(parts) + 1):
        if ops:
            ops.append(Make(-len(ops), parts[count - 1], Kind.FOLDER, mode, mtime_ns=mtime_ns))
            continue
        place = locate(state, b"/".join(parts[:count]))
        if place.inode is None:
            ops.append(Make(place.parent, place.name, Kind.FOLDER, mode, mtime_ns=mtime_ns))
        elif place.inode.kind is not Kind.FOLDER:
            raise InvalidRequest(reason=f"{path_text(b'/'.join(parts[:count]))} is not a folder")
    if not ops:
        ops.append(SetAttributes(find(state, path).inode, mode=mode if parts else None))
    return Transaction(tuple(ops), message=message)


def merged(
    leaf: StoredLeaf, times: Mapping[bytes, int], path: bytes, message: str, state: TreeReading
) -> Transaction:
    """A leaf of an upload merged into the folder under `path`.

    Args:
        times: of all folders uploaded so far: what is made in one would leave it with the present time.
    """
    ops: list[Operation] = []
    folders: dict[bytes, int] = {b"": find(state, path).inode}
    made = 0
    for entry in leaf.entries:
        above, _, name = entry.path.rpartition(b"/")
        if above not in folders:
            folders[above] = find(state, path + b"/" + above).inode
        parent = folders[above]
        child = state.child(parent, name) if parent > 0 else None
        there = state.inode(child.inode) if child is not None else None
        match entry.type:
            case EntryType.DIRECTORY:
                if there is None:
                    made += 1
                    folders[entry.path] = -made
                    ops.append(Make(parent, name, Kind.FOLDER, entry.mode, mtime_ns=entry.mtime_ns))
                elif there.kind is Kind.FOLDER:
                    folders[entry.path] = there.inode
                else:
                    raise InvalidRequest(reason=f"{path_text(entry.path)} is not a folder in the volume")
            case EntryType.SYMLINK:
                if there is not None:
                    ops.append(Unlink(parent, name, there.inode))
                made += 1
                size, content = len(entry.inline), (Extent(0, len(entry.inline), entry.inline),)
                link = Make(parent, name, Kind.SYMLINK, 0o777, 0, 0, entry.mtime_ns, 0, content, size)
                ops.append(link)
            case EntryType.FILE:
                made += there is None
                stored = StoredContent(_extents(entry), leaf.blobs, entry.size_bytes)
                ops += written(parent, name, there, stored, entry.mode, entry.mtime_ns)
    ops += [SetAttributes(ref, mtime_ns=times[one]) for one, ref in folders.items() if one in times]
    return Transaction(tuple(ops), leaf.blobs, message)


def _extents(entry: TreeEntry) -> tuple[Extent, ...]:
    if entry.inline:
        return (Extent(0, len(entry.inline), entry.inline),)
    extents, offset = [], 0
    for one in entry.extents:
        extents.append(Extent(offset, one.length, one.row, one.offset))
        offset += one.length
    return tuple(extents)


def copied(past: TreeReading, inode: Inode, new: Place, blobs: dict[BlobRef, int]) -> Iterable[Operation]:
    """Make what `inode` was under a free name, or write a file's content into one that is there."""
    if new.inode is not None:
        yield from _rewritten(past, inode, new.inode, blobs)
        return
    yield from _tree_copied(past, inode, new.parent, new.name, blobs)


def _tree_copied(
    past: TreeReading, inode: Inode, parent: int, name: bytes, blobs: dict[BlobRef, int]
) -> Iterable[Operation]:
    yield _made(past, inode, parent, name, blobs)
    if inode.kind is not Kind.FOLDER:
        return
    folders, made = {b"": -1}, 1
    times = {-1: inode.mtime_ns}
    for listed in walk(past, inode):
        above, _, last = listed.path.rpartition(b"/")
        yield _made(past, listed.inode, folders[above], last, blobs)
        made += 1
        if listed.inode.kind is Kind.FOLDER:
            folders[listed.path] = -made
            times[-made] = listed.inode.mtime_ns
    # What was made in a folder has left it with the present time.
    for ref, mtime_ns in times.items():
        yield SetAttributes(ref, mtime_ns=mtime_ns)


def _made(past: TreeReading, inode: Inode, parent: int, name: bytes, blobs: dict[BlobRef, int]) -> Make:
    content = content_of(past.extents(inode.inode, 0, _ALL), blobs)
    return Make(
        parent,
        name,
        inode.kind,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.mtime_ns,
        inode.rdev,
        content,
        inode.size,
        tuple(past.xattrs(inode.inode).items()),
    )


def _rewritten(past: TreeReading, inode: Inode, now: Inode, blobs: dict[BlobRef, int]) -> Iterable[Operation]:
    """Give a file the content and attributes of another, or of itself at another time."""
    yield Truncate(now.inode, None, 0)
    content = content_of(past.extents(inode.inode, 0, _ALL), blobs)
    if content:
        yield Write(now.inode, None, content)
    if not content or content[-1].stop < inode.size:
        yield Truncate(now.inode, None, inode.size)
    yield SetAttributes(now.inode, inode.mode, inode.uid, inode.gid, None, inode.mtime_ns)


def replaced(past: TreeReading, inode: Inode, now: Place, blobs: dict[BlobRef, int]) -> Iterable[Operation]:
    """Make what `inode` was in place of what is there now."""
    if now.inode is not None and now.inode.kind is inode.kind is Kind.FILE:
        yield from _rewritten(past, inode, now.inode, blobs)
        return
    if now.inode is not None:
        yield RemoveTree(now.parent, now.name, now.inode.inode)
    yield from _tree_copied(past, inode, now.parent, now.name, blobs)


def folder_restored(
    past: TreeReading, old: Inode, state: TreeReading, now: Inode, blobs: dict[BlobRef, int]
) -> Iterable[Operation]:
    """Make a folder hold what it held; only what differs is touched, and folders keep their numbers."""
    made = 0
    pending = [(old, now)]
    while pending:
        old, now = pending.pop()
        then = {listed.path: listed.inode for listed in children(past, old)}
        present = {listed.path: listed.inode for listed in children(state, now)}
        for name, inode in present.items():
            if name not in then:
                yield RemoveTree(now.inode, name, inode.inode)
        for name, inode in then.items():
            there = present.get(name)
            if there == inode and inode.kind is not Kind.FOLDER:
                continue
            if there is not None and there.kind is inode.kind is Kind.FOLDER:
                pending.append((inode, there))
                continue
            ops = list(replaced(past, inode, Place(now.inode, name, there), blobs))
            yield from (_shifted(op, made) for op in ops)
            made += sum(isinstance(op, Make) for op in ops)
        if (old.mode, old.uid, old.gid) != (now.mode, now.uid, now.gid):
            yield SetAttributes(now.inode, old.mode, old.uid, old.gid)


def _shifted(op: Operation, made: int) -> Operation:
    """Count what was made before: negative parents are those of the whole transaction."""
    if isinstance(op, Make) and op.parent < 0:
        return replace(op, parent=op.parent - made)
    if isinstance(op, SetAttributes) and op.inode < 0:
        return replace(op, inode=op.inode - made)
    return op


def present(place: Place, path: bytes) -> Place:
    """A place where something is.  Raises: PathUnknown."""
    if place.inode is None:
        raise PathUnknown(path=path_text(path))
    return place


def named(place: Place, path: bytes) -> Place:
    """A place that is there and is not the root."""
    if not place.name:
        raise InvalidRequest(reason="this cannot be done to the root of a volume")
    return present(place, path)


def into(state: TreeReading, place: Place, name: bytes) -> Place:
    """Where something of this name ends up: in the folder, if that is what the place is."""
    if place.inode is None or place.inode.kind is not Kind.FOLDER:
        return place
    return locate(state, b"", follow=False) if not name else _child(state, place.inode, name)


def _child(state: TreeReading, folder: Inode, name: bytes) -> Place:
    child = state.child(folder.inode, name)
    return Place(folder.inode, name, None if child is None else state.inode(child.inode))
