"""What every `VolumeView` does, whatever it keeps the state in.

A driver's test subclasses `ViewContract` and gives a fixture `medium`: something on which views can be opened
one after the other.  Needs pytest.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Protocol

import pytest

from muniment.core.fold import apply
from muniment.core.history import FileVersion, InodeDifference, NameDifference
from muniment.core.state_hash import EMPTY, StateHash, initial
from muniment.core.tree_state import ROOT_INODE, Inode, Name, Rejection, StoredExtent
from muniment.errors import HistoryMissing, InternalError, InvalidRequest, MalformedRecord
from muniment.ids import MemberId
from muniment.ports import VolumeView
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    ROOT,
    SIZE_MAX,
    Extent,
    Kind,
    Make,
    Operation,
    RemoveTree,
    RemoveXattr,
    Rename,
    SetAttributes,
    SetXattr,
    Snapshot,
    Truncate,
    Unlink,
    Write,
)
from muniment.spec.transaction import Transaction
from muniment.spec.view_row import next_inode_row
from muniment.testing.sample_volume import (
    EPOCH_NS,
    RandomVolume,
    Tree,
    blob_ref,
    entry_meta,
    entry_time_ns,
    fold_into,
    folded,
    tree_of,
)
from muniment.views.memory import MemoryView

_DIGEST: Final = "b23b1f5811fc356f39f44166f7d03196ef908f00068bd6bde9f05a99781e0a02"
"""State hash after `_FROZEN`: the same for every driver, machine and release."""

_ENTRIES: Final = 60
A: Final = blob_ref(1, 1000)
B: Final = blob_ref(2, 1000)


class Medium(Protocol):
    """What a view is kept in, seen from outside the view."""

    @property
    def keeps(self) -> bool:
        """Whether a view opened after another one's close has its entries."""
        ...

    def open(self) -> VolumeView:
        """Open a view on it."""
        ...

    def another(self) -> Medium:
        """An empty one of the same kind."""
        ...


def file(name: bytes, content: bytes = b"", parent: int = ROOT) -> Make:
    """A file of a few bytes."""
    extents = (Extent(0, len(content), content),) if content else ()
    return Make(parent, name, Kind.FILE, 0o644, content=extents, size=len(content))


def folder(name: bytes, parent: int = ROOT) -> Make:
    """An empty folder."""
    return Make(parent, name, Kind.FOLDER, 0o755)


_FROZEN: Final[list[tuple[Operation, ...]]] = [
    (
        folder(b"folder"),
        Make(-1, b"file", Kind.FILE, 0o640, 1, 2, 3, 0, (Extent(0, 500, 0, 100), Extent(600, 2, b"ab")), 700),
        Make(
            ROOT,
            b"null",
            Kind.CHARACTER_DEVICE,
            0o666,
            rdev=259,
            xattrs=((b"user.a", b"1"), (b"user.b", b"")),
        ),
    ),
    (Snapshot(b"before"), Write(3, 0, (Extent(50, 10, b"0123456789"),)), Rename(2, b"file", 3, ROOT, b"f")),
    (RemoveXattr(4, b"user.b"), SetXattr(2, b"user.c", b"2"), Truncate(3, 1, 601), file(b"gone")),
    (Unlink(ROOT, b"gone", 5), SetAttributes(1, 0o700, None, 5, None, -1)),
]


def fold(view: VolumeView, *operations: Operation, blobs: tuple[BlobRef, ...] = ()) -> Rejection | None:
    """One transaction in a batch of its own."""
    with view.batch() as batch:
        return fold_into(batch, *operations, blobs=blobs)


def names(view: VolumeView, ino: int = ROOT, at: int | None = None) -> list[bytes]:
    """The names in a folder."""
    return [child.name for child in view.reading(at).children(ino, b"", 10**6)]


def recomputed(view: VolumeView) -> StateHash:
    """The state hash from all rows of the present."""
    return tree_of(view.reading()).state_hash({name: at + 1 for name, at in view.snapshots()})


def fold_random(view: VolumeView, seed: int, entries: int, batch_entries: int) -> list[Tree]:
    """Fold a random volume, a tenth of it acts; returns the tree after each entry as the batch saw it."""
    chance, volume, trees = random.Random(seed), RandomVolume(seed), list[Tree]()
    while view.size < entries:
        with view.batch() as batch:
            for index in range(batch.size, min(batch.size + batch_entries, entries)):
                outcome = None
                if chance.random() > 0.1:
                    outcome = folded(batch.state, volume.transaction(batch.state), index)
                batch.record(index, entry_meta(index, f"entry {index}"), outcome)
                trees.append(tree_of(batch.state))
    return trees


class ViewContract:
    """Subclass it and give the fixture `medium`."""

    @pytest.fixture
    def medium(self) -> Medium:
        """What the subclass is about."""
        raise NotImplementedError

    @pytest.fixture
    def view(self, medium: Medium) -> Iterator[VolumeView]:
        """A view on an empty medium."""
        view = medium.open()
        yield view
        view.close()

    # --- the present --------------------------------------------------------------------------

    def test_before_all_entries_there_is_the_root(self, view: VolumeView) -> None:
        assert view.size == 0
        assert view.state_hash() == initial() == recomputed(view)
        for at in (None, -1):
            reading = view.reading(at)
            assert reading.inode(ROOT) == ROOT_INODE
            assert reading.next_inode == 2
            assert reading.children(ROOT, b"", 10) == []
            assert view.lookup([], at) == ROOT_INODE
            assert list(view.blobs(at)) == []
        assert view.snapshots() == []
        assert view.entries(0, 10) == []
        assert view.history(ROOT) == []
        assert view.index_at(EPOCH_NS) == -1

    def test_every_row_reads_as_it_was_recorded(self, view: VolumeView) -> None:
        extents = (Extent(0, 300, 0, 700), Extent(500, 3, b"abc"), Extent(SIZE_MAX - 1, 1, 1))
        fold(
            view,
            Make(ROOT, b"file", Kind.FILE, 0o7777, (1 << 32) - 1, 7, 5, 0, extents, SIZE_MAX),
            Make(ROOT, b"\xff" * 255, Kind.BLOCK_DEVICE, 0, mtime_ns=-(1 << 63), rdev=(1 << 64) - 1),
            Make(
                ROOT,
                b"a",
                Kind.CHARACTER_DEVICE,
                0,
                rdev=1 << 63,
                xattrs=((b"x", b""), (b"y", b"\0" * 65536)),
            ),
            Make(ROOT, b"link", Kind.SYMLINK, 0o777, content=(Extent(0, 2, b"to"),), size=2),
            folder(b"sub"),
            blobs=(A, B),
        )
        now, reading = entry_time_ns(0), view.reading()
        common = {"atime_ns": now, "ctime_ns": now, "entries": 0, "version": 0, "parent": 0}
        assert reading.inode(2) == Inode(
            2, Kind.FILE, 0o7777, (1 << 32) - 1, 7, mtime_ns=5, size=SIZE_MAX, links=1, rdev=0, **common
        )
        device = reading.inode(3)
        assert device is not None
        assert (device.mtime_ns, device.rdev, device.kind) == (-(1 << 63), (1 << 64) - 1, Kind.BLOCK_DEVICE)
        character = reading.inode(4)
        assert character is not None
        assert (character.rdev, dict(reading.xattrs(4))) == (1 << 63, {b"x": b"", b"y": b"\0" * 65536})
        assert reading.extents(2, 0, SIZE_MAX) == [
            StoredExtent(0, 300, A, 700),
            StoredExtent(500, 3, b"abc"),
            StoredExtent(SIZE_MAX - 1, 1, B, 0),
        ]
        assert reading.extents(5, 0, 2) == [StoredExtent(0, 2, b"to")]
        assert reading.child(ROOT, b"link") == Name(ROOT, b"link", 5, Kind.SYMLINK)
        assert names(view) == [b"a", b"file", b"link", b"sub", b"\xff" * 255]
        root, sub = reading.inode(ROOT), reading.inode(6)
        assert root is not None
        assert sub is not None
        assert (root.links, root.entries, root.mtime_ns, root.ctime_ns) == (3, 5, now, now)
        assert (sub.links, sub.parent) == (2, ROOT)
        assert reading.next_inode == 7
        assert recomputed(view) == view.state_hash()

    def test_what_is_not_there_is_not_found(self, view: VolumeView) -> None:
        fold(view, file(b"file", b"content"))
        for reading in (view.reading(), view.reading(0)):
            for ino in (0, 3, 1 << 53):
                assert reading.inode(ino) is None
                assert reading.child(ino, b"file") is None
                assert reading.children(ino, b"", 5) == []
                assert reading.extents(ino, 0, SIZE_MAX) == []
                assert reading.xattrs(ino) == {}
            assert reading.children(2, b"", 5) == []
            assert reading.child(ROOT, b"fil") is None
            assert not reading.has_snapshot(b"file")
        assert view.history(99) == []

    def test_listings_come_in_pages(self, view: VolumeView) -> None:
        made = sorted(b"%d" % number for number in range(30))
        fold(view, *map(file, reversed(made)))
        fold(
            view, *(Unlink(ROOT, b"%d" % number, 2 + 29 - made.index(b"%d" % number)) for number in range(5))
        )
        left = [name for name in made if int(name) >= 5]
        for reading, expected in ((view.reading(), left), (view.reading(1), left), (view.reading(0), made)):
            found, after = list[bytes](), b""
            while page := [child.name for child in reading.children(ROOT, after, 4)]:
                assert len(page) <= 4
                found += page
                after = page[-1]
            assert found == expected
            assert [child.name for child in reading.children(ROOT, b"2", 2)] == [b"20", b"21"]
            assert reading.children(ROOT, b"", 0) == []
            inodes = [(child.name, reading.inode(child.inode)) for child in reading.children(ROOT, b"2", 9)]
            assert reading.listing(ROOT, b"2", 9) == inodes
            assert reading.listing(ROOT, b"", 0) == reading.listing(2, b"", 9) == []

    def test_extents_of_a_range_are_those_with_a_byte_in_it(self, view: VolumeView) -> None:
        content = (Extent(10, 10, b"a" * 10), Extent(20, 10, b"b" * 10), Extent(40, 10, b"c" * 10))
        fold(view, Make(ROOT, b"file", Kind.FILE, 0o644, content=content, size=50))
        fold(view, Write(2, None, (Extent(25, 1, b"d"),)))
        for at, pieces in ((0, [10, 20, 40]), (1, [10, 20, 25, 26, 40])):
            reading = view.reading(at)
            assert [e.offset for e in reading.extents(2, 0, SIZE_MAX)] == pieces
            assert [e.offset for e in reading.extents(2, 0, 10)] == []
            assert [e.offset for e in reading.extents(2, 0, 11)] == [10]
            assert [e.offset for e in reading.extents(2, 19, 21)] == [10, 20]
            assert [e.offset for e in reading.extents(2, 30, 40)] == []
            assert [e.offset for e in reading.extents(2, 49, 50)] == [40]
            assert [e.offset for e in reading.extents(2, 50, 99)] == []

    def test_a_path_leads_to_an_inode(self, view: VolumeView) -> None:
        fold(view, folder(b"a"), folder(b"b", -1), file(b"c", b"1", -2))
        fold(view, Rename(ROOT, b"a", 2, ROOT, b"z"))
        at_first = view.lookup([b"a", b"b", b"c"], 0)
        assert at_first is not None
        assert at_first.inode == 4
        assert view.lookup([b"z", b"b", b"c"]) == at_first
        assert view.lookup([b"a", b"b", b"c"]) is None
        assert view.lookup([b"z", b"b", b"c"], 0) is None
        assert view.lookup([b"z", b"b", b"c", b"d"]) is None

    # --- the past -----------------------------------------------------------------------------

    def test_every_state_stays_as_it_was(self, view: VolumeView) -> None:
        trees = fold_random(view, 1, _ENTRIES, 16)
        for at, tree in enumerate(trees):
            assert tree_of(view.reading(at)) == tree, at
        assert tree_of(view.reading()) == trees[-1]
        assert tree_of(view.reading(-1)).inodes == (ROOT_INODE,)

    def test_the_state_hash_is_that_of_the_rows(self, view: VolumeView) -> None:
        fold_random(view, 1, _ENTRIES, 16)
        assert view.state_hash() == recomputed(view)

    def test_the_state_hash_is_frozen(self, view: VolumeView) -> None:
        assert [fold(view, *operations, blobs=(A,)) for operations in _FROZEN] == [None] * 4
        assert view.state_hash().digest().hex() == _DIGEST

    def test_batches_leave_no_trace(self, medium: Medium, view: VolumeView) -> None:
        trees = fold_random(view, 2, 60, 60)
        states = [view.state_hash(), view.entries(0, 60), view.changed_between(-1, 59), view.snapshots()]
        other = medium.another().open()
        assert fold_random(other, 2, 60, 1) == trees
        assert states == [
            other.state_hash(),
            other.entries(0, 60),
            other.changed_between(-1, 59),
            other.snapshots(),
        ]
        other.close()

    def test_a_closed_view_has_it_all_when_it_is_opened_again(self, medium: Medium) -> None:
        if not medium.keeps:
            return
        view = medium.open()
        trees = fold_random(view, 3, 40, 7)
        state = view.state_hash()
        view.close()
        view = medium.open()
        assert (view.size, view.state_hash(), recomputed(view)) == (40, state, state)
        assert [tree_of(view.reading(at)) for at in range(40)] == trees
        more = fold_random(view, 3, 60, 7)
        assert [tree_of(view.reading(at)) for at in range(60)] == trees + more
        view.close()

    def test_a_reading_stays_at_its_entry_and_the_newest_goes_on(self, view: VolumeView) -> None:
        fold(view, file(b"old", b"1"))
        then, now = view.reading(0), view.reading()
        fold(view, Unlink(ROOT, b"old", 2), file(b"new", b"2"))
        assert [child.name for child in then.children(ROOT, b"", 9)] == [b"old"]
        assert (then.next_inode, now.next_inode) == (3, 4)
        assert [child.name for child in now.children(ROOT, b"", 9)] == [b"new"]
        assert now.inode(2) is None
        assert then.extents(2, 0, 1) == [StoredExtent(0, 1, b"1")]
        assert now.extents(2, 0, 1) == []

    @pytest.mark.parametrize("at", [-2, 2, 1 << 53])
    def test_no_state_is_made_up(self, view: VolumeView, at: int) -> None:
        fold(view, file(b"a"))
        fold(view, file(b"b"))
        for ask in (view.reading, lambda at: view.lookup([], at), view.blobs):
            with pytest.raises(InvalidRequest):
                ask(at)
        with pytest.raises(InvalidRequest):
            view.changed_between(min(at, 0), max(at, 0))
        with pytest.raises(InvalidRequest):
            view.changed_between(1, 0)

    def test_a_name_may_come_go_and_come_again(self, view: VolumeView) -> None:
        for number in range(4):
            fold(view, file(b"name"))
            fold(view, Unlink(ROOT, b"name", 2 + number))
        assert [names(view, at=at) for at in range(8)] == [[b"name"], []] * 4
        assert [view.lookup([b"name"], at) is not None for at in range(8)] == [True, False] * 4

    # --- batches ------------------------------------------------------------------------------

    def test_many_names_are_asked_for_and_each_is_free_or_taken_as_it_is(self, view: VolumeView) -> None:
        with view.batch() as batch:
            assert fold_into(batch, *[file(b"%02d" % number) for number in range(40)]) is None
        with view.batch() as batch:
            for number in range(60):
                rejected = fold_into(batch, file(b"%02d" % number))
                assert (rejected is not None) == (number < 40)
            for number in range(40):
                assert fold_into(batch, Unlink(ROOT, b"%02d" % number, 2 + number)) is None
                assert fold_into(batch, file(b"%02d" % number), folder(b"in %02d" % number)) is None
                assert fold_into(batch, file(b"one", parent=batch.state.next_inode - 1)) is None
        assert len(names(view)) == 100
        assert view.state_hash() == recomputed(view)

    def test_a_batch_sees_what_it_recorded_and_nobody_else_does(self, view: VolumeView) -> None:
        fold(view, file(b"file", b"first"), folder(b"sub"))
        before = tree_of(view.reading())
        with view.batch() as batch:
            assert fold_into(batch, Write(2, None, (Extent(2, 2, b"xx"),)), SetXattr(2, b"a", b"1")) is None
            assert fold_into(batch, Write(2, None, (Extent(0, 1, b"y"),)), Snapshot(b"snap")) is None
            assert fold_into(batch, Rename(ROOT, b"file", 2, 3, b"moved"), file(b"other")) is None
            assert fold_into(batch, Snapshot(b"snap")) == Rejection("exists", 0, "a snapshot has that name")
            assert batch.size == 5
            assert batch.state.has_snapshot(b"snap")
            assert [(e.offset, e.source) for e in batch.state.extents(2, 0, 9)] == [
                *((0, b"y"), (1, b"i"), (2, b"xx"), (4, b"t"))
            ]
            assert batch.state.xattrs(2) == {b"a": b"1"}
            assert batch.state.child(ROOT, b"file") is None
            assert [name.name for name in batch.state.children(3, b"", 9)] == [b"moved"]
            assert batch.state.next_inode == 5
            assert view.size == 1
            assert tree_of(view.reading()) == before
            assert view.snapshots() == []
            assert view.entries(0, 9) == view.entries(0, 1)
            with pytest.raises(InvalidRequest):
                view.reading(1)
        assert view.size == 5
        assert tree_of(view.reading(0)) == before
        assert view.snapshots() == [(b"snap", 1)]
        assert recomputed(view) == view.state_hash()

    def test_an_error_leaves_nothing_of_its_batch(self, view: VolumeView) -> None:
        fold_random(view, 4, 30, 30)
        hold = view.state_hash(), tree_of(view.reading()), view.entries(0, 99), view.snapshots()
        with suppress(ZeroDivisionError), view.batch() as batch:
            volume = RandomVolume(5)
            for index in range(30, 60):
                outcome = folded(batch.state, volume.transaction(batch.state), index)
                batch.record(index, entry_meta(index), outcome)
            fold_into(batch, Snapshot(b"gone"), file(b"gone"))
            raise ZeroDivisionError
        assert hold == (view.state_hash(), tree_of(view.reading()), view.entries(0, 99), view.snapshots())
        assert view.size == 30
        trees = fold_random(view, 6, 60, 8)
        assert [tree_of(view.reading(at)) for at in range(30, 60)] == trees
        assert recomputed(view) == view.state_hash()

    def test_many_writes_to_one_file_in_one_batch(self, view: VolumeView) -> None:
        content, chance = bytearray(5000), random.Random(0)
        with view.batch() as batch:
            fold_into(batch, file(b"file"))
            for number in range(200):
                at, piece = chance.randrange(4900), bytes([number + 1]) * chance.randint(1, 90)
                content[at : at + len(piece)] = piece
                fold_into(batch, Write(2, None, (Extent(at, len(piece), piece),)))
        found = bytearray(5000)
        for extent in view.reading().extents(2, 0, 5000):
            assert isinstance(extent.source, bytes)
            found[extent.offset : extent.stop] = extent.source
        assert found == content
        assert recomputed(view) == view.state_hash()

    def test_an_empty_batch_changes_nothing(self, view: VolumeView) -> None:
        with view.batch() as batch:
            assert batch.size == 0
        assert (view.size, view.state_hash()) == (0, initial())

    def test_entries_follow_each_other_and_changes_their_state(self, view: VolumeView) -> None:
        fold(view, file(b"a"))
        with view.batch() as batch:
            good = folded(batch.state, Transaction((file(b"b"),)), 1)
            late = folded(batch.state, Transaction((file(b"c"),)), 2)
            for index, outcome in ((0, good), (2, good), (1, late), (2, None)):
                with pytest.raises(InternalError):
                    batch.record(index, entry_meta(index), outcome)
            batch.record(1, entry_meta(1), good)
            with pytest.raises(InternalError):  # folded before another inode was made
                batch.record(2, entry_meta(2), late)
        assert view.size == 2
        assert names(view) == [b"a", b"b"]

    # --- history ------------------------------------------------------------------------------

    def test_acts_transactions_and_rejections_are_all_listed(self, view: VolumeView) -> None:
        with view.batch() as batch:
            batch.record(0, entry_meta(0), None)
            fold_into(batch, file(b"a"))
            fold_into(batch, file(b"b"), file(b"a"))
            batch.record(3, entry_meta(3), Rejection("other", None, "for no operation's sake"))
        act, done, refused, other = view.entries(0, 4)
        assert [entry.index for entry in (act, done, refused, other)] == [0, 1, 2, 3]
        assert act.meta == entry_meta(0)
        assert done.meta == entry_meta(1, "entry 1")
        assert [entry.changed for entry in (act, done, refused, other)] == [False, True, False, False]
        assert act.rejection is done.rejection is None
        assert refused.rejection == Rejection("exists", 1, "the name is taken")
        assert other.rejection == Rejection("other", None, "for no operation's sake")
        assert view.entries(1, 3) == [done, refused]
        assert view.entries(-5, 1) == [act]
        assert view.entries(3, 1 << 53) == [other]
        assert view.entries(2, 2) == view.entries(4, 9) == view.entries(3, 1) == []
        assert [view.reading(at).next_inode for at in range(-1, 4)] == [2, 2, 3, 3, 3]

    def test_a_file_has_a_version_for_each_content(self, view: VolumeView) -> None:
        fold(view, file(b"file", b"12345"))
        fold(view, SetAttributes(2, mode=0o600))
        fold(view, Write(2, 0, (Extent(5, 3, b"678"),)))
        fold(view, Write(2, 0, (Extent(0, 1, b"x"),)))  # rejected
        fold(view, Rename(ROOT, b"file", 2, ROOT, b"new"))
        fold(view, Truncate(2, 2, 1))
        fold(view, Unlink(ROOT, b"new", 2))
        expected = [(0, 5), (2, 8), (5, 1)]
        assert view.history(2) == [
            FileVersion(index, size, MemberId(bytes([index % 2]) * 32), entry_time_ns(index))
            for index, size in expected
        ]

    def test_a_time_leads_to_the_last_entry_up_to_which_none_is_later(self, view: VolumeView) -> None:
        with view.batch() as batch:
            for index, time_ns in enumerate([100, 300, 200, 300, 250, 400]):
                batch.record(index, entry_meta(index, time_ns=time_ns), None)
        asked = {99: -1, 100: 0, 299: 0, 300: 4, 399: 4, 400: 5, 1 << 62: 5, -5: -1}
        assert {time_ns: view.index_at(time_ns) for time_ns in asked} == asked

    def test_what_differs_between_two_states(self, view: VolumeView) -> None:
        trees = [tree_of(view.reading()), *fold_random(view, 7, 60, 60)]
        chance = random.Random(0)
        pairs = [(0, 0), (-1, 59), (20, 21), *(sorted(chance.sample(range(-1, 60), 2)) for _ in range(20))]
        for before, after in pairs:
            old, new = trees[before + 1], trees[after + 1]
            found = view.changed_between(before, after)
            assert {one.inode: (one.before, one.after) for one in found.inodes} == _differing(old, new)
            assert [one.inode for one in found.inodes] == sorted(one.inode for one in found.inodes)
            led, leads = _by_name(old), _by_name(new)
            keys = sorted(key for key in led.keys() | leads.keys() if led.get(key) != leads.get(key))
            assert found.names == tuple(NameDifference(*key, led.get(key), leads.get(key)) for key in keys)

    def test_what_changed_and_changed_back_does_not_differ(self, view: VolumeView) -> None:
        fold(view, file(b"a"), SetXattr(-1, b"x", b"1"))
        fold(view, Rename(ROOT, b"a", 2, ROOT, b"b"))
        fold(view, Rename(ROOT, b"b", 2, ROOT, b"a"), SetXattr(2, b"y", b"1"))
        fold(view, RemoveXattr(2, b"y"))
        assert view.changed_between(0, 2).names == ()
        assert [one.inode for one in view.changed_between(0, 3).inodes] == [ROOT, 2]  # their ctime
        with view.batch() as batch:  # two entries of one instant, so that only the attribute differs
            for index, value in ((4, b"2"), (5, b"3")):
                transaction = Transaction((SetXattr(2, b"x", value),))
                changes = apply(batch.state, transaction, index=index, time_ns=7)
                batch.record(index, entry_meta(index), changes)
        inode = view.reading().inode(2)
        assert view.changed_between(4, 5).inodes == (InodeDifference(2, inode, inode),)

    def test_snapshots_name_the_state_before_them(self, view: VolumeView) -> None:
        fold(view, file(b"a"))
        fold(view, Snapshot(b"first"), file(b"b"))
        fold(view, file(b"c"), Snapshot(b"a second"))
        assert view.snapshots() == [(b"a second", 1), (b"first", 0)]
        assert names(view, at=dict(view.snapshots())[b"a second"]) == [b"a", b"b"]
        assert [view.reading(at).has_snapshot(b"first") for at in range(-1, 3)] == [False, False, True, True]
        assert view.reading().has_snapshot(b"a second")

    def test_all_rows_that_ever_were_are_told_with_their_times(self, view: VolumeView) -> None:
        trees = fold_random(view, 4, 40, 8)
        versions = list(view.row_versions())
        assert len(versions) == len({(one.row, one.since) for one in versions})
        names = dict(view.snapshots())
        for at, tree in enumerate(trees):
            valid = [one.row for one in versions if one.since <= at and (one.until is None or at < one.until)]
            snapshots = {name: then + 1 for name, then in names.items() if then < at}
            rows = [*valid, next_inode_row(tree.next_inode)]
            assert EMPTY.changed((), rows) == tree.state_hash(snapshots)

    def test_every_blob_that_content_refers_to(self, view: VolumeView) -> None:
        lying = BlobRef(A.name, B.key, A.plain_bytes, A.compression)  # the same blob under another key
        made = Make(ROOT, b"a", Kind.FILE, 0, content=(Extent(0, 9, 0), Extent(9, 9, 0, 99)), size=18)
        fold(view, made, blobs=(A, B))
        fold(view, Make(ROOT, b"b", Kind.FILE, 0, content=(Extent(0, 9, 0),), size=9), blobs=(lying,))
        fold(view, Write(2, None, (Extent(0, 18, 1),)), blobs=(A, B))
        fold(view, RemoveTree(ROOT, b"b", 3), file(b"c", b"inline"))
        expected = [[A], [A, lying], [B, lying], [B]]
        for at, refs in enumerate(expected):
            found = list(view.blobs(at))
            assert len(found) == len(refs)
            assert set(found) == set(refs)
        everything = list(view.blobs())
        assert len(everything) == 3
        assert set(everything) == {A, B, lying}
        extents = view.reading(1).extents(3, 0, 9)
        assert [extent.source for extent in extents] == [lying]

    # --- beginning with a state ---------------------------------------------------------------

    @pytest.mark.parametrize("seed", range(4))
    def test_who_begins_with_a_state_goes_on_as_who_folded_everything(
        self, view: VolumeView, medium: Medium, seed: int
    ) -> None:
        full, size = MemoryView(), 10 + 11 * seed
        fold_random(full, seed, size, 7)
        digest, rows = full.state_hash().digest(), list(full.state_rows())
        view.begin(size, entry_time_ns(size - 1), iter(rows), digest)
        if medium.keeps:
            view.close()
            view = medium.open()
        assert (view.start, view.size) == (size, size)
        assert view.state_hash() == full.state_hash() == recomputed(view)
        assert list(view.state_rows()) == rows
        assert tree_of(view.reading()) == tree_of(view.reading(size - 1)) == tree_of(full.reading())
        assert view.snapshots() == full.snapshots()
        volume, trees = RandomVolume(seed), dict[int, Tree]()
        while full.size < size + 20:
            transaction, index = volume.transaction(full.reading()), full.size
            for one in (full, view):
                with one.batch() as batch:
                    batch.record(index, entry_meta(index), folded(batch.state, transaction, index))
            trees[index] = tree_of(full.reading())
        assert view.state_hash() == full.state_hash()
        for at, tree in trees.items():
            assert tree_of(view.reading(at)) == tree
        assert view.entries(0, size + 20) == full.entries(size, size + 20)
        assert view.changed_between(size + 3, size + 15) == full.changed_between(size + 3, size + 15)
        assert view.index_at(entry_time_ns(size + 4)) == size + 4
        assert view.index_at(entry_time_ns(size - 1)) == size - 1
        assert set(view.blobs()) >= set(full.blobs(size + 19))
        for inode in trees[size + 19].inodes:
            later = [version for version in full.history(inode.inode) if version.index >= size]
            assert view.history(inode.inode) == later
        if medium.keeps:
            view.close()

    def test_what_was_before_is_said_to_be_missing(self, view: VolumeView) -> None:
        full = MemoryView()
        fold_random(full, 9, 20, 20)
        view.begin(20, entry_time_ns(19), full.state_rows(), full.state_hash().digest())
        for ask in (
            lambda: view.reading(18),
            lambda: view.reading(-1),
            lambda: view.lookup([], 3),
            lambda: view.index_at(entry_time_ns(19) - 1),
            lambda: view.changed_between(5, 19),
        ):
            with pytest.raises(HistoryMissing) as caught:
                ask()
            assert caught.value.start == 20
        with pytest.raises(InvalidRequest):
            view.reading(20)
        assert view.entries(0, 20) == []

    def test_another_state_than_was_signed_leaves_the_view_empty(self, view: VolumeView) -> None:
        full = MemoryView()
        fold_random(full, 9, 20, 20)
        digest, rows = full.state_hash().digest(), list(full.state_rows())
        assert len(rows) > 5
        for wrong in (rows[1:], rows[:-1], [*rows, rows[-1]], [rows[1], rows[0], *rows[2:]], [b"\x09"], []):
            with pytest.raises(MalformedRecord):
                view.begin(20, 0, iter(wrong), digest)
        with pytest.raises(MalformedRecord):
            view.begin(20, 0, iter(rows), bytes(32))
        assert (view.start, view.size, view.state_hash()) == (0, 0, initial())
        assert view.reading().inode(ROOT) == ROOT_INODE
        fold(view, Make(ROOT, b"d", Kind.FOLDER, 0o755))
        with pytest.raises(InternalError):
            view.begin(20, 0, iter(rows), digest)


def _by_name(tree: Tree) -> dict[tuple[int, bytes], Name]:
    return {(name.parent, name.name): name for name in tree.names}


def _differing(old: Tree, new: Tree) -> dict[int, tuple[Inode | None, Inode | None]]:
    """Inodes that differ in their row or their attributes."""
    found = {}
    was, now = ({inode.inode: inode for inode in tree.inodes} for tree in (old, new))
    marks, marked = ({(ino, *rest) for ino, *rest in tree.xattrs} for tree in (old, new))
    for ino in was.keys() | now.keys():
        attributes = {mark for mark in marks ^ marked if mark[0] == ino}
        if was.get(ino) != now.get(ino) or attributes:
            found[ino] = was.get(ino), now.get(ino)
    return found
