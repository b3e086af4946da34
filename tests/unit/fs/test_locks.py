"""Locks within one mount: who gets them, who waits, in which order, and who is told not to."""

from __future__ import annotations

import asyncio
import errno

import pytest

from muniment.core.lock_ranges import Lock
from muniment.errors import FileRefused
from muniment.fs.errnos import errno_of
from muniment.fs.locking.locks import Locks

FILE, OTHER = 7, 8
ANNA, BERT, CARL = 101, 102, 103


async def refused(locks: Locks, lock: Lock, *, whole: bool = False, wait: bool = False) -> int:
    with pytest.raises(FileRefused) as error:
        await locks.set(FILE, lock, whole=whole, wait=wait)
    return errno_of(error.value)


async def settled() -> None:
    """Everybody who can go on has."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_range_is_one_owners_until_he_gives_it_up() -> None:
    locks = Locks()
    held = Lock(ANNA, 10, 20, pid=1)
    await locks.set(FILE, held)
    assert await locks.find(FILE, Lock(BERT, 19, 21)) == held
    assert await locks.find(FILE, Lock(ANNA, 0, 100)) is None
    assert await locks.find(FILE, Lock(BERT, 20, 21)) is None
    assert await refused(locks, Lock(BERT, 0, 11, exclusive=False)) == errno.EAGAIN
    await locks.set(OTHER, Lock(BERT))
    await locks.clear(FILE, ANNA, 10, 15)
    await locks.set(FILE, Lock(BERT, 0, 15))
    assert await refused(locks, Lock(BERT, 0, 16)) == errno.EAGAIN
    await locks.clear(FILE, ANNA)
    await locks.set(FILE, Lock(BERT))


async def test_locks_of_ranges_and_of_whole_files_do_not_meet() -> None:
    locks = Locks()
    await locks.set(FILE, Lock(ANNA))
    await locks.set(FILE, Lock(BERT), whole=True)
    assert await refused(locks, Lock(CARL), whole=True) == errno.EAGAIN
    await locks.clear(FILE, BERT)
    assert await refused(locks, Lock(CARL), whole=True) == errno.EAGAIN
    await locks.clear(FILE, BERT, whole=True)
    await locks.set(FILE, Lock(CARL), whole=True)


async def test_who_waits_gets_it_in_the_order_of_waiting() -> None:
    locks, got = Locks(), list[int]()

    async def take(owner: int) -> None:
        await locks.set(FILE, Lock(owner), wait=True)
        got.append(owner)

    await locks.set(FILE, Lock(ANNA))
    tasks = [asyncio.create_task(take(owner)) for owner in (BERT, CARL)]
    await settled()
    assert got == []
    await locks.clear(FILE, ANNA)
    await settled()
    assert got == [BERT]
    await locks.clear(FILE, BERT)
    await asyncio.gather(*tasks)
    assert got == [BERT, CARL]


async def test_who_gives_up_waiting_takes_nothing() -> None:
    locks = Locks()
    await locks.set(FILE, Lock(ANNA))
    waiting = asyncio.create_task(locks.set(FILE, Lock(BERT), wait=True))
    await settled()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await locks.clear(FILE, ANNA)
    await locks.set(FILE, Lock(CARL))


async def test_a_downgrade_lets_readers_in() -> None:
    locks = Locks()
    await locks.set(FILE, Lock(ANNA))
    waiting = asyncio.create_task(locks.set(FILE, Lock(BERT, exclusive=False), wait=True))
    await settled()
    await locks.set(FILE, Lock(ANNA, exclusive=False))
    await asyncio.wait_for(waiting, 1)


async def test_two_who_would_wait_for_each_other_are_told() -> None:
    locks = Locks()
    await locks.set(FILE, Lock(ANNA, 0, 1))
    await locks.set(FILE, Lock(BERT, 1, 2))
    await locks.set(FILE, Lock(CARL, 2, 3))
    waiting = [
        asyncio.create_task(locks.set(FILE, Lock(ANNA, 1, 2), wait=True)),
        asyncio.create_task(locks.set(FILE, Lock(BERT, 2, 3), wait=True)),
    ]
    await settled()
    assert await refused(locks, Lock(CARL, 0, 1), wait=True) == errno.EDEADLK
    await locks.clear(FILE, CARL)
    await waiting[1]
    await locks.clear(FILE, BERT)
    await waiting[0]


async def test_two_readers_of_a_whole_file_who_both_want_to_write_do_so_one_after_the_other() -> None:
    locks = Locks()
    for owner in (ANNA, BERT):
        await locks.set(FILE, Lock(owner, exclusive=False), whole=True)
    first = asyncio.create_task(locks.set(FILE, Lock(ANNA), whole=True, wait=True))
    await settled()
    assert not first.done()
    second = asyncio.create_task(locks.set(FILE, Lock(BERT), whole=True, wait=True))
    await settled()
    assert sorted([first.done(), second.done()]) == [False, True]
    await locks.clear(FILE, ANNA if first.done() else BERT, whole=True)
    await asyncio.gather(first, second)


async def test_a_range_of_nothing_is_refused_and_so_are_locks_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("muniment.fs.locking.locks._LOCKS_MAX", 3)
    locks = Locks()
    assert await refused(locks, Lock(ANNA, 5, 5)) == errno.EINVAL
    for at in range(3):
        await locks.set(FILE, Lock(ANNA, 2 * at, 2 * at + 1))
    assert await refused(locks, Lock(BERT, 100, 101)) == errno.ENOLCK
    await locks.clear(FILE, ANNA, 0, 1)
    await locks.set(FILE, Lock(BERT, 100, 101))
