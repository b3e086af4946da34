"""A keeper's book belongs to one history of one volume: any other is noticed, and it is written anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, PLAIN
from tests.unit.keeping.test_hostile import Away
from tests.unit.keeping.test_keeper import Named, World, world
from tests.unit.volume.support import folder, member, transaction
from tests.unit.volume.support import world as volume_world

from muniment.books.memory import MemoryBlobBook
from muniment.books.sqlite import SqliteBlobBook
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.named import NamedByLog
from muniment.engine.keeping.work import Worker
from muniment.ids import BlobId, MemberId, VolumeId
from muniment.ports import BlobBook, NamedBlobs
from muniment.queues.memory import MemoryQueue
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape, CodecId
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import StepClock, run_virtual


def again(w: World, log: Named, book: BlobBook | None = None) -> Keeper:
    """As a process that has just been started, with the book that lies there."""
    worker = Worker(MemoryQueue(), clock=w.clock, chance=lambda: 0.5)
    return Keeper(log, w.keeper._grid, book or w.book, worker, w.clock, MemberId(b"m" * 32))


def test_a_book_of_this_log_goes_on() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            (seen,) = w.book.sightings([name.blob for name in w.book.kept(None, 1)])
            await w.put(2 * CHUNK, seed=2)
            await again(w, w.log).follow()
            assert w.book.size == 2
            assert w.book.sightings([name.blob for name in w.book.kept(None, 99)]).count(seen) == 1

    run_virtual(main())


@pytest.mark.parametrize("what", ["another history", "another volume", "a shorter log"])
def test_a_book_of_another_log_is_written_anew(what: str) -> None:
    async def main() -> None:
        async with world() as w:
            for seed in range(3):
                await w.put(2 * CHUNK, seed)
            await w.keeper.begin()
            await w.work()
            first, second, third = w.log.entries
            other = {
                "another history": Named(entries=[first, third, NamedBlobs(), second]),
                "another volume": Named(VolumeId(b"w" * 32), [first, second, third]),
                "a shorter log": Named(entries=[first, second]),
            }[what]
            await again(w, other).follow()
            fresh = MemoryBlobBook()
            await again(w, other, fresh).follow()
            assert (w.book.size, w.book.bound) == (fresh.size, fresh.bound)
            assert w.book.kept(None, 99) == fresh.kept(None, 99)
            assert not any(w.book.sightings([name.blob for name in w.book.kept(None, 99)]))

    run_virtual(main())


def test_while_the_log_is_away_a_book_that_is_ahead_of_what_is_here_is_used_on() -> None:
    """The replica was deleted, and the service does not answer: nothing says that the book is wrong."""

    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            log = Away()
            log.away = True
            keeper = again(w, log)
            await keeper.begin()
            await keeper._worker.flush()
            assert (w.book.size, keeper.tally.scans, keeper.tally.proofs) == (1, 1, 18)

    run_virtual(main())


async def test_a_book_file_that_was_copied_from_another_volume_is_noticed(tmp_path: Path) -> None:
    clock, book = StepClock(), SqliteBlobBook(tmp_path / "book")
    async with (
        volume_world(clock=clock) as ours,
        volume_world(clock=clock) as theirs,
        FakeGrid(6, clock=clock).client(PLAIN, account=b"keeper") as grid,
    ):
        for log in (ours, theirs):
            anna = await log.member("anna")
            for number in range(3):
                await anna.commit(lambda _, n=number: transaction(folder(b"%d" % n)))  # type: ignore[misc]
            worker = Worker(MemoryQueue(), clock=clock, chance=lambda: 0.5)
            source = NamedByLog(anna)
            keeper = Keeper(source, grid, book, worker, clock, member("anna").member)
            stray = BlobName(BlobId(os.urandom(32)), BlobShape(CodecId.RS, 4, 6, 100))
            await keeper.follow()
            assert (book.size, book.bound) == (4, log.volume + source.head.root)
            assert book.count() == (0, 0)
            book.take_in(4, [NamedBlobs(added=(stray,))], bound=log.volume + bytes(32))
            await keeper.follow()
            assert (book.size, book.count()) == (4, (0, 0))
    book.close()
