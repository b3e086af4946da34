"""What a log service orders and refuses, request by request; the whole service is tested from outside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from muniment.crypto.entries import entry_hash, open_entry, sign_entry
from muniment.crypto.identity import Identity
from muniment.engine import sequencer
from muniment.engine.sequencer import Sequencer, found
from muniment.errors import AuthorChainBroken, EntryMisplaced, MunimentError
from muniment.logs.memory import MemoryLog
from muniment.merkle.log_tree import Frontier, Subtree
from muniment.node.clock import SystemClock
from muniment.ports import Appended, LoggedEntry
from muniment.testing.log_author import LogAuthor


class Served:
    """A volume of one author, and the log service of it."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.author, self.store = LogAuthor.founder(1), MemoryLog()
        key = Identity.from_seed(b"s" * 32)
        found(self.author.founding, self.store, key)
        self.sequencer = Sequencer(self.author.volume, self.store, key, SystemClock(), thread)

    def entries(self, count: int) -> list[bytes]:
        return [self.author.transaction(b"%d" % at) for at in range(count)]

    def seeing(self, signed: bytes, size: int, root: bytes) -> bytes:
        """The same entry by an author who has seen this."""
        entry = replace(open_entry(signed).entry, seen_size=size, seen_root=root)
        return sign_entry(self.author.secret.identity, entry)

    async def append(self, *signed: bytes) -> list[int | type[MunimentError]]:
        outcomes = await self.sequencer.append(signed)
        return [one.index if isinstance(one, Appended) else type(one) for one in outcomes]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with ThreadPoolExecutor(1) as thread:
        served = Served(thread)
        yield served
        await served.sequencer.aclose()


async def test_what_is_in_the_log_keeps_its_place(served: Served) -> None:
    one, two, three = served.entries(3)
    assert await served.append(one, two) == [1, 2]
    assert await served.append(two, one, three, one) == [2, 1, 3, 1]
    assert served.store.size == 4


async def test_another_entry_in_place_of_one_is_refused(served: Served) -> None:
    one, two = served.entries(2)
    await served.append(one, two)
    other = served.seeing(one, 1, served.store.node(0, 0))
    assert await served.append(other) == [AuthorChainBroken]


@pytest.mark.parametrize("honest", [True, False])
async def test_what_an_author_saw_is_checked_before_it_is_durable(served: Served, honest: bool) -> None:
    """Else two entries in one request would make every member refuse an honest log."""
    one, two = served.entries(2)
    tree, _ = Frontier.at(1, served.store.node).append(entry_hash(one))
    seeing = served.seeing(two, 2, tree.root() if honest else b"r" * 32)
    assert await served.append(one, seeing) == [1, 2 if honest else EntryMisplaced]
    assert served.store.size == (3 if honest else 2)


async def test_more_than_there_is_was_seen_by_nobody(served: Served) -> None:
    one, two = served.entries(2)
    assert await served.append(one, served.seeing(two, 9, b"r" * 32)) == [1, EntryMisplaced]


async def test_requests_share_a_flush_and_keep_their_order(served: Served) -> None:
    entries = served.entries(20)
    places = await asyncio.gather(*(served.append(entry) for entry in entries))
    assert places == [[at] for at in range(1, 21)]


@pytest.mark.parametrize("patience_s", [5.0, 0.0])
async def test_who_write_at_the_same_time_come_to_share_flushes_if_they_come_back_in_time(
    served: Served, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    """One begins while the other's first entry is being written; without a wait they would take turns."""
    entries, flushed = served.entries(19), list[int]()
    loop, writing, free = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    append = served.store.append

    def watched(fresh: Sequence[LoggedEntry], nodes: Sequence[Subtree], note: bytes) -> None:
        flushed.append(len(fresh))
        loop.call_soon_threadsafe(writing.set)
        assert free.wait(5)
        append(fresh, nodes, note)

    async def write(own: list[bytes]) -> None:
        for entry in own:
            assert await served.append(entry) == [1 + entries.index(entry)]

    monkeypatch.setattr(sequencer, "_GATHER_S", patience_s)
    monkeypatch.setattr(served.store, "append", watched)
    async with asyncio.TaskGroup() as authors:
        authors.create_task(write(entries[0::2]))
        await writing.wait()
        authors.create_task(write(entries[1::2]))
        await asyncio.sleep(0)
        free.set()
    assert sum(flushed) == 19
    if patience_s:
        assert flushed == [1] + [2] * 9


async def test_closing_waits_for_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "_GATHER_S", 60.0)
    one, two = served.entries(2)
    assert [*await asyncio.gather(served.append(one), served.append(two))] == [[1], [2]]
    async with asyncio.timeout(5):
        await served.sequencer.aclose()
