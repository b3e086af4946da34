"""The file system while the log service or the grid fails: nothing twice, nothing lost, no call for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.unit.fs.support import Place, place

from muniment.errors import DeadlineExceeded
from muniment.fs.options import Options
from muniment.spec.operation import ROOT, Kind
from muniment.testing.lying_log import SwitchedLog


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    # Patience is counted in tries: these tests need not wait between them.
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committer._PAUSES_S", (0.01,))
    async with place() as made:
        yield made


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
    await here.files.fsync(handle)
    here.files.release(handle)
    assert await (await where.mount()).names() == [b"a"]
