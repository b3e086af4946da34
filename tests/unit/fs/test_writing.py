"""Writers that wait, race, give up and fail: nothing is lost, and nobody is held up for ever."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.unit.fs.support import CHUNK, Mounted, Place, place
from tests.unit.fs.test_faults import Silent

from muniment.errors import DeadlineExceeded, MunimentError
from muniment.fs.errnos import errno_of
from muniment.fs.options import Options
from muniment.spec.operation import ROOT, Kind

NARROW = Options(linger_s=0.0, deadline_s=2.0, dirty_bytes=2 * CHUNK)
"""Room for two chunks."""

Undo = Callable[[Mounted, int, int], Awaitable[None]]


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committing.committer._PAUSES_S", (0.01,))
    monkeypatch.setattr("muniment.fs.content.dirty._AGAIN_S", 0.01)
    async with place() as made:
        yield made


def nodes_are(where: Place, down: str | None) -> None:
    for node in where.fake.nodes:
        node.faults.down = down


async def opened(here: Mounted, name: bytes, flags: int = os.O_RDWR) -> tuple[int, int]:
    """Number and handle of a new file."""
    ino = await here.make(name)
    return ino, await here.files.open(ino, flags)


async def truncated(here: Mounted, ino: int, handle: int) -> None:
    await here.files.set_attributes(ino, size=0)


async def removed(here: Mounted, ino: int, handle: int) -> None:
    """Nothing more than what is done to all at last."""


async def replaced(here: Mounted, ino: int, handle: int) -> None:
    await here.files.write(handle, 0, bytes(CHUNK))


@pytest.mark.parametrize("undo", [truncated, removed, replaced])
async def test_what_could_not_be_stored_and_counts_no_more_takes_no_room(where: Place, undo: Undo) -> None:
    here = await where.mount(NARROW)
    nodes_are(where, "no power")
    for _ in range(4):
        ino, handle = await opened(here, b"file")
        await here.files.write(handle, 0, os.urandom(CHUNK))
        with pytest.raises(MunimentError):
            await here.files.fsync(handle)
        await undo(here, ino, handle)
        await here.files.unlink(ROOT, b"file")
        here.files.release(handle)
        here.files.forget(ino)
    nodes_are(where, None)
    await here.write(await here.make(b"other"), data := os.urandom(3 * CHUNK))
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"other").inode) == data


async def test_who_waits_for_room_is_told_why_there_is_none_and_the_log_once(
    where: Place, caplog: pytest.LogCaptureFixture
) -> None:
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.2, dirty_bytes=2 * CHUNK))
    nodes_are(where, "no power")
    _, handle = await opened(here, b"file")
    await here.files.write(handle, 0, bytes(2 * CHUNK))
    with pytest.raises(MunimentError) as told:
        await here.files.write(handle, 2 * CHUNK, b"more")
    assert errno_of(told.value) == errno.ENOSPC
    assert len(caplog.records) == 1
    nodes_are(where, None)
    await here.files.write(handle, 2 * CHUNK, b"more")
    await here.files.fsync(handle)
    here.files.release(handle)


async def test_who_appends_while_others_wait_for_room_overwrites_nothing(where: Place) -> None:
    here = await where.mount(NARROW)
    ino, first = await opened(here, b"log", os.O_WRONLY | os.O_APPEND)
    handles = [first, await here.files.open(ino, os.O_WRONLY | os.O_APPEND)]
    gate = asyncio.Event()
    for node in where.fake.nodes:
        node.faults.gate = gate
    await here.files.write(first, 0, bytes(2 * CHUNK))
    waiting = [asyncio.create_task(here.files.write(one, 0, b"%d" % one * 100)) for one in handles]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    gate.set()
    await asyncio.gather(*waiting)
    assert here.files.inode(ino).size == 2 * CHUNK + 200
    assert (await here.read(ino))[2 * CHUNK :] == b"%d" % handles[0] * 100 + b"%d" % handles[1] * 100
    for handle in handles:
        here.files.release(handle)


async def test_who_gives_up_on_all_files_breaks_off_nobody_else(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.fs.content.dirty._COMPANY_S", 0.1)
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.2))
    handles = [(await opened(here, b"%d" % at))[1] for at in range(4)]
    for handle in handles[:2]:
        await here.files.write(handle, 0, os.urandom(5000))
    await asyncio.gather(*map(here.files.fsync, handles[:2]))  # from now on small files wait for each other
    gate = asyncio.Event()
    for node in where.fake.nodes:
        node.faults.gate = gate
    await here.files.write(handles[2], 0, os.urandom(5000))
    everything = asyncio.create_task(here.files.sync_all())
    await asyncio.sleep(0.05)
    await here.files.write(handles[3], 0, data := os.urandom(5000))
    other = asyncio.create_task(here.files.fsync(handles[3]))  # into the same blob
    for task in (everything, other):
        with pytest.raises(DeadlineExceeded):
            await task
    gate.set()
    await here.files.fsync(handles[3])
    assert not where.fake.calls()["release"]  # what was on its way went on
    assert await here.read(here.files.lookup(ROOT, b"3").inode) == data
    for handle in handles:
        here.files.release(handle)


async def test_a_close_waits_for_what_was_written_while_another_was_under_way(where: Place) -> None:
    plain = where.world.log
    where.world.log = log = Silent(plain)
    here = await where.mount(Options(linger_s=0.0, deadline_s=10.0, strict=False))
    where.world.log = plain
    _, handle = await opened(here, b"file")  # which two processes have, one by a fork of the other
    await here.files.sync_all()
    await here.files.write(handle, 0, b"first")
    log.stopped = True
    closing = [asyncio.create_task(here.files.flush(handle)) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in closing)
    await here.files.write(handle, 5, b" second")
    log.stopped = False
    log.awake.set()
    await asyncio.gather(*closing)
    await here.files.flush(handle)
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"file").inode) == b"first second"
    here.files.release(handle)


async def test_a_file_that_is_written_without_a_pause_is_saved_all_the_same(where: Place) -> None:
    here = await where.mount(Options(linger_s=0.0, writeback_s=0.05))
    _, handle = await opened(here, b"log", os.O_WRONLY | os.O_APPEND)
    await here.files.sync_all()
    saved = where.world.store.size
    for _ in range(300):
        await here.files.write(handle, 0, b"line\n")
        if where.world.store.size > saved:
            break
        await asyncio.sleep(0.01)
    assert where.world.store.size > saved
    here.files.release(handle)


async def test_a_file_that_is_truncated_while_its_save_waits_for_a_place_is_saved_as_it_is(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = where.world.log
    where.world.log = log = Silent(plain)
    here = await where.mount(Options(linger_s=0.0, deadline_s=10.0, strict=False))
    where.world.log = plain
    ino, handle = await opened(here, b"file")
    await here.files.sync_all()
    await here.files.write(handle, 0, b"text")
    log.stopped = True
    await here.make(b"other")
    monkeypatch.setattr("muniment.fs.committing.committer._QUEUE_MAX", 1)
    truncating = asyncio.create_task(here.files.set_attributes(ino, size=0))
    await asyncio.sleep(0)
    saving = asyncio.create_task(here.files.fsync(handle))
    await asyncio.sleep(0.01)
    log.stopped = False
    log.awake.set()
    await asyncio.gather(truncating, saving)
    assert await here.read(ino) == b""
    here.files.release(handle)


async def test_what_is_no_file_is_not_opened(where: Place) -> None:
    here = await where.mount()
    await here.files.make(ROOT, b"link", Kind.SYMLINK, 0o777, 0, 0, target=b"file")
    await here.make(b"pipe", kind=Kind.FIFO)
    for name, number in ((b"link", errno.ELOOP), (b"pipe", errno.EINVAL)):
        for opening in (
            here.files.open(here.files.lookup(ROOT, name).inode, os.O_RDONLY),
            here.files.create(ROOT, name, 0o644, 0, 0, os.O_RDWR),
        ):
            with pytest.raises(MunimentError) as told:
                await opening
            assert errno_of(told.value) == number


async def test_who_creates_what_others_have_made_before_opens_it(where: Place) -> None:
    one, other = await where.mount(), await where.mount()
    await one.write(await one.make(b"log"), b"first ")
    handle, row = await other.files.create(ROOT, b"log", 0o644, 0, 0, os.O_WRONLY | os.O_APPEND)
    assert row.size == 6
    await other.files.write(handle, 0, b"second")
    await other.files.flush(handle)
    other.files.release(handle)
    assert await one.read(one.files.lookup(ROOT, b"log").inode) == b"first second"


async def test_of_two_who_make_the_same_name_the_second_is_told_that_it_exists(where: Place) -> None:
    one, other = await where.mount(), await where.mount(Options(linger_s=60.0, deadline_s=10.0))
    flags = os.O_RDWR | os.O_EXCL
    (first, _), (second, _) = [
        await here.files.create(ROOT, b"a", 0o644, 0, 0, flags) for here in (one, other)
    ]
    await one.files.fsync(first)
    await other.files.write(second, 0, b"text")
    with pytest.raises(MunimentError) as told:
        await other.files.flush(second)
    assert errno_of(told.value) == errno.EEXIST
    one.files.release(first)
    other.files.release(second)


async def test_who_creates_a_file_to_read_it_cannot_write_it(where: Place) -> None:
    here = await where.mount()
    handle, _ = await here.files.create(ROOT, b"file", 0o644, 0, 0, os.O_RDONLY)
    with pytest.raises(MunimentError) as told:
        await here.files.write(handle, 0, b"text")
    assert errno_of(told.value) == errno.EBADF
    here.files.release(handle)


async def test_a_mode_that_is_set_while_a_file_is_truncated_stays(where: Place) -> None:
    here = await where.mount(Options(linger_s=0.0, sync=True, strict=False))
    ino = await here.make(b"file", mode=0o6755)
    opening = asyncio.create_task(here.files.open(ino, os.O_WRONLY | os.O_TRUNC, takes_setid=True))
    await asyncio.sleep(0)
    await here.files.set_attributes(ino, mode=0o600)
    here.files.release(await opening)
    assert here.files.inode(ino).mode == 0o600
