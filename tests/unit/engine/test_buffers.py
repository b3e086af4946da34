"""The pool that bounds memory: limit, order, reuse, and what waits when it is full."""

from __future__ import annotations

import asyncio

import pytest

from muniment.engine.buffers import BufferPool, size_class
from muniment.spec.limits import KIB, MIB


def pool_of(limit: int, made: list[int] | None = None) -> BufferPool[int, bytearray]:
    def make(size: int) -> bytearray:
        if made is not None:
            made.append(size)
        return bytearray(size)

    return BufferPool(limit, make, lambda size: size)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        (1, 4 * MIB, 4 * KIB),
        (4 * KIB, 4 * MIB, 4 * KIB),
        (4 * KIB + 1, 4 * MIB, 8 * KIB),
        (4 * MIB, 4 * MIB, 4 * MIB),
        (3 * MIB, 3 * MIB, 3 * MIB),
        (MIB + 1, 3 * MIB, 2 * MIB),
        (17 * MIB, 16 * MIB, 16 * MIB),
    ],
)
def test_sizes_fall_into_few_classes(size: int, most: int, expected: int) -> None:
    assert size_class(size, most) == expected


async def test_a_buffer_given_back_is_used_again() -> None:
    made: list[int] = []
    pool = pool_of(100, made)
    first = await pool.acquire(40)
    pool.release(40, first)
    assert await pool.acquire(40) is first
    assert made == [40]


async def test_who_does_not_fit_waits_in_order() -> None:
    pool = pool_of(100)
    first = await pool.acquire(60)
    big = asyncio.ensure_future(pool.acquire(80))
    await asyncio.sleep(0)
    small = asyncio.ensure_future(pool.acquire(10))  # would fit, but comes after the big one
    await asyncio.sleep(0)
    assert pool.contended
    assert not small.done()
    pool.release(60, first)
    assert len(await big) == 80
    assert len(await small) == 10
    assert pool.used_bytes == 90


async def test_idle_buffers_of_another_kind_make_way() -> None:
    pool = pool_of(100)
    for buffer in [await pool.acquire(30) for _ in range(3)]:
        pool.release(30, buffer)
    assert pool.idle_bytes == 90
    await pool.acquire(50)
    assert pool.used_bytes + pool.idle_bytes <= 100
    assert pool.peak_bytes <= 100


async def test_one_buffer_larger_than_the_limit_is_granted_alone() -> None:
    pool = pool_of(100)
    large = await pool.acquire(300)
    other = asyncio.ensure_future(pool.acquire(1))
    await asyncio.sleep(0)
    assert not other.done()
    pool.release(300, large)
    await other


async def test_nowait_never_overtakes() -> None:
    pool = pool_of(100)
    first = await pool.acquire(60)
    assert pool.acquire_nowait(50) is None
    waiting = asyncio.ensure_future(pool.acquire(50))
    await asyncio.sleep(0)
    assert pool.acquire_nowait(10) is None
    pool.release(60, first)
    await waiting
    assert pool.acquire_nowait(10) is not None


async def test_a_cancelled_wait_takes_nothing_and_lets_the_next_pass() -> None:
    pool = pool_of(100)
    first = await pool.acquire(60)
    gone = asyncio.ensure_future(pool.acquire(80))
    await asyncio.sleep(0)
    small = asyncio.ensure_future(pool.acquire(10))
    await asyncio.sleep(0)
    gone.cancel()
    await small
    pool.release(60, first)
    assert pool.used_bytes == 10


async def test_a_wait_cancelled_in_the_moment_it_was_granted_gives_back() -> None:
    pool = pool_of(100)
    first = await pool.acquire(60)
    gone = asyncio.ensure_future(pool.acquire(80))
    await asyncio.sleep(0)
    pool.release(60, first)  # granted now, not yet awake
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert pool.used_bytes == 0


async def test_a_buffer_that_comes_back_in_the_moment_of_a_cancellation_is_for_the_next() -> None:
    pool = pool_of(100)
    first = await pool.acquire(60)
    gone, next_one = (asyncio.ensure_future(pool.acquire(80)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    pool.release(60, first)  # before the cancelled one has run
    with pytest.raises(asyncio.CancelledError):
        await gone
    pool.release(80, await next_one)
    assert not pool.contended
    assert pool.used_bytes == 0


async def test_somebody_is_told_that_memory_is_short() -> None:
    told: list[int] = []
    pool: BufferPool[int, bytearray] = BufferPool(
        100, bytearray, lambda size: size, lambda: told.append(pool.used_bytes)
    )
    first = await pool.acquire(60)
    assert told == []
    waiting = asyncio.ensure_future(pool.acquire(80))
    await asyncio.sleep(0)
    assert told == [60]
    pool.release(60, first)
    await waiting
