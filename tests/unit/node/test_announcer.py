"""The node's record is renewed in time, announced with patience, and withdrawn once."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.node.support import START_S, VirtualClock, identity, node_record

from muniment.crypto.records import open_record
from muniment.errors import NodeUnreachable
from muniment.node.announcer import Announcer, OwnRecord, Wait
from muniment.spec.record import NodeRecord

ONE, TWO = "mun:introducer:one", "mun:introducer:two"


def own_record(clock: VirtualClock) -> OwnRecord:
    who = identity(1)
    return OwnRecord(who, node_record(who, issued_s=0), 300, clock)


def opened(signed: bytes) -> NodeRecord:
    return open_record(signed, now_s=0)


def test_the_record_is_signed_anew_after_a_third_of_its_life() -> None:
    clock = VirtualClock()
    record = own_record(clock)
    first = record.signed()
    clock.advance(99)
    assert record.signed() == first
    clock.advance(1)
    renewed = opened(record.signed())
    assert (renewed.issued_s, renewed.expires_s) == (START_S + 100, START_S + 400)


def test_a_node_that_begins_to_drain_says_so_at_once_and_with_every_renewal() -> None:
    clock = VirtualClock()
    record = own_record(clock)
    assert not opened(record.signed()).draining
    record.set_draining(draining=True)
    assert opened(record.signed()).draining
    clock.advance(100)
    assert opened(record.signed()).draining
    assert opened(record.renewed()).draining
    record.set_draining(draining=False)
    assert not opened(record.signed()).draining


async def test_a_wait_lasts_its_time_or_until_it_is_ended() -> None:
    wait = Wait()
    await wait.sleep(0.001)
    sleeping = [asyncio.create_task(wait.sleep(1000)) for _ in range(2)]
    await asyncio.sleep(0)
    wait.end()
    await asyncio.gather(*sleeping)
    again = asyncio.create_task(wait.sleep(1000))
    await asyncio.sleep(0)
    assert not again.done(), "an end counts for those who slept"
    again.cancel()


def test_the_record_is_signed_anew_when_the_clock_was_set_back() -> None:
    clock = VirtualClock()
    record = own_record(clock)
    record.signed()
    clock.advance(-5000)
    assert opened(record.signed()).issued_s == START_S - 5000


def test_a_withdrawal_is_later_than_the_record_and_already_expired() -> None:
    record = own_record(VirtualClock())
    before = opened(record.signed())
    withdrawn = opened(record.withdrawal())
    assert withdrawn.issued_s > before.issued_s
    assert withdrawn.expires_s == withdrawn.issued_s


class Introducers:
    """Notes what arrives; fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.got: list[tuple[str, NodeRecord]] = []

    async def announce(self, address: str, signed: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise NodeUnreachable(node=b"n" * 32, reason="away")
        self.got.append((address, opened(signed)))


class Sleeps:
    """Advances the clock instead of waiting, and ends the test after `count` waits."""

    def __init__(self, clock: VirtualClock, count: int) -> None:
        self.clock, self.count, self.waits_s = clock, count, list[float]()

    async def __call__(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        if len(self.waits_s) == self.count:
            raise asyncio.CancelledError
        self.clock.advance(seconds)
        await asyncio.sleep(0)


async def run(announcer: Announcer) -> None:
    with pytest.raises(asyncio.CancelledError):
        await announcer._supply(ONE)


async def test_announcements_repeat_at_the_interval_with_jitter_and_carry_fresh_records() -> None:
    clock, introducers = VirtualClock(), Introducers()
    sleeps = Sleeps(clock, 3)
    chances = iter([0.0, 0.5, 1.0])
    await run(
        Announcer(
            own_record(clock), [ONE], 100, introducers.announce, chance=lambda: next(chances), sleep=sleeps
        )
    )
    assert sleeps.waits_s == [100, 90, 80]
    assert [record.issued_s - START_S for _, record in introducers.got] == [0, 100, 190]


async def test_an_introducer_that_is_away_is_tried_ever_more_seldom_up_to_a_minute() -> None:
    clock, introducers = VirtualClock(), Introducers(failures=8)
    sleeps = Sleeps(clock, 10)
    await run(
        Announcer(own_record(clock), [ONE], 100, introducers.announce, chance=lambda: 0.0, sleep=sleeps)
    )
    assert sleeps.waits_s == [1, 2, 4, 8, 16, 32, 60, 60, 100, 100]


async def test_every_introducer_is_supplied_and_one_failure_does_not_stop_the_others() -> None:
    clock = VirtualClock()
    reached = asyncio.Event()

    async def announce(address: str, signed: bytes) -> None:
        if address == ONE:
            raise NodeUnreachable(node=b"n" * 32, reason="away")
        reached.set()

    async def forever(seconds: float) -> None:
        await asyncio.Event().wait()

    announcer = Announcer(own_record(clock), [ONE, TWO], 100, announce, chance=lambda: 0.0, sleep=forever)
    task = asyncio.create_task(announcer.run())
    await reached.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_withdrawal_reaches_all_it_can_and_gives_up_in_time() -> None:
    got: list[tuple[str, NodeRecord]] = []

    async def announce(address: str, signed: bytes) -> None:
        if address == ONE:
            await asyncio.Event().wait()
        got.append((address, opened(signed)))

    await Announcer(own_record(VirtualClock()), [ONE, TWO], 100, announce, chance=lambda: 0.0).withdraw(0.01)
    assert [(address, record.expires_s == record.issued_s) for address, record in got] == [(TWO, True)]
