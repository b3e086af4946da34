"""The file system while the log service or the grid fails: nothing twice, nothing lost, no call for ever."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from tests.unit.fs.support import CHUNK, Place, place

from muniment.errors import DeadlineExceeded, MunimentError
from muniment.fs.errnos import errno_of
from muniment.fs.options import Options
from muniment.ports import Appended, LogClient
from muniment.spec.operation import ROOT, Kind
from muniment.testing.lying_log import SwitchedLog


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    # Patience is counted in tries: these tests need not wait between them.
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committing.committer._PAUSES_S", (0.01,))
    async with place() as made:
        yield made


async def repeated(call: Callable[[], Awaitable[object]]) -> None:
    """As a program does that is told of a deadline and tries again; there is an end to that too."""
    async with asyncio.timeout(20):
        while True:
            try:
                await call()
                return
            except DeadlineExceeded:
                continue


@pytest.mark.parametrize("answers", [5, 6, 17])
async def test_a_batch_whose_answers_are_all_lost_is_found_in_the_log(where: Place, answers: int) -> None:
    where.world.log = log = SwitchedLog(where.world.log)
    here = await where.mount()
    size = where.world.store.size
    log.lost_answers = answers  # more than a commit is patient for, once or several times
    folder = await here.make(b"d", kind=Kind.FOLDER)
    ino = await here.make(b"a", parent=folder)
    await here.write(ino, b"content")
    await here.files.rename(folder, b"a", ROOT, b"b")
    handle = await here.files.open(ino, 2)
    await here.files.fsync(handle)  # is told of no conflict
    here.files.release(handle)
    assert not log.lost_answers
    assert where.world.store.size - size <= 4
    elsewhere = await where.mount()
    assert await elsewhere.names() == [b"b", b"d"]
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"b").inode) == b"content"
    assert await here.read(ino) == b"content"


@pytest.mark.parametrize("answers", [1, 6, 17])
async def test_what_others_change_is_seen_once_an_entry_whose_answers_were_lost_is_found(
    where: Place, answers: int
) -> None:
    plain = where.world.log
    where.world.log = log = SwitchedLog(plain)
    here = await where.mount()
    where.world.log = plain
    other = await where.mount()
    folder = await here.make(b"d", kind=Kind.FOLDER)
    await here.files.sync_all()
    log.lost_answers = answers
    ino = await here.make(b"mine", folder)
    before = [here.files.inode(one)[5:8] for one in (folder, ino)]
    saved = asyncio.create_task(here.files.sync_all())
    while log.lost_answers == answers:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    await other.make(b"theirs")
    await other.files.sync_all()
    looked = asyncio.create_task(here.names())
    await here.make(b"later")
    await saved
    await looked
    await here.files.sync_all()
    assert not log.lost_answers
    assert await here.names() == [b"d", b"later", b"theirs"] == await other.names()
    assert [here.files.inode(one)[5:8] for one in (folder, ino)] == before
    there = await other.outside().find(b"d/mine")
    assert there.size == 0


async def test_who_waits_is_told_at_his_deadline_and_it_is_committed_later(where: Place) -> None:
    where.world.log = log = SwitchedLog(where.world.log)
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.2))
    log.lost_answers = 1_000_000
    ino = await here.make(b"a")
    handle = await here.files.open(ino, 2)
    await here.files.write(handle, 0, b"text")
    with pytest.raises(DeadlineExceeded):
        await here.files.fsync(handle)
    assert await here.files.read(handle, 0, 10) == b"text"
    log.lost_answers = 0
    await repeated(lambda: here.files.fsync(handle))
    here.files.release(handle)
    assert await (await where.mount()).names() == [b"a"]


class Silent(SwitchedLog):
    """Answers nothing while it is `stopped`."""

    def __init__(self, inner: LogClient) -> None:
        super().__init__(inner)
        self.stopped, self.awake = False, asyncio.Event()

    async def _answers(self) -> None:
        if self.stopped:
            await self.awake.wait()

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        await self._answers()
        return await super().append(signed)

    async def checkpoint(self) -> bytes:
        await self._answers()
        return await super().checkpoint()


async def test_nobody_waits_longer_than_the_deadline_for_a_log_that_says_nothing(where: Place) -> None:
    where.world.log = log = Silent(where.world.log)
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.1))
    ino = await here.make(b"a")
    handle = await here.files.open(ino, os.O_RDWR)
    await here.files.write(handle, 0, b"text")
    await repeated(lambda: here.files.fsync(handle))
    log.stopped = True
    assert await here.read(ino) == b"text"
    await here.make(b"b")
    with pytest.raises(DeadlineExceeded):
        await here.files.fsync(await here.files.open_folder(ROOT))
    log.stopped = False
    log.awake.set()
    await repeated(here.files.sync_all)
    assert await (await where.mount()).names() == [b"a", b"b"]


async def test_reads_and_syncs_end_in_time_while_nodes_say_nothing(where: Place) -> None:
    data = os.urandom(CHUNK)
    first = await where.mount()
    await first.write(await first.make(b"a"), data)
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.2))
    ino, gate = here.files.lookup(ROOT, b"a").inode, asyncio.Event()
    for node in where.fake.nodes:
        node.faults.gate = gate
    with pytest.raises(DeadlineExceeded, match="read"):
        await here.read(ino)
    handle, _ = await here.files.create(ROOT, b"b", 0o644, 0, 0, os.O_RDWR)
    await here.files.write(handle, 0, data[::-1])
    with pytest.raises(DeadlineExceeded, match="sync"):
        await here.files.fsync(handle)
    assert await here.files.read(handle, 0, CHUNK) == data[::-1]
    gate.set()
    await repeated(lambda: here.read(ino))
    await repeated(lambda: here.files.fsync(handle))  # goes on where it was
    assert await here.read(ino) == data
    here.files.release(handle)
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"b").inode) == data[::-1]


async def test_too_few_nodes_are_told_by_number_and_what_was_written_is_kept(where: Place) -> None:
    data = os.urandom(CHUNK)
    first = await where.mount()
    await first.write(await first.make(b"a"), data)
    here = await where.mount()
    ino = here.files.lookup(ROOT, b"a").inode
    nodes = where.fake.nodes
    for node in nodes[:3]:
        node.faults.down = "no power"
    with pytest.raises(MunimentError) as unread:
        await here.read(ino)
    assert errno_of(unread.value) == errno.EIO
    handle, _ = await here.files.create(ROOT, b"b", 0o644, 0, 0, os.O_RDWR)
    await here.files.write(handle, 0, data[::-1])
    with pytest.raises(MunimentError) as unsaved:
        await here.files.fsync(handle)
    assert errno_of(unsaved.value) == errno.ENOSPC
    for node in nodes:
        node.faults.down = None
    await here.files.fsync(handle)
    here.files.release(handle)
    assert await here.read(ino) == data
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"b").inode) == data[::-1]
