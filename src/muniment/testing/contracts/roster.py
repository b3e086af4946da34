"""What every `ports.Roster` must do, wherever its records come from.

A driver's test module subclasses `RosterContract`, or `LastingRosterContract` for a source that may be away,
and overrides the fixture `medium`:

    class TestMyRoster(RosterContract):
        @pytest.fixture
        def medium(self, tmp_path: Path) -> MyMedium: ...

The suite runs in virtual time; a driver with real sockets overrides `run` as well.  Needs pytest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Protocol

import pytest

from muniment.crypto.identity import Identity
from muniment.crypto.records import record_text, sign_record
from muniment.errors import RosterEmpty
from muniment.ids import NodeId
from muniment.ports import Clock, Roster
from muniment.spec.record import PROTOCOL_VERSION, NodeRecord
from muniment.testing.virtual_time import run_virtual

LIFE_S: Final = 3600
FORGERIES: Final = ("signature", "payload", "other key", "cut", "no base64", "empty", "long")
_PATIENCE_S: Final = 20.0
"""A change must be seen within this time; virtual, or seldom used up."""


class RosterMedium(AbstractAsyncContextManager[Any], Protocol):
    """Where records come from, seen from outside the roster; used on one loop, between enter and exit."""

    @property
    def clock(self) -> Clock:
        """What the roster goes by."""
        ...

    def open(self) -> Roster:
        """A client's roster, not started; each call is a new process with the files of the one before."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """Let the clock go on."""
        ...

    async def publish(self, signed: bytes) -> None:
        """A node's record comes in; it is good, and later than all of this node before."""
        ...

    async def withdraw(self, identity: Identity) -> None:
        """A node that was published goes."""
        ...

    async def plant(self, text: str) -> None:
        """Whoever runs the source puts this among the records, whatever it is."""
        ...


class LastingMedium(RosterMedium, Protocol):
    """A source that may be away, while records go on to be published and withdrawn behind it."""

    async def leave(self) -> None:
        """It does not answer from now on."""
        ...

    async def come_back(self) -> None:
        """It answers again, with what it kept; as another run."""
        ...


def identity(number: int) -> Identity:
    """A node's key."""
    return Identity.from_seed(bytes([number]) * 32)


def node(number: int) -> NodeId:
    """That node's id."""
    return identity(number).node


def record(
    number: int, clock: Clock, *, at_s: int = 0, life_s: int = LIFE_S, port: int = 1, **changes: object
) -> NodeRecord:
    """What a node says of itself `at_s` seconds from now."""
    who = identity(number)
    issued_s = int(clock.now_s()) + at_s
    plain = NodeRecord(
        node=who.node,
        public_key=who.public_key,
        addresses=(f"127.0.0.1:{port}",),
        zone="",
        capacity_bytes=1000,
        price=0,
        protocols=(PROTOCOL_VERSION,),
        issued_s=issued_s,
        expires_s=issued_s + life_s,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # the tests' own fields


def signed(number: int, clock: Clock, **how: Any) -> bytes:
    """The same, signed; arguments as `record`."""
    return sign_record(identity(number), record(number, clock, **how))


@asynccontextmanager
async def started(medium: RosterMedium) -> AsyncIterator[Roster]:
    """A roster that follows the medium."""
    roster = medium.open()
    try:
        await roster.start()
        yield roster
    finally:
        await roster.aclose()


async def until(roster: Roster, *numbers: int) -> None:
    """Wait, by `wait_changed` alone, until exactly these nodes are known."""
    wanted = {node(number) for number in numbers}
    async with asyncio.timeout(_PATIENCE_S):
        while roster.nodes_nowait().keys() != wanted:
            await roster.wait_changed()


class RosterContract:
    """The suite; see the module."""

    @pytest.fixture
    def medium(self) -> RosterMedium:
        """The source under test; drivers override this."""
        raise NotImplementedError

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run one test to its end; no task may be left."""
        run_virtual(test)

    # --- the set

    def test_the_full_set_is_there_after_start(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                records = [record(number, medium.clock, port=number) for number in (1, 2, 3)]
                for number, one in enumerate(records, 1):
                    await medium.publish(sign_record(identity(number), one))
                async with started(medium) as roster:
                    assert roster.nodes_nowait() == {one.node: one for one in records}

        self.run(main())

    def test_without_any_node_it_does_not_start(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                roster = medium.open()
                with pytest.raises(RosterEmpty) as caught:
                    await roster.start()
                assert caught.value.source == roster.source != ""
                assert not roster.nodes_nowait()
                await roster.aclose()

        self.run(main())

    def test_it_may_be_closed_before_it_was_started(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.open().aclose()

        self.run(main())

    def test_two_clients_follow_the_same_source(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                async with started(medium) as first, started(medium) as second:
                    await medium.publish(signed(2, medium.clock))
                    await until(first, 1, 2)
                    await until(second, 1, 2)

        self.run(main())

    # --- changes

    def test_a_node_that_comes_or_goes_wakes_all_who_wait(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                async with started(medium) as roster:
                    waiting = [asyncio.ensure_future(until(roster, 1, 2)) for _ in range(3)]
                    await medium.publish(signed(2, medium.clock))
                    await asyncio.gather(*waiting)
                    waiting = [asyncio.ensure_future(until(roster, 2)) for _ in range(3)]
                    await medium.withdraw(identity(1))
                    await asyncio.gather(*waiting)

        self.run(main())

    def test_changes_one_after_the_other_are_all_seen(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                async with started(medium) as roster:
                    for number in range(2, 7):
                        await medium.publish(signed(number, medium.clock))
                        if number > 3:
                            await medium.withdraw(identity(number - 1))
                    await until(roster, 1, 2, 6)

        self.run(main())

    def test_the_last_node_may_go_and_another_come(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                async with started(medium) as roster:
                    await medium.withdraw(identity(1))
                    await until(roster)
                    await medium.publish(signed(2, medium.clock))
                    await until(roster, 2)

        self.run(main())

    def test_a_node_that_went_may_come_back(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                await medium.publish(signed(2, medium.clock))
                async with started(medium) as roster:
                    await medium.withdraw(identity(2))
                    await until(roster, 1)
                    await medium.publish(signed(2, medium.clock, at_s=5))
                    await until(roster, 1, 2)

        self.run(main())

    @pytest.mark.parametrize(
        "change", [{"port": 9}, {"zone": "cellar"}, {"capacity_bytes": 7}, {"protocols": (1, 2)}], ids=str
    )
    def test_a_node_that_says_something_new_wakes_who_waits(
        self, medium: RosterMedium, change: dict[str, Any]
    ) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                async with started(medium) as roster:
                    new = record(1, medium.clock, at_s=2, **change)
                    waiting = asyncio.ensure_future(roster.wait_changed())
                    await asyncio.sleep(0)
                    await medium.publish(sign_record(identity(1), new))
                    async with asyncio.timeout(_PATIENCE_S + 60):  # a file's nodes are asked every minute
                        await waiting
                    assert roster.nodes_nowait() == {node(1): new}

        self.run(main())

    # --- what is not believed

    @pytest.mark.parametrize(
        "kind", ["signature", "payload", "other key", "cut", "no base64", "empty", "long"]
    )
    def test_a_forged_record_is_not_taken(self, medium: RosterMedium, kind: str) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                await medium.plant(forged(kind, medium.clock))
                async with started(medium) as roster:
                    assert roster.nodes_nowait().keys() == {node(1)}
                    await medium.plant(forged(kind, medium.clock, number=4))
                    await medium.publish(signed(3, medium.clock))
                    await until(roster, 1, 3)

        self.run(main())

    def test_an_expired_record_is_not_taken(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                await medium.plant(record_text(signed(2, medium.clock, at_s=-LIFE_S)))
                async with started(medium) as roster:
                    assert roster.nodes_nowait().keys() == {node(1)}

        self.run(main())

    def test_a_record_is_not_shown_from_its_expiry_on(self, medium: RosterMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                await medium.publish(signed(2, medium.clock, life_s=2))
                async with started(medium) as roster:
                    assert roster.nodes_nowait().keys() == {node(1), node(2)}
                    await medium.pass_time(2)
                    assert roster.nodes_nowait().keys() == {node(1)}

        self.run(main())

    def test_an_earlier_record_does_not_replace_a_later_one(self, medium: RosterMedium) -> None:
        """Nor does playing it back make the node go."""

        async def main() -> None:
            async with medium:
                old = record_text(signed(1, medium.clock, at_s=-10, port=7))
                await medium.publish(signed(1, medium.clock, port=8))
                await medium.publish(signed(2, medium.clock))
                async with started(medium) as roster:
                    await medium.plant(old)
                    await medium.publish(signed(3, medium.clock))
                    await until(roster, 1, 2, 3)
                    assert roster.nodes_nowait()[node(1)].addresses == ("127.0.0.1:8",)

        self.run(main())


def forged(kind: str, clock: Clock, number: int = 2) -> str:
    """A record that no node has signed."""
    good = signed(number, clock)
    match kind:
        case "signature":
            return record_text(good[:-1] + bytes([good[-1] ^ 1]))
        case "payload":
            at = good.index(b"127.0.0.1")
            return record_text(good[:at] + b"6" + good[at + 1 :])
        case "other key":
            return record_text(sign_record(identity(9), record(number, clock)))
        case "cut":
            return record_text(good)[:-8]
        case "no base64":
            return record_text(good)[:-1] + "?"
        case "empty":
            return "AA"
    return "A" * 8192


class LastingRosterContract(RosterContract):
    """The suite for sources that may be away; see the module."""

    @pytest.fixture
    def medium(self) -> LastingMedium:
        """The source under test; drivers override this."""
        raise NotImplementedError

    def test_while_the_source_is_away_the_last_set_is_kept(self, medium: LastingMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                async with started(medium) as roster:
                    await medium.publish(signed(2, medium.clock))
                    await until(roster, 1, 2)
                    await medium.leave()
                    await asyncio.sleep(0.1)
                    assert roster.nodes_nowait().keys() == {node(1), node(2)}

        self.run(main())

    def test_what_changed_meanwhile_is_seen_when_it_is_back(self, medium: LastingMedium) -> None:
        async def main() -> None:
            async with medium:
                for number in (1, 2, 3):
                    await medium.publish(signed(number, medium.clock))
                async with started(medium) as roster:
                    await medium.leave()
                    await medium.come_back()
                    await medium.publish(signed(4, medium.clock))
                    await medium.withdraw(identity(2))
                    await until(roster, 1, 3, 4)
                    await medium.publish(signed(5, medium.clock))
                    await until(roster, 1, 3, 4, 5)

        self.run(main())

    def test_a_source_that_only_restarted_changes_nothing(self, medium: LastingMedium) -> None:
        async def main() -> None:
            async with medium:
                for number in (1, 2, 3):
                    await medium.publish(signed(number, medium.clock))
                async with started(medium) as roster:
                    before = roster.nodes_nowait()
                    changing = asyncio.ensure_future(roster.wait_changed())
                    await medium.leave()
                    await medium.come_back()
                    await asyncio.sleep(0.6)
                    assert not changing.done()
                    assert roster.nodes_nowait() == before
                    await medium.publish(signed(4, medium.clock))
                    await until(roster, 1, 2, 3, 4)
                    await changing

        self.run(main())

    def test_a_new_client_starts_from_the_last_set_while_the_source_is_away(
        self, medium: LastingMedium
    ) -> None:
        async def main() -> None:
            async with medium:
                for number in (1, 2):
                    await medium.publish(signed(number, medium.clock))
                async with started(medium) as roster:
                    await medium.publish(signed(3, medium.clock))
                    await medium.withdraw(identity(1))
                    await until(roster, 2, 3)
                    last = roster.nodes_nowait()
                await medium.leave()
                async with started(medium) as roster:
                    assert roster.nodes_nowait() == last
                    await medium.come_back()
                    await medium.publish(signed(4, medium.clock))
                    await medium.withdraw(identity(2))
                    await until(roster, 3, 4)

        self.run(main())

    def test_a_first_client_does_not_start_while_the_source_is_away(self, medium: LastingMedium) -> None:
        async def main() -> None:
            async with medium:
                await medium.publish(signed(1, medium.clock))
                await medium.leave()
                roster = medium.open()
                with pytest.raises(RosterEmpty):
                    await roster.start()
                await roster.aclose()

        self.run(main())
