"""Strangers may ask to join, but neither one of them nor all together as often as they like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.volume.support import LOG_KEY, member

from muniment.core.entries import Place
from muniment.core.membership import Membership
from muniment.crypto.entries import known_entry, sign_entry
from muniment.crypto.member import MemberSecret
from muniment.engine.sequencer import Sequencer, found
from muniment.engine.strangers import ADDRESSES_KEPT, Rate, Strangers, network_of
from muniment.errors import ActRefused, MunimentError, Overloaded
from muniment.ids import VolumeId
from muniment.logs.memory import MemoryLog
from muniment.merkle.log_tree import EMPTY_ROOT
from muniment.node.clock import SystemClock
from muniment.ports import Appended
from muniment.spec.act import Act, Join, Leave, Role
from muniment.testing.log_author import LogAuthor

HERE, THERE = "192.0.2.1:4000", "192.0.2.2:4000"
BOOKS, NOTES = VolumeId(b"b" * 32), VolumeId(b"n" * 32)


class Hour:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def allowed(strangers: Strangers, volume: VolumeId, peer: str, tries: int = 50) -> int:
    """How many of so many tries at once are."""
    for done in range(tries):
        try:
            strangers.take(volume, peer)
        except Overloaded:
            return done
    return tries


def test_one_address_has_so_many_at_once_and_more_with_time() -> None:
    hour = Hour()
    strangers = Strangers(hour, address=Rate(3, 60.0), volume=Rate(100, 1.0))
    assert allowed(strangers, BOOKS, HERE) == 3
    assert allowed(strangers, NOTES, "192.0.2.1:4999") == 0
    assert allowed(strangers, BOOKS, THERE) == 3
    hour.s += 59
    assert allowed(strangers, BOOKS, HERE) == 0
    hour.s += 62
    assert allowed(strangers, BOOKS, HERE) == 2
    hour.s += 10_000
    assert allowed(strangers, BOOKS, HERE) == 3


def test_one_volume_has_so_many_whatever_addresses_they_come_from() -> None:
    hour = Hour()
    strangers = Strangers(hour, address=Rate(2, 1000.0), volume=Rate(5, 10.0))
    assert [allowed(strangers, BOOKS, f"192.0.2.{at}:1") for at in range(4)] == [2, 2, 1, 0]
    assert allowed(strangers, NOTES, "192.0.2.3:1") == 2  # what was refused has not been counted
    hour.s += 20
    assert allowed(strangers, BOOKS, "192.0.2.9:1") == 2


def test_addresses_are_forgotten_in_the_end_but_not_those_that_come_often() -> None:
    strangers = Strangers(Hour(), address=Rate(1, 1e9), volume=Rate(10 * ADDRESSES_KEPT, 1.0))
    assert allowed(strangers, BOOKS, HERE) == 1
    for at in range(2 * ADDRESSES_KEPT):
        strangers.take(BOOKS, f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}:1")
        if at % 1000 == 0:
            assert allowed(strangers, BOOKS, HERE) == 0


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9:80", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:80", "fe80::/64"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("host:80", "host"),
        ("pipe", "pipe"),
    ],
)
def test_an_address_is_what_nobody_chooses_freely(peer: str, network: str) -> None:
    assert network_of(peer) == network


class Served:
    """A volume of one author, and a log service of it that bounds strangers."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.author, self.store, self.hour = LogAuthor.founder(1), MemoryLog(), Hour()
        found(self.author.founding, self.store, LOG_KEY)
        bounds = Strangers(self.hour, address=Rate(2, 60.0), volume=Rate(3, 60.0))
        volume = self.author.volume
        self.sequencer = Sequencer(volume, self.store, LOG_KEY, SystemClock(), thread, strangers=bounds)

    def state(self) -> Membership:
        state = Membership()
        for at, signed in enumerate(self.store.read(0, self.store.size, bytes_max=1 << 30)):
            state.admit(known_entry(signed), at)
        return state

    async def act(self, who: MemberSecret, act: Act, peer: str) -> type[MunimentError] | None:
        now_ns = int(SystemClock().now_s() * 1e9)
        place = Place.next(self.state(), who.member, seen_size=0, seen_root=EMPTY_ROOT, now_ns=now_ns)
        (done,) = await self.sequencer.append([sign_entry(who.identity, place.entry(act))], peer)
        return None if isinstance(done, Appended) else type(done)

    async def join(self, name: str, peer: str) -> type[MunimentError] | None:
        return await self.act(member(name), Join(member(name).card(name), Role.READER, ""), peer)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with ThreadPoolExecutor(1) as thread:
        served = Served(thread)
        yield served
        await served.sequencer.aclose()


async def test_a_service_takes_so_many_joins_from_one_address(served: Served) -> None:
    assert await served.join("zoe", HERE) is None
    assert await served.act(member("zoe"), Leave(), HERE) is None
    assert await served.join("zoe", HERE) is Overloaded
    assert await served.join("yan", THERE) is None
    assert await served.join("xia", THERE) is Overloaded  # the volume has had its three
    served.hour.s += 120
    assert await served.join("zoe", HERE) is None


async def test_what_may_not_follow_anyway_is_not_counted(served: Served) -> None:
    assert await served.join("zoe", HERE) is None
    for _ in range(5):
        assert await served.join("zoe", HERE) is ActRefused
    assert await served.join("yan", HERE) is None


async def test_members_and_this_process_are_no_strangers(served: Served) -> None:
    for at in range(5):
        (done,) = await served.sequencer.append([served.author.transaction(b"%d" % at)], HERE)
        assert isinstance(done, Appended)
    for name in ("zoe", "yan", "xia", "wim"):
        assert await served.join(name, "") is None


async def test_a_service_that_is_restoring_takes_what_was_ordered_before(served: Served) -> None:
    served.sequencer.restoring = True
    done = [await served.join(name, HERE) for name in ("zoe", "yan", "xia", "wim")]
    assert done == [None] * 4


async def test_one_entry_sent_again_counts_once(served: Served) -> None:
    secret = member("zoe")
    now_ns = int(SystemClock().now_s() * 1e9)
    place = Place.next(served.state(), secret.member, seen_size=0, seen_root=EMPTY_ROOT, now_ns=now_ns)
    signed = sign_entry(secret.identity, place.entry(Join(secret.card("zoe"), Role.READER, "")))
    answers = await asyncio.gather(*(served.sequencer.append([signed], HERE) for _ in range(6)))
    assert {one.index for (one,) in answers if isinstance(one, Appended)} == {1}
    assert all(isinstance(one, Appended) for (one,) in answers)
    assert await served.join("yan", HERE) is None
