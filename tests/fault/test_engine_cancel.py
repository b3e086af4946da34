"""Cancellation at every moment, interrupted uploads resumed, targets that fail: nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.thoroughness import along
from tests.unit.engine.support import CHUNK, IMPATIENT, PLAIN, content, got, names, our_threads

from muniment.engine.policy import Limits
from muniment.errors import DiskFull, FileFailed, NotHappy, TooFewShares
from muniment.ids import AccountId, ShareKey
from muniment.ports import PutOutcome, ShareUpload
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.fake_node import FakeNode
from muniment.testing.virtual_time import LoopClock, run_virtual

WINDOW = Limits(share_bytes=6 * CHUNK * 6 // 4, open_bytes=6 * 2 * CHUNK)


def virtual_grid(count: int = 6) -> FakeGrid:
    grid = FakeGrid(count, clock=LoopClock(asyncio.get_running_loop()))
    for at, node in enumerate(grid.nodes):
        node.faults.delay_s[""] = 0.1 + 0.01 * at
    return grid


@pytest.mark.parametrize("at_ms", along(5, 1500, 70))
@pytest.mark.parametrize("direct_bytes", [0, CHUNK])
def test_a_cancelled_put_leaves_nothing_reserved(at_ms: int, direct_bytes: int) -> None:
    """Reading, sealing, reserving, sending, the manifest: wherever it is, nothing stays."""
    data = content(16 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=replace(WINDOW, direct_bytes=direct_bytes)) as client:
            put = asyncio.ensure_future(client.put(io.BytesIO(data)))
            await asyncio.sleep(at_ms / 1000)
            if put.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await put
            assert grid.reserved_bytes == 0
            assert client._sender.pool.used_bytes == 0
            assert not [name for name in our_threads() if name.startswith("muniment-read")]
            assert len(asyncio.all_tasks()) == 2  # this one and the roster's
            # What was stored so far counts: putting again sends only the rest.
            before = {key for node in grid.nodes for key in node.shares}
            sent = sum(node.items["put"] for node in grid.nodes)
            stored = await client.put(data)
            alone = 12 if direct_bytes else 0  # the first and the last are not asked for first
            assert 0 <= sum(node.items["put"] for node in grid.nodes) - sent - (6 * 17 - len(before)) <= alone
            assert await got(client, stored.cap) == data

    run_virtual(main())


def test_a_put_cancelled_at_every_step_of_the_loop() -> None:
    """Not at chosen times but after every single turn of the loop."""
    data = content(3 * CHUNK)

    async def attempt(turns: int) -> bool:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            put = asyncio.ensure_future(client.put(data))
            for _ in range(turns):
                await asyncio.sleep(0)
            finished = not put.cancel()
            if not finished:
                with pytest.raises(asyncio.CancelledError):
                    await put
            assert grid.reserved_bytes == 0
            assert client._sender.pool.used_bytes == 0
        return finished

    async def main() -> None:
        turns = 0
        while not await attempt(turns):
            turns += 1
            assert turns < 10_000

    run_virtual(main())


def test_a_put_cancelled_while_a_node_hangs_releases_what_it_can() -> None:
    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            grid.nodes[0].faults.delay_s["reserve"] = 1e6
            grid.nodes[1].faults.delay_s["put"] = 1e6
            put = asyncio.ensure_future(client.put(content(4 * CHUNK)))
            await asyncio.sleep(0.35)
            put.cancel()
            begun_s = asyncio.get_running_loop().time()
            with pytest.raises(asyncio.CancelledError):
                await put
            assert asyncio.get_running_loop().time() - begun_s <= IMPATIENT.cleanup_s + 0.1
            assert grid.reserved_bytes == 0

    run_virtual(main())


def test_one_of_two_equal_puts_may_be_cancelled() -> None:
    """They share their blobs; the other goes on."""
    data = content(4 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN) as client:
            first = asyncio.ensure_future(client.put(data))
            second = asyncio.ensure_future(client.put(data))
            await asyncio.sleep(0.15)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await got(client, (await second).cap) == data
            assert grid.reserved_bytes == 0

    run_virtual(main())


def test_a_put_repeated_right_after_it_was_cancelled() -> None:
    data = content(4 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN) as client:
            first = asyncio.ensure_future(client.put(data))
            await asyncio.sleep(0.15)
            first.cancel()
            again = await client.put(data)  # while the first is still releasing
            assert again.placed == 6
            assert await got(client, again.cap) == data
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_an_interrupted_upload_resumes_where_it_was() -> None:
    """The client dies (its connections fail); another client of the same account puts the file again."""
    data = content(20 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=WINDOW) as client:
            put = asyncio.ensure_future(client.put(data))
            await asyncio.sleep(0.7)
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put
        there = sum(len(node.shares) for node in grid.nodes)
        assert 6 * 3 < there < 6 * 21
        async with grid.client(PLAIN) as client:
            before = sum(node.put_bytes for node in grid.nodes)
            stored = await client.put(data)
            assert stored.present_bytes > 0
            assert sum(node.put_bytes for node in grid.nodes) - before == stored.new_bytes
            assert stored.new_bytes + stored.present_bytes == grid.used_bytes
            assert await got(client, stored.cap) == data

    run_virtual(main())


@pytest.mark.parametrize("at_ms", along(5, 700, 45))
def test_a_cancelled_get_leaves_nothing_under_way(at_ms: int, tmp_path: Path) -> None:
    data = content(16 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=WINDOW) as client:
            cap = (await client.put(data)).cap
            get = asyncio.ensure_future(client.get(cap, tmp_path / "copy"))
            await asyncio.sleep(at_ms / 1000)
            if get.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await get
                assert names(tmp_path) == []
            assert client._fetcher.pool.used_bytes == 0
            assert len(asyncio.all_tasks()) == 2
            assert await got(client, cap) == data

    run_virtual(main())


class Failing(io.RawIOBase):
    """A target that takes some bytes and then fails."""

    def __init__(self, room: int, error: Exception) -> None:
        self.taken = bytearray()
        self._room = room
        self._error = error

    def writable(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:  # type: ignore[override]  # narrower than needed
        if len(self.taken) + len(data) > self._room:
            raise self._error
        self.taken += data
        return len(data)


def test_a_target_that_fails_ends_the_get_with_its_own_error() -> None:
    data = content(8 * CHUNK)

    async def main() -> None:
        grid = virtual_grid()
        async with grid.client(PLAIN, limits=WINDOW) as client:
            cap = (await client.put(data)).cap
            for error in (BrokenPipeError(), OSError(errno.ENOSPC, "full")):
                target = Failing(2 * CHUNK, error)
                with pytest.raises(type(error)) as caught:
                    await client.get(cap, target)
                assert caught.value is error
                assert bytes(target.taken) == data[: 2 * CHUNK]
            assert client._fetcher.pool.used_bytes == 0
            assert await got(client, cap) == data

    run_virtual(main())


def test_a_target_that_takes_little_at_a_time() -> None:
    class Slow(io.RawIOBase):
        taken = bytearray()

        def write(self, data: memoryview) -> int:  # type: ignore[override]  # narrower than needed
            self.taken += data[:1000]
            return min(1000, len(data))

    async def main() -> None:
        grid = FakeGrid(6)
        data = content(CHUNK + 1)
        async with grid.client(PLAIN) as client:
            target = Slow()
            await client.get((await client.put(data)).cap, target)
            assert bytes(target.taken) == data

    run_virtual(main())


def test_a_path_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(4 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        path = tmp_path / "file"
        path.write_bytes(b"old")
        path.chmod(0o640)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap

            def full(fd: int, what: memoryview) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            with monkeypatch.context() as patch:  # a full disk cannot be had otherwise
                patch.setattr(os, "write", full)
                with pytest.raises(DiskFull):
                    await client.get(cap, path)
            assert path.read_bytes() == b"old"
            assert names(tmp_path) == ["file"]
            await client.get(cap, path)
            assert path.read_bytes() == data
            assert path.stat().st_mode & 0o777 == 0o640
            link = tmp_path / "link"
            link.symlink_to(path)
            await client.get(cap, link, stop=5)
            assert link.is_symlink()
            assert path.read_bytes() == data[:5]
            await client.get(cap, Path("/dev/null"))
            with pytest.raises(FileFailed):
                await client.get(cap, tmp_path / "absent" / "file")
            assert names(tmp_path) == ["file", "link"]

    run_virtual(main())


def test_cancelling_while_nothing_is_happy_keeps_no_background() -> None:
    """Six nodes wanted, one hangs: the put waits for ever, until it is cancelled."""

    async def main() -> None:
        grid = virtual_grid()
        grid.nodes[2].faults.delay_s["put"] = 1e6
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            grid.nodes[3].faults.delay_s["put"] = 1e6
            put = asyncio.ensure_future(client.put(content(2 * CHUNK)))
            await asyncio.sleep(60)
            assert not put.done()
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put
            assert grid.reserved_bytes == 0
            assert client._sender.pool.used_bytes == 0

    run_virtual(main())


def test_a_failed_chunk_ends_the_whole_put_and_releases_the_others() -> None:
    """The nodes fill up in the middle of a long put."""

    async def main() -> None:
        grid = FakeGrid(6, clock=LoopClock(asyncio.get_running_loop()), capacity_bytes=8 * 17_000)
        for node in grid.nodes:
            node.faults.delay_s[""] = 0.1
        async with grid.client(PLAIN, limits=WINDOW) as client:
            with pytest.raises(NotHappy) as caught:
                await client.put(content(30 * CHUNK))
            assert "bytes wanted" in caught.value.reasons[0]
            assert grid.reserved_bytes == 0
            assert client._sender.pool.used_bytes == 0

    run_virtual(main())


def test_buffers_are_not_reused_while_a_node_still_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stragglers send from their buffers long after the put has returned: what arrives must verify."""
    seen: list[PutOutcome] = []
    put = FakeNode.put_share

    def watch(node: FakeNode, account: AccountId, upload: ShareUpload, *, reserving: bool) -> PutOutcome:
        outcome = put(node, account, upload, reserving=reserving)
        seen.append(outcome)
        return outcome

    monkeypatch.setattr(FakeNode, "put_share", watch)  # to see every outcome, also unheard ones

    async def main() -> None:
        grid = virtual_grid()
        grid.nodes[0].faults.delay_s["put"] = 2.0
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            for seed in range(10):
                await client.put(content(6 * CHUNK, seed))
            await asyncio.sleep(20)
        assert len(seen) > 300
        assert all(type(outcome).__name__ == "Held" for outcome in seen)

    run_virtual(main())


def tamper_late(at: int) -> Callable[[ShareKey, bytearray], bytearray]:
    """Serve true shares until `at` of them are out, then false ones."""
    served = 0

    def tamper(key: ShareKey, record: bytearray) -> bytearray:
        nonlocal served
        served += 1
        if served > at:
            record[-1] ^= 1
        return record

    return tamper


@pytest.mark.parametrize("at", along(0, 20, 4))
def test_a_stream_that_turns_false_is_cut_at_the_last_good_chunk(at: int) -> None:
    data = content(12 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN, limits=WINDOW) as client:
            cap = (await client.put(data)).cap
            for node in grid.nodes[:3]:
                node.faults.tamper = tamper_late(at)
            target = io.BytesIO()
            with contextlib.suppress(TooFewShares):
                await client.get(cap, target)
            written = target.getvalue()
            assert written == data[: len(written)]
            assert len(written) % CHUNK == 0

    run_virtual(main())
