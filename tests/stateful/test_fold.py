"""The fold against a file system of Python objects, in any order of transactions, on both views.

The oracle knows nothing of rows: folders are dicts of names to objects, content is bytes, and link counts,
parents and sizes are what one sees by walking.  It is written from docs/spec/view.md section 2.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.thoroughness import times

from muniment.core.fold import apply
from muniment.core.tree_state import Changes, Rejection, TreeReading
from muniment.errors import OperationRejected
from muniment.ports import VolumeView
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    ROOT,
    SIZE_MAX,
    Content,
    Extent,
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
    Write,
    XattrMode,
)
from muniment.spec.transaction import Transaction
from muniment.testing.sample_volume import blob_ref, children_of, entry_meta, tree_of
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView

BLOBS = tuple(blob_ref(number, 40) for number in range(3))
PLAIN = {ref: bytes((number * 50 + at) % 256 for at in range(40)) for number, ref in enumerate(BLOBS)}


# --- the oracle -----------------------------------------------------------------------------------


@dataclass
class Thing:
    """Anything in the tree."""

    number: int
    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    atime: int = 0
    mtime: int = 0
    ctime: int = 0
    rdev: int = 0
    version: int = 0
    content: bytes = b""
    names: dict[bytes, Thing] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class Refused(Exception):
    """An expectation is not met."""


def refuse(code: str) -> NoReturn:
    raise Refused(code)


class Oracle:
    """A volume's tree as objects; `run` is one transaction."""

    def __init__(self) -> None:
        self.root = Thing(ROOT, Kind.FOLDER)
        self.next = 2
        self.snapshots: set[bytes] = set()

    def run(self, transaction: Transaction, index: int, time: int) -> tuple[str, int] | None:
        """Code and number of the operation that is refused; then nothing has changed."""
        trial = copy.deepcopy(self)
        made: list[int] = []
        for number, op in enumerate(transaction.operations):
            try:
                trial.operate(op, transaction.blobs, made, index, time)
            except Refused as refused:
                return str(refused), number
        self.root, self.next, self.snapshots = trial.root, trial.next, trial.snapshots
        return None

    def walk(self) -> Iterator[tuple[Thing, bytes, Thing]]:
        """Every name: the folder, the name and what it leads to."""
        folders = [self.root]
        for folder in folders:
            for name, thing in folder.names.items():
                yield folder, name, thing
                if thing.kind is Kind.FOLDER:
                    folders.append(thing)

    def things(self) -> dict[int, Thing]:
        return {self.root.number: self.root} | {thing.number: thing for _, _, thing in self.walk()}

    def links(self, thing: Thing) -> int:
        if thing.kind is Kind.FOLDER:
            return 2 + sum(below.kind is Kind.FOLDER for below in thing.names.values())
        return sum(other is thing for _, _, other in self.walk())

    def operate(
        self, op: Operation, blobs: tuple[BlobRef, ...], made: list[int], index: int, now: int
    ) -> None:
        def number(ino: int) -> int:
            return made[-ino - 1] if ino < 0 else ino

        def thing(ino: int) -> Thing:
            return self.things().get(number(ino)) or refuse("not-found")

        def folder(ino: int) -> Thing:
            found = thing(ino)
            return found if found.kind is Kind.FOLDER else refuse("not-a-folder")

        def held(parent: int, name: bytes, ino: int) -> tuple[Thing, Thing]:
            above = self.things().get(number(parent))
            found = above.names.get(name) if above else None
            if above is None or found is None or found.number != number(ino):
                refuse("changed")
            return above, found

        def file(ino: int, version: int | None) -> Thing:
            found = thing(ino)
            if found.kind is not Kind.FILE:
                refuse("is-a-folder" if found.kind is Kind.FOLDER else "not-a-file")
            return found if version in (None, found.version) else refuse("changed")

        def touch(*folders: Thing) -> None:
            for one in folders:
                one.mtime = one.ctime = now

        match op:
            case Make():
                above = folder(op.parent)
                if op.name in above.names:
                    refuse("exists")
                new = Thing(
                    self.next, op.kind, op.mode, op.uid, op.gid, now, op.mtime_ns, now, op.rdev, index
                )
                new.content = written(b"", op.content, blobs).ljust(op.size, b"\0")
                new.xattrs = dict(op.xattrs)
                above.names[op.name] = new
                made.append(self.next)
                self.next += 1
                touch(above)
            case Link():
                found = thing(op.inode)
                if found.kind is Kind.FOLDER:
                    refuse("is-a-folder")
                above = folder(op.parent)
                if op.name in above.names:
                    refuse("exists")
                above.names[op.name] = found
                found.ctime = now
                touch(above)
            case Unlink(parent, name, ino):
                above, found = held(parent, name, ino)
                if found.kind is Kind.FOLDER:
                    refuse("is-a-folder")
                del above.names[name]
                found.ctime = now
                touch(above)
            case Rmdir(parent, name, ino):
                above, found = held(parent, name, ino)
                if found.kind is not Kind.FOLDER:
                    refuse("not-a-folder")
                if found.names:
                    refuse("not-empty")
                del above.names[name]
                touch(above)
            case RemoveTree(parent, name, ino):
                above, found = held(parent, name, ino)
                below = {found.number: found}
                if found.kind is Kind.FOLDER:
                    inside = Oracle()
                    inside.root = found
                    below = inside.things()
                del above.names[name]
                for one in below.values():
                    one.ctime = now  # of those that are still somewhere
                touch(above)
            case Rename():
                above, found = held(op.parent, op.name, op.inode)
                target_folder = folder(op.new_parent)
                target = target_folder.names.get(op.new_name)
                if not op.replaced and target:
                    refuse("exists")
                if op.replaced and (target is None or target.number != number(op.replaced)):
                    refuse("changed")
                if target is found:
                    return
                self.rename(op, (above, found), (target_folder, target))
                found.ctime = now
                if target:
                    target.ctime = now
                touch(above, target_folder)
            case SetAttributes():
                found = thing(op.inode)
                given = {
                    "mode": op.mode,
                    "uid": op.uid,
                    "gid": op.gid,
                    "atime": op.atime_ns,
                    "mtime": op.mtime_ns,
                }
                for attribute, value in given.items():
                    if value is not None:
                        setattr(found, attribute, value)
                found.ctime = now
            case SetXattr(ino, name, value, mode):
                found = thing(ino)
                if mode is XattrMode.NEW and name in found.xattrs:
                    refuse("exists")
                if mode is XattrMode.REPLACE and name not in found.xattrs:
                    refuse("no-such-attribute")
                found.xattrs[name] = value
                found.ctime = now
            case RemoveXattr(ino, name):
                found = thing(ino)
                if name not in found.xattrs:
                    refuse("no-such-attribute")
                del found.xattrs[name]
                found.ctime = now
            case Write():
                found = file(op.inode, op.version)
                found.content = written(found.content, op.content, blobs)
                found.version, found.mtime, found.ctime = index, now, now
            case Truncate(ino, version, size):
                found = file(ino, version)
                found.content = found.content[:size].ljust(size, b"\0")
                found.version, found.mtime, found.ctime = index, now, now
            case Snapshot(name):
                if name in self.snapshots:
                    refuse("exists")
                self.snapshots.add(name)

    def rename(self, op: Rename, source: tuple[Thing, Thing], place: tuple[Thing, Thing | None]) -> None:
        (above, found), (target_folder, target) = source, place

        def inside(outer: Thing, folder: Thing) -> bool:
            tree = Oracle()
            tree.root = outer
            return outer.kind is Kind.FOLDER and folder.number in tree.things()

        if above is not target_folder and (
            inside(found, target_folder) or (op.exchange and target is not None and inside(target, above))
        ):
            refuse("into-itself")
        if target is not None and not op.exchange:
            if found.kind is Kind.FOLDER:
                if target.kind is not Kind.FOLDER:
                    refuse("not-a-folder")
                if target.names:
                    refuse("not-empty")
            elif target.kind is Kind.FOLDER:
                refuse("is-a-folder")
        del above.names[op.name]
        if target is not None and op.exchange:
            above.names[op.name] = target
        target_folder.names[op.new_name] = found


def written(content: bytes, pieces: Content, blobs: tuple[BlobRef, ...]) -> bytes:
    """Bytes with pieces written over them."""
    for piece in pieces:
        data = bytes(piece.length)
        if isinstance(piece.source, int):
            data = PLAIN[blobs[piece.source]][piece.source_offset :][: piece.length]
        elif piece.source is not None:
            data = piece.source
        content = content.ljust(piece.offset, b"\0")
        content = content[: piece.offset] + data + content[piece.stop :]
    return content


# --- both as plain values -------------------------------------------------------------------------

Shown = dict[int, tuple[object, ...]]


def shown(oracle: Oracle) -> Shown:
    """Everything there is to see, by inode."""
    parents = {thing.number: folder.number for folder, _, thing in oracle.walk() if thing.kind is Kind.FOLDER}
    found: Shown = {
        ino: (
            *(one.kind, one.mode, one.uid, one.gid, one.atime, one.mtime, one.ctime, one.rdev, one.version),
            *(oracle.links(one), len(one.content), one.content, one.xattrs),
            {name: below.number for name, below in one.names.items()},
            ROOT if ino == ROOT else parents.get(ino, 0),
        )
        for ino, one in oracle.things().items()
    }
    return found


def read(reading: TreeReading) -> Shown:
    """The same of a state."""
    found: Shown = {}
    for row in tree_of(reading).inodes:
        content = bytearray(row.size)
        for extent in reading.extents(row.inode, 0, SIZE_MAX):
            source = extent.source if isinstance(extent.source, bytes) else PLAIN[extent.source]
            content[extent.offset : extent.stop] = source[extent.source_offset :][: extent.length]
        found[row.inode] = (
            *(row.kind, row.mode, row.uid, row.gid, row.atime_ns, row.mtime_ns, row.ctime_ns, row.rdev),
            *(row.version, row.links, row.size, bytes(content), dict(reading.xattrs(row.inode))),
            {child.name: child.inode for child in children_of(reading, row.inode)},
            row.parent,
        )
    return found


# --- transactions ---------------------------------------------------------------------------------

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
KINDS = st.sampled_from([Kind.FILE, Kind.FILE, Kind.FOLDER, Kind.FOLDER, Kind.SYMLINK, Kind.FIFO])
CHOICE = st.integers(0, 1 << 16)
VERSIONS = st.sampled_from([None, None, "present", 0, 7])


@st.composite
def contents(draw: st.DrawFn) -> Content:
    """One to three pieces within the first hundred bytes."""
    cuts = sorted(draw(st.sets(st.integers(0, 90), min_size=1, max_size=3)))
    pieces = []
    for number, start in enumerate(cuts):
        room = (cuts[number + 1] if number + 1 < len(cuts) else 130) - start
        length = draw(st.integers(1, min(room, 40)))
        source = draw(st.sampled_from([None, b"", 0, 1, 2]))
        if isinstance(source, int):
            pieces.append(Extent(start, length, source, draw(st.integers(0, 40 - length))))
        else:
            pieces.append(Extent(start, length, source if source is None else bytes([start]) * length))
    return tuple(pieces)


Sketch = Callable[["Scene"], Operation]
"""An operation whose inodes are chosen when the state is known."""


class Scene:
    """What the operations of one transaction may name: mostly what is there and fits, at times anything."""

    def __init__(self, oracle: Oracle, makes: int) -> None:
        self.makes = makes
        self.things = [*oracle.things().values()]
        self.names = [*oracle.walk()]

    def inode(self, choice: int, *kinds: Kind) -> int:
        """One of these kinds, or one that was just made, or any number."""
        if self.makes and choice % 5 == 4:
            return -(choice // 5 % self.makes) - 1
        if choice % 31 == 30:
            return 1 + choice % 37
        fitting = [one for one in self.things if not kinds or one.kind in kinds] or self.things
        return fitting[choice // 31 % len(fitting)].number

    def name(self, choice: int, *kinds: Kind) -> tuple[int, bytes, int]:
        """A name of one of these kinds."""
        fitting = [one for one in self.names if not kinds or one[2].kind in kinds]
        if not fitting or choice % 23 == 22:
            return self.inode(choice // 23, Kind.FOLDER), b"a", self.inode(choice // 7)
        folder, name, thing = fitting[choice // 23 % len(fitting)]
        return folder.number, name, thing.number if choice % 29 != 28 else self.inode(choice // 29)

    def replaced(self, choice: int, parent: int, name: bytes) -> int:
        """What is there."""
        there = [thing.number for folder, one, thing in self.names if (folder.number, one) == (parent, name)]
        return self.inode(choice // 17) if choice % 17 == 16 else (there or [0])[0]

    def attribute(self, choice: int, name: bytes) -> tuple[int, bytes]:
        """One that is there."""
        there = [(one.number, held) for one in self.things for held in one.xattrs]
        return there[choice % len(there)] if there and choice % 4 != 3 else (self.inode(choice), name)

    def version(self, ino: int, version: int | str | None) -> int | None:
        """The one that is there for a word."""
        if isinstance(version, str):
            return next((one.version for one in self.things if one.number == ino), 3)
        return version


LINKABLE = tuple(kind for kind in Kind if kind is not Kind.FOLDER)


def make(
    parent: int, name: bytes, kind: Kind, content: Content, extra: int, xattrs: dict[bytes, bytes]
) -> Sketch:
    def sketch(scene: Scene) -> Operation:
        pieces = content if kind is Kind.FILE else ()
        if kind is Kind.SYMLINK:
            pieces = (Extent(0, 2, b"to"),)
        size = (pieces[-1].stop if pieces else 0) + (extra if kind is Kind.FILE else 0)
        above = scene.inode(parent, Kind.FOLDER)
        return Make(above, name, kind, 0o644, 1, 2, -3, extra, pieces, size, tuple(sorted(xattrs.items())))

    return sketch


def write(ino: int, version: int | str | None, content: Content) -> Sketch:
    def sketch(scene: Scene) -> Operation:
        found = scene.inode(ino, Kind.FILE)
        return Write(found, scene.version(found, version), content)

    return sketch


def truncate(ino: int, version: int | str | None, size: int) -> Sketch:
    def sketch(scene: Scene) -> Operation:
        found = scene.inode(ino, Kind.FILE)
        return Truncate(found, scene.version(found, version), size)

    return sketch


def rename(which: int, parent: int, name: bytes, target: int, exchange: bool) -> Sketch:
    def sketch(scene: Scene) -> Operation:
        new_parent = scene.inode(parent, Kind.FOLDER)
        replaced = scene.replaced(target, new_parent, name)
        return Rename(*scene.name(which), new_parent, name, replaced, exchange and replaced != 0)

    return sketch


def remove(kind: type[Unlink] | type[Rmdir] | type[RemoveTree], which: int, fitting: bool) -> Sketch:
    kinds = LINKABLE if kind is Unlink else (Kind.FOLDER,)
    return lambda scene: kind(*scene.name(which, *(kinds if fitting else ())))


XATTRS = st.dictionaries(NAMES, st.binary(max_size=2), max_size=2)
SKETCHES: st.SearchStrategy[Sketch] = st.one_of(
    st.builds(make, CHOICE, NAMES, KINDS, contents(), st.integers(0, 3), XATTRS),
    st.builds(make, CHOICE, NAMES, KINDS, contents(), st.integers(0, 3), XATTRS),
    st.builds(rename, CHOICE, CHOICE, NAMES, CHOICE, st.booleans()),
    st.builds(rename, CHOICE, CHOICE, NAMES, CHOICE, st.booleans()),
    st.builds(write, CHOICE, VERSIONS, contents()),
    st.builds(write, CHOICE, VERSIONS, contents()),
    st.builds(truncate, CHOICE, VERSIONS, st.integers(0, 120)),
    st.builds(
        remove,
        st.sampled_from([Unlink, Unlink, Rmdir, RemoveTree]),
        CHOICE,
        st.sampled_from([True, True, False]),
    ),
    st.builds(
        lambda ino, parent, name: (
            lambda scene: Link(scene.inode(ino, *LINKABLE), scene.inode(parent, Kind.FOLDER), name)
        ),
        *(CHOICE, CHOICE, NAMES),
    ),
    st.builds(
        lambda ino, mode, gid, mtime: (
            lambda scene: SetAttributes(scene.inode(ino), mode, None, gid, None, mtime)
        ),
        *(CHOICE, st.none() | st.integers(0, 0o7777), st.none() | st.integers(0, 9), st.none() | st.just(-1)),
    ),
    st.builds(
        lambda ino, name, value, mode: lambda scene: SetXattr(scene.inode(ino), name, value, mode),
        *(CHOICE, NAMES, st.binary(max_size=2), st.sampled_from([XattrMode.ANY, *XattrMode])),
    ),
    st.builds(lambda choice, name: lambda scene: RemoveXattr(*scene.attribute(choice, name)), CHOICE, NAMES),
    st.builds(lambda name: lambda _: Snapshot(name), NAMES),
)


BEGINNING = Transaction(
    (
        *(Make(ROOT, name, Kind.FOLDER, 0o755) for name in (b"a", b"b")),
        *(Make(-1, name, Kind.FOLDER, 0o755) for name in (b"a", b"b")),
        Make(-3, b"a", Kind.FOLDER, 0o755),
        Make(ROOT, b"c", Kind.FILE, 0o644, content=(Extent(0, 40, 0), Extent(50, 9, b"some text")), size=60),
        Make(-1, b"c", Kind.FILE, 0o644, content=(Extent(3, 30, 1, 5),), size=33, xattrs=((b"a", b"1"),)),
        Make(-3, b"c", Kind.SYMLINK, 0o777, content=(Extent(0, 2, b"to"),), size=2),
        Link(-6, -5, b"d"),
    ),
    BLOBS,
)
"""Something to work on: /a/a/a, /a/b, /b; files /c = /a/a/a/d, /a/c; symbolic link /a/a/c."""


class FoldMachine(RuleBasedStateMachine):
    """Folds transactions into a view and an oracle; a subclass says which view."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle = Oracle()
        self.past: list[Shown] = []
        self.view: VolumeView

    def open(self) -> VolumeView:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.view = self.open()
        with self.view.batch() as entries:
            assert self.oracle.run(BEGINNING, 0, 0) is None
            entries.record(0, entry_meta(0), apply(entries.state, BEGINNING, index=0, time_ns=0))
        self.past.append(shown(self.oracle))

    @rule(
        batch=st.lists(st.tuples(st.lists(SKETCHES, min_size=1, max_size=4), st.integers(-2, 9)), max_size=4)
    )
    def fold(self, batch: list[tuple[list[Sketch], int]]) -> None:
        with self.view.batch() as entries:
            for sketches, later_s in batch:
                index, time_ns = entries.size, 1000 + 10 * entries.size + later_s
                transaction = self.transaction(sketches)
                expected = self.oracle.run(transaction, index, time_ns)
                outcome: Changes | Rejection
                try:
                    outcome = apply(entries.state, transaction, index=index, time_ns=time_ns)
                except OperationRejected as error:
                    outcome = Rejection.of(error)
                found = (outcome.code, outcome.operation) if isinstance(outcome, Rejection) else None
                assert found == expected
                entries.record(index, entry_meta(index, time_ns=time_ns), outcome)
                assert read(entries.state) == shown(self.oracle)
                self.past.append(shown(self.oracle))

    def transaction(self, sketches: list[Sketch]) -> Transaction:
        operations: list[Operation] = []
        for sketch in sketches:
            makes = sum(isinstance(op, Make) for op in operations)
            operations.append(sketch(Scene(self.oracle, makes)))
        return Transaction(tuple(operations), BLOBS)

    @rule(choice=CHOICE)
    def look_back(self, choice: int) -> None:
        if self.past:
            at = choice % len(self.past)
            assert read(self.view.reading(at)) == self.past[at]

    @invariant()
    def both_are_the_same(self) -> None:
        assert self.view.size == len(self.past)
        assert read(self.view.reading()) == shown(self.oracle)
        assert self.view.reading().next_inode == self.oracle.next
        snapshots = {name: at + 1 for name, at in self.view.snapshots()}
        assert set(snapshots) == self.oracle.snapshots
        assert self.view.state_hash() == tree_of(self.view.reading()).state_hash(snapshots)


class MemoryMachine(FoldMachine):
    def open(self) -> VolumeView:
        return MemoryView()


class SqliteMachine(FoldMachine):
    """Also closed and opened again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    def open(self) -> VolumeView:
        return SqliteView(self.folder / "view", rows_kept=15)

    @rule()
    def restart(self) -> None:
        self.view.close()
        self.view = self.open()

    def teardown(self) -> None:
        if hasattr(self, "view"):
            self.view.close()
        shutil.rmtree(self.folder)


TestFoldInMemory = MemoryMachine.TestCase
TestFoldInMemory.settings = settings(max_examples=times(30), stateful_step_count=12, deadline=None)
TestFoldInSqlite = SqliteMachine.TestCase
TestFoldInSqlite.settings = settings(max_examples=times(13), stateful_step_count=12, deadline=None)


@pytest.mark.parametrize(
    "code", ["exists", "changed", "not-empty", "into-itself", "is-a-folder", "not-a-folder"]
)
def test_the_oracle_refuses(code: str) -> None:
    """One transaction for each, so that the oracle itself is known to look."""
    oracle, folder = Oracle(), Make(ROOT, b"a", Kind.FOLDER, 0)
    below, file = Make(2, b"b", Kind.FOLDER, 0), Make(ROOT, b"f", Kind.FILE, 0)
    assert oracle.run(Transaction((folder, below, file)), 0, 0) is None
    refused: dict[str, Operation] = {
        "exists": folder,
        "changed": Unlink(ROOT, b"f", 3),
        "not-empty": Rmdir(ROOT, b"a", 2),
        "into-itself": Rename(ROOT, b"a", 2, 3, b"x"),
        "is-a-folder": Unlink(ROOT, b"a", 2),
        "not-a-folder": Rmdir(ROOT, b"f", 4),
    }
    assert oracle.run(Transaction((refused[code],)), 1, 1) == (code, 0)
