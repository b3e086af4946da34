"""The introducer's set: newest record of each node, gone when it withdraws or expires."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.unit.node.support import START_S, VirtualClock, identity, node_record

from muniment.crypto.records import record_text, sign_record
from muniment.errors import ClockSkewed, InvalidRequest, MalformedRecord, MunimentError, Overloaded
from muniment.ids import id_text
from muniment.node.introducer import RECORDS_BYTES_MAX, IntroducerService, RosterFile
from muniment.spec.limits import ANSWER_BYTES_MAX
from muniment.spec.wire import RosterAnswer


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def service(clock: VirtualClock, epoch: str = "one", records_max: int = 10) -> IntroducerService:
    return IntroducerService(epoch, records_max, 86400, clock)


def signed(number: int, *, at_s: float = 0, life_s: float = 3600, port: int = 1) -> bytes:
    who = identity(number)
    return sign_record(who, node_record(who, issued_s=START_S + at_s, life_s=life_s, port=port))


def everything(introducer: IntroducerService) -> RosterAnswer:
    return introducer.answer("", 0)


def test_the_later_record_of_a_node_wins(clock: VirtualClock) -> None:
    introducer = service(clock)
    assert introducer.announce(signed(1))
    assert introducer.announce(signed(2))
    assert introducer.announce(signed(1, at_s=5, port=2))
    assert set(everything(introducer).records) == {
        record_text(signed(1, at_s=5, port=2)),
        record_text(signed(2)),
    }


def test_an_earlier_or_other_record_of_the_same_second_is_refused(clock: VirtualClock) -> None:
    introducer = service(clock)
    introducer.announce(signed(1, at_s=5))
    for record in (signed(1, at_s=4), signed(1, at_s=5, port=2)):
        with pytest.raises(InvalidRequest):
            introducer.announce(record)
    assert introducer.announce(signed(1, at_s=5)) is False


def test_a_changed_byte_is_refused(clock: VirtualClock) -> None:
    record = bytearray(signed(1))
    record[40] ^= 1
    with pytest.raises(MalformedRecord):
        service(clock).announce(bytes(record))


def test_records_from_the_future_or_without_end_are_refused(clock: VirtualClock) -> None:
    with pytest.raises(ClockSkewed):
        service(clock).announce(signed(1, at_s=121))
    with pytest.raises(InvalidRequest, match="86400"):
        service(clock).announce(signed(1, life_s=86400 * 2))


def test_a_follower_sees_additions_renewals_and_removals(clock: VirtualClock) -> None:
    introducer = service(clock)
    introducer.announce(signed(1))
    first = everything(introducer)
    assert first.full
    introducer.announce(signed(2))
    introducer.announce(signed(1, at_s=1))
    second = introducer.answer("one", first.version)
    assert not second.full
    assert set(second.records) == {record_text(signed(2)), record_text(signed(1, at_s=1))}
    introducer.announce(signed(1, at_s=2, life_s=0))
    third = introducer.answer("one", second.version)
    assert (third.records, third.removed) == ([], [id_text(identity(1).node)])


def test_an_expired_record_is_removed(clock: VirtualClock) -> None:
    introducer = service(clock)
    introducer.announce(signed(1, life_s=100))
    introducer.announce(signed(2, life_s=200))
    version = introducer.version
    clock.advance(100)
    answer = introducer.answer("one", version)
    assert (answer.full, answer.removed) == (False, [id_text(identity(1).node)])
    assert everything(introducer).records == [record_text(signed(2, life_s=200))]


def test_a_withdrawn_node_cannot_be_brought_back_by_its_old_record(clock: VirtualClock) -> None:
    introducer = service(clock)
    introducer.announce(signed(1))
    introducer.announce(signed(1, at_s=1, life_s=0))
    with pytest.raises(InvalidRequest):
        introducer.announce(signed(1))
    assert introducer.announce(signed(1, at_s=2))
    assert len(everything(introducer).records) == 1


def test_withdrawing_an_unknown_node_changes_nothing(clock: VirtualClock) -> None:
    introducer = service(clock)
    assert introducer.announce(signed(1, life_s=0)) is False
    assert introducer.version == 0


def test_forgotten_removals_send_late_followers_the_full_set(clock: VirtualClock) -> None:
    introducer = service(clock)
    introducer.announce(signed(1, life_s=10))
    version = introducer.version
    introducer.announce(signed(2, life_s=3600))
    clock.advance(10)
    assert not introducer.answer("one", version).full
    clock.advance(700)
    assert introducer.answer("one", version).full
    assert not introducer.answer("one", introducer.version).full


def test_the_number_of_nodes_is_bounded_and_known_ones_may_renew(clock: VirtualClock) -> None:
    introducer = service(clock, records_max=2)
    introducer.announce(signed(1))
    introducer.announce(signed(2))
    with pytest.raises(Overloaded):
        introducer.announce(signed(3))
    introducer.announce(signed(2, at_s=1))
    introducer.announce(signed(1, at_s=1, life_s=0))
    introducer.announce(signed(3))


def test_all_records_have_room_in_one_answer(clock: VirtualClock) -> None:
    room = 2 * (len(record_text(signed(1))) + 3) + 2
    introducer = IntroducerService("one", 10, 86400, clock, records_bytes_max=room)
    introducer.announce(signed(1))
    introducer.announce(signed(2))
    with pytest.raises(Overloaded, match=f"{room} bytes"):
        introducer.announce(signed(3))
    introducer.announce(signed(2, at_s=1))  # a renewal takes the room of what it replaces
    with pytest.raises(Overloaded):
        introducer.announce(signed(2, at_s=2, port=10_000))
    introducer.announce(signed(1, at_s=3, life_s=-1))
    introducer.announce(signed(3))
    assert len(everything(introducer).records) == 2


def test_the_longest_answer_is_one_that_clients_read() -> None:
    record = "r" * 1000
    records = [record] * (RECORDS_BYTES_MAX // 1003)
    answer = RosterAnswer("e" * 64, (1 << 53) - 1, False, records, [id_text(bytes(32))] * 1000)
    assert len(msgspec.json.encode(answer)) <= ANSWER_BYTES_MAX


def test_who_missed_many_removals_gets_the_full_set(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.node.introducer._REMOVED_MAX", 2)
    introducer = service(clock)
    for number in range(1, 6):
        introducer.announce(signed(number))
    version = introducer.version
    for number in (1, 2):
        introducer.announce(signed(number, at_s=1, life_s=-1))
    assert len(introducer.answer("one", version).removed) == 2
    introducer.announce(signed(3, at_s=1, life_s=-1))
    answer = introducer.answer("one", version)
    assert (answer.full, answer.removed, len(answer.records)) == (True, [], 2)


def test_the_number_of_remembered_removals_is_bounded(clock: VirtualClock) -> None:
    introducer = service(clock, records_max=2)
    for number in range(1, 6):
        introducer.announce(signed(number))
        introducer.announce(signed(number, at_s=1, life_s=0))
    assert len(introducer.saved().gone) == 2
    assert introducer.answer("one", 0).full


@pytest.mark.parametrize(("epoch", "version"), [("other", 1), ("one", 99), ("", 0)])
def test_a_version_of_another_run_gets_the_full_set_at_once(
    clock: VirtualClock, epoch: str, version: int
) -> None:
    introducer = service(clock)
    introducer.announce(signed(1))
    answer = introducer.answer(epoch, version)
    assert (answer.full, len(answer.records)) == (True, 1)


async def test_a_waiting_client_is_answered_by_a_change(clock: VirtualClock) -> None:
    introducer = service(clock)
    waiting = [asyncio.create_task(introducer.wait_answer("one", 0, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    introducer.announce(signed(1))
    for answer in await asyncio.gather(*waiting):
        assert answer.records == [record_text(signed(1))]


async def test_a_waiting_client_is_answered_when_its_time_is_over(clock: VirtualClock) -> None:
    answer = await service(clock).wait_answer("one", 0, 0.01)
    assert (answer.version, answer.full, answer.records) == (0, False, [])


async def test_waiting_clients_are_released_at_a_stop(clock: VirtualClock) -> None:
    introducer = service(clock)
    waiting = asyncio.create_task(introducer.wait_answer("one", 0, 60))
    await asyncio.sleep(0)
    introducer.release_waiting()
    assert (await waiting).records == []


async def test_a_restart_has_the_set_back_at_once(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    first = service(clock)
    for number in (1, 2, 3):
        first.announce(signed(number, life_s=100 * number))
    first.announce(signed(2, at_s=1, life_s=0))
    await RosterFile(path, first).save()
    clock.advance(150)
    second = service(clock, epoch="two")
    RosterFile(path, second).load()
    assert everything(second).records == [record_text(signed(3, life_s=300))]
    with pytest.raises(InvalidRequest):
        second.announce(signed(2, life_s=200))  # withdrawn in the first run, and not yet expired


async def test_saves_are_shared_and_skipped_when_nothing_changed(clock: VirtualClock, tmp_path: Path) -> None:
    introducer = service(clock)
    file = RosterFile(tmp_path / "roster.json", introducer)
    introducer.announce(signed(1))
    await asyncio.gather(*[file.save() for _ in range(5)])
    (tmp_path / "roster.json").unlink()
    await file.save()
    assert not (tmp_path / "roster.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"format":1,"records":[1],"gone":[]}',
        b'{"format":1,"records":[],"gone":[["x",1,2]]}',
    ],
)
def test_a_damaged_file_is_kept_aside(clock: VirtualClock, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "roster.json"
    path.write_bytes(content)
    introducer = service(clock)
    RosterFile(path, introducer).load()
    assert everything(introducer).records == []
    assert path.with_name("roster.json.damaged").read_bytes() == content


def test_a_false_record_in_the_file_is_left_out(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    texts = ['"' + record_text(signed(1))[:-4] + 'AAAA"', '"' + record_text(signed(2)) + '"']
    path.write_text('{"format":1,"gone":[],"records":[' + ",".join(texts) + "]}")
    introducer = service(clock)
    RosterFile(path, introducer).load()
    assert everything(introducer).records == [record_text(signed(2))]


def test_any_bytes_are_refused_with_a_documented_error(clock: VirtualClock) -> None:
    introducer = service(clock)
    good = signed(1)
    for junk in (b"", b"\x00", good[:-1], good + b"\x00", b"\x9f" * 100, b"\xd8\x1c" * 20):
        with pytest.raises(MunimentError):
            introducer.announce(junk)
