"""Operations on content and attributes: what they do, and what they refuse."""

from __future__ import annotations

import gc

import pytest
from tests.unit.fold.support import DEEP, EMPTY, FIFO, FILE, GONE, HARD, LINK, SUB, A, B, Volume

from muniment.core.content_edit import ContentEdit
from muniment.core.fold import apply
from muniment.core.tree_state import StoredExtent
from muniment.spec.operation import (
    ROOT,
    SIZE_MAX,
    Extent,
    Kind,
    Make,
    Operation,
    RemoveXattr,
    SetAttributes,
    SetXattr,
    Truncate,
    Unlink,
    Write,
    XattrMode,
)
from muniment.spec.transaction import Transaction

TAIL = (200, 4, b"tail", 0)


@pytest.fixture
def volume() -> Volume:
    return Volume()


def write(*extents: Extent) -> Write:
    return Write(FILE, None, extents)


# --- write ----------------------------------------------------------------------------------------


def test_a_write_is_a_new_version(volume: Volume) -> None:
    before = volume.inode(FILE)
    assert volume.fold(write(Extent(0, 1, b"x"))) is None
    after = volume.inode(FILE)
    assert (before.version, after.version, after.size) == (0, 1, 300)
    assert (after.mtime_ns, after.ctime_ns, after.atime_ns) == (volume.now, volume.now, before.atime_ns)


@pytest.mark.parametrize(
    ("start", "length", "left"),
    [
        (0, 100, []),  # exactly
        (40, 20, [(0, 40, A, 10), (60, 40, A, 70)]),  # in the middle
        (0, 60, [(60, 40, A, 70)]),  # the front
        (40, 60, [(0, 40, A, 10)]),  # the back
        (90, 50, [(0, 90, A, 10)]),  # over the back
        (100, 100, [(0, 100, A, 10)]),  # the hole
        (99, 1, [(0, 99, A, 10)]),
        (0, 1, [(1, 99, A, 11)]),
    ],
)
def test_a_write_leaves_what_it_does_not_cover(
    volume: Volume, start: int, length: int, left: list[tuple[int, int, object, int]]
) -> None:
    assert volume.fold(write(Extent(start, length, 1, 5))) is None
    assert volume.pieces(FILE) == sorted([*left, (start, length, B, 5), TAIL], key=lambda piece: piece[0])
    hole = Volume()
    assert hole.fold(write(Extent(start, length, None))) is None
    assert hole.pieces(FILE) == [*left, TAIL]


@pytest.mark.parametrize(
    ("start", "length", "left"),
    [
        (201, 2, [(200, 1, b"t", 0), (203, 1, b"l", 0)]),
        (150, 52, [(202, 2, b"il", 0)]),
        (203, 50, [(200, 3, b"tai", 0)]),
    ],
)
def test_inline_bytes_are_cut(
    volume: Volume, start: int, length: int, left: list[tuple[int, int, object, int]]
) -> None:
    assert volume.fold(write(Extent(start, length, None))) is None
    assert volume.pieces(FILE) == [(0, 100, A, 10), *left]


def test_a_write_past_the_end_makes_the_file_longer(volume: Volume) -> None:
    assert volume.fold(write(Extent(1000, 3, b"end"))) is None
    assert volume.inode(FILE).size == 1003
    assert volume.fold(write(Extent(2000, 50, None))) is None
    assert volume.inode(FILE).size == 2050
    assert volume.pieces(FILE) == [(0, 100, A, 10), TAIL, (1000, 3, b"end", 0)]
    assert volume.fold(write(Extent(SIZE_MAX - 1, 1, b"x"))) is None
    assert volume.inode(FILE).size == SIZE_MAX


def test_a_write_of_several_pieces(volume: Volume) -> None:
    pieces = (Extent(10, 10, 0, 0), Extent(20, 10, None), Extent(90, 112, 1, 1), Extent(300, 1, b"!"))
    assert volume.fold(write(*pieces)) is None
    assert volume.pieces(FILE) == [
        *((0, 10, A, 10), (10, 10, A, 0), (30, 60, A, 40), (90, 112, B, 1), (202, 2, b"il", 0)),
        (300, 1, b"!", 0),
    ]
    assert volume.inode(FILE).size == 301


def test_writes_of_one_transaction_see_each_other(volume: Volume) -> None:
    writes = [write(Extent(at, 10, b"%d" % (at % 10) * 10)) for at in (0, 5, 95, 3, 205, 0)]
    one_by_one = Volume()
    assert volume.fold(*writes) is None
    for single in writes:
        assert one_by_one.fold(single) is None
    assert volume.pieces(FILE) == one_by_one.pieces(FILE)


def test_pieces_go_between_those_that_are_there(volume: Volume) -> None:
    content = tuple(Extent(at, 1, b"a") for at in range(0, 40, 4))
    between = tuple(Extent(at, 1, b"b") for at in (1, 2, 3, 9, 38, 50, 51))
    assert volume.fold(Write(FILE, None, (Extent(0, 300, None),)), Write(FILE, None, content)) is None
    assert volume.fold(Write(FILE, None, between)) is None
    pieces = volume.pieces(FILE)
    assert pieces == sorted(pieces)
    assert {at for at, _, source, _ in pieces if source == b"a"} == set(range(0, 40, 4))
    assert [at for at, _, source, _ in pieces if source == b"b"] == [1, 2, 3, 9, 38, 50, 51]


def test_adjacent_pieces_of_one_blob_are_not_joined(volume: Volume) -> None:
    assert volume.fold(write(Extent(100, 50, 0, 110))) is None
    assert volume.pieces(FILE) == [(0, 100, A, 10), (100, 50, A, 110), TAIL]


def test_writing_the_same_again_changes_the_version_only(volume: Volume) -> None:
    changes = repr(volume.changes(write(Extent(0, 100, 0, 10))))
    assert "ExtentChange" not in changes
    assert changes.count("InodeChange") == 1


# --- truncate -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "left"),
    [
        (0, []),
        (1, [(0, 1, A, 10)]),
        (100, [(0, 100, A, 10)]),
        (150, [(0, 100, A, 10)]),
        (202, [(0, 100, A, 10), (200, 2, b"ta", 0)]),
        (204, [(0, 100, A, 10), TAIL]),
        (300, [(0, 100, A, 10), TAIL]),
        (SIZE_MAX, [(0, 100, A, 10), TAIL]),
    ],
)
def test_truncate_cuts_or_makes_longer(
    volume: Volume, size: int, left: list[tuple[int, int, object, int]]
) -> None:
    assert volume.fold(Truncate(FILE, 0, size)) is None
    inode = volume.inode(FILE)
    assert (inode.size, inode.version, inode.mtime_ns) == (size, 1, volume.now)
    assert volume.pieces(FILE) == left


def test_what_was_cut_off_does_not_come_back(volume: Volume) -> None:
    assert volume.fold(Truncate(FILE, None, 50), Truncate(FILE, None, 300)) is None
    assert volume.pieces(FILE) == [(0, 50, A, 10)]
    assert volume.inode(FILE).size == 300


def test_a_transaction_may_cut_a_file_and_remove_it(volume: Volume) -> None:
    cut, extend = Truncate(FILE, None, 50), write(Extent(60, 1, b"x"))
    assert volume.fold(cut, extend, Unlink(SUB, b"file", FILE)) is None
    assert volume.pieces(FILE) == []
    emptied = Volume()
    assert emptied.fold(Truncate(FILE, None, 0), Unlink(SUB, b"file", FILE)) is None
    assert emptied.pieces(FILE) == []


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [Write(FILE, 0, (Extent(0, 1, b"x"),)), Truncate(FILE, 0, 5)], ids=str)
def test_a_version_is_expected_once(volume: Volume, change: Operation) -> None:
    assert volume.code(change, change) == ("changed", 1)
    assert volume.fold(change) is None
    assert volume.code(change) == ("changed", 0)
    assert volume.fold(Truncate(FILE, 3, 4)) is not None
    assert volume.fold(Truncate(FILE, 2, 4)) is None  # entries 1, 3 and 4 were rejected


def test_attributes_and_names_leave_the_version(volume: Volume) -> None:
    assert volume.fold(SetAttributes(FILE, mode=0, mtime_ns=3), SetXattr(FILE, b"x", b"")) is None
    assert volume.inode(FILE).version == 0


# --- attributes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ino", [ROOT, SUB, FILE, LINK, FIFO])
def test_attributes_that_are_given_change(volume: Volume, ino: int) -> None:
    before = volume.inode(ino)
    assert volume.fold(SetAttributes(ino, 0o1777, None, 7, -1, None)) is None
    after = volume.inode(ino)
    assert (after.mode, after.uid, after.gid) == (0o1777, before.uid, 7)
    assert (after.atime_ns, after.mtime_ns, after.ctime_ns) == (-1, before.mtime_ns, volume.now)
    assert volume.fold(SetAttributes(ino, None, 8, None, None, 0)) is None
    later = volume.inode(ino)
    assert (later.mode, later.uid, later.gid) == (0o1777, 8, 7)
    assert (later.atime_ns, later.mtime_ns, later.ctime_ns) == (-1, 0, volume.now)
    assert volume.fold(SetAttributes(ino)) is None
    assert volume.inode(ino).ctime_ns == volume.now


def test_extended_attributes(volume: Volume) -> None:
    assert volume.fold(SetXattr(FILE, b"user.b", b"2", XattrMode.NEW)) is None
    assert volume.fold(SetXattr(FILE, b"user.a", b"3", XattrMode.REPLACE)) is None
    assert volume.state.xattrs(FILE) == {b"user.a": b"3", b"user.b": b"2"}
    assert volume.inode(FILE).ctime_ns == volume.now
    assert volume.fold(RemoveXattr(FILE, b"user.a"), SetXattr(FILE, b"user.c", b"")) is None
    assert volume.state.xattrs(FILE) == {b"user.b": b"2", b"user.c": b""}
    assert volume.inode(FILE).ctime_ns == volume.now
    assert volume.fold(SetXattr(ROOT, b"user.b", b"root"), SetXattr(LINK, b"user.b", b"link")) is None
    assert volume.state.xattrs(ROOT) == {b"user.b": b"root"}


def test_an_empty_attribute_is_one(volume: Volume) -> None:
    assert volume.fold(SetXattr(HARD, b"e", b"")) is None
    assert volume.code(SetXattr(HARD, b"e", b"", XattrMode.NEW)) == ("exists", 0)
    assert volume.fold(RemoveXattr(HARD, b"e")) is None
    assert volume.state.xattrs(HARD) == {}


# --- refusals -------------------------------------------------------------------------------------

X = (Extent(0, 1, b"x"),)
REFUSED: list[tuple[str, Operation]] = [
    ("not-found", Write(GONE, None, X)),
    ("is-a-folder", Write(EMPTY, None, X)),
    ("is-a-folder", Write(ROOT, 5, X)),
    ("not-a-file", Write(LINK, None, X)),
    ("not-a-file", Write(FIFO, 5, X)),
    ("changed", Write(FILE, 1, X)),
    ("not-found", Truncate(GONE, None, 0)),
    ("is-a-folder", Truncate(DEEP, None, 0)),
    ("not-a-file", Truncate(LINK, None, 0)),
    ("changed", Truncate(FILE, 7, 0)),
    ("not-found", SetAttributes(GONE, mode=0)),
    ("not-found", SetXattr(GONE, b"user.a", b"")),
    ("exists", SetXattr(FILE, b"user.a", b"1", XattrMode.NEW)),
    ("no-such-attribute", SetXattr(FILE, b"user.b", b"1", XattrMode.REPLACE)),
    ("not-found", RemoveXattr(GONE, b"user.a")),
    ("no-such-attribute", RemoveXattr(FILE, b"user.b")),
]


@pytest.mark.parametrize(("code", "operation"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_as_expected_is_refused(volume: Volume, code: str, operation: Operation) -> None:
    made = Make(ROOT, b"before", Kind.FILE, 0)
    assert volume.code(operation) == (code, 0)
    assert volume.code(made, operation, SetXattr(FILE, b"after", b"")) == (code, 1)


# --- cost -----------------------------------------------------------------------------------------


class Counted:
    """A file of a thousand extents of ten bytes that counts what is read of it."""

    def __init__(self) -> None:
        self.calls = 0
        self.read = 0

    def __call__(self, start: int, stop: int) -> list[StoredExtent]:
        found = [StoredExtent(at, 10, A, 0) for at in range(0, 10_000, 10) if at < stop and at + 10 > start]
        self.calls += 1
        self.read += len(found)
        return found


def test_an_edit_reads_what_it_overlaps_and_nothing_twice() -> None:
    stored = Counted()
    edit = ContentEdit(2, stored)
    for _ in range(50):
        edit.cut(5000, 5020)
    assert (stored.calls, stored.read) == (1, 2)
    edit.cut(5010, 5035)
    assert stored.read == 4
    edit.cut(0, 10)
    edit.cut(4000, 6000)
    for _ in range(50):
        edit.cut(0, SIZE_MAX)
    assert stored.read <= 1010
    assert stored.calls <= 10
    assert len(list(edit.changes())) == 1000


def test_an_edit_that_cuts_nothing_reads_nothing() -> None:
    stored = Counted()
    edit = ContentEdit(2, stored)
    edit.cut(7, 7)
    assert stored.calls == 0
    assert list(edit.changes()) == []


def test_what_a_transaction_worked_on_is_free_at_once(volume: Volume) -> None:
    one = Transaction((write(Extent(0, 1, b"x")), Make(ROOT, b"new", Kind.FILE, 0o644)))
    gc.collect()
    gc.disable()
    try:
        apply(volume.state, one, index=1, time_ns=1)
        assert gc.collect() == 0
    finally:
        gc.enable()
