"""A tree that stands on an older state, with all on top that this mount has changed since: callers see the
same as if it were laid on the newest one, and it keeps no more than it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
from tests.unit.fs.support import OPTIONS, Mounted, Place, place
from tests.unit.fs.test_races import beaten

from muniment.errors import NotMember, OperationRejected
from muniment.fs.names.tree import HereTree
from muniment.fs.options import Options
from muniment.ids import MemberId
from muniment.spec.operation import ROOT, Kind

SLOW = Options(linger_s=60.0, deadline_s=10.0)
"""Nothing is committed before somebody asks for it."""

Shown = tuple[int, int, int]


@pytest.fixture
async def where() -> AsyncIterator[Place]:
    async with place() as made:
        yield made


def shown(here: Mounted, ino: int) -> Shown:
    """The times of an inode."""
    row = here.files.inode(ino)
    return row.atime_ns, row.mtime_ns, row.ctime_ns


async def others_make(other: Mounted, here: Mounted, name: bytes) -> None:
    """Another client makes something, which is seen here."""
    await other.make(name)
    await other.files.sync_all()
    assert name in await here.names()


# --- what it keeps ----------------------------------------------------------------------------


async def test_entries_of_its_own_are_not_remembered_for_ever(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"file")
    tree = here.files._present.tree
    for mode in range(20):
        await here.files.set_attributes(ino, mode=mode)
        await here.files.sync_all()
    assert here.files._present.tree is tree
    assert len(here.files._present._ours) <= 1


async def test_what_one_file_grows_by_is_not_kept_on_top_for_ever(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.fs.names.present._TOUCHED_IDLE_MAX", 16)
    here = await where.mount()
    ino = await here.make(b"log")
    trees = await _appended(here, ino, 80)
    assert 2 <= len(trees) <= 5
    assert await here.read(ino) == b"".join(b"line %02d\n" % at for at in range(80))


async def _appended(here: Mounted, ino: int, lines: int) -> list[HereTree]:
    """Append and save so many lines; returns the trees that were seen."""
    trees: dict[int, HereTree] = {}
    for at in range(lines):
        await here.write(ino, b"line %02d\n" % at, 8 * at)
        tree = here.files._present.tree
        trees[id(tree)] = tree
    return list(trees.values())


async def test_extents_of_what_was_removed_are_not_kept_on_top_for_ever(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await where.mount()
    for name in (b"a", b"b"):
        await _appended(first, await first.make(name), 40)
    await first.files.aclose()
    monkeypatch.setattr("muniment.fs.names.present._TOUCHED_IDLE_MAX", 12)
    here = await where.mount()
    await here.make(b"c")
    await here.files.sync_all()
    tree = here.files._present.tree
    await here.files.unlink(ROOT, b"a")
    await here.files.sync_all()
    assert here.files._present.tree is not tree


async def test_attributes_are_not_kept_on_top_for_ever(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muniment.fs.names.present._TOUCHED_IDLE_MAX", 32)
    here = await where.mount()
    ino = await here.make(b"file")
    await here.files.sync_all()
    tree = here.files._present.tree
    for at in range(4):
        await here.files.set_xattr(ino, b"user.%d" % at, bytes(32_000))
    await here.files.sync_all()
    assert here.files._present.tree is not tree
    assert len(here.files.xattrs(ino)) == 4


async def test_numbers_that_were_forgotten_and_are_known_again_make_no_change_dearer(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.fs.names.present._FORGOTTEN_MAX", 3)
    here = await where.mount()
    inos = [await here.make(b"%d" % at) for at in range(10)]
    await here.files.sync_all()
    for ino in inos:
        here.files.forget(ino)
    for name in await here.names():
        here.files.know(here.files.lookup(ROOT, name).inode)
    await here.files.set_attributes(inos[0], mode=0o600)
    await here.files.sync_all()
    tree = here.files._present.tree
    await here.files.set_attributes(inos[0], mode=0o644)
    await here.files.sync_all()
    assert here.files._present.tree is tree
    for ino in inos:
        here.files.forget(ino)
    await here.make(b"other")
    await here.files.sync_all()
    assert len(here.files._present._forgotten) <= 4


async def test_what_was_removed_and_closed_is_not_kept_and_makes_no_change_dearer(where: Place) -> None:
    here = await where.mount()
    await here.make(b"first")
    await here.files.sync_all()
    tree = here.files._present.tree
    for at in range(5):
        ino = await here.make(b"%d" % at)
        await here.write(ino, b"content")
        handle = await here.files.open(ino, 2)
        await here.files.unlink(ROOT, b"%d" % at)
        await here.files.set_attributes(ino, size=3)
        await here.files.sync_all()
        assert await here.read(ino) == b"con"
        here.files.release(handle)
        here.files.forget(ino)
        assert here.files.find(ino) is None
        assert ino not in tree._contents.keys() | tree._xattrs.keys()
    await here.files.sync_all()
    assert here.files._present.tree is tree
    assert await here.names() == [b"first"]


async def test_only_what_others_have_changed_can_take_files_from_who_has_them_open(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.fs.names.present._TOUCHED_IDLE_MAX", 0)
    here, other = await where.mount(), await where.mount()
    present, asked = here.files._present, list[int]()
    opened = present._opened

    def noted() -> Iterable[int]:
        asked.append(present.at)
        return opened()

    monkeypatch.setattr(present, "_opened", noted)
    ino = await here.make(b"open")
    handle = await here.files.open(ino, 0)
    tree = present.tree
    await here.make(b"mine")
    await here.files.sync_all()
    assert present.tree is not tree
    assert not asked
    await other.names()
    await other.files.unlink(ROOT, b"open")
    await other.files.sync_all()
    assert await here.names() == [b"mine"]
    assert asked
    assert here.files.inode(ino).links == 0
    here.files.release(handle)


async def test_numbers_are_given_back_some_at_a_time(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muniment.fs.names.present._FORGOTTEN_MAX", 256)
    here = await where.mount(SLOW)
    trees: dict[int, HereTree] = {}
    for at in range(256 + 12):
        here.files.forget(await here.make(b"%d" % at))
        if at >= 256:
            await here.files.sync_all()
            trees[id(here.files._present.tree)] = here.files._present.tree
    assert 2 <= len(trees) <= 4
    assert len(here.files._present._forgotten) <= 260


# --- times ------------------------------------------------------------------------------------


async def test_shown_times_stay_when_a_change_is_refused_because_others_were_faster(where: Place) -> None:
    here, other = await where.mount(), await where.mount()
    folder = await here.make(b"mine", kind=Kind.FOLDER)
    ino = await here.make(b"a", folder)
    await here.files.sync_all()
    before = shown(here, ino), shown(here, folder)
    await others_make(other, here, b"b")
    assert (shown(here, ino), shown(here, folder)) == before
    await here.files.set_attributes(ino, mode=0o600)
    await here.files.sync_all()
    before = shown(here, ino), shown(here, folder)
    await other.make(b"taken")
    handle = await here.files.open_folder(ROOT)
    await other.files.sync_all()
    await here.make(b"taken")
    with pytest.raises(OperationRejected):
        await here.files.fsync(handle)
    assert here.files.lookup(ROOT, b"taken").inode != 0
    assert (shown(here, ino), shown(here, folder)) == before


async def test_shown_times_stay_when_a_folder_of_a_refused_change_has_changed_no_more(where: Place) -> None:
    here, other = await where.mount(SLOW), await where.mount()
    mine = await here.make(b"mine", kind=Kind.FOLDER)
    ino = await here.make(b"a")
    await here.files.sync_all()
    theirs = other.files.lookup(ROOT, b"a").inode if b"a" in await other.names() else 0
    before = shown(here, ino)
    await other.files.rename(ROOT, b"a", ROOT, b"b")
    await other.files.sync_all()
    await here.files.rename(ROOT, b"a", mine, b"a")
    moved = shown(here, mine)
    assert b"b" in await here.names()
    assert other.files.lookup(ROOT, b"b").inode == theirs
    assert shown(here, mine) != moved  # nothing was moved into it, and it does not say so
    assert shown(here, ino) != before


async def test_a_folder_does_not_say_that_it_has_changed_for_what_was_refused_on_its_way(
    where: Place,
) -> None:
    here, log = await beaten(where, SLOW)
    other = await where.mount()
    mine, ino = await here.make(b"mine", kind=Kind.FOLDER), await here.make(b"a")
    await here.files.sync_all()
    await other.names()

    async def rename(_: int) -> None:
        await other.files.rename(ROOT, b"a", ROOT, b"b")
        await other.files.sync_all()

    log.rival, log.times = rename, 1
    await here.files.rename(ROOT, b"a", mine, b"a")
    moved = shown(here, mine), shown(here, ino)
    await here.files.sync_all()
    assert log.beaten == 1
    assert await here.names() == [b"b", b"mine"]
    assert shown(here, mine) != moved[0]
    assert shown(here, ino) != moved[1]


async def test_shown_times_stay_when_others_changed_something_else_while_an_entry_was_on_its_way(
    where: Place,
) -> None:
    here, log = await beaten(where, SLOW)
    other = await where.mount()
    mine = await here.make(b"mine", kind=Kind.FOLDER)
    await here.files.sync_all()
    ino = await here.make(b"a", mine)
    await here.make(b"b")
    before, root = (shown(here, mine), shown(here, ino)), shown(here, ROOT)

    async def make(_: int) -> None:
        await other.make(b"theirs")
        await other.files.sync_all()

    log.rival, log.times = make, 1
    await here.files.sync_all()
    assert log.beaten == 1
    assert (shown(here, mine), shown(here, ino)) == before
    assert b"theirs" in await here.names()
    assert shown(here, ROOT)[1] != root[1]  # it has changed, and must say so
    assert shown(here, ROOT)[2] != root[2]


async def test_shown_times_stay_of_what_waits_while_others_change_something(where: Place) -> None:
    here, other = await where.mount(SLOW), await where.mount()
    folder = await here.make(b"folder", kind=Kind.FOLDER)
    ino, moved = await here.make(b"a", folder), await here.make(b"b", folder)
    await here.files.sync_all()
    await here.files.set_attributes(ino, mtime_ns=7)
    await here.files.rename(folder, b"b", folder, b"c")
    await here.files.set_xattr(moved, b"user.x", b"1")
    before = [shown(here, one) for one in (folder, ino, moved)]
    await others_make(other, here, b"others")
    assert [shown(here, one) for one in (folder, ino, moved)] == before
    await here.files.sync_all()
    await others_make(other, here, b"more of others")
    assert [shown(here, one) for one in (folder, ino, moved)] == before


async def test_shown_times_stay_when_the_volume_cannot_be_written_any_more(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    await here.files.sync_all()
    before = shown(here, ino)
    here.files._committer._break(NotMember(member=MemberId(bytes(32))))
    assert shown(here, ino) == before
    with pytest.raises(NotMember):
        await here.files.aclose()


# --- others' changes, while ours wait ---------------------------------------------------------


async def test_who_asks_what_is_new_in_the_moment_of_a_change_does_not_wait_for_its_company(
    where: Place,
) -> None:
    here, other = await where.mount(Options(linger_s=60.0, deadline_s=2.0)), await where.mount()
    size = where.world.store.size
    assert here.files._watching is not None
    await here.files._watching.aclose()
    await other.make(b"theirs")
    await other.files.sync_all()
    await here.volume.sync()
    await here.make(b"mine")  # and the committer has not run since
    await here.files._committer.caught_up(here.volume.view.size - 1)
    assert here.files.lookup(ROOT, b"theirs")
    assert here.files._present.waiting == 1
    assert where.world.store.size == size + 1


async def test_changes_are_run_again_for_others_not_much_more_often_than_once(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.fs.committing.committer._HURRY", 10)
    here, other = await where.mount(SLOW), await where.mount(OPTIONS)
    await here.names()
    for at in range(4):
        await here.make(b"mine%d" % at)
    count = 0
    while here.files._present.waiting:
        await others_make(other, here, b"theirs%d" % count)
        count += 1
        assert count < 5
    assert count >= 2


# --- what was removed here while others kept a name for it -------------------------------------


async def cut_when_removed(here: Mounted, other: Mounted) -> tuple[int, int]:
    """A file of both that one has open, has removed and then cuts; its number and handle."""
    ino = await here.make(b"a")
    await here.write(ino, b"content")
    await other.names()
    handle = await here.files.open(ino, 2)
    await here.files.unlink(ROOT, b"a")
    await here.files.set_attributes(ino, size=3)
    return ino, handle


async def test_who_has_open_what_others_have_renamed_in_time_cuts_the_file_itself(where: Place) -> None:
    here, other = await where.mount(SLOW), await where.mount()
    ino, handle = await cut_when_removed(here, other)
    await other.files.rename(ROOT, b"a", ROOT, b"b")
    await other.files.sync_all()
    assert await here.names() == [b"b"]  # a name was faster than its removal
    assert here.files.inode(ino).links == 1
    await here.files.sync_all()
    here.files.release(handle)
    await other.names()
    assert await other.read(other.files.lookup(ROOT, b"b").inode) == b"con" == await here.read(ino)


async def test_what_was_done_to_what_is_removed_and_closed_fails_for_nobody(
    where: Place, caplog: pytest.LogCaptureFixture
) -> None:
    here, other = await where.mount(SLOW), await where.mount()
    ino = await here.make(b"a")
    await here.files.sync_all()
    handle = await here.files.open(ino, 2)
    await here.files.unlink(ROOT, b"a")
    await here.files.set_attributes(ino, mode=0o600)
    here.files.release(handle)
    here.files.forget(ino)
    await others_make(other, here, b"b")
    await here.files.sync_all()
    assert await here.names() == [b"b"]
    assert not caplog.records


async def test_who_was_overtaken_by_a_rename_cuts_the_file_itself(where: Place) -> None:
    here, log = await beaten(where, SLOW)
    other = await where.mount()
    ino, handle = await cut_when_removed(here, other)

    async def rename(_: int) -> None:
        await other.files.rename(ROOT, b"a", ROOT, b"b")
        await other.files.sync_all()

    log.rival, log.times = rename, 1
    await here.files.sync_all()
    assert log.beaten == 1
    here.files.release(handle)
    assert await here.names() == [b"b"] == await other.names()
    assert await other.read(other.files.lookup(ROOT, b"b").inode) == b"con" == await here.read(ino)
