"""What transactions consist of: plans for changes of a volume's tree, made on the state they change.

Pure: a state is read, operations come out.  Called again on a newer state if somebody was faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from muniment.core.tree_state import Inode, TreeReading
from muniment.engine.stored_content import StoredContent, StoredLeaf, content_of
from muniment.engine.tree_item import TreeItem, Xattrs
from muniment.engine.volume_tree import Place, children, find, locate, path_text, walk
from muniment.errors import InvalidRequest, PathUnknown
from muniment.spec.blob import BlobRef
from muniment.spec.lock_attributes import without_own
from muniment.spec.operation import (
    Content,
    Kind,
    Link,
    Make,
    Operation,
    RemoveTree,
    RemoveXattr,
    SetAttributes,
    SetXattr,
    Truncate,
    Unlink,
    Write,
    inline_content,
)
from muniment.spec.transaction import Transaction

_ALL = 1 << 62


@dataclass(frozen=True, slots=True)
class NewFacts:
    """What a new file or folder gets, and one that is there where it is not None.

    Attributes:
        mode: permission bits.
        owner: user and group.
        xattrs: all that it will have; None: those that are there stay.
    """

    mode: int
    mtime_ns: int
    owner: tuple[int, int] | None = None
    xattrs: Xattrs | None = None

    @classmethod
    def of(cls, item: TreeItem) -> NewFacts:
        """Those of something that was read."""
        return cls(item.mode, item.mtime_ns, item.owner, item.xattrs)

    def make(
        self, parent: int, name: bytes, kind: Kind, content: Content = (), size: int = 0, rdev: int = 0
    ) -> Make:
        """A new one."""
        uid, gid = self.owner or (0, 0)
        facts = self.mode, uid, gid, self.mtime_ns
        return Make(parent, name, kind, *facts, rdev, content, size, self.xattrs or ())

    def set(self, state: TreeReading, ino: int) -> Iterator[Operation]:
        """Those of one that is there; its time comes last, since all else changes it."""
        if self.xattrs is not None:
            yield from xattrs_set(state.xattrs(ino), dict(self.xattrs), ino)
        uid, gid = self.owner or (None, None)
        yield SetAttributes(ino, self.mode, uid, gid, None, self.mtime_ns)


def xattrs_set(now: Mapping[bytes, bytes], then: Mapping[bytes, bytes], ino: int) -> Iterator[Operation]:
    """Make the attributes of an inode those of `then`; locks stay as they are."""
    now, then = without_own(now), without_own(then)
    for name in now.keys() - then.keys():
        yield RemoveXattr(ino, name)
    for name, value in then.items():
        if now.get(name) != value:
            yield SetXattr(ino, name, value)


def written(
    state: TreeReading,
    place: Place,
    stored: StoredContent,
    facts: NewFacts,
    if_version: int | None = None,
) -> Iterator[Operation]:
    """A file's whole content under a name: a new file, or a new version of the one there."""
    inode = place.inode
    if inode is None:
        yield facts.make(place.parent, place.name, Kind.FILE, stored.extents, stored.size)
        return
    if inode.kind is not Kind.FILE:
        raise InvalidRequest(reason=f"{path_text(place.name)} is not a file")
    yield Truncate(inode.inode, if_version, 0)
    if stored.extents:
        yield Write(inode.inode, None, stored.extents)
    if not stored.extents or stored.extents[-1].stop < stored.size:
        yield Truncate(inode.inode, None, stored.size)  # a hole at the end
    yield from facts.set(state, inode.inode)


def folder_made(state: TreeReading, path: bytes, facts: NewFacts, message: str) -> Transaction:
    """A folder and those above it; one that is there gets the facts, unless it is the root."""
    ops: list[Operation] = []
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    for count in range(1, len(parts) + 1):
        if ops:
            ops.append(facts.make(-len(ops), parts[count - 1], Kind.FOLDER))
            continue
        place = locate(state, b"/".join(parts[:count]))
        if place.inode is None:
            ops.append(facts.make(place.parent, place.name, Kind.FOLDER))
        elif place.inode.kind is not Kind.FOLDER:
            raise InvalidRequest(reason=f"{path_text(b'/'.join(parts[:count]))} is not a folder")
    if not ops:
        there = find(state, path).inode
        ops += facts.set(state, there) if parts else [SetAttributes(there)]
    return Transaction(tuple(ops), message=message)


class Merge:
    """The leaves of an upload, merged one by one into the folder under `path`.

    Args:
        top_mtime_ns: of the folder itself; None: it is the root, which keeps its own.
    """

    def __init__(self, path: bytes, top_mtime_ns: int | None, message: str) -> None:
        self._path, self._message = path, message
        # What is made in a folder would leave it with the present time, also in a later leaf.
        self._times = {} if top_mtime_ns is None else {b"": top_mtime_ns}
        self._earlier: set[bytes] = set()  # first names of files with several, in leaves before this one
        self._now: set[bytes] = set()

    def take(self, leaf: StoredLeaf) -> None:
        """Leaves come in order; call before the plan of each."""
        self._times |= {one.path: one.mtime_ns for one in leaf.entries if one.kind is Kind.FOLDER}
        self._earlier |= self._now
        self._now = {one.path for one in leaf.entries if one.shared and not one.same_as}

    def plan(self, leaf: StoredLeaf, state: TreeReading) -> Transaction:
        """The transaction of the leaf that was taken last."""
        merge = _LeafMerge(state, self._path, self._earlier)
        for item in leaf.entries:
            merge.add(item)
        folders = merge.folders.items()
        times = [SetAttributes(ref, mtime_ns=self._times[one]) for one, ref in folders if one in self._times]
        return Transaction((*merge.ops, *times), leaf.blobs, self._message)


class _LeafMerge:
    """One leaf on one state.

    Attributes:
        ops: to be done.
        folders: what each folder that matters is called by operations.
    """

    def __init__(self, state: TreeReading, path: bytes, earlier: set[bytes]) -> None:
        self._state, self._path, self._earlier = state, path, earlier
        self._made = 0
        self._refs: dict[bytes, int] = {}  # of files with several names, by the first
        self._taken: set[int] | None = None
        self.ops: list[Operation] = []
        self.folders: dict[bytes, int] = {b"": find(state, path).inode}

    def add(self, item: TreeItem) -> None:
        """Plan one entry."""
        above, _, name = item.path.rpartition(b"/")
        if above not in self.folders:
            self.folders[above] = find(self._state, self._path + b"/" + above).inode
        parent = self.folders[above]
        child = self._state.child(parent, name) if parent > 0 else None
        there = self._state.inode(child.inode) if child is not None else None
        if item.same_as:
            self._same(item, parent, name, there)
        elif item.kind is Kind.FOLDER:
            self._folder(item, parent, name, there)
        else:
            self._other(item, parent, name, there)

    def _same(self, item: TreeItem, parent: int, name: bytes, there: Inode | None) -> None:
        """Another name of what was merged before."""
        first = self._ref(item.same_as)
        if there is not None and there.inode == first:
            return
        if there is not None:
            self._clear(item, parent, name, there)
        self.ops.append(Link(first, parent, name))

    def _folder(self, item: TreeItem, parent: int, name: bytes, there: Inode | None) -> None:
        facts = NewFacts.of(item)
        if there is None:
            self._make(facts.make(parent, name, Kind.FOLDER))
            self.folders[item.path] = -self._made
        elif there.kind is Kind.FOLDER:
            self.folders[item.path] = there.inode
            self.ops += facts.set(self._state, there.inode)
        else:
            raise InvalidRequest(reason=f"{path_text(item.path)} is not a folder in the volume")

    def _other(self, item: TreeItem, parent: int, name: bytes, there: Inode | None) -> None:
        facts, content = NewFacts.of(item), _content(item)
        if item.is_file and there is not None and there.kind is Kind.FILE and self._may_rewrite(item, there):
            stored = StoredContent(content, (), item.size_bytes)
            self.ops += written(self._state, Place(parent, name, there), stored, facts)
            self._refs[item.path] = there.inode
            return
        if there is not None:
            self._clear(item, parent, name, there)
        size = len(item.inline) if item.kind is Kind.SYMLINK else item.size_bytes
        self._make(facts.make(parent, name, item.kind, content, size, item.rdev))
        self._refs[item.path] = -self._made

    def _may_rewrite(self, item: TreeItem, there: Inode) -> bool:
        """A new version of the file that is there changes it under all its names: they must mean this one."""
        if there.links == 1:
            return True
        if not item.shared:
            return False
        if self._taken is None:
            self._taken = {self._state_ref(path) for path in self._earlier}
        free = there.inode not in self._taken
        self._taken.add(there.inode)
        return free

    def _ref(self, path: bytes) -> int:
        if path not in self._refs:
            self._refs[path] = self._state_ref(path)
        return self._refs[path]

    def _state_ref(self, path: bytes) -> int:
        """What a name leads to in the state; 0 for nothing."""
        try:
            inode = locate(self._state, self._path + b"/" + path, follow=False).inode
        except PathUnknown:
            return 0
        return 0 if inode is None else inode.inode

    def _clear(self, item: TreeItem, parent: int, name: bytes, there: Inode) -> None:
        if there.kind is Kind.FOLDER:
            raise InvalidRequest(reason=f"{path_text(item.path)} is a folder in the volume")
        self.ops.append(Unlink(parent, name, there.inode))

    def _make(self, make: Make) -> None:
        self._made += 1
        self.ops.append(make)


def _content(item: TreeItem) -> Content:
    return inline_content(item.inline) if item.inline else item.extents


def copied(
    past: TreeReading, inode: Inode, state: TreeReading, new: Place, blobs: dict[BlobRef, int]
) -> Iterable[Operation]:
    """Make what `inode` was under a free name, or write a file's content into one that is there."""
    if new.inode is not None:
        yield from _rewritten(past, inode, state, new.inode, blobs)
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
    shared: dict[int, int] = {}
    for listed in walk(past, inode):
        above, _, last = listed.path.rpartition(b"/")
        if listed.inode.inode in shared:
            yield Link(shared[listed.inode.inode], folders[above], last)
            continue
        yield _made(past, listed.inode, folders[above], last, blobs)
        made += 1
        if listed.inode.kind is Kind.FOLDER:
            folders[listed.path] = -made
            times[-made] = listed.inode.mtime_ns
        elif listed.inode.links > 1:
            shared[listed.inode.inode] = -made
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
        tuple(without_own(past.xattrs(inode.inode)).items()),
    )


def _rewritten(
    past: TreeReading, inode: Inode, state: TreeReading, now: Inode, blobs: dict[BlobRef, int]
) -> Iterable[Operation]:
    """Give a file the content and attributes of another, or of itself at another time."""
    yield Truncate(now.inode, None, 0)
    content = content_of(past.extents(inode.inode, 0, _ALL), blobs)
    if content:
        yield Write(now.inode, None, content)
    if not content or content[-1].stop < inode.size:
        yield Truncate(now.inode, None, inode.size)
    yield from xattrs_set(state.xattrs(now.inode), past.xattrs(inode.inode), now.inode)
    yield SetAttributes(now.inode, inode.mode, inode.uid, inode.gid, None, inode.mtime_ns)


def replaced(
    past: TreeReading, inode: Inode, state: TreeReading, now: Place, blobs: dict[BlobRef, int]
) -> Iterable[Operation]:
    """Make what `inode` was in place of what is there now."""
    there = now.inode
    both = there is not None and there.kind is inode.kind is Kind.FILE
    if there is not None and both and (there.inode == inode.inode or there.links == 1):
        yield from _rewritten(past, inode, state, there, blobs)
        return
    if there is not None:
        yield RemoveTree(now.parent, now.name, there.inode)
    yield from _tree_copied(past, inode, now.parent, now.name, blobs)


def folder_restored(
    past: TreeReading, old: Inode, state: TreeReading, now: Inode, blobs: dict[BlobRef, int]
) -> Iterable[Operation]:
    """Make a folder hold what it held; only what differs is touched, and folders keep their numbers.

    A file that had several names has them again, and is brought back once.
    """
    made = 0
    pending = [(old, now)]
    differing: list[tuple[Inode, Place]] = []
    shared: dict[int, int] = {}  # of files with several names: what they are called by operations
    settled: list[tuple[Inode, Inode]] = []
    while pending:
        old, now = pending.pop()
        then = {listed.path: listed.inode for listed in children(past, old)}
        present = {listed.path: listed.inode for listed in children(state, now)}
        before = len(differing)
        for name, inode in present.items():
            if name not in then:
                yield RemoveTree(now.inode, name, inode.inode)
                before = -1
        for name, inode in then.items():
            there = present.get(name)
            if there is not None and there.kind is inode.kind is Kind.FOLDER:
                pending.append((inode, there))
                continue
            if there is not None and there.inode == inode.inode and inode.links > 1:
                shared[inode.inode] = inode.inode
            if there != inode:
                differing.append((inode, Place(now.inode, name, there)))
        facts = old.mode, old.uid, old.gid, old.mtime_ns
        if len(differing) != before or facts != (now.mode, now.uid, now.gid, now.mtime_ns):
            settled.append((old, now))
        yield from xattrs_set(state.xattrs(now.inode), past.xattrs(old.inode), now.inode)
    done: set[int] = set()
    for inode, place in differing:
        same = shared.get(inode.inode)
        if same is not None and (place.inode is None or place.inode.inode != same):
            if place.inode is not None:
                yield RemoveTree(place.parent, place.name, place.inode.inode)
            yield Link(same, place.parent, place.name)
            continue
        if inode.inode in done:
            continue  # under another of its names
        ops = list(replaced(past, inode, state, place, blobs))
        yield from (_shifted(op, made) for op in ops)
        makes = sum(isinstance(op, Make) for op in ops)
        if inode.links > 1 and inode.kind is not Kind.FOLDER:
            done.add(inode.inode)
            assert makes or place.inode is not None
            shared[inode.inode] = -made - 1 if makes or place.inode is None else place.inode.inode
        made += makes
    for old, now in settled:
        yield SetAttributes(now.inode, old.mode, old.uid, old.gid, None, old.mtime_ns)


def _shifted(op: Operation, made: int) -> Operation:
    """Count what was made before: negative numbers are those of the whole transaction."""
    if isinstance(op, Make) and op.parent < 0:
        return replace(op, parent=op.parent - made)
    if isinstance(op, SetAttributes) and op.inode < 0:
        return replace(op, inode=op.inode - made)
    if isinstance(op, Link) and op.inode < 0:
        return replace(op, inode=op.inode - made, parent=op.parent - made)
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
