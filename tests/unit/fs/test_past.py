"""The folder `.muniment`: past states and versions, looked at in place."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable

import pytest
from tests.unit.fs.support import CHUNK, Mounted, Place, place

from muniment.errors import FileRefused, MunimentError, OperationRejected
from muniment.fs.errnos import errno_of
from muniment.fs.names import past
from muniment.spec.operation import ROOT, Kind


@pytest.fixture
async def where() -> AsyncIterator[Place]:
    async with place() as made:
        yield made


def led(here: Mounted, path: str) -> int:
    """What a path leads to, which the caller goes on to know."""
    ino = ROOT
    for part in path.split("/"):
        ino = here.files.lookup(ino, part.encode()).inode
    here.files.know(ino)
    return ino


async def saved(here: Mounted) -> int:
    """Bring everything into the log; the entry that it ends with."""
    await here.files.sync_all()
    return here.volume.view.size - 1


async def test_any_state_is_a_tree_by_its_entry(where: Place) -> None:
    here, old = await where.mount(), os.urandom(CHUNK + 9)
    folder = await here.make(b"d", kind=Kind.FOLDER, mode=0o750)
    ino = await here.make(b"a", parent=folder)
    await here.write(ino, old)
    await here.files.set_xattr(ino, b"user.x", b"1")
    await here.files.make(folder, b"s", Kind.SYMLINK, 0o777, 0, 0, target=b"a")
    then = await saved(here)
    await here.write(ino, b"new")
    await here.files.unlink(folder, b"s")
    await here.files.rename(ROOT, b"d", ROOT, b"e")
    now = await saved(here)
    top = led(here, f".muniment/at/{then}")
    assert await here.names(top) == [b"d"]
    assert await here.names(led(here, f".muniment/at/{then}/d")) == [b"a", b"s"]
    file = led(here, f".muniment/at/{then}/d/a")
    assert await here.read(file) == old
    assert here.files.xattrs(file) == {b"user.x": b"1"}
    assert here.files.readlink(led(here, f".muniment/at/{then}/d/s")) == b"a"
    assert here.files.inode(led(here, f".muniment/at/{then}/d")).mode == 0o750
    assert (await here.read(led(here, f".muniment/at/{now}/e/a")))[:3] == b"new"
    assert here.files.lookup(top, b"..").inode == led(here, ".muniment/at")
    assert here.files.lookup(led(here, f".muniment/at/{then}/d"), b"..").inode == top


async def test_snapshots_are_listed_and_times_are_looked_up(where: Place) -> None:
    here = await where.mount()
    await here.make(b"a")
    await saved(here)
    await here.outside().snapshot(b"then")
    await here.files.unlink(ROOT, b"a")
    await saved(here)
    assert await here.names(led(here, ".muniment/at")) == [b"then"]
    assert await here.names(led(here, ".muniment/at/then")) == [b"a"]
    assert await here.names(led(here, ".muniment/at/2999-01-01")) == []
    for nothing in ("999999", "1980-01-01", "nonsense", "then2", "\udcff"):
        with pytest.raises(OperationRejected):
            here.files.lookup(led(here, ".muniment/at"), os.fsencode(nothing))


async def test_each_version_of_a_file_stands_below_its_path(where: Place) -> None:
    here = await where.mount()
    folder = await here.make(b"d", kind=Kind.FOLDER)
    ino = await here.make(b"a", parent=folder, mode=0o640)
    await here.files.make(folder, b"pipe", Kind.FIFO, 0o644, 0, 0)
    for text in (b"first", b"second", b"third"):
        await here.write(ino, text)
    await saved(here)
    assert await here.names(led(here, ".muniment/versions")) == [b"d"]
    assert await here.names(led(here, ".muniment/versions/d")) == [b"a"]
    versions = led(here, ".muniment/versions/d/a")
    assert (here.files.inode(versions).kind, here.files.inode(versions).mode) == (Kind.FOLDER, 0o550)
    names = [name.decode() for name in await here.names(versions)]
    texts = [bytes(await here.read(led(here, f".muniment/versions/d/a/{name}"))) for name in names]
    assert [text for text in texts if text] == [b"first", b"second", b"thirdd"]
    assert here.files.inode(led(here, f".muniment/versions/d/a/{names[-1]}")).mode == 0o640
    again = [led(here, f".muniment/versions/d/a/{name}") for name in names]
    assert again == [led(here, f".muniment/versions/d/a/{name}") for name in names]


async def test_nothing_of_the_past_can_be_changed(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    await here.write(ino, b"old")
    at = await saved(here)
    top, old = led(here, f".muniment/at/{at}"), led(here, f".muniment/at/{at}/a")
    history = led(here, ".muniment")

    async def refused(work: Awaitable[object]) -> str:
        with pytest.raises(MunimentError) as error:
            await work
        return os.strerror(errno_of(error.value))

    readonly = "Read-only file system"
    files, before = here.files, here.volume.view.size
    assert await refused(files.open(old, os.O_RDWR)) == readonly
    assert await refused(files.make(top, b"b", Kind.FILE, 0, 0, 0)) == readonly
    assert await refused(files.create(history, b"b", 0, 0, 0, os.O_RDWR)) == readonly
    assert await refused(files.unlink(top, b"a")) == readonly
    assert await refused(files.rmdir(ROOT, b".muniment")) == readonly
    assert await refused(files.rename(ROOT, b".muniment", ROOT, b"x")) == readonly
    assert await refused(files.rename(ROOT, b"a", top, b"x")) == readonly
    assert await refused(files.link(old, ROOT, b"x")) == readonly
    assert await refused(files.set_attributes(old, size=0)) == readonly
    assert await refused(files.set_xattr(old, b"user.x", b"1")) == readonly
    assert await refused(files.make(ROOT, b".muniment", Kind.FILE, 0, 0, 0)) == "File exists"
    await files.sync_all()
    assert here.volume.view.size == before
    assert (bytes(await here.read(old)), await here.names()) == (b"old", [b"a"])


async def test_open_files_of_the_past_outlive_what_others_change(where: Place) -> None:
    here, other = await where.mount(), await where.mount()
    ino = await here.make(b"a")
    await here.write(ino, b"old")
    old = led(here, f".muniment/at/{await saved(here)}/a")
    handle = await here.files.open(old, os.O_RDONLY)
    await other.names()
    await other.files.unlink(ROOT, b"a")
    await other.make(b"b")
    await saved(other)
    assert await here.names() == [b"b"]
    assert await here.files.read(handle, 0, 10) == b"old"
    here.files.release(handle)
    here.files.forget(old)


async def test_a_name_that_the_volume_has_itself_is_not_hidden(where: Place) -> None:
    here = await where.mount()
    await here.make(b"other", kind=Kind.FOLDER)
    await saved(here)
    await here.outside().move(b"other", b".muniment")
    assert await here.names() == [b".muniment"]
    with pytest.raises(OperationRejected):
        led(here, ".muniment/at")


async def test_a_state_that_somebody_knows_stays_and_another_gives_its_range_up(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "_RANGES", past._STATES + 3)  # instead of a thousand entries
    here = await where.mount()
    for number in range(6):
        await here.files.set_attributes(ROOT, mode=0o700 + number)
        await saved(here)
    newest = here.volume.view.size - 1
    known = [led(here, f".muniment/at/{newest - back}") for back in range(3)]
    for ino in known:
        await here.names(ino)
    other = led(here, f".muniment/at/{newest - 3}")
    with pytest.raises(FileRefused):
        await here.names(other)
    here.files.forget(known[1])
    assert await here.names(other) == []
    modes = [here.files.inode(ino).mode for ino in (known[0], other, known[2])]
    assert modes == [0o705, 0o702, 0o703]


async def test_many_snapshots_are_listed_and_each_leads_to_its_own_state(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "_RANGES", past._STATES + 2)  # instead of a thousand snapshots
    here = await where.mount()
    wanted = [b"%d" % at for at in range(6)]
    for name in wanted:
        here.files.forget(await here.make(name))
        await saved(here)
        await here.outside().snapshot(b"after-" + name)
    await here.files.sync_all()
    handle = await here.files.open_folder(led(here, ".muniment/at"))
    found = {}
    for one in here.files.names(handle):  # with their attributes, as a kernel lists them
        row = here.files.find(one.inode)
        assert row is not None
        here.files.know(row.inode)
        found[one.name] = row.inode
    here.files.release(handle)
    for at, name in enumerate(wanted):
        ino = found[b"after-" + name]
        assert here.files.lookup(led(here, ".muniment/at"), b"after-" + name).inode == ino
        assert await here.names(ino) == wanted[: at + 1]
        here.files.forget(ino)
