"""A mount whose entries are beaten to their place again and again: that is nobody's error."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from tests.unit.fs.support import OPTIONS, Mounted, Place, place
from tests.unit.volume.support import folder, transaction

from muniment.core.fold import Why
from muniment.engine.volume import Volume
from muniment.errors import DeadlineExceeded, OperationRejected, Overtaken
from muniment.fs.errnos import errno_of
from muniment.fs.options import Options
from muniment.ports import Appended, LogClient
from muniment.spec.act import Role
from muniment.spec.operation import ROOT, Kind
from muniment.testing.lying_log import SwitchedLog

TIMES = 20
"""More than a commit tries."""


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committing.committer._OVERTAKEN_S", 0.05)
    async with place() as made:
        yield made


class BeatenLog(SwitchedLog):
    """A log service at which somebody else comes first, `times` times in a row."""

    def __init__(self, inner: LogClient) -> None:
        super().__init__(inner)
        self.times = self.beaten = 0
        self.rival: Callable[[int], Awaitable[object]] | None = None

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        if self.rival is not None and self.beaten < self.times:
            self.beaten += 1
            await self.rival(self.beaten - 1)
        return await super().append(signed)


async def beaten(where: Place, options: Options = OPTIONS) -> tuple[Mounted, BeatenLog]:
    """A mount that is beaten as soon as it has a rival."""
    plain = where.world.log
    where.world.log = log = BeatenLog(plain)
    here = await where.mount(options)
    where.world.log = plain
    return here, log


async def makes(volume: Volume, name: bytes) -> None:
    """Somebody else makes a folder."""
    await volume.commit(lambda _: transaction(folder(name)))


async def test_who_is_beaten_many_times_goes_on_and_only_what_is_forbidden_is_told(where: Place) -> None:
    here, log = await beaten(where, Options(linger_s=0.0, deadline_s=10.0, strict=False))
    bert = await where.world.join("bert", Role.WRITER, await where.world.member("anna"))
    log.rival, log.times = lambda at: makes(bert, b"%03d" % at), TIMES
    handles = []
    for at in range(TIMES + 1):
        ino = await here.make(b"%03d" % at, kind=Kind.FOLDER)
        handles.append(await here.files.open_folder(ino))
    for at, handle in enumerate(handles):
        if at < TIMES:
            with pytest.raises(OperationRejected) as told:
                await here.files.fsync(handle)
            assert told.value.why == Why.EXISTS
            assert errno_of(told.value) == errno.EEXIST
        else:
            await here.files.fsync(handle)
        here.files.release(handle)
    assert log.beaten == TIMES
    assert await (await where.mount()).names() == [b"%03d" % at for at in range(TIMES + 1)]
    await here.make(b"later")  # nothing is broken
    await here.files.sync_all()


async def test_another_mount_of_the_same_member_that_is_always_faster_forbids_nothing(where: Place) -> None:
    here, log = await beaten(where)
    other = await where.world.member("anna")
    log.rival, log.times = lambda at: makes(other, b"of the other %03d" % at), TIMES
    await here.write(await here.make(b"mine"), b"text")
    assert log.beaten == TIMES
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"mine").inode) == b"text"


async def test_who_waits_is_told_at_his_deadline_that_others_were_faster(where: Place) -> None:
    here, log = await beaten(where, Options(linger_s=0.0, deadline_s=0.3))
    other = await where.world.member("anna")
    log.rival, log.times = lambda at: makes(other, b"%06d" % at), 1 << 20
    await here.make(b"mine")
    with pytest.raises(DeadlineExceeded) as told:
        await here.files.sync_all()
    assert isinstance(told.value.__cause__, Overtaken)
    log.times = 0
    await here.files.sync_all()
    assert b"mine" in await (await where.mount()).names()
