"""Operations on names: what they do, and what they refuse."""

from __future__ import annotations

import pytest
from tests.unit.fold.support import DEEP, EMPTY, FIFO, FILE, GONE, HARD, LINK, SUB, Volume

from muniment.core.fold import CLIMBED_MAX, LEVELS_MAX
from muniment.spec.operation import (
    ROOT,
    Extent,
    Kind,
    Link,
    Make,
    Operation,
    RemoveTree,
    Rename,
    Rmdir,
    SetAttributes,
    SetXattr,
    Snapshot,
    Unlink,
    Write,
)

NEXT = 9


@pytest.fixture
def volume() -> Volume:
    return Volume()


def file(parent: int, name: bytes) -> Make:
    return Make(parent, name, Kind.FILE, 0o644)


def folder(parent: int, name: bytes) -> Make:
    return Make(parent, name, Kind.FOLDER, 0o755)


# --- make -----------------------------------------------------------------------------------------


def test_make_takes_the_next_number_and_touches_the_folder(volume: Volume) -> None:
    before = volume.inode(EMPTY)
    content = (Extent(0, 2, b"hi"),)
    made = Make(EMPTY, b"new", Kind.FILE, 0o4711, 5, 6, 7, 0, content, 9, ((b"user.a", b"1"),))
    assert volume.fold(made) is None
    inode, after = volume.inode(NEXT), volume.inode(EMPTY)
    assert (inode.kind, inode.mode, inode.uid, inode.gid, inode.size) == (Kind.FILE, 0o4711, 5, 6, 9)
    assert (inode.atime_ns, inode.mtime_ns, inode.ctime_ns) == (volume.now, 7, volume.now)
    assert (inode.links, inode.entries, inode.version, inode.parent) == (1, 0, 1, 0)
    assert (after.mtime_ns, after.ctime_ns, after.atime_ns) == (volume.now, volume.now, before.atime_ns)
    assert (after.entries, after.links, after.version) == (1, 2, 0)
    assert volume.state.xattrs(NEXT) == {b"user.a": b"1"}
    assert volume.pieces(NEXT) == [(0, 2, b"hi", 0)]
    assert volume.state.next_inode == NEXT + 1


def test_make_of_a_folder_is_a_link_to_its_parent(volume: Volume) -> None:
    assert volume.fold(folder(EMPTY, b"new")) is None
    assert (volume.inode(EMPTY).links, volume.inode(EMPTY).entries) == (3, 1)
    assert (volume.inode(NEXT).links, volume.inode(NEXT).parent) == (2, EMPTY)


@pytest.mark.parametrize("kind", list(Kind))
def test_make_of_every_kind(volume: Volume, kind: Kind) -> None:
    content = (Extent(0, 1, b"t"),) if kind is Kind.SYMLINK else ()
    assert volume.fold(Make(EMPTY, b"new", kind, 0o600, rdev=77, content=content, size=len(content))) is None
    child = volume.state.child(EMPTY, b"new")
    assert child is not None
    assert child.kind is volume.inode(NEXT).kind is kind
    assert volume.inode(NEXT).rdev == 77


def test_later_operations_name_what_earlier_ones_made(volume: Volume) -> None:
    operations: list[Operation] = [
        *(folder(EMPTY, b"a"), file(ROOT, b"b"), folder(-1, b"c"), file(-3, b"d")),
        *(Link(-2, -3, b"e"), Write(-4, None, (Extent(0, 1, b"x"),)), SetXattr(-4, b"k", b"v")),
        Rename(-3, b"d", -4, -1, b"f"),
    ]
    assert volume.fold(*operations) is None
    a, b, c, d = range(NEXT, NEXT + 4)
    assert volume.names(a) == {b"c": c, b"f": d}
    assert volume.names(c) == {b"e": b}
    assert volume.inode(b).links == 2
    assert volume.pieces(d) == [(0, 1, b"x", 0)]


def test_a_number_may_be_named_as_soon_as_it_is_made(volume: Volume) -> None:
    assert volume.code(SetAttributes(NEXT, mode=0), file(ROOT, b"a")) == ("not-found", 0)
    assert volume.fold(file(ROOT, b"a"), SetAttributes(NEXT, mode=0)) is None


def test_what_is_made_and_removed_at_once_leaves_its_number_and_the_times(volume: Volume) -> None:
    content = (Extent(0, 3, b"tmp"),)
    made = Make(EMPTY, b"tmp", Kind.FILE, 0, content=content, size=3, xattrs=((b"a", b"b"),))
    changes = volume.changes(made, Unlink(EMPTY, b"tmp", -1))
    assert volume.fold(made, Unlink(EMPTY, b"tmp", -1)) is None
    assert volume.state.inode(NEXT) is None
    assert volume.state.next_inode == NEXT + 1
    assert volume.inode(EMPTY).mtime_ns == volume.now
    assert repr(changes).count("Change(") == 1  # the folder's


# --- link -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ino", [FILE, LINK, FIFO])
def test_link_is_a_name_more(volume: Volume, ino: int) -> None:
    before = volume.inode(ino)
    assert volume.fold(Link(ino, EMPTY, b"more")) is None
    after = volume.inode(ino)
    assert (after.links, after.ctime_ns, after.mtime_ns) == (2, volume.now, before.mtime_ns)
    assert volume.names(EMPTY) == {b"more": ino}
    assert volume.inode(EMPTY).mtime_ns == volume.now


# --- unlink, rmdir, remove tree -------------------------------------------------------------------


def test_the_last_name_takes_the_inode_with_it(volume: Volume) -> None:
    assert volume.fold(Link(FILE, ROOT, b"second")) is None
    assert volume.fold(Unlink(SUB, b"file", FILE)) is None
    assert (volume.inode(FILE).links, volume.inode(FILE).ctime_ns) == (1, volume.now)
    assert len(volume.pieces(FILE)) == 2
    assert volume.fold(Unlink(ROOT, b"second", FILE)) is None
    assert volume.state.inode(FILE) is None
    assert volume.pieces(FILE) == []
    assert volume.state.xattrs(FILE) == {}
    assert volume.inode(ROOT).mtime_ns == volume.now


def test_rmdir_takes_an_empty_folder(volume: Volume) -> None:
    links = volume.inode(ROOT).links
    assert volume.fold(SetXattr(EMPTY, b"a", b"1"), Rmdir(ROOT, b"empty", EMPTY)) is None
    assert volume.state.inode(EMPTY) is None
    assert volume.inode(ROOT).links == links - 1
    assert volume.state.xattrs(EMPTY) == {}


def test_remove_tree_takes_all_but_what_has_another_name_outside(volume: Volume) -> None:
    assert volume.fold(Link(HARD, EMPTY, b"kept"), Link(FILE, DEEP, b"twice")) is None
    assert volume.fold(RemoveTree(ROOT, b"sub", SUB)) is None
    assert [volume.state.inode(ino) for ino in (SUB, DEEP, FILE)] == [None] * 3
    assert (volume.inode(HARD).links, volume.inode(HARD).ctime_ns) == (1, volume.now)
    assert volume.pieces(HARD) == [(0, 4, b"hard", 0)]
    assert volume.names() == {b"empty": EMPTY, b"fifo": FIFO, b"link": LINK}
    assert volume.state.children(SUB, b"", 9) == []
    assert volume.inode(ROOT).links == 3


@pytest.mark.parametrize(("parent", "name", "ino"), [(SUB, b"file", FILE), (ROOT, b"fifo", FIFO)])
def test_remove_tree_of_what_is_no_folder_is_unlink(
    volume: Volume, parent: int, name: bytes, ino: int
) -> None:
    other = Volume()
    assert volume.fold(RemoveTree(parent, name, ino)) is None
    assert other.fold(Unlink(parent, name, ino)) is None
    assert volume.view.state_hash() == other.view.state_hash()


def test_remove_tree_sees_what_the_transaction_did_below(volume: Volume) -> None:
    assert (
        volume.fold(
            file(DEEP, b"new"),
            folder(SUB, b"other"),
            Unlink(SUB, b"file", FILE),
            Rename(DEEP, b"hard", HARD, SUB, b"file"),
            Rename(DEEP, b"new", -1, EMPTY, b"saved"),
            RemoveTree(ROOT, b"sub", SUB),
            folder(ROOT, b"sub"),
        )
        is None
    )
    assert volume.names(EMPTY) == {b"saved": NEXT}
    assert volume.names() == {b"empty": EMPTY, b"fifo": FIFO, b"link": LINK, b"sub": NEXT + 2}
    assert volume.names(NEXT + 2) == {}


def test_remove_tree_of_many_pages_of_names(volume: Volume) -> None:
    assert volume.fold(*(file(EMPTY, b"%d" % number) for number in range(2500))) is None
    assert volume.fold(Unlink(EMPTY, b"7", NEXT + 7), RemoveTree(ROOT, b"empty", EMPTY)) is None
    assert volume.state.inode(NEXT + 2499) is None


# --- rename ---------------------------------------------------------------------------------------


def test_rename_within_a_folder(volume: Volume) -> None:
    before = volume.inode(FILE)
    assert volume.fold(Rename(SUB, b"file", FILE, SUB, b"renamed")) is None
    assert volume.names(SUB) == {b"deep": DEEP, b"renamed": FILE}
    after = volume.inode(FILE)
    assert (after.ctime_ns, after.mtime_ns, after.links) == (volume.now, before.mtime_ns, 1)
    assert (volume.inode(SUB).entries, volume.inode(SUB).mtime_ns) == (2, volume.now)


def test_rename_of_a_folder_to_another(volume: Volume) -> None:
    assert volume.fold(Rename(SUB, b"deep", DEEP, EMPTY, b"moved")) is None
    assert volume.inode(DEEP).parent == EMPTY
    assert (volume.inode(SUB).links, volume.inode(SUB).entries) == (2, 1)
    assert (volume.inode(EMPTY).links, volume.inode(EMPTY).entries) == (3, 1)
    assert volume.inode(SUB).mtime_ns == volume.inode(EMPTY).mtime_ns == volume.now
    assert volume.names(DEEP) == {b"hard": HARD}


def test_rename_over_a_file_drops_it(volume: Volume) -> None:
    assert volume.fold(Rename(SUB, b"file", FILE, DEEP, b"hard", HARD)) is None
    assert volume.state.inode(HARD) is None
    assert volume.pieces(HARD) == []
    assert volume.names(DEEP) == {b"hard": FILE}
    assert volume.inode(DEEP).entries == 1


def test_rename_over_a_file_with_another_name_keeps_it(volume: Volume) -> None:
    assert volume.fold(Link(HARD, EMPTY, b"more"), Rename(SUB, b"file", FILE, DEEP, b"hard", HARD)) is None
    assert (volume.inode(HARD).links, volume.inode(HARD).ctime_ns) == (1, volume.now)


def test_rename_over_an_empty_folder_drops_it(volume: Volume) -> None:
    assert volume.fold(Rename(SUB, b"deep", DEEP, ROOT, b"empty", EMPTY)) is None
    assert volume.state.inode(EMPTY) is None
    assert volume.names()[b"empty"] == DEEP
    assert (volume.inode(ROOT).links, volume.inode(SUB).links) == (4, 2)


def test_rename_of_one_name_over_another_of_the_same_inode_does_nothing(volume: Volume) -> None:
    assert volume.fold(Link(FILE, EMPTY, b"more")) is None
    state = volume.view.state_hash()
    for new_parent, new_name in ((EMPTY, b"more"), (SUB, b"file")):
        for exchange in (False, True):
            same = Rename(SUB, b"file", FILE, new_parent, new_name, FILE, exchange)
            assert volume.fold(same) is None
    assert volume.fold(Rename(ROOT, b"sub", SUB, ROOT, b"sub", SUB)) is None
    assert volume.view.state_hash() == state


def test_exchange_of_a_file_and_a_folder(volume: Volume) -> None:
    assert volume.fold(Rename(SUB, b"file", FILE, ROOT, b"empty", EMPTY, exchange=True)) is None
    assert volume.names(SUB) == {b"deep": DEEP, b"file": EMPTY}
    assert volume.names()[b"empty"] == FILE
    assert volume.inode(EMPTY).parent == SUB
    assert (volume.inode(ROOT).links, volume.inode(SUB).links) == (3, 4)
    assert volume.inode(FILE).ctime_ns == volume.inode(EMPTY).ctime_ns == volume.now
    assert volume.inode(SUB).mtime_ns == volume.inode(ROOT).mtime_ns == volume.now


def test_exchange_of_two_folders_that_are_not_empty(volume: Volume) -> None:
    assert volume.fold(file(EMPTY, b"x"), Rename(SUB, b"deep", DEEP, ROOT, b"empty", EMPTY, True)) is None
    assert (volume.inode(DEEP).parent, volume.inode(EMPTY).parent) == (ROOT, SUB)
    assert volume.names()[b"empty"] == DEEP
    assert volume.names(SUB)[b"deep"] == EMPTY


def test_exchange_within_one_folder(volume: Volume) -> None:
    assert volume.fold(Rename(SUB, b"file", FILE, SUB, b"deep", DEEP, True)) is None
    assert volume.names(SUB) == {b"deep": FILE, b"file": DEEP}
    assert (volume.inode(SUB).links, volume.inode(SUB).entries) == (3, 2)


@pytest.mark.parametrize(
    "operation",
    [
        Rename(ROOT, b"sub", SUB, SUB, b"x"),
        Rename(ROOT, b"sub", SUB, DEEP, b"x"),
        Rename(ROOT, b"sub", SUB, DEEP, b"hard", HARD),
        Rename(ROOT, b"sub", SUB, SUB, b"deep", DEEP, exchange=True),
        Rename(SUB, b"deep", DEEP, ROOT, b"sub", SUB, exchange=True),
        Rename(DEEP, b"hard", HARD, ROOT, b"sub", SUB, exchange=True),
        Rename(ROOT, b"sub", SUB, DEEP, b"hard", HARD, exchange=True),
    ],
    ids=lambda operation: f"{operation.name}-{operation.new_parent}-{operation.new_name}",
)
def test_no_folder_goes_into_itself(volume: Volume, operation: Rename) -> None:
    assert volume.code(operation) == ("into-itself", 0)


def test_a_folder_goes_beside_and_above_itself(volume: Volume) -> None:
    assert volume.fold(folder(SUB, b"beside"), Rename(SUB, b"deep", DEEP, -1, b"deep")) is None
    assert volume.fold(Rename(NEXT, b"deep", DEEP, ROOT, b"up")) is None
    assert volume.names(DEEP) == {b"hard": HARD}


def test_into_itself_is_seen_through_what_the_transaction_moved(volume: Volume) -> None:
    move = Rename(ROOT, b"empty", EMPTY, DEEP, b"empty")
    assert volume.code(move, Rename(ROOT, b"sub", SUB, EMPTY, b"sub")) == ("into-itself", 1)
    away = Rename(SUB, b"deep", DEEP, EMPTY, b"deep")
    assert volume.fold(away, Rename(ROOT, b"sub", SUB, DEEP, b"sub")) is None
    assert volume.inode(SUB).parent == DEEP


def test_all_renames_of_a_transaction_climb_so_many_levels_together(volume: Volume) -> None:
    """Else a few thousand bytes keep every member busy for a minute."""
    depth = 1000
    chain = [folder(ROOT, b"0"), *(folder(-number, b"0") for number in range(1, depth))]
    ends = [folder(-depth, b"a"), folder(-depth, b"b"), folder(-depth - 1, b"m"), folder(-depth - 3, b"x")]
    one, other, moved = -depth - 1, -depth - 2, -depth - 3
    turns = CLIMBED_MAX // (depth + 1)
    ways = [Rename(one, b"m", moved, other, b"m"), Rename(other, b"m", moved, one, b"m")]
    renames = [ways[at % 2] for at in range(turns + 2)]
    code, operation = volume.code(*chain, *ends, *renames)
    assert code == "too-deep"
    assert operation is not None
    assert abs(operation - len(chain) - len(ends) - turns) <= 2
    assert volume.fold(*chain, *ends, *renames[: turns - 1]) is None


def test_folders_with_folders_are_moved_to_a_limited_depth(volume: Volume) -> None:
    chain: list[Operation] = [folder(EMPTY, b"0")]
    chain += [folder(-number, b"0") for number in range(1, LEVELS_MAX)]
    assert volume.fold(*chain) is None
    last = volume.state.next_inode - 1
    assert volume.code(Rename(ROOT, b"sub", SUB, last, b"sub")) == ("too-deep", 0)
    assert volume.fold(Rename(ROOT, b"sub", SUB, last - 1, b"sub")) is None
    assert volume.fold(Rename(SUB, b"deep", DEEP, last, b"without folders in it")) is None
    assert volume.fold(Rename(ROOT, b"fifo", FIFO, last, b"fifo")) is None


# --- refusals -------------------------------------------------------------------------------------

REFUSED: list[tuple[str, Operation]] = [
    ("not-found", file(GONE, b"x")),
    ("not-a-folder", file(FILE, b"x")),
    ("not-a-folder", file(LINK, b"x")),
    ("exists", file(ROOT, b"sub")),
    ("exists", folder(SUB, b"file")),
    ("not-found", Link(GONE, ROOT, b"x")),
    ("is-a-folder", Link(EMPTY, ROOT, b"x")),
    ("is-a-folder", Link(ROOT, ROOT, b"sub")),
    ("not-found", Link(FILE, GONE, b"x")),
    ("not-a-folder", Link(FILE, FIFO, b"x")),
    ("exists", Link(FILE, SUB, b"file")),
    ("changed", Unlink(ROOT, b"x", FILE)),
    ("changed", Unlink(ROOT, b"fifo", LINK)),
    ("changed", Unlink(GONE, b"file", FILE)),
    ("changed", Unlink(FILE, b"file", FILE)),
    ("changed", Unlink(SUB, b"file", GONE)),
    ("is-a-folder", Unlink(ROOT, b"empty", EMPTY)),
    ("changed", Rmdir(ROOT, b"x", EMPTY)),
    ("changed", Rmdir(ROOT, b"empty", SUB)),
    ("not-a-folder", Rmdir(ROOT, b"link", LINK)),
    ("not-empty", Rmdir(ROOT, b"sub", SUB)),
    ("changed", RemoveTree(ROOT, b"x", SUB)),
    ("changed", RemoveTree(ROOT, b"sub", EMPTY)),
    ("changed", Rename(SUB, b"x", FILE, ROOT, b"new")),
    ("changed", Rename(SUB, b"file", HARD, ROOT, b"new")),
    ("changed", Rename(GONE, b"file", FILE, ROOT, b"new")),
    ("not-found", Rename(SUB, b"file", FILE, GONE, b"new")),
    ("not-a-folder", Rename(SUB, b"file", FILE, FIFO, b"new")),
    ("exists", Rename(SUB, b"file", FILE, ROOT, b"fifo")),
    ("exists", Rename(SUB, b"file", FILE, SUB, b"file")),
    ("changed", Rename(SUB, b"file", FILE, ROOT, b"new", FIFO)),
    ("changed", Rename(SUB, b"file", FILE, ROOT, b"fifo", LINK)),
    ("changed", Rename(SUB, b"file", FILE, ROOT, b"new", FIFO, exchange=True)),
    ("is-a-folder", Rename(SUB, b"file", FILE, ROOT, b"empty", EMPTY)),
    ("is-a-folder", Rename(SUB, b"file", FILE, ROOT, b"sub", SUB)),
    ("not-a-folder", Rename(ROOT, b"empty", EMPTY, SUB, b"file", FILE)),
    ("not-empty", Rename(ROOT, b"empty", EMPTY, ROOT, b"sub", SUB)),
    ("not-empty", Rename(SUB, b"deep", DEEP, ROOT, b"sub", SUB)),
    ("changed", Rename(ROOT, b"sub", ROOT, EMPTY, b"x")),
]


@pytest.mark.parametrize(("code", "operation"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_as_expected_is_refused(volume: Volume, code: str, operation: Operation) -> None:
    assert volume.code(operation) == (code, 0)
    assert volume.code(file(ROOT, b"before"), operation, file(ROOT, b"after")) == (code, 1)


@pytest.mark.parametrize("operation", [Unlink(SUB, b"file", FILE), Rmdir(ROOT, b"empty", EMPTY)], ids=str)
def test_what_an_operation_removed_is_gone_for_the_next(volume: Volume, operation: Operation) -> None:
    assert volume.code(operation, operation) == ("changed", 1)


def test_a_folder_removed_is_no_parent(volume: Volume) -> None:
    assert volume.code(Rmdir(ROOT, b"empty", EMPTY), file(EMPTY, b"x")) == ("not-found", 1)
    assert volume.code(RemoveTree(ROOT, b"sub", SUB), file(DEEP, b"x")) == ("not-found", 1)


# --- atomicity, snapshots -------------------------------------------------------------------------


def test_a_transaction_is_folded_whole_or_not_at_all(volume: Volume) -> None:
    done: list[Operation] = [
        file(EMPTY, b"a"),
        Write(FILE, None, (Extent(0, 1, b"x"),)),
        SetXattr(FILE, b"k", b"v"),
        RemoveTree(SUB, b"deep", DEEP),
        Rename(ROOT, b"sub", SUB, EMPTY, b"sub"),
        Snapshot(b"now"),
    ]
    assert volume.code(*done, Unlink(ROOT, b"sub", SUB)) == ("changed", len(done))
    assert volume.view.snapshots() == []
    assert volume.fold(*done) is None


def test_a_rejected_make_takes_no_number(volume: Volume) -> None:
    assert volume.code(file(ROOT, b"a"), file(ROOT, b"a")) == ("exists", 1)
    assert volume.fold(file(ROOT, b"b")) is None
    assert volume.names()[b"b"] == NEXT


def test_a_snapshot_is_made_once(volume: Volume) -> None:
    assert volume.fold(Snapshot(b"one"), Snapshot(b"two")) is None
    assert volume.code(Snapshot(b"one")) == ("exists", 0)
    assert volume.code(Snapshot(b"three"), Snapshot(b"three")) == ("exists", 1)
    assert volume.view.snapshots() == [(b"one", 0), (b"two", 0)]


def test_what_is_changed_and_changed_back_is_no_change(volume: Volume) -> None:
    there, back = Rename(ROOT, b"fifo", FIFO, SUB, b"fifo"), Rename(SUB, b"fifo", FIFO, ROOT, b"fifo")
    changes = repr(volume.changes(there, back))
    assert "NameChange" not in changes
    assert changes.count("InodeChange") == 3  # their times


def test_equal_transactions_on_equal_states_change_the_same_in_the_same_order(volume: Volume) -> None:
    operations: list[Operation] = [
        *(file(EMPTY, b"%d" % number) for number in range(50)),
        *(SetXattr(FILE, b"%d" % number, b"") for number in range(50)),
        RemoveTree(ROOT, b"empty", EMPTY),
        Rename(SUB, b"file", FILE, ROOT, b"file"),
    ]
    assert volume.changes(*operations) == Volume().changes(*operations)
