"""Blobs that were read before come from a cache on this machine, and what is wrong there does no harm."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, SMALL, content, got, got_with_result

from muniment.caches.folder import FolderBlobCache
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import DownloadTally
from muniment.erasure.codec import Coding
from muniment.errors import BlobCorrupt, DiskFull, StoreFailed, TooFewShares
from muniment.ids import BlobId, id_text
from muniment.ports import BlobCache
from muniment.spec.blob import BlobRef
from muniment.spec.cap import BlobFile
from muniment.spec.limits import MIB
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual

COPIES = Policy(coding=Coding.from_text("1/3"), happy=3, chunk_bytes=CHUNK)
POLICIES = {"erasure coded": SMALL, "not compressed": PLAIN, "copies": COPIES}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(top: Path) -> Iterator[FolderBlobCache]:
    made = FolderBlobCache(top, 100 * MIB)
    yield made
    made.close()


def kept_files(top: Path) -> list[Path]:
    return sorted(path for path in top.iterdir() if not path.name.startswith("index"))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("size", [1000, CHUNK, 5 * CHUNK + 3])
def test_what_was_read_once_can_be_read_with_no_node_there(
    cache: FolderBlobCache, top: Path, policy: Policy, size: int
) -> None:
    async def scenario() -> None:
        fake = FakeGrid()
        async with fake.client(policy) as grid:
            cap = (await grid.put(content(size))).cap
        async with fake.client(policy, cache=cache) as grid:
            assert await got(grid, cap) == content(size)
        for node in fake.nodes:
            node.shares.clear()
        async with fake.client(policy, cache=cache) as grid:  # after a restart, manifests too
            assert await got(grid, cap) == content(size)
            assert await got(grid, cap, start=size // 2) == content(size)[size // 2 :]
        async with fake.client(policy) as grid:
            with pytest.raises(TooFewShares):
                await got(grid, cap)

    run_virtual(scenario())
    plain = content(size)
    assert all(plain[:32] not in path.read_bytes() for path in kept_files(top))


def test_what_came_by_parity_is_kept_too(cache: FolderBlobCache) -> None:
    async def scenario() -> None:
        fake = FakeGrid()
        async with fake.client(SMALL) as grid:
            cap = (await grid.put(content(3 * CHUNK))).cap
        for node in fake.nodes:
            for key in [key for key in node.shares if key.number < 2]:
                del node.shares[key]
        async with fake.client(SMALL, cache=cache) as grid:
            plain, result = await got_with_result(grid, cap)
            assert (plain, result.decoded > 0) == (content(3 * CHUNK), True)
        for node in fake.nodes:
            node.shares.clear()
        async with fake.client(SMALL, cache=cache) as grid:
            assert await got(grid, cap) == content(3 * CHUNK)

    run_virtual(scenario())


# --- damage ---------------------------------------------------------------------------------------


def flipped(record: bytes, at: int) -> bytes:
    changed = bytearray(record)
    changed[at % len(changed)] ^= 1
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "magic": lambda record, _: flipped(record, 0),
    "version": lambda record, _: flipped(record, 8),
    "shape": lambda record, _: flipped(record, 11),
    "share number": lambda record, _: flipped(record, 15),
    "first root": lambda record, _: flipped(record, 24),
    "root of a share that is not there": lambda record, _: flipped(record, 24 + 6 * 32 - 1),
    "first byte": lambda record, _: flipped(record, 24 + 6 * 32),
    "a byte": lambda record, _: flipped(record, len(record) // 2),
    "last byte": lambda record, _: flipped(record, -1),
    "shorter": lambda record, _: record[:-1],
    "half": lambda record, _: record[: len(record) // 2],
    "empty": lambda record, _: b"",
    "longer": lambda record, _: record + b"\0",
    "zeros": lambda record, _: bytes(len(record)),
    "another blob": lambda _, other: other,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_on_disk_is_told_and_fetched_anew(
    cache: FolderBlobCache,
    top: Path,
    damage: Callable[[bytes, bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        fake = FakeGrid()
        async with fake.client(PLAIN) as grid:
            one, other = [(await grid.put(content(CHUNK, seed))).cap for seed in (1, 2)]
        assert isinstance(one, BlobFile)
        assert isinstance(other, BlobFile)
        async with fake.client(PLAIN, cache=cache) as grid:
            await got(grid, one)
            await got(grid, other)
        path, right = file_of(top, one.ref), file_of(top, one.ref).read_bytes()
        path.write_bytes(damage(right, file_of(top, other.ref).read_bytes()))
        async with fake.client(PLAIN, cache=cache) as grid:
            tally = DownloadTally()
            assert await grid.read_blob(one.ref, tally) == content(CHUNK, 1)
            assert (tally.cached, tally.liars) == (0, {})
        assert path.read_bytes() == right
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "damaged" in caplog.text

    run_virtual(scenario())


def file_of(top: Path, ref: BlobRef) -> Path:
    return top / id_text(ref.name.blob)


def test_a_false_key_is_told_as_it_is_with_nodes_and_costs_the_cache_nothing(
    cache: FolderBlobCache, top: Path
) -> None:
    async def scenario() -> None:
        fake = FakeGrid()
        async with fake.client(PLAIN) as grid:
            cap = (await grid.put(content(CHUNK))).cap
        assert isinstance(cap, BlobFile)
        async with fake.client(PLAIN, cache=cache) as grid:
            await got(grid, cap)
        false = BlobRef(cap.ref.name, bytes(32), cap.ref.plain_bytes, cap.ref.compression)
        async with fake.client(PLAIN, cache=cache) as grid:
            with pytest.raises(BlobCorrupt):
                await grid.read_blob(false, DownloadTally())
            assert await got(grid, cap) == content(CHUNK)
        assert file_of(top, cap.ref).exists()

    run_virtual(scenario())


# --- pressure and failure -------------------------------------------------------------------------


class SlowCache:
    """A cache whose disk stands still until it is told to go on; everything else is that of another."""

    def __init__(self, inner: BlobCache) -> None:
        self._inner = inner
        self.go_on = threading.Event()
        self.error: Exception | None = None
        self.batches: list[list[BlobId]] = []

    def has(self, blob: BlobId) -> bool:
        return self._inner.has(blob)

    def read_into(self, blob: BlobId, parts: Sequence[memoryview]) -> int | None:
        return self._inner.read_into(blob, parts)

    def keep(self, blobs: Mapping[BlobId, Sequence[bytes | memoryview]]) -> None:
        assert self.go_on.wait(30)
        self.batches.append(list(blobs))
        if self.error is not None:
            raise self.error
        self._inner.keep(blobs)

    def drop(self, blob: BlobId) -> None:
        self._inner.drop(blob)

    def close(self) -> None:
        self._inner.close()


def test_no_read_waits_for_a_disk_that_stands_still_and_what_is_too_much_is_not_kept(
    cache: FolderBlobCache, top: Path
) -> None:
    async def scenario() -> None:
        fake, slow, count = FakeGrid(), SlowCache(cache), 40
        async with fake.client(PLAIN) as grid:
            cap = (await grid.put(content(count * CHUNK))).cap
        limits = Limits(open_bytes=8 * 2 * CHUNK)
        async with fake.client(PLAIN, cache=slow, limits=limits) as grid:
            assert await got(grid, cap) == content(count * CHUNK)
            assert not kept_files(top)
            slow.go_on.set()
        assert 1 <= len(kept_files(top)) <= 8  # half of the memory; manifests are small

    run_virtual(scenario())


@pytest.mark.parametrize("error", [DiskFull(where="there"), StoreFailed(where="there", reason="broken")])
def test_when_the_cache_fails_it_is_told_once_and_everything_else_goes_on(
    cache: FolderBlobCache, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def scenario() -> None:
        fake, slow = FakeGrid(), SlowCache(cache)
        slow.go_on.set()
        async with fake.client(PLAIN) as grid:
            caps = [(await grid.put(content(3 * CHUNK, seed))).cap for seed in range(4)]
        async with fake.client(PLAIN, cache=slow) as grid:
            assert await got(grid, caps[0]) == content(3 * CHUNK, 0)
        slow.error = error
        slow.batches.clear()
        async with fake.client(PLAIN, cache=slow) as grid:
            for seed in (1, 2, 3, 0):
                assert await got(grid, caps[seed]) == content(3 * CHUNK, seed)
        assert len(slow.batches) == 1
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "until the next start" in caplog.text

    run_virtual(scenario())


def test_what_is_read_again_and_again_is_noted_though_nothing_is_added(cache: FolderBlobCache) -> None:
    async def scenario() -> None:
        fake, slow = FakeGrid(), SlowCache(cache)
        slow.go_on.set()
        async with fake.client(PLAIN) as grid:
            cap = (await grid.put(content(CHUNK))).cap
        async with fake.client(PLAIN, cache=slow) as grid:
            await got(grid, cap)
        slow.batches.clear()
        async with fake.client(PLAIN, cache=slow) as grid:
            for _ in range(200):
                await got(grid, cap)
        assert not any(slow.batches)
        assert 3 <= len(slow.batches) <= 2 + 200 // 64  # at the beginning, now and then, and at the end

    run_virtual(scenario())


def test_memory_comes_back_whatever_becomes_of_what_was_to_be_kept(cache: FolderBlobCache) -> None:
    async def scenario() -> None:
        fake, slow = FakeGrid(), SlowCache(cache)
        async with fake.client(PLAIN) as grid:
            cap = (await grid.put(content(20 * CHUNK))).cap
        async with fake.client(PLAIN, cache=slow) as grid:
            await got(grid, cap)
            assert grid._fetcher.pool.used_bytes > 0
            slow.error = DiskFull(where="there")
            slow.go_on.set()
        assert grid._fetcher.pool.used_bytes == 0

    run_virtual(scenario())


def test_who_is_cancelled_while_it_ends_leaves_nobody_who_writes(cache: FolderBlobCache) -> None:
    async def scenario() -> None:
        fake, slow = FakeGrid(), SlowCache(cache)
        async with fake.client(PLAIN) as grid:
            cap = (await grid.put(content(4 * CHUNK))).cap
        grid = await fake.client(PLAIN, cache=slow).start()
        await got(grid, cap)
        assert grid._cached is not None
        end = asyncio.create_task(grid._cached.aclose())
        await asyncio.wait({end}, timeout=0)
        end.cancel()
        threading.Timer(0.05, slow.go_on.set).start()
        await asyncio.wait({end})
        assert end.cancelled()
        assert not [one for one in threading.enumerate() if one.name.startswith("muniment-cache")]
        await grid.aclose()
        assert len(slow.batches) == 1  # what waited behind it is not written
        assert grid._fetcher.pool.used_bytes == 0

    run_virtual(scenario())
