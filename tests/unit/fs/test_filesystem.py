"""The file system over a volume and a grid in memory: names, content, handles, and what others see of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from tests.unit.fs.support import CHUNK, OPTIONS, Place, place

from muniment.errors import FileRefused, MunimentError, OperationRejected
from muniment.fs.errnos import errno_of
from muniment.fs.names.numbers import LOCAL_FIRST
from muniment.fs.options import Options
from muniment.spec.operation import ROOT, Kind


@pytest.fixture
async def where() -> AsyncIterator[Place]:
    async with place() as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 2048, 2049, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
async def test_a_file_is_read_as_it_was_written_here_and_elsewhere(where: Place, size: int) -> None:
    here, data = await where.mount(), os.urandom(size)
    ino = await here.make(b"a")
    await here.write(ino, data)
    assert await here.read(ino) == data
    assert here.files.inode(ino).size == size
    elsewhere = await where.mount()
    other = elsewhere.files.lookup(ROOT, b"a").inode
    assert await elsewhere.read(other) == data


async def test_what_was_written_is_seen_before_it_is_saved(where: Place) -> None:
    here = await where.mount(Options(linger_s=60.0))
    ino = await here.make(b"a")
    handle = await here.files.open(ino, os.O_RDWR)
    await here.files.write(handle, 10, b"later")
    assert await here.files.read(handle, 0, 100) == bytes(10) + b"later"
    assert here.files.inode(ino).size == 15
    here.files.release(handle)


async def test_pieces_over_chunks_truncation_and_holes(where: Place) -> None:
    here = await where.mount()
    ino, model = await here.make(b"a"), bytearray(4 * CHUNK)
    for offset, size in [(0, 2 * CHUNK), (CHUNK // 2, 10), (3 * CHUNK, CHUNK), (CHUNK - 5, 10), (0, 3)]:
        data = os.urandom(size)
        model[offset : offset + size] = data
        await here.write(ino, data, offset)
        assert await here.read(ino) == bytes(model[: here.files.inode(ino).size])
    await here.files.set_attributes(ino, size=CHUNK + 3)
    await here.files.set_attributes(ino, size=2 * CHUNK)
    model[CHUNK + 3 :] = bytes(3 * CHUNK - 3)
    assert await here.read(ino) == bytes(model[: 2 * CHUNK])
    await here.files.sync_all()
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"a").inode) == bytes(model[: 2 * CHUNK])


async def test_truncation_forgets_what_was_written_and_not_saved(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    handle = await here.files.open(ino, os.O_RDWR)
    await here.files.write(handle, 0, os.urandom(CHUNK + 100))
    await here.files.set_attributes(ino, size=0)
    await here.files.write(handle, 4, b"new")
    await here.files.fsync(handle)
    here.files.release(handle)
    assert await here.read(ino) == bytes(4) + b"new"


async def test_an_unlinked_file_lives_on_in_its_handles(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    await here.write(ino, b"old content")
    handle = await here.files.open(ino, os.O_RDWR)
    await here.files.unlink(ROOT, b"a")
    await here.files.write(handle, 0, b"new")
    await here.files.set_attributes(ino, mode=0o600)
    await here.files.sync_all()
    await here.make(b"b")
    await here.files.sync_all()
    assert await here.files.read(handle, 0, 100) == b"new content"
    assert (here.files.inode(ino).links, here.files.inode(ino).mode) == (0, 0o600)
    await here.files.fsync(handle)
    here.files.release(handle)
    here.files.forget(ino)
    await here.make(b"c")
    await here.files.sync_all()
    with pytest.raises(OperationRejected):
        here.files.inode(ino)
    assert await here.names() == [b"b", b"c"]


async def test_many_changes_share_few_entries_and_others_see_them_all(where: Place) -> None:
    here = await where.mount(Options(linger_s=0.05))
    before = where.world.store.size
    folder = await here.make(b"d", kind=Kind.FOLDER, mode=0o755)
    for number in range(200):
        await here.make(b"f%03d" % number, parent=folder)
    await here.files.sync_all()
    assert where.world.store.size - before < 20
    assert await here.names(folder) == [b"f%03d" % number for number in range(200)]
    assert len(await here.outside().listing(b"d")) == 200


async def test_numbers_stay_while_they_are_known(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    for _ in range(3):
        await here.files.sync_all()
        assert here.files.lookup(ROOT, b"a").inode == ino
    await here.files.rename(ROOT, b"a", ROOT, b"b")
    await here.write(ino, b"text")
    assert here.files.lookup(ROOT, b"b").inode == ino
    here.files.forget(ino)
    await here.make(b"c")
    await here.files.sync_all()
    assert here.files.lookup(ROOT, b"b").inode == ino, "a program may remember it still"
    assert await here.read(here.files.lookup(ROOT, b"b").inode) == b"text"


async def test_numbers_are_given_back_long_after_they_were_forgotten(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    await here.files.sync_all()
    for number in (ino, *range(LOCAL_FIRST + 9, LOCAL_FIRST + 9 + (1 << 15) + (1 << 10))):
        here.files.know(number)
        here.files.forget(number, 2 if number == ino else 1)
    for name in (b"b", b"c"):
        await here.make(name)
        await here.files.sync_all()
    row = here.files.lookup(ROOT, b"a")
    assert row.inode < 100
    assert row == (await here.outside().find(b"a"))


async def test_what_one_has_closed_another_reads_when_he_opens_it(where: Place) -> None:
    one, two = await where.mount(), await where.mount()
    ino = await one.make(b"a")
    await one.write(ino, b"first")
    assert await two.names() == [b"a"]
    other = two.files.lookup(ROOT, b"a").inode
    for number in range(5):
        await one.write(ino, b"number %d" % number)
        assert await two.read(other) == b"number %d" % number


async def test_times_that_were_shown_stay_when_others_change_something_else(where: Place) -> None:
    one, two = await where.mount(), await where.mount()
    ino = await one.make(b"a")
    await one.write(ino, b"content")
    await one.files.sync_all()
    shown = one.files.inode(ino)
    assert shown.ctime_ns != (await one.outside().find(b"a")).ctime_ns  # the entry has a time of its own
    await two.make(b"b")
    await two.files.sync_all()
    assert await one.names() == [b"a", b"b"]
    now = one.files.inode(ino)
    assert (now.mtime_ns, now.ctime_ns) == (shown.mtime_ns, shown.ctime_ns)
    await two.files.set_attributes(two.files.lookup(ROOT, b"a").inode, mode=0o600)
    await two.files.sync_all()
    await one.names()
    assert one.files.inode(ino).mode == 0o600
    assert one.files.inode(ino).ctime_ns > shown.ctime_ns


async def test_another_client_was_faster(where: Place) -> None:
    one = await where.mount()
    slow = await where.mount(Options(linger_s=60.0, strict=False, deadline_s=10.0))
    mine = await slow.make(b"same")
    innocent = await slow.make(b"other")
    await one.make(b"same")
    await one.files.sync_all()
    handle = await slow.files.open(mine, os.O_RDONLY)
    with pytest.raises(OperationRejected) as rejected:
        await slow.files.fsync(handle)
    assert rejected.value.why == "exists"
    slow.files.release(handle)
    assert await slow.names() == [b"other", b"same"]
    assert slow.files.inode(innocent).links == 1
    assert slow.files.lookup(ROOT, b"same").inode != mine


async def test_the_past_is_as_it_was_and_cannot_be_changed(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    await here.write(ino, b"old")
    at = here.volume.view.size - 1
    await here.write(ino, b"new")
    await here.files.unlink(ROOT, b"a")
    await here.files.sync_all()
    then = await where.mount(OPTIONS, at)
    assert await then.read(then.files.lookup(ROOT, b"a").inode) == b"old"
    with pytest.raises(FileRefused) as refused:
        await then.make(b"b")
    assert errno_of(refused.value) == 30


async def test_folders_links_attributes_and_their_errors(where: Place) -> None:
    here = await where.mount()
    folder = await here.make(b"d", kind=Kind.FOLDER, mode=0o2755)
    ino = await here.make(b"a", parent=folder)
    assert (await here.files.link(ino, ROOT, b"b")).links == 2
    link = await here.files.make(ROOT, b"s", Kind.SYMLINK, 0o777, 0, 0, target=b"d/a")
    assert here.files.readlink(link.inode) == b"d/a"
    await here.files.set_xattr(ino, b"user.x", b"1")
    assert here.files.xattrs(ino) == {b"user.x": b"1"}
    inner = await here.make(b"e", parent=folder, kind=Kind.FOLDER)
    assert here.files.inode(inner).mode & 0o2000

    async def refused(work: object) -> str:
        with pytest.raises(MunimentError) as error:
            await work  # type: ignore[misc]
        return os.strerror(errno_of(error.value))

    assert await refused(here.files.rmdir(ROOT, b"d")) == "Directory not empty"
    assert await refused(here.files.unlink(ROOT, b"d")) == "Is a directory"
    assert await refused(here.files.rmdir(ROOT, b"b")) == "Not a directory"
    assert await refused(here.files.make(ROOT, b"x" * 256, Kind.FILE, 0, 0, 0)) == "File name too long"
    assert await refused(here.files.make(ROOT, b"b", Kind.FILE, 0, 0, 0)) == "File exists"
    assert await refused(here.files.rename(ROOT, b"d", folder, b"z")) == "Invalid argument"
    assert await refused(here.files.rename(ROOT, b"b", ROOT, b"s", replace=False)) == "File exists"
    assert await refused(here.files.unlink(ROOT, b"nothing")) == "No such file or directory"
    acl = here.files.set_xattr(ino, b"system.posix_acl_access", b"1")
    assert await refused(acl) == "Operation not supported"
    assert await refused(here.files.remove_xattr(ino, b"user.y")) == "No data available"
    await here.files.rename(ROOT, b"b", ROOT, b"s", exchange=True)
    assert here.files.lookup(ROOT, b"s").inode == ino


async def test_dirty_bytes_are_bounded_and_nothing_is_lost(where: Place) -> None:
    here = await where.mount(Options(linger_s=0.0, dirty_bytes=2 * CHUNK))
    ino, data = await here.make(b"a"), os.urandom(20 * CHUNK)
    handle = await here.files.open(ino, os.O_RDWR)
    for offset in range(0, len(data), 5000):
        await here.files.write(handle, offset, data[offset : offset + 5000])
    assert await here.files.read(handle, 0, len(data)) == data
    await here.files.fsync(handle)
    here.files.release(handle)
    assert await here.read(ino) == data


async def test_the_longest_symbolic_link_is_read_as_it_was_made(where: Place) -> None:
    here, target = await where.mount(), b"/".join([b"x" * 255] * 16)[:4095]
    made = await here.files.make(ROOT, b"l", Kind.SYMLINK, 0o777, 0, 0, target=target)
    assert here.files.readlink(made.inode) == target
    await here.files.sync_all()
    assert here.files.readlink(made.inode) == target
    assert await here.outside().target(b"l") == target


@pytest.mark.parametrize(
    ("mode", "takes", "left"),
    [
        (0o6777, True, 0o777),
        (0o6767, True, 0o2767),
        (0o4722, True, 0o722),
        (0o777, True, 0o777),
        (0o6777, False, 0o6777),
    ],
)
async def test_who_truncates_a_file_takes_its_bits_s(
    where: Place, mode: int, left: int, *, takes: bool
) -> None:
    here = await where.mount()
    ino = await here.make(b"a", mode=mode)
    await here.write(ino, b"text")
    here.files.release(await here.files.open(ino, os.O_WRONLY, takes_setid=takes))
    assert here.files.inode(ino).mode == mode
    here.files.release(await here.files.open(ino, os.O_WRONLY | os.O_TRUNC, takes_setid=takes))
    assert (here.files.inode(ino).mode, here.files.inode(ino).size) == (left, 0)
