"""What is committed together: as much as an entry takes, and never so much that nothing of it gets in."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.unit.fs.support import Place, place
from tests.unit.fs.test_races import beaten, makes

from muniment.core.fold import Why
from muniment.core.tree_state import TreeReading
from muniment.errors import (
    DeadlineExceeded,
    DiskFull,
    InvalidRequest,
    MunimentError,
    OperationRejected,
    ProtocolViolation,
    StoreFailed,
)
from muniment.fs.committing.changes import Change
from muniment.fs.errnos import errno_of
from muniment.fs.options import Options
from muniment.ports import Appended, LogClient
from muniment.spec.canonical import dump
from muniment.spec.operation import (
    NAME_BYTES_MAX,
    ROOT,
    XATTR_BYTES_MAX,
    Extent,
    Kind,
    Make,
    Operation,
    Rename,
    SetXattr,
    Write,
    pack_operation,
)
from muniment.testing.lying_log import SwitchedLog

SLOW = Options(linger_s=60.0, deadline_s=10.0, strict=False)
"""Nothing is committed before somebody asks for it."""


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committing.committer._PAUSES_S", (0.01,))
    async with place() as made:
        yield made


class PoorLog(SwitchedLog):
    """A log service that cannot do what is asked of it.

    Attributes:
        error: what comes of each call of `append` while it is not None.
        asked: how often it was called.
    """

    def __init__(self, inner: LogClient) -> None:
        super().__init__(inner)
        self.error: Exception | None = None
        self.asked = 0

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return await super().append(signed)


LONG = NAME_BYTES_MAX * b"n"
BIG = 1 << 52


@pytest.mark.parametrize(
    "operation",
    [
        Make(BIG, LONG, Kind.FILE, 0o7777, 0, 1 << 31, 1 << 62, 1 << 63, (), 1 << 62, ((LONG, LONG),)),
        Rename(BIG, LONG, BIG, BIG, LONG, BIG),
        SetXattr(BIG, LONG, bytes(XATTR_BYTES_MAX)),
        Write(BIG, None, tuple(Extent(BIG + 9 * at, 5, b"12345") for at in range(300))),
        Write(BIG, None, tuple(Extent(BIG + (at << 32), 1 << 31, 4095, 1 << 24) for at in range(300))),
    ],
)
def test_a_change_takes_no_more_than_it_says(operation: Operation) -> None:
    assert len(dump(pack_operation(operation))) <= Change(1, operation, (), 0).size_bytes


async def test_many_pieces_of_many_files_go_into_several_entries(where: Place) -> None:
    here = await where.mount(SLOW)
    size, present = where.world.store.size, here.files._present
    holes = tuple(Extent(at, 1, None) for at in range(4096))
    for at in range(33):  # together more pieces than a transaction may have
        present.apply(Write(await here.make(b"%d" % at), None, holes), 0)
    await here.files.sync_all()
    assert where.world.store.size == size + 2
    assert here.files.inode(here.files.lookup(ROOT, b"32").inode).size == 4096


async def test_what_others_change_is_seen_while_changes_wait_for_company(where: Place) -> None:
    here = await where.mount(Options(linger_s=60.0, deadline_s=10.0))
    other = await where.mount()
    for turn in range(3):
        size = where.world.store.size
        ino = await here.make(b"mine%d" % turn)
        await other.make(b"theirs%d" % turn)
        await other.files.sync_all()
        assert b"theirs%d" % turn in await here.names()
        await here.write(ino, b"content")  # it is opened too, and what is new asked for again
        assert where.world.store.size == size + 2


async def test_what_does_not_get_smaller_goes_into_several_entries(where: Place) -> None:
    here = await where.mount(SLOW)
    size = where.world.store.size
    ino = await here.make(b"file")
    values = {b"user." + os.urandom(125).hex().encode(): os.urandom(XATTR_BYTES_MAX) for _ in range(65)}
    for name, value in values.items():
        await here.files.set_xattr(ino, name, value)
    await here.files.sync_all()
    assert where.world.store.size == size + 2
    elsewhere = await where.mount()
    assert elsewhere.files.xattrs(elsewhere.files.lookup(ROOT, b"file").inode) == values


async def test_what_the_log_cannot_take_as_one_is_divided_and_only_what_it_cannot_take_alone_fails(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await where.mount(SLOW)
    monkeypatch.setattr("muniment.crypto.entries.ENTRY_BYTES_MAX", 20_000)
    made = [await here.make(b"%d" % at) for at in range(8)]
    for ino in made:
        await here.files.set_xattr(ino, b"user.some", os.urandom(6_000))
    await here.files.set_xattr(made[5], b"user.much", os.urandom(30_000))
    await here.files.sync_all()
    handle = await here.files.open(made[5], os.O_RDONLY)
    with pytest.raises(InvalidRequest) as told:
        await here.files.fsync(handle)
    assert errno_of(told.value) == errno.EINVAL
    await here.files.fsync(handle)  # it is told once
    here.files.release(handle)
    elsewhere = await where.mount()
    found = [elsewhere.files.lookup(ROOT, b"%d" % at).inode for at in range(8)]
    assert [list(elsewhere.files.xattrs(ino)) for ino in found] == [[b"user.some"]] * 8
    assert list(here.files.xattrs(made[5])) == [b"user.some"]


async def test_who_has_open_what_the_log_cannot_take_goes_on_with_it(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await where.mount(SLOW)
    ino, folder = await here.make(b"file"), await here.files.open_folder(ROOT)
    handle = await here.files.open(ino, os.O_RDWR)
    with monkeypatch.context() as patched:
        patched.setattr("muniment.crypto.entries.ENTRY_BYTES_MAX", 10)
        with pytest.raises(InvalidRequest):
            await here.files.fsync(folder)
    assert await here.names() == []
    await here.files.write(handle, 0, b"text")
    assert await here.files.read(handle, 0, 9) == b"text"
    assert here.files.inode(ino).links == 0
    here.files.release(handle)
    await here.files.sync_all()


@pytest.mark.parametrize(
    "error",
    [
        DiskFull(where="here"),
        OSError(errno.EIO, "bad block"),
        InvalidRequest(reason="says a proxy"),
        ProtocolViolation(node=b"", reason="nonsense"),
        ZeroDivisionError(),
    ],
)
async def test_what_goes_wrong_on_the_way_is_tried_again_and_nothing_is_given_up(
    where: Place, error: Exception
) -> None:
    plain = where.world.log
    where.world.log = log = PoorLog(plain)
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.1, strict=False))
    where.world.log = plain
    log.error = error
    await here.make(b"file")
    with pytest.raises(MunimentError):
        await here.files.sync_all()
    assert log.asked > 1
    log.error = None
    await here.files.sync_all()
    assert await (await where.mount()).names() == [b"file"]


async def test_what_becomes_impossible_while_an_entry_is_ordered_is_told_at_once(where: Place) -> None:
    here, log = await beaten(where, Options(linger_s=0.0, deadline_s=10.0, strict=False))
    other = await where.world.member("anna")
    later: list[int] = []

    async def rival(_: int) -> None:
        await makes(other, b"same")
        later.append(await here.make(b"same"))  # waits for the entry that is being ordered

    log.rival, log.times = rival, 1
    folder = await here.files.open_folder(ROOT)
    await here.make(b"first")
    with pytest.raises(OperationRejected) as told:
        await asyncio.wait_for(here.files.fsync(folder), 5)
    assert told.value.why == Why.EXISTS
    assert later
    assert await (await where.mount()).names() == [b"first", b"same"]


class Damaged:
    """A state that cannot be read while it is `bad`."""

    bad = False

    def __init__(self, state: TreeReading) -> None:
        self._state = state

    def __getattr__(self, name: str) -> object:
        if self.bad:
            raise StoreFailed(where="view", reason="bad block")
        return getattr(self._state, name)


async def test_a_state_that_cannot_be_read_for_a_moment_costs_no_change_that_waits(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, log = await beaten(where, Options(linger_s=0.0, deadline_s=0.3, strict=False))
    other, state = await where.world.member("anna"), here.files._store.state
    monkeypatch.setattr(here.files._store, "state", lambda at: Damaged(state(at)))

    async def rival(_: int) -> None:
        await makes(other, b"others")
        await here.make(b"waits")  # for the entry that is being ordered
        while not here.files._committer._is_waited_for:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        monkeypatch.setattr(Damaged, "bad", True)

    log.rival, log.times = rival, 1
    await here.make(b"first")
    with pytest.raises(DeadlineExceeded):
        await here.files.sync_all()
    monkeypatch.setattr(Damaged, "bad", False)
    await here.files.sync_all()
    assert await (await where.mount()).names() == [b"first", b"others", b"waits"]
