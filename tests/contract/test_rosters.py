"""Every Roster under the one suite, and what is particular to each."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Self

import msgspec
import pytest
from tests.unit.engine.support import names

from muniment.crypto.identity import Identity
from muniment.crypto.records import open_record, record_text, sign_record
from muniment.discovery.introducer import IntroducerRoster
from muniment.discovery.roster_file import FileRoster
from muniment.errors import ConfigInvalid, NodeUnreachable, RosterEmpty
from muniment.ids import NodeId
from muniment.node.introducer import IntroducerService, RosterFile
from muniment.spec.address import PeerAddress, PeerKind
from muniment.spec.wire import RosterAnswer
from muniment.testing.contracts.roster import (
    FORGERIES,
    LastingRosterContract,
    RosterContract,
    forged,
    identity,
    node,
    record,
    signed,
    started,
    until,
)
from muniment.testing.virtual_time import LoopClock, run_virtual


class Medium:
    """What all of them have: a folder, and the clock of the loop they run on."""

    clock: LoopClock

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __aenter__(self) -> Self:
        self.clock = LoopClock(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# --- roster file ----------------------------------------------------------------------------------


class FileMedium(Medium):
    """A roster file; each change has a time of its own, as with an editor."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "roster"
        self.asked: list[PeerAddress] = []
        self._changes = 0
        self.write()

    def write(self, *lines: str) -> None:
        self.path.write_text("\n".join(["# our nodes", "", *lines, ""]))
        self._changes += 1
        os.utime(self.path, (self._changes, self._changes))

    def open(self) -> FileRoster:
        return FileRoster(self.path, self.resolve, self.clock)

    async def resolve(self, address: PeerAddress) -> str:
        self.asked.append(address)
        raise NodeUnreachable(node=address.node, reason="nobody there")


class RecordsMedium(FileMedium):
    """Lines are signed records."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._texts: dict[NodeId, str] = {}
        self._planted: list[str] = []

    async def publish(self, signed: bytes) -> None:
        self._texts[open_record(signed, now_s=0).node] = record_text(signed)
        self._write_all()

    async def withdraw(self, who: Identity) -> None:
        del self._texts[who.node]
        self._write_all()

    async def plant(self, text: str) -> None:
        self._planted.append(text)
        self._write_all()

    def _write_all(self) -> None:
        self.write(*(f"{text}   # good" for text in self._texts.values()), *self._planted)


class AddressesMedium(FileMedium):
    """Lines are addresses; `answers` is what the nodes there tell."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.answers: dict[NodeId, str] = {}

    async def publish(self, signed: bytes) -> None:
        self._list(open_record(signed, now_s=0).node, record_text(signed))

    async def withdraw(self, who: Identity) -> None:
        del self.answers[who.node]
        self._write_all()

    async def plant(self, text: str) -> None:
        self._list(identity(100 + len(self.answers)).node, text)

    async def resolve(self, address: PeerAddress) -> str:
        self.asked.append(address)
        await asyncio.sleep(0.01)
        if address.node not in self.answers:
            raise NodeUnreachable(node=address.node, reason="nobody there")
        return self.answers[address.node]

    def _list(self, node: NodeId, told: str) -> None:
        known = node in self.answers
        self.answers[node] = told
        if not known:
            self._write_all()

    def _write_all(self) -> None:
        self.write(*(line(node) for node in self.answers))


def line(node: NodeId, port: int = 1) -> str:
    return str(PeerAddress(PeerKind.NODE, node, f"127.0.0.1:{port}"))


class TestFileOfRecords(RosterContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> RecordsMedium:
        return RecordsMedium(tmp_path)


class TestFileOfAddresses(RosterContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> AddressesMedium:
        return AddressesMedium(tmp_path)


def test_a_roster_file_must_be_there_at_the_start_and_make_sense(tmp_path: Path) -> None:
    async def main() -> None:
        async with AddressesMedium(tmp_path) as medium:
            medium.write(line(node(1)), "mun:node:abc@here")
            with pytest.raises(ConfigInvalid, match="line 4"):
                await medium.open().start()
            for content in (b"\xff\xfe", bytes(17 << 20)):
                medium.path.write_bytes(content)
                with pytest.raises(ConfigInvalid):
                    await medium.open().start()
            medium.path.unlink()
            with pytest.raises(ConfigInvalid):
                await medium.open().start()

    run_virtual(main())


@pytest.mark.parametrize("trouble", ["typo", "absent"])
def test_a_roster_file_that_cannot_be_used_changes_nothing(
    tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nodes are asked again as before, also those behind the line that is wrong; it is said once."""

    async def main() -> None:
        async with AddressesMedium(tmp_path) as medium:
            for number in (1, 2):
                await medium.publish(signed(number, medium.clock, life_s=100))
            async with started(medium) as roster:
                if trouble == "typo":
                    medium.write(line(node(1)), "mun:nose:", line(node(2)))
                else:
                    medium.path.unlink()
                for number in (1, 2):
                    medium.answers[node(number)] = record_text(signed(number, medium.clock, at_s=50))
                await asyncio.sleep(200)
                assert roster.nodes_nowait().keys() == {node(1), node(2)}
                medium.write(line(node(2)))
                await until(roster, 2)

    run_virtual(main())
    assert sum("cannot be used" in one.message for one in caplog.records) == 1


def test_an_older_record_in_a_roster_file_does_not_make_its_node_go(tmp_path: Path) -> None:
    """Somebody copied an old file back: the newer record is known already, and counts."""

    async def main() -> None:
        async with RecordsMedium(tmp_path) as medium:
            old = record_text(signed(1, medium.clock, at_s=-10, port=7))
            await medium.publish(signed(1, medium.clock, port=8))
            async with started(medium) as roster:
                medium.write(old, record_text(signed(2, medium.clock)))
                await until(roster, 1, 2)
                assert roster.nodes_nowait()[node(1)].addresses == ("127.0.0.1:8",)

    run_virtual(main())


def test_only_missing_nodes_are_asked_again_soon(tmp_path: Path) -> None:
    async def main() -> None:
        async with AddressesMedium(tmp_path) as medium:
            for number in (1, 2, 3):
                await medium.publish(signed(number, medium.clock))
            absent = medium.answers.pop(node(3))
            async with started(medium) as roster:
                await asyncio.sleep(50)
                asked = [address.node for address in medium.asked]
                assert [asked.count(node(number)) for number in (1, 2)] == [1, 1]
                assert asked.count(node(3)) > 20
                medium.answers[node(3)] = absent
                await until(roster, 1, 2, 3)
                await asyncio.sleep(600)
                assert len([address for address in medium.asked if address.node == node(1)]) <= 12

    run_virtual(main())


class HangingMedium(AddressesMedium):
    """Some nodes take this long to answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.delays_s: dict[NodeId, float] = {}

    async def resolve(self, address: PeerAddress) -> str:
        await asyncio.sleep(self.delays_s.get(address.node, 0))
        return await super().resolve(address)


def test_a_node_that_hangs_does_not_hold_up_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with HangingMedium(tmp_path) as medium:
            for number in (1, 2, 3):
                await medium.publish(signed(number, medium.clock))
            medium.delays_s = {node(2): 10.0, node(3): 1e6}
            async with started(medium) as roster:
                assert asyncio.get_running_loop().time() < 3
                assert roster.nodes_nowait().keys() == {node(1)}
                await until(roster, 1, 2)
                medium.write(line(node(1)))  # and whoever left the file meanwhile is not taken
                medium.delays_s[node(3)] = 0
                await until(roster, 1)
                await asyncio.sleep(100)
                assert roster.nodes_nowait().keys() == {node(1)}

    run_virtual(main())


def test_while_nobody_has_answered_the_start_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with HangingMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock))
            medium.delays_s = {node(1): 10.0}
            async with started(medium) as roster:
                assert roster.nodes_nowait().keys() == {node(1)}

    run_virtual(main())


def test_a_node_that_tells_anothers_record_is_not_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with AddressesMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock))
            await medium.plant(record_text(signed(2, medium.clock)))
            async with started(medium) as roster:
                assert roster.nodes_nowait().keys() == {node(1)}

    run_virtual(main())


def test_a_node_that_was_away_past_its_expiry_wakes_who_waits_when_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with AddressesMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock))
            await medium.publish(signed(2, medium.clock, life_s=100))
            async with started(medium) as roster:
                await asyncio.sleep(200)
                assert roster.nodes_nowait().keys() == {node(1)}
                waiting = asyncio.ensure_future(roster.wait_changed())
                await asyncio.sleep(0)
                medium.answers[node(2)] = record_text(signed(2, medium.clock))
                async with asyncio.timeout(10):
                    await waiting
                assert roster.nodes_nowait().keys() == {node(1), node(2)}

    run_virtual(main())


def test_a_node_listed_at_two_addresses_is_found_at_the_one_that_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with AddressesMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock))
            medium.write(line(node(1), 1), line(node(1), 2))
            async with started(medium) as roster:
                assert roster.nodes_nowait().keys() == {node(1)}
                assert len(medium.asked) == 2

    run_virtual(main())


# --- introducer -----------------------------------------------------------------------------------


class LocalIntroducer:
    """A client's way to an introducer in this process: what the HTTP client is to a real one."""

    def __init__(self, medium: IntroducerMedium) -> None:
        self._medium = medium

    async def roster(self, epoch: str, version: int, wait_s: float) -> RosterAnswer:
        service, gone = self._medium.service, self._medium.gone
        if gone.is_set():
            raise NodeUnreachable(node=bytes(32), reason="nobody listens")
        answering = asyncio.ensure_future(service.wait_answer(epoch, version, wait_s))
        leaving = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise NodeUnreachable(node=bytes(32), reason="the connection broke")
            answer = answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        return msgspec.structs.replace(answer, records=[*answer.records, *self._medium.planted])

    async def aclose(self) -> None:
        pass


class IntroducerMedium(Medium):
    """An introducer's real set and file without HTTP; `planted` is what a hostile one adds to each answer."""

    service: IntroducerService
    gone: asyncio.Event

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.planted: list[str] = []
        self.answers: dict[NodeId, str] = {}
        self.asked: list[PeerAddress] = []
        self.cache = folder / "known-nodes.json"
        self._issued_s: dict[NodeId, int] = {}
        self._runs = 0
        self._unheard: list[bytes] = []

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.come_back()
        return self

    def open(self) -> IntroducerRoster:
        return IntroducerRoster(
            "mun:introducer:here",
            LocalIntroducer(self),
            self.resolve,
            self.clock,
            cache=self.cache,
            chance=lambda: 0.5,
        )

    async def resolve(self, address: PeerAddress) -> str:
        self.asked.append(address)
        if address.node not in self.answers:
            raise NodeUnreachable(node=address.node, reason="nobody there")
        return self.answers[address.node]

    async def publish(self, signed: bytes) -> None:
        known = open_record(signed, now_s=0)
        self._issued_s[known.node] = known.issued_s
        await self._announce(signed)

    async def withdraw(self, who: Identity) -> None:
        issued_s = self._issued_s[who.node] + 1
        last = replace(record(0, self.clock), node=who.node, public_key=who.public_key)
        await self._announce(sign_record(who, replace(last, issued_s=issued_s, expires_s=issued_s)))

    async def plant(self, text: str) -> None:
        self.planted.append(text)

    async def leave(self) -> None:
        self.gone.set()

    async def come_back(self) -> None:
        self._runs += 1
        self.gone = asyncio.Event()
        self.service = IntroducerService(f"run {self._runs}", 100, 86400, self.clock)
        RosterFile(self.folder / "roster.json", self.service).load()

    async def _announce(self, signed: bytes) -> None:
        self.service.announce(signed)
        await RosterFile(self.folder / "roster.json", self.service).save()


class TestIntroducer(LastingRosterContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> IntroducerMedium:
        return IntroducerMedium(tmp_path)


def test_an_introducer_that_lost_the_newest_record_does_not_make_its_node_go(tmp_path: Path) -> None:
    """It told clients and died before the record was on its disk; it comes back with the one before."""

    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock, port=7))
            async with started(medium) as roster:
                waiting = asyncio.ensure_future(roster.wait_changed())
                await asyncio.sleep(0)
                medium.service.announce(signed(1, medium.clock, at_s=1, port=8))  # and is not saved
                await waiting
                await medium.leave()
                await medium.come_back()
                await medium.publish(signed(2, medium.clock))
                await until(roster, 1, 2)
                assert roster.nodes_nowait()[node(1)].addresses == ("127.0.0.1:8",)

    run_virtual(main())


def test_a_grid_outlives_its_introducer(tmp_path: Path) -> None:
    """Records run out after an hour; the nodes are asked for new ones, by old clients and new ones."""

    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            for number in (1, 2, 3):
                await medium.publish(signed(number, medium.clock))
            async with started(medium) as roster:
                await medium.leave()
                for _ in range(9):  # node 3 has gone for good, nobody was told
                    for number in (1, 2):
                        medium.answers[node(number)] = record_text(signed(number, medium.clock))
                    await asyncio.sleep(1200)
                    assert {node(1), node(2)} <= roster.nodes_nowait().keys()
                assert roster.nodes_nowait().keys() == {node(1), node(2)}
                assert len(medium.asked) < 1000
            async with started(medium) as roster:
                assert roster.nodes_nowait().keys() == {node(1), node(2)}
                await medium.come_back()
                await medium.publish(signed(4, medium.clock))
                await until(roster, 4)  # the introducer knows nobody else by now, and has the say again

    run_virtual(main())


def test_an_answer_of_a_node_that_the_introducer_has_removed_comes_too_late(tmp_path: Path) -> None:
    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock))
            await medium.publish(signed(2, medium.clock, life_s=250))
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def resolve(address: PeerAddress) -> str:
                begun.set()
                await go_on.wait()
                return record_text(signed(2, medium.clock, at_s=10))

            medium.resolve = resolve  # type: ignore[method-assign]  # answers when the test wants it to
            async with started(medium) as roster:
                await medium.leave()
                await begun.wait()
                await medium.come_back()
                await medium.withdraw(identity(2))
                await until(roster, 1)
                go_on.set()
                await asyncio.sleep(100)
                assert roster.nodes_nowait().keys() == {node(1)}

    run_virtual(main())


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[1, null]", b"7", b"\xff\xfe", b"[" * 200_000],
    ids=lambda one: repr(one[:9]),
)
def test_a_damaged_cache_is_no_cache(tmp_path: Path, content: bytes) -> None:
    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            medium.cache.write_bytes(content)
            await medium.publish(signed(1, medium.clock))
            await medium.leave()
            roster = medium.open()
            with pytest.raises(RosterEmpty):
                await roster.start()
            await roster.aclose()
            await medium.come_back()
            for _ in range(2):  # then by the new cache
                async with started(medium) as following:
                    assert following.nodes_nowait().keys() == {node(1)}
                await medium.leave()

    run_virtual(main())


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_record_in_the_cache_is_not_taken(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            good = record_text(signed(1, medium.clock))
            medium.cache.write_text(json.dumps([forged(kind, medium.clock), good]))
            await medium.leave()
            async with started(medium) as roster:
                assert roster.nodes_nowait().keys() == {node(1)}

    run_virtual(main())


def test_the_cache_is_the_users_own_and_losing_it_costs_nothing_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock))
            async with started(medium):
                assert medium.cache.stat().st_mode & 0o777 == 0o600
            assert names(tmp_path) == ["known-nodes.json", "roster.json"]
            medium.cache = tmp_path / "absent" / "cache"
            async with started(medium) as roster:
                assert roster.nodes_nowait().keys() == {node(1)}

    run_virtual(main())
    assert any("could not be kept" in one.message for one in caplog.records)


def test_withdrawn_nodes_do_not_come_back_by_the_cache(tmp_path: Path) -> None:
    """Also when the last one goes, and the set is empty."""

    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            await medium.publish(signed(1, medium.clock))
            async with started(medium):
                pass
            await medium.withdraw(identity(1))
            for _ in range(2):
                roster = medium.open()
                with pytest.raises(RosterEmpty):
                    await roster.start()
                await roster.aclose()
                await medium.leave()

    run_virtual(main())


class CountingIntroducer:
    """Answers at once whatever it is asked, or never."""

    def __init__(self, answer: RosterAnswer | None) -> None:
        self.calls = 0
        self.answer = answer

    async def roster(self, epoch: str, version: int, wait_s: float) -> RosterAnswer:
        self.calls += 1
        if self.answer is None:
            raise NodeUnreachable(node=bytes(32), reason="nobody listens")
        return self.answer

    async def aclose(self) -> None:
        pass


def test_an_introducer_that_never_waits_or_never_answers_is_asked_in_moderation(tmp_path: Path) -> None:
    async def main() -> None:
        async with IntroducerMedium(tmp_path) as medium:
            answer = RosterAnswer("one", 1, full=True, records=[record_text(signed(1, medium.clock))])
            source = CountingIntroducer(answer)
            roster = IntroducerRoster(
                "x", source, medium.resolve, medium.clock, cache=None, chance=lambda: 0.5
            )
            await roster.start()
            await asyncio.sleep(60)
            assert source.calls <= 620
            source.answer, source.calls = None, 0
            await asyncio.sleep(600)
            assert 20 <= source.calls <= 40
            await roster.aclose()

    run_virtual(main())
