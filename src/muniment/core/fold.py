"""The fold: what a transaction does to a volume's tree, the same on every member.

Pure and deterministic: the state is read, never written, and the result is the list of rows that change.
Operations run in order on an overlay; the first one that does not find what it expects rejects all of them.
Semantics are those of POSIX where docs/spec/entry.md section 5 is silent; docs/spec/view.md section 2 says
them in full, with the order of the checks.  Permissions are no matter of the fold: whoever may write to the
volume may change all of it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NoReturn

from muniment.core.overlay import Node, Overlay
from muniment.core.tree_state import Changes, Name, StoredExtent, TreeReading
from muniment.errors import OperationRejected
from muniment.spec.blob import BlobRef
from muniment.spec.lock_attributes import OWN
from muniment.spec.operation import (
    ROOT,
    SIZE_MAX,
    SNAPSHOT_LAG_MAX,
    Content,
    Kind,
    Link,
    Make,
    Operation,
    RemoveTree,
    RemoveXattr,
    Rename,
    Rmdir,
    SetAttributes,
    SetXattr,
    Snapshot,
    Truncate,
    Unlink,
    ViewSnapshot,
    Write,
    XattrMode,
)
from muniment.spec.transaction import Transaction

LEVELS_MAX: Final = 2048
"""Levels between the root and a folder into which one with folders in it can be moved.  Such a path is as
long as Linux's PATH_MAX; without a limit, one member's deep chain of folders makes renaming slow for all."""

CLIMBED_MAX: Final = 1 << 20
"""Levels that all renames of one transaction climb together: else a few thousand bytes cost a minute."""


class Why(enum.StrEnum):
    """What an operation did not find: the codes of docs/spec/entry.md section 5 and view.md section 2."""

    NOT_FOUND = "not-found"
    NOT_A_FOLDER = "not-a-folder"
    NOT_A_FILE = "not-a-file"
    IS_A_FOLDER = "is-a-folder"
    EXISTS = "exists"
    CHANGED = "changed"
    NOT_EMPTY = "not-empty"
    INTO_ITSELF = "into-itself"
    TOO_DEEP = "too-deep"
    NO_SUCH_ATTRIBUTE = "no-such-attribute"


def apply(state: TreeReading, transaction: Transaction, *, index: int, time_ns: int) -> Changes:
    """Fold one transaction.

    Args:
        state: after the entries before `index`.
        transaction: what the entry holds.
        index: of the entry in the log.
        time_ns: of the entry: the time of all that changes.
    Raises: OperationRejected: an operation does not find what it expects; nothing has changed.
    Cost: O(operations + rows touched), and the depth of the tree for each folder that is moved.
    """
    fold = Fold(Overlay(state), transaction.blobs, index, time_ns)
    for number, operation in enumerate(transaction.operations):
        fold.number = number
        fold.run(operation)
    return fold.tree.changes(index)


class Fold:
    """One transaction under way.

    Whoever shows changes that are in no log yet runs them one by one, each as a transaction of its own, on an
    overlay that it keeps: `Fold(overlay, blobs, index, time_ns).run(operation)`.

    Args:
        tree: takes the changes.
        blobs: what extents count.
        index, time_ns: of the entry.

    Attributes:
        number: of the operation that runs next, for errors.
    """

    def __init__(self, tree: Overlay, blobs: Sequence[BlobRef], index: int, time_ns: int) -> None:
        self.tree = tree
        self.number = 0
        self._blobs = blobs
        self._index = index
        self._time_ns = time_ns
        self._made: list[int] = []
        self._climbed = 0

    def run(self, operation: Operation) -> None:
        """Change the overlay as the operation says; one that is rejected changes nothing.

        Raises: OperationRejected.
        """
        match operation:
            case Make():
                self._make(operation)
            case Write():
                self._write(operation)
            case SetAttributes():
                self._set_attributes(operation)
            case Rename():
                self._rename(operation)
            case Unlink(parent, name, inode):
                held = self._held(parent, name, inode)
                if held.kind is Kind.FOLDER:
                    self._reject(Why.IS_A_FOLDER, "it is a folder")
                self._remove(held)
            case Link():
                self._link(operation)
            case Rmdir(parent, name, inode):
                held = self._held(parent, name, inode)
                self._check_empty(self._folder(held.inode))
                self._remove(held)
            case Truncate():
                self._truncate(operation)
            case SetXattr():
                self._set_xattr(operation)
            case RemoveXattr(inode, name):
                node = self._node(inode)
                if self.tree.xattrs(node.inode).pop(name, None) is None:
                    self._reject(Why.NO_SUCH_ATTRIBUTE, "it has no such attribute")
                self._attribute_changed(node, name)
            case RemoveTree(parent, name, inode):
                self._remove_tree(self._held(parent, name, inode))
            case Snapshot(name):
                if self.tree.has_snapshot(name):
                    self._reject(Why.EXISTS, "a snapshot has that name")
                self.tree.add_snapshot(name)
            case ViewSnapshot(size):
                if not 0 <= self._index - size <= SNAPSHOT_LAG_MAX:
                    self._reject(Why.CHANGED, f"a state after {size} entries is not of the last ones")

    # --- names --------------------------------------------------------------------------------

    def _make(self, op: Make) -> None:
        folder = self._folder(self._number(op.parent))
        self._check_free(folder, op.name)
        is_folder = op.kind is Kind.FOLDER
        node = Node(
            inode=self.tree.next_inode,
            kind=op.kind,
            mode=op.mode,
            uid=op.uid,
            gid=op.gid,
            atime_ns=self._time_ns,
            mtime_ns=op.mtime_ns,
            ctime_ns=self._time_ns,
            size=op.size,
            links=2 if is_folder else 0,
            entries=0,
            rdev=op.rdev,
            version=self._index,
            parent=0,
        )
        self.tree.add(node)
        self._made.append(node.inode)
        self._enter(folder, op.name, node)
        if op.content:
            self._put(node.inode, op.content)
        if op.xattrs:
            self.tree.xattrs(node.inode).update(op.xattrs)

    def _link(self, op: Link) -> None:
        node = self._node(op.inode)
        if node.is_folder:
            self._reject(Why.IS_A_FOLDER, "a folder has one name only")
        folder = self._folder(self._number(op.parent))
        self._check_free(folder, op.name)
        self._enter(folder, op.name, node)
        node.ctime_ns = self._time_ns

    def _rename(self, op: Rename) -> None:
        held = self._held(op.parent, op.name, op.inode)
        folder = self._folder(self._number(op.new_parent))
        target = self._target(folder, op)
        if target is not None and target.inode == held.inode:
            return  # two names of one inode: POSIX does nothing, and an exchange leaves the same
        old_folder = self._folder(held.parent)
        self._check_outside(held, old_folder, folder)
        if target is not None and op.exchange:
            self._check_outside(target, folder, old_folder)
        elif target is not None:
            self._check_replaceable(held, target)
        node = self._node(held.inode)
        if target is None:
            self._leave(held)
        elif op.exchange:
            other = self._node(target.inode)
            self._leave(held)
            self._leave(target)
            self._enter(old_folder, op.name, other)
            other.ctime_ns = self._time_ns
        else:
            self._leave(held)
            self._remove(target)
        self._enter(folder, op.new_name, node)
        node.ctime_ns = self._time_ns

    def _target(self, folder: Node, op: Rename) -> Name | None:
        """What the new name leads to, as expected."""
        target = self.tree.name(folder.inode, op.new_name)
        if op.replaced == 0:
            if target is not None:
                self._reject(Why.EXISTS, "the new name is taken")
        elif target is None or target.inode != self._number(op.replaced):
            self._reject(Why.CHANGED, "the new name leads to something else")
        return target

    def _check_outside(self, moved: Name, old_folder: Node, folder: Node) -> None:
        """A folder cannot be moved into itself, nor below."""
        if moved.kind is not Kind.FOLDER or folder.inode == old_folder.inode:
            return
        if folder.inode == moved.inode:
            self._reject(Why.INTO_ITSELF, "a folder cannot be moved into itself")
        if self._node(moved.inode).links == 2:
            return  # no folder in it, so none that it could be moved below
        for _ in range(LEVELS_MAX + 1):
            if folder.inode == ROOT:
                return
            if folder.parent == moved.inode:
                self._reject(Why.INTO_ITSELF, "a folder cannot be moved below itself")
            self._climbed += 1
            if self._climbed > CLIMBED_MAX:
                self._reject(Why.TOO_DEEP, "too many levels of folders in all its renames")
            folder = self._node(folder.parent)
        self._reject(Why.TOO_DEEP, "too many levels of folders")

    def _check_replaceable(self, held: Name, target: Name) -> None:
        """A folder replaces an empty folder only, anything else anything but a folder."""
        if held.kind is Kind.FOLDER:
            self._check_empty(self._folder(target.inode))
        elif target.kind is Kind.FOLDER:
            self._reject(Why.IS_A_FOLDER, "a folder stands under the new name")

    def _remove_tree(self, held: Name) -> None:
        self._leave(held)
        names = [held]
        for name in names:  # grows while it is walked, folders before what is in them
            node = self._node(name.inode)
            if node.is_folder:
                for below in self.tree.names_in(name.inode):
                    self.tree.set_name(name.inode, below.name, None)
                    names.append(below)
                self.tree.drop(node)
            else:
                self._unlinked(node, already=name is held)

    def _remove(self, held: Name) -> None:
        """Take a name away, and with the last one the inode; a folder is empty."""
        self._leave(held)
        node = self._node(held.inode)
        if node.is_folder:
            self.tree.drop(node)
        else:
            self._unlinked(node, already=True)

    def _unlinked(self, node: Node, *, already: bool) -> None:
        if not already:
            node.links -= 1
        if node.links == 0:
            self.tree.drop(node)
        else:
            node.ctime_ns = self._time_ns

    def _enter(self, folder: Node, name: bytes, node: Node) -> None:
        """Let a free name lead to an inode."""
        self.tree.set_name(folder.inode, name, node)
        folder.entries += 1
        if node.is_folder:
            node.parent = folder.inode
            folder.links += 1
        else:
            node.links += 1
        folder.mtime_ns = folder.ctime_ns = self._time_ns

    def _leave(self, held: Name) -> None:
        """Take a name away; the inode stays."""
        folder, node = self._node(held.parent), self._node(held.inode)
        self.tree.set_name(held.parent, held.name, None)
        folder.entries -= 1
        if node.is_folder:
            folder.links -= 1
        else:
            node.links -= 1
        folder.mtime_ns = folder.ctime_ns = self._time_ns

    # --- inodes -------------------------------------------------------------------------------

    def _set_attributes(self, op: SetAttributes) -> None:
        node = self._node(op.inode)
        node.mode = node.mode if op.mode is None else op.mode
        node.uid = node.uid if op.uid is None else op.uid
        node.gid = node.gid if op.gid is None else op.gid
        node.atime_ns = node.atime_ns if op.atime_ns is None else op.atime_ns
        node.mtime_ns = node.mtime_ns if op.mtime_ns is None else op.mtime_ns
        node.ctime_ns = self._time_ns

    def _set_xattr(self, op: SetXattr) -> None:
        node = self._node(op.inode)
        held = self.tree.xattrs(node.inode)
        if op.mode is XattrMode.NEW and op.name in held:
            self._reject(Why.EXISTS, "it has this attribute")
        if op.mode is XattrMode.REPLACE and op.name not in held:
            self._reject(Why.NO_SUCH_ATTRIBUTE, "it has no such attribute")
        held[op.name] = op.value
        self._attribute_changed(node, op.name)

    def _attribute_changed(self, node: Node, name: bytes) -> None:
        if not name.startswith(OWN):
            node.ctime_ns = self._time_ns

    # --- content ------------------------------------------------------------------------------

    def _write(self, op: Write) -> None:
        node = self._file(op.inode, op.version)
        edit = self.tree.content(node.inode)
        start, stop = op.content[0].offset, op.content[0].stop
        for extent in op.content[1:]:
            if extent.offset > stop:  # adjacent pieces are one range: a look at the state for each costs much
                edit.cut(start, stop)
                start = extent.offset
            stop = extent.stop
        edit.cut(start, stop)
        self._put(node.inode, op.content)
        node.size = max(node.size, op.content[-1].stop)
        self._new_version(node)

    def _truncate(self, op: Truncate) -> None:
        node = self._file(op.inode, op.version)
        if op.size < node.size:
            self.tree.content(node.inode).cut(op.size, SIZE_MAX)
        node.size = op.size
        self._new_version(node)

    def _put(self, ino: int, content: Content) -> None:
        stored = []
        for extent in content:
            if isinstance(extent.source, int):
                source = self._blobs[extent.source]
                stored.append(StoredExtent(extent.offset, extent.length, source, extent.source_offset))
            elif extent.source is not None:
                stored.append(StoredExtent(extent.offset, extent.length, extent.source))
        self.tree.content(ino).put(stored)

    def _new_version(self, node: Node) -> None:
        node.version = self._index
        node.mtime_ns = node.ctime_ns = self._time_ns

    # --- expectations -------------------------------------------------------------------------

    def _number(self, reference: int) -> int:
        """The inode that an operation names; a transaction refers back only."""
        return reference if reference >= 0 else self._made[-reference - 1]

    def _node(self, reference: int) -> Node:
        node = self.tree.node(self._number(reference))
        if node is None:
            self._reject(Why.NOT_FOUND, "no such inode")
        return node

    def _folder(self, ino: int) -> Node:
        node = self._node(ino)
        if not node.is_folder:
            self._reject(Why.NOT_A_FOLDER, "it is no folder")
        return node

    def _file(self, reference: int, version: int | None) -> Node:
        node = self._node(reference)
        if node.is_folder:
            self._reject(Why.IS_A_FOLDER, "a folder has no content")
        if node.kind is not Kind.FILE:
            self._reject(Why.NOT_A_FILE, "it is no file")
        if version is not None and version != node.version:
            self._reject(Why.CHANGED, f"its version is {node.version}")
        return node

    def _held(self, parent: int, name: bytes, inode: int) -> Name:
        """What a name leads to, which must be `inode`."""
        held = self.tree.name(self._number(parent), name)
        if held is None or held.inode != self._number(inode):
            self._reject(Why.CHANGED, "the name leads to something else")
        return held

    def _check_free(self, folder: Node, name: bytes) -> None:
        if self.tree.name(folder.inode, name) is not None:
            self._reject(Why.EXISTS, "the name is taken")

    def _check_empty(self, folder: Node) -> None:
        if folder.entries:
            self._reject(Why.NOT_EMPTY, "the folder is not empty")

    def _reject(self, why: Why, reason: str) -> NoReturn:
        raise OperationRejected(why=why, operation=self.number, reason=reason)
