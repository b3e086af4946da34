"""What a mount remembers of what nobody asks for any more: what is needed still, and not without end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.unit.fs.support import CHUNK, Mounted, Place, place
from tests.unit.fs.test_shared_locks import OPTIONS as SHARED

from muniment.core.lock_ranges import Lock
from muniment.errors import MunimentError
from muniment.fs.options import Options
from muniment.spec.operation import ROOT

DATA = bytes(range(256)) * (CHUNK // 256)


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.fs.names.present._FORGOTTEN_MAX", 3)
    async with place() as made:
        yield made


async def made_and_forgotten(here: Mounted, prefix: bytes, count: int) -> None:
    """Files that are in the volume and that nobody knows by a number."""
    for at in range(count):
        here.files.forget(await here.make(prefix + b"%d" % at))
        await here.files.sync_all()


async def test_what_is_written_and_not_saved_keeps_its_number_however_many_are_forgotten(
    where: Place,
) -> None:
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.5, strict=False))
    ino = await here.make(b"file")
    await here.files.sync_all()
    handle = await here.files.open(ino, 2)
    await here.files.write(handle, 0, DATA)
    for node in where.fake.nodes:
        node.faults.down = "no power"
    with pytest.raises(MunimentError):
        await here.files.fsync(handle)
    here.files.release(handle)
    here.files.forget(ino)
    for at in range(10):
        here.files.forget(await here.make(b"other%d" % at))
        with pytest.raises(MunimentError):
            await here.files.sync_all()
    for node in where.fake.nodes:
        node.faults.down = None
    await here.files.sync_all()
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"file").inode) == DATA


async def test_numbers_of_what_only_was_looked_at_are_not_remembered(where: Place) -> None:
    first = await where.mount()
    await made_and_forgotten(first, b"", 10)
    await first.files.aclose()
    here = await where.mount(at=first.volume.view.size - 1)
    for name in await here.names():
        row = here.files.lookup(ROOT, name)
        here.files.know(row.inode)
        here.files.forget(row.inode)
    assert not here.files._present._forgotten


async def test_numbers_of_what_was_made_are_remembered_for_some_time(where: Place) -> None:
    here = await where.mount()
    await made_and_forgotten(here, b"", 10)
    assert 1 <= len(here.files._present._forgotten) <= 5
    assert here.files.lookup(ROOT, b"0").inode != here.files.lookup(ROOT, b"9").inode
    assert len(here.files._numbers._here) <= 5


async def test_entries_of_locks_are_not_remembered(where: Place) -> None:
    here = await where.mount(SHARED)
    ino = await here.make(b"file")
    for _ in range(5):
        await here.files.locks.set(ino, Lock(1))
        await here.files.locks.clear(ino, 1)
    await here.names()
    assert len(here.files._store._own) <= 2
