"""Files that begin without a name: nobody else knows of them until they have one."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator

import pytest
from tests.unit.fs.support import CHUNK, OPTIONS, Mounted, Place, place

from muniment.errors import MunimentError, OperationRejected
from muniment.fs.errnos import errno_of
from muniment.fs.options import Options
from muniment.spec.operation import ROOT, XATTR_BYTES_MAX, Kind


@pytest.fixture
async def where() -> AsyncIterator[Place]:
    async with place() as made:
        yield made


async def made(here: Mounted, flags: int = os.O_RDWR, parent: int = ROOT) -> tuple[int, int]:
    """Handle and number of one, which its maker goes on to know."""
    handle, row = await here.files.make_nameless(parent, 0o666, 1, 2, flags, umask=0o022)
    here.files.know(row.inode)
    return handle, row.inode


@pytest.mark.parametrize("size", [0, 5, 3 * CHUNK + 7])
async def test_it_is_as_any_other_when_it_has_a_name(where: Place, size: int) -> None:
    here, data = await where.mount(), os.urandom(size)
    before = where.world.store.size
    handle, ino = await made(here)
    await here.files.write(handle, 0, data)
    await here.files.set_xattr(ino, b"user.a", b"1")
    await here.files.set_attributes(ino, mode=0o640, uid=7)
    await here.files.fsync(handle)
    await here.files.sync_all()
    assert where.world.store.size == before
    assert (here.files.inode(ino).links, await here.names()) == (0, [])
    row = await here.files.link(ino, ROOT, b"a")
    assert (row.inode, row.links, row.mode, row.uid, row.gid, row.size) == (ino, 1, 0o640, 7, 2, size)
    assert await here.files.read(handle, 0, 1 << 30) == data
    await here.files.flush(handle)
    here.files.release(handle)
    elsewhere = await where.mount()
    other = elsewhere.files.lookup(ROOT, b"a")
    assert (other.mode, other.uid, other.gid, other.size) == (0o640, 7, 2, size)
    assert await elsewhere.read(other.inode) == data
    assert elsewhere.files.xattrs(other.inode) == {b"user.a": b"1"}
    await here.files.link(ino, ROOT, b"b")
    await here.write(ino, b"more", size)
    assert await elsewhere.read(other.inode) == data + b"more"


async def test_others_changes_meanwhile_take_nothing_from_it(where: Place) -> None:
    here, other = await where.mount(), await where.mount()
    slow = await where.mount(Options(linger_s=60.0, strict=False))
    for at, one in enumerate((here, slow)):
        handle, ino = await made(one)
        await one.files.write(handle, 3, b"text")
        await one.files.set_attributes(ino, size=10)
        await one.files.allocate(handle, 3, 4, 1)
        for name in (b"before%d" % at, b"after%d" % at):
            await other.make(name)
            await other.files.sync_all()
            await one.volume.sync()
            await one.names()
            if name.startswith(b"before"):
                await one.files.link(ino, ROOT, b"a%d" % at)
        assert await one.files.read(handle, 0, 20) == bytes(3) + b"t\0xt" + bytes(3)
        await one.files.fsync(handle)
        assert one.files.lookup(ROOT, b"a%d" % at).inode == ino
        one.files.release(handle)
        found = await other.names()
        assert b"a%d" % at in found
        number = other.files.lookup(ROOT, b"a%d" % at).inode
        assert await other.read(number) == bytes(3) + b"t\0xt" + bytes(3)


async def test_a_name_that_is_taken_leaves_it_as_it_was(where: Place) -> None:
    here = await where.mount()
    await here.make(b"a")
    handle, ino = await made(here)
    await here.files.write(handle, 0, b"text")
    with pytest.raises(OperationRejected) as refused:
        await here.files.link(ino, ROOT, b"a")
    assert refused.value.why == "exists"
    assert here.files.inode(ino).links == 0
    await here.files.link(ino, ROOT, b"b")
    await here.files.flush(handle)
    here.files.release(handle)
    assert await here.read(ino) == b"text"


async def test_what_never_has_a_name_is_gone_with_its_handle(where: Place) -> None:
    here = await where.mount()
    before = where.world.store.size
    handle, ino = await made(here, os.O_RDWR | os.O_EXCL)
    await here.files.write(handle, 0, b"text")
    with pytest.raises(MunimentError) as refused:
        await here.files.link(ino, ROOT, b"a")
    assert errno_of(refused.value) == errno.ENOENT
    here.files.release(handle)
    here.files.forget(ino)
    with pytest.raises(OperationRejected):
        here.files.inode(ino)
    await here.files.sync_all()
    assert where.world.store.size == before


async def test_it_begins_with_the_group_of_its_folder_and_only_where_things_can_be_made(where: Place) -> None:
    here = await where.mount()
    row = await here.files.make(ROOT, b"d", Kind.FOLDER, 0o2755, 0, 9)
    handle, ino = await made(here, parent=row.inode)
    assert (here.files.inode(ino).gid, here.files.inode(ino).mode) == (9, 0o644)
    here.files.release(handle)
    await here.files.sync_all()
    past = await where.mount(OPTIONS, at=here.volume.view.size - 1)
    with pytest.raises(MunimentError) as refused:
        await made(past)
    assert errno_of(refused.value) == errno.EROFS


async def test_a_file_with_more_attributes_than_an_entry_can_take_gets_its_name_and_all_of_them(
    where: Place,
) -> None:
    here = await where.mount()
    handle, row = await here.files.make_nameless(ROOT, 0o600, 0, 0, os.O_RDWR)
    here.files.know(row.inode)
    values = {b"user.%d" % at: os.urandom(XATTR_BYTES_MAX) for at in range(70)}
    for name, value in values.items():
        await here.files.set_xattr(row.inode, name, value)
    await here.files.write(handle, 0, b"text")
    await here.files.link(row.inode, ROOT, b"file")
    await here.files.fsync(handle)
    here.files.release(handle)
    elsewhere = await where.mount()
    found = elsewhere.files.lookup(ROOT, b"file").inode
    assert elsewhere.files.xattrs(found) == values
    assert await elsewhere.read(found) == b"text"
