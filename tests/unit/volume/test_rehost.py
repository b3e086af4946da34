"""A log under a new service: from any replica, accepted by those who lose nothing by it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, folder, transaction, world

from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.identity import Identity
from muniment.engine.local_log import LocalLog
from muniment.engine.rehost import rehost, resend
from muniment.engine.sequencer import Sequencer
from muniment.engine.volume import Volume
from muniment.errors import ClockSkewed, InvalidRequest, LogForked, MalformedRecord, StoreFailed
from muniment.logs.memory import MemoryLog
from muniment.ports import LogStore
from muniment.spec.act import Role
from muniment.testing.lying_log import store_of

NEW_KEY = Identity.from_seed(b"n" * 32)


class Later(Now):
    """A day after."""

    def now_s(self) -> float:
        return super().now_s() + 24 * 3600


class Moved:
    """The service made of a replica, a day later."""

    def __init__(self, grid: World, target: LogStore, thread: ThreadPoolExecutor) -> None:
        self.sequencer = Sequencer(grid.volume, target, NEW_KEY, Later(), thread)
        self.log = LocalLog(self._opened)

    async def _opened(self) -> Sequencer:
        return self.sequencer


async def make(volume: Volume, name: bytes) -> None:
    await volume.commit(lambda _: transaction(folder(name)))


@pytest.fixture
async def grid() -> AsyncIterator[World]:
    async with world() as grid:
        yield grid


@pytest.fixture
async def thread() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as thread:
        yield thread


async def two(grid: World) -> tuple[Volume, Volume]:
    """Anna, who is up to date, and Bert, who lags behind her by three entries."""
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    for at in range(3):
        await make(anna, b"%d" % at)
    return anna, bert


async def test_the_log_goes_on_elsewhere(grid: World, thread: ThreadPoolExecutor) -> None:
    anna, bert = await two(grid)
    target = MemoryLog()
    assert rehost(anna.follower.replica, target, NEW_KEY) == grid.volume
    assert open_checkpoint(target.checkpoint(), NEW_KEY.public_key).size == grid.store.size
    assert target.read(0, 99, bytes_max=1 << 30) == grid.entries()
    moved = Moved(grid, target, thread)
    moved.sequencer._clock = Now()
    for one in (anna, bert):
        await one.move_to(moved.log, NEW_KEY.public_key)
    await make(bert, b"there")
    await anna.sync()
    assert anna.view.state_hash().digest() == bert.view.state_hash().digest()
    assert target.size == grid.store.size + 1
    with pytest.raises(MalformedRecord):
        anna.follower.follows(grid.store.checkpoint())


async def test_who_has_seen_more_refuses_until_it_is_sent_again(
    grid: World, thread: ThreadPoolExecutor
) -> None:
    anna, bert = await two(grid)
    target = MemoryLog()
    rehost(bert.follower.replica, target, NEW_KEY)
    moved = Moved(grid, target, thread)
    with pytest.raises(LogForked, match="has 3 of 6 entries"):
        await anna.move_to(moved.log, NEW_KEY.public_key)
    await anna.sync()  # nothing has changed for her
    with pytest.raises(ClockSkewed):
        await resend(grid.volume, anna.follower.replica, moved.log, target.size)
    moved.sequencer.restoring = True
    assert await resend(grid.volume, anna.follower.replica, moved.log, target.size) == 6
    assert target.read(0, 99, bytes_max=1 << 30) == grid.entries()
    for one in (anna, bert):
        await one.move_to(moved.log, NEW_KEY.public_key)
    assert anna.view.state_hash().digest() == bert.view.state_hash().digest()


async def test_files_of_several_members_complete_each_other(grid: World) -> None:
    anna, bert = await two(grid)
    target = MemoryLog()
    rehost(bert.follower.replica, target, NEW_KEY)
    rehost(anna.follower.replica, target, NEW_KEY)
    rehost(bert.follower.replica, target, NEW_KEY)
    assert target.read(0, 99, bytes_max=1 << 30) == grid.entries()


async def test_what_was_seen_and_not_fetched_counts_too(grid: World, thread: ThreadPoolExecutor) -> None:
    anna, bert = await two(grid)
    await bert.exchange([await anna.exchange([])])
    target = MemoryLog()
    rehost(bert.follower.replica, target, NEW_KEY)
    moved = Moved(grid, target, thread)
    with pytest.raises(LogForked, match="has 3 of 6 entries"):
        await bert.move_to(moved.log, NEW_KEY.public_key)


async def test_another_entry_in_a_missing_ones_place(grid: World, thread: ThreadPoolExecutor) -> None:
    anna, bert = await two(grid)
    target = MemoryLog()
    rehost(bert.follower.replica, target, NEW_KEY)
    moved = Moved(grid, target, thread)
    moved.sequencer._clock = Now()
    await bert.move_to(moved.log, NEW_KEY.public_key)
    for at in range(4):
        await make(bert, b"instead %d" % at)
    with pytest.raises(LogForked, match="not that of 6 entries seen before"):
        await anna.move_to(moved.log, NEW_KEY.public_key)
    with pytest.raises(InvalidRequest, match="another history of 6 entries"):
        rehost(anna.follower.replica, target, NEW_KEY)
    await anna.sync()


async def test_a_new_key_must_have_signed(grid: World) -> None:
    anna, _ = await two(grid)
    note = anna.follower.replica.checkpoint()
    with pytest.raises(MalformedRecord):
        anna.follower.accept_host(note, NEW_KEY.public_key)


async def test_a_damaged_replica_hosts_nothing(grid: World) -> None:
    anna, _ = await two(grid)
    entries = grid.entries()
    entries[-1] = entries[-1][:-1] + bytes([entries[-1][-1] ^ 1])
    for damaged in (entries, entries[:-3] + entries[-2:]):
        with pytest.raises(StoreFailed, match="does not verify"):
            rehost(store_of(grid.volume, damaged, LOG_KEY), MemoryLog(), NEW_KEY)
    with pytest.raises(InvalidRequest, match="empty"):
        rehost(MemoryLog(), MemoryLog(), NEW_KEY)
    assert anna.follower.replica.size == len(entries)
