"""The clear part kept beside a log: read instead of the entries, and believed in nothing."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, folder, kick, member, transaction, world

from muniment.core.clear_part import head_of
from muniment.engine.follower import Follower
from muniment.engine.kept_clear import KEPT_ENTRIES
from muniment.engine.sequencer import Sequencer
from muniment.engine.volume import Volume
from muniment.logs.clear_file import FileClear, MemoryClear
from muniment.logs.memory import MemoryLog
from muniment.node.clock import SystemClock
from muniment.ports import LogStore
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.testing.log_author import LogAuthor
from muniment.testing.lying_log import store_of
from muniment.views.memory import MemoryView

POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "4/6", 5, 1 << 16)
KEPT = "muniment.engine.kept_clear"


class CountedStore(MemoryLog):
    """Counts the entries that are read."""

    reads = 0

    def read(self, start: int, stop: int, *, bytes_max: int) -> list[bytes]:
        found = super().read(start, stop, bytes_max=bytes_max)
        self.reads += len(found)
        return found


def counted(store: LogStore) -> CountedStore:
    """A copy of a log."""
    plain, copy = store_of_world(store), CountedStore()
    vars(copy).update(vars(plain))
    return copy


def store_of_world(store: LogStore) -> MemoryLog:
    assert isinstance(store, MemoryLog)
    return store


@pytest.fixture
async def grown() -> AsyncIterator[tuple[World, Volume]]:
    """A log of acts and changes, somewhat longer than what is replayed without being kept."""
    async with world(POLICY) as founded:
        anna = await founded.member("anna")
        for name in ("bert", "carl"):
            await founded.join(name, Role.READER, anna)
            await anna.sync()
        await anna.act(lambda state: kick(state, anna, member("carl")))
        for number in range(30):
            await anna.commit(lambda _, n=number: transaction(folder(b"%d" % n)))  # type: ignore[misc]
        yield founded, anna


async def kept_of(founded: World) -> bytes:
    _, part = await founded.log.clear_part()
    return part


def follower(founded: World, store: LogStore, clear: MemoryClear | FileClear) -> Follower:
    secret = member("anna").read
    return Follower(founded.volume, secret, LOG_KEY.public_key, store, MemoryView(), clear=clear)


async def test_an_opening_reads_what_is_kept_instead_of_the_entries(grown: tuple[World, Volume]) -> None:
    founded, anna = grown
    clear, store = MemoryClear(), counted(founded.store)
    clear.part = await kept_of(founded)
    view = anna.view
    again = Follower(founded.volume, member("anna").read, LOG_KEY.public_key, store, view, clear=clear)
    assert store.reads == 0
    known = anna.follower
    assert head_of(again.membership, again.frontier) == head_of(known.membership, known.frontier)
    assert again.ring.keys(0) == known.ring.keys(0)
    assert again.ring.keys(1) == known.ring.keys(1)


async def test_what_came_later_is_replayed(grown: tuple[World, Volume]) -> None:
    founded, anna = grown
    clear = MemoryClear()
    clear.part = await kept_of(founded)
    for number in range(3):
        await anna.commit(lambda _, n=number: transaction(folder(b"later %d" % n)))  # type: ignore[misc]
    store = counted(founded.store)
    again = Follower(founded.volume, member("anna").read, LOG_KEY.public_key, store, anna.view, clear=clear)
    assert store.reads == 3
    assert again.membership.size == founded.store.size


@pytest.mark.parametrize("seed", range(8))
async def test_a_damaged_one_is_made_anew(
    grown: tuple[World, Volume], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    founded, anna = grown
    part = bytearray(await kept_of(founded))
    if seed < 6:
        part[random.Random(seed).randrange(len(part))] ^= 1 << seed
    clear, store = MemoryClear(), counted(founded.store)
    clear.part = bytes(part[: len(part) // 2] if seed == 6 else b"nonsense" if seed == 7 else part)
    again = follower(founded, store, clear)
    assert store.reads >= founded.store.size
    known = anna.follower
    assert head_of(again.membership, again.frontier) == head_of(known.membership, known.frontier)
    assert [record.levelno for record in caplog.records if record.name == KEPT] == [logging.WARNING]
    caplog.clear()


async def test_one_of_another_log_or_a_later_one_is_not_believed(
    grown: tuple[World, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    founded, _ = grown
    clear = MemoryClear()
    clear.part = await kept_of(founded)
    entries = founded.entries()
    shorter = store_of(founded.volume, entries[:-2], LOG_KEY)
    assert follower(founded, shorter, clear).membership.size == len(entries) - 2
    async with world() as other:
        store = other.store
        stranger = Follower(
            other.volume, member("anna").read, LOG_KEY.public_key, store, MemoryView(), clear=clear
        )
        assert stranger.membership.volume == other.volume
    assert len([record for record in caplog.records if record.name == KEPT]) == 2
    caplog.clear()


async def test_a_service_starts_from_what_it_kept(grown: tuple[World, Volume]) -> None:
    founded, anna = grown
    clear, store = MemoryClear(), counted(founded.store)
    clear.part = await kept_of(founded)
    with ThreadPoolExecutor(1) as thread:
        sequencer = Sequencer(founded.volume, store, LOG_KEY, Now(), thread, clear)
        assert await sequencer.clear_part() == await founded.log.clear_part()
        assert store.reads == len(anna.membership.acts)  # to give them, and none to know the members
        await sequencer.aclose()


async def test_it_is_kept_when_enough_is_new(tmp_path: Path) -> None:
    author = LogAuthor.founder(1)
    entries = [author.founding, *(author.transaction(b"%d" % at) for at in range(KEPT_ENTRIES - 2))]
    store = store_of(author.volume, entries, LOG_KEY)
    clear = FileClear(tmp_path / "clear")
    with ThreadPoolExecutor(1) as thread:
        sequencer = Sequencer(author.volume, store, LOG_KEY, SystemClock(), thread, clear)
        await sequencer.append([author.transaction(b"one less")])
        assert clear.load() == b""
        await sequencer.append([author.transaction(b"enough"), author.transaction(b"more")])
        await sequencer.aclose()
        _, part = await sequencer.clear_part()
    assert clear.load() == part
    assert (tmp_path / "clear").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "clear.new").exists()
