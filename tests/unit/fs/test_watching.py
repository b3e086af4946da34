"""Opening a file asks the log service what is new: once for all who open at that time, and late enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.unit.fs.support import Mounted, Place, place

from muniment.fs.options import Options
from muniment.spec.operation import ROOT
from muniment.testing.lying_log import SwitchedLog


class SlowLog(SwitchedLog):
    """Counts questions for its checkpoint, and answers them when it is let."""

    def __init__(self, inner: SwitchedLog) -> None:
        super().__init__(inner)
        self.asked = 0
        self.heard = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def checkpoint(self) -> bytes:
        self.asked += 1
        self.heard.set()
        note = await super().checkpoint()
        await self.may_answer.wait()
        return note


@pytest.fixture
async def where() -> AsyncIterator[Place]:
    async with place() as made:
        yield made


async def slow(where: Place) -> tuple[Mounted, SlowLog]:
    """A mount whose log service takes its time."""
    plain = where.world.log
    where.world.log = log = SlowLog(SwitchedLog(plain))
    here = await where.mount(Options(linger_s=0.0, deadline_s=10.0))
    where.world.log = plain
    return here, log


async def test_who_opens_while_others_ask_shares_one_question_with_all_who_do(where: Place) -> None:
    here, log = await slow(where)
    ino = await here.make(b"file")
    await here.files.sync_all()
    log.asked = 0
    log.heard.clear()
    log.may_answer.clear()
    opening = [asyncio.create_task(here.files.open(ino, 0)) for _ in range(20)]
    await log.heard.wait()
    log.may_answer.set()
    assert len(set(await asyncio.gather(*opening))) == 20
    assert log.asked == 2  # of the first one, and of all who came while it was asked
    await here.files.open(ino, 0)
    assert log.asked == 3


async def test_who_gives_up_asking_leaves_it_to_those_who_wait(where: Place) -> None:
    here, log = await slow(where)
    ino = await here.make(b"file")
    await here.files.sync_all()
    log.asked = 0
    log.heard.clear()
    log.may_answer.clear()
    opening = [asyncio.create_task(here.files.open(ino, 0)) for _ in range(3)]
    for broken_off in opening[:2]:
        await log.heard.wait()
        log.heard.clear()
        broken_off.cancel()
    log.may_answer.set()
    await opening[2]
    assert log.asked == 3


async def test_who_shares_a_question_sees_what_was_there_before_he_opened(where: Place) -> None:
    """An answer may be older than he who waits for it: that question is not his."""
    here, log = await slow(where)
    other = await where.mount()
    ino = await here.make(b"file")
    await here.write(ino, b"old")
    log.asked = 0
    log.heard.clear()
    log.may_answer.clear()
    first = asyncio.create_task(here.files.open(ino, 0))
    await log.heard.wait()
    await other.write(other.files.lookup(ROOT, b"file").inode, b"new")
    second = asyncio.create_task(here.read(ino))
    await asyncio.sleep(0)
    log.may_answer.set()
    here.files.release(await first)
    assert await second == b"new"
