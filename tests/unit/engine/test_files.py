"""Files through the whole engine: every size round a boundary, every source, ranges, results, progress."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, SMALL, THREE, content, got, got_with_result, our_threads

from muniment.core.capabilities import weaken
from muniment.crypto.cipher import TAG_BYTES
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import Progress
from muniment.erasure.codec import Coding
from muniment.errors import (
    BlobCorrupt,
    FileFailed,
    InvalidCoding,
    InvalidRequest,
    NotCapable,
    NotHappy,
    RangeOutOfBounds,
    RosterEmpty,
    TooFewShares,
)
from muniment.spec.cap import BlobFile, LiteralFile, ManifestFile, TreeReadCap, cap_text, parse_cap
from muniment.spec.limits import KIB, LEAF_BYTES, LITERAL_BYTES_MAX
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual

CODINGS = ("4/6", "3/10", "1/1", "rep-3", "2/2")

SIZES = sorted(
    {
        size + off
        for size in (
            0,
            1,
            LITERAL_BYTES_MAX,
            LEAF_BYTES,
            4 * LEAF_BYTES,
            *(k * LEAF_BYTES - TAG_BYTES for k in (1, 2, 3, 4)),  # sealed, exactly one leaf in each share
            CHUNK,
            2 * CHUNK,
            3 * CHUNK + 12,
            4000,
        )
        for off in (-1, 0, 1, 2, 3)
        if size + off >= 0
    }
)


@pytest.mark.parametrize("coding", CODINGS)
def test_every_size_round_a_boundary_comes_back(coding: str) -> None:
    code = Coding.from_text(coding)
    policy = Policy(coding=code, happy=min(code.n, 6), chunk_bytes=CHUNK, compress=False)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(policy) as client:
            for size in SIZES:
                data = content(size)
                stored = await client.put(data)
                assert stored.size_bytes == size
                assert isinstance(
                    stored.cap,
                    LiteralFile if size <= LITERAL_BYTES_MAX else BlobFile if size <= CHUNK else ManifestFile,
                )
                again = parse_cap(cap_text(stored.cap))
                assert await got(client, again) == data
        assert grid.reserved_bytes == 0

    run_virtual(main())


@pytest.mark.parametrize("compress", [True, False])
def test_compressible_content_comes_back(compress: bool) -> None:
    policy = Policy(coding=Coding.from_text("4/6"), happy=6, chunk_bytes=CHUNK, compress=compress)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(policy) as client:
            data = b"all work and no play " * 20_000
            assert await got(client, (await client.put(data)).cap) == data
            assert (grid.used_bytes < len(data) // 4) is compress

    run_virtual(main())


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        await asyncio.sleep(0.01)
        yield data[at : at + size]
    yield b""


class OnlyRead:
    """A stream with `read` alone, which gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._rest.read(min(size, 1000))


def test_every_kind_of_source_gives_the_same_capability(tmp_path: Path) -> None:
    data = content(5 * CHUNK + 77)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            cap = (await client.put(data)).cap
            for source in (
                path,
                bytearray(data),
                memoryview(data),
                io.BytesIO(data),
                OnlyRead(data),
                pieces(data, 999),
                pieces(data, 3 * CHUNK),
            ):
                stored = await client.put(source)
                assert stored.cap == cap
                assert stored.new_bytes == 0
            with path.open("rb") as buffered, io.FileIO(path) as raw:
                assert (await client.put(buffered)).cap == cap
                assert (await client.put(raw)).cap == cap
                assert not buffered.closed  # what the caller opened stays the caller's
            assert await got(client, cap) == data
        assert our_threads() == []

    run_virtual(main())


def test_a_pipe_needs_no_seek() -> None:
    data = content(2 * CHUNK + 5)

    async def main() -> None:
        grid = FakeGrid(6)
        out, into = os.pipe()

        def write() -> None:
            with os.fdopen(into, "wb") as end:
                end.write(data)

        writing = asyncio.get_running_loop().run_in_executor(None, write)
        async with grid.client(SMALL) as client:
            with os.fdopen(out, "rb") as stream:
                stored = await client.put(stream)
            await writing
            assert await got(client, stored.cap) == data

    asyncio.run(main())


def test_a_put_that_waits_for_a_pipe_can_be_cancelled() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        out, into = os.pipe()
        async with grid.client(SMALL) as client:
            with os.fdopen(out, "rb") as stream:
                put = asyncio.ensure_future(client.put(stream))
                await asyncio.sleep(0.01)
                put.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await put
                assert not [name for name in our_threads() if name.startswith("muniment-read")]
        os.close(into)

    asyncio.run(main())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            with pytest.raises(FileFailed) as caught:
                await client.put(tmp_path / "absent")
            assert caught.value.path.endswith("absent")
            with pytest.raises(InvalidRequest, match="folder"):
                await client.put(tmp_path)
            with pytest.raises(InvalidRequest, match="text"):
                await client.put(io.StringIO("text"))  # type: ignore[arg-type]  # what is refused
            with pytest.raises(InvalidRequest, match="int"):
                await client.put(7)  # type: ignore[arg-type]  # what is refused
        assert our_threads() == []

    run_virtual(main())


class Vanishing:
    """A stream whose medium goes away in the middle."""

    def __init__(self, data: bytes, error: Exception) -> None:
        self._rest = io.BytesIO(data)
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        data = self._rest.read(size)
        if not data:
            raise self._error
        return data


def test_a_source_that_vanishes_leaves_nothing_reserved() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        for node in grid.nodes:
            node.faults.delay_s["put"] = 1.0
        async with grid.client(SMALL) as client:
            gone = OSError(5, "the medium was removed")
            with pytest.raises(OSError, match="removed") as caught:
                await client.put(Vanishing(content(3 * CHUNK), gone))
            assert caught.value is gone
            assert grid.reserved_bytes == 0

    run_virtual(main())


def test_ranges_fetch_only_the_chunks_they_need() -> None:
    data = content(8 * CHUNK + 100)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            for start, stop, chunks in (
                (0, 1, 1),
                (CHUNK - 1, CHUNK + 1, 2),
                (CHUNK, 2 * CHUNK, 1),
                (8 * CHUNK, None, 1),
                (10, 10, 0),
                (len(data), None, 0),
                (0, None, 9),
            ):
                found, result = await got_with_result(client, cap, start=start, stop=stop)
                assert found == data[start:stop]
                assert result.blobs == chunks + (result.blobs > chunks)  # and the manifest
                assert result.size_bytes == len(found)

    run_virtual(main())


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (6, 5), (0, 1001), (1001, None), (1001, 1001)])
def test_ranges_outside_the_file_are_refused(start: int, stop: int | None) -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            cap = (await client.put(content(1000))).cap
            with pytest.raises(RangeOutOfBounds):
                await got(client, cap, start=start, stop=stop)

    run_virtual(main())


def test_a_literal_needs_no_node() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            stored = await client.put(b"tiny")
            assert (stored.placed, stored.blobs, stored.new_bytes) == (0, 0, 0)
            assert await got(client, stored.cap, start=1, stop=3) == b"in"
        assert not grid.calls()

    run_virtual(main())


def test_results_count_exactly() -> None:
    data = content(3 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            first = await client.put(data)
            assert first.blobs == 4  # three chunks and their manifest
            assert first.placed == 6
            assert first.new_bytes == grid.used_bytes
            assert (first.present_bytes, first.missing) == (0, 0)
            second = await client.put(data)
            assert second.cap == first.cap
            assert (second.new_bytes, second.present_bytes) == (0, first.new_bytes)
            _, result = await got_with_result(client, first.cap)
            assert (result.blobs, result.shares, result.decoded, result.liars) == (4, 16, 0, {})
            assert result.files == 1

    run_virtual(main())


def test_equal_chunks_are_one_blob() -> None:
    """Chunks of one file that are equal and under way at once must not disturb each other's reservations."""
    data = content(CHUNK) * 20

    async def main() -> None:
        grid = FakeGrid(6)
        for node in grid.nodes:
            node.faults.delay_s[""] = 0.1
        async with grid.client(PLAIN) as client:
            stored = await client.put(data)
            assert stored.blobs == 21
            assert len(grid.holders()) == 2
            assert sum(node.items["put"] for node in grid.nodes) == 12
            assert await got(client, stored.cap) == data
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_progress_ends_at_the_whole() -> None:
    data = content(4 * CHUNK + 3)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            told: list[Progress] = []
            cap = (await client.put(data, progress=told.append)).cap
            assert told[-1] == Progress(len(data), len(data))
            assert [step.done_bytes for step in told] == sorted(step.done_bytes for step in told)
            told.clear()
            await client.put(OnlyRead(data), progress=told.append)
            assert told[-1] == Progress(len(data), None)
            told.clear()
            await client.get(cap, io.BytesIO(), start=5, progress=told.append)
            assert told[-1] == Progress(len(data) - 5, len(data) - 5)

    run_virtual(main())


def test_a_range_of_the_manifest_is_checked_against_the_capability() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            cap = (await client.put(content(2 * CHUNK))).cap
            assert isinstance(cap, ManifestFile)
            with pytest.raises(BlobCorrupt):
                await got(client, ManifestFile(cap.ref, cap.size_bytes - 1))

    run_virtual(main())


def test_other_capabilities_do_not_read_a_file() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            cap = (await client.put(content(CHUNK + 1))).cap
            assert isinstance(cap, ManifestFile)
            with pytest.raises(NotCapable) as caught:
                await got(client, weaken(cap))
            assert (caught.value.needed, caught.value.given) == ("file read", "file verify")
            with pytest.raises(NotCapable):
                await got(client, TreeReadCap(cap.ref))
            with pytest.raises(NotCapable):
                await client.get_tree(cap, Path("nowhere"))

    run_virtual(main())


def test_two_accounts_share_no_blobs_but_may_read_each_other() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL, account=b"a") as first, grid.client(SMALL, account=b"b") as second:
            one, two = (await first.put(data)).cap, (await second.put(data)).cap
            assert one != two
            assert await got(second, one) == data

    run_virtual(main())


def test_more_shares_than_nodes_wrap_around() -> None:
    policy = Policy(coding=Coding.from_text("3/10"), happy=4, chunk_bytes=CHUNK)

    async def main() -> None:
        grid = FakeGrid(4)
        async with grid.client(policy) as client:
            data = content(CHUNK)
            stored = await client.put(data)
            assert stored.placed == 4
            ((_, shares),) = grid.holders().items()
            assert len(shares) == 10
            grid.nodes[0].faults.down = grid.nodes[1].faults.down = "dead"
            assert await got(client, stored.cap) == data

    run_virtual(main())


def test_too_few_nodes_are_refused_before_anything_is_sent() -> None:
    async def main() -> None:
        grid = FakeGrid(4)
        async with grid.client(SMALL) as client:
            with pytest.raises(NotHappy, match="only 4 nodes"):
                await client.put(content(CHUNK))
        assert not grid.calls()

    run_virtual(main())


def test_no_nodes_at_all() -> None:
    async def main() -> None:
        grid = FakeGrid(3)
        roster = grid.roster()
        with pytest.raises(RosterEmpty):
            await FakeGrid(0).client().start()
        async with grid.client(THREE, roster=roster) as client:
            cap = (await client.put(content(CHUNK))).cap
            for node in grid.nodes:
                roster.remove(node.node)
            await asyncio.sleep(1)
            with pytest.raises(RosterEmpty):
                await client.put(content(CHUNK))
            with pytest.raises(RosterEmpty):
                await got(client, cap)

    run_virtual(main())


def test_nodes_that_come_and_go_are_followed() -> None:
    async def main() -> None:
        grid = FakeGrid(7)
        roster = grid.roster()
        late = grid.nodes[6]
        roster.remove(late.node)
        async with grid.client(SMALL, roster=roster) as client:
            data = content(CHUNK)
            cap = (await client.put(data)).cap
            assert not late.calls
            roster.remove(grid.nodes[0].node)
            roster.add(late.record)
            await asyncio.sleep(1)
            assert sum(connection.closed for connection in grid.clients) == 1
            grid.nodes[0].calls.clear()
            assert await got(client, cap) == data  # moved placement, one share gone: found all the same
            await client.put(content(CHUNK, seed=1))
            assert late.shares
            assert not grid.nodes[0].calls

    run_virtual(main())


def test_a_node_that_comes_in_the_moment_of_the_start_is_not_missed() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        roster = grid.roster()
        roster.remove(grid.nodes[5].node)
        async with grid.client(SMALL, roster=roster) as client:
            roster.add(grid.nodes[5].record)
            await asyncio.sleep(1)
            assert (await client.put(content(CHUNK))).placed == 6

    run_virtual(main())


def test_shares_are_found_where_they_are_not_expected() -> None:
    """The grid has grown so much that no share is where the placement says."""

    async def main() -> None:
        grid = FakeGrid(30)
        roster = grid.roster()
        for node in grid.nodes[6:]:
            roster.remove(node.node)
        async with grid.client(SMALL, roster=roster) as old:
            data = content(3 * CHUNK)
            cap = (await old.put(data)).cap
        async with grid.client(SMALL) as new:
            assert await got(new, cap) == data
            assert grid.calls()["have"] > 0

    run_virtual(main())


def test_nothing_anywhere_is_too_few_shares() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            cap = (await client.put(content(CHUNK))).cap
            for node in grid.nodes[:3]:
                node.shares.clear()
            with pytest.raises(TooFewShares) as caught:
                await got(client, cap)
            assert (caught.value.needed, caught.value.found) == (4, 3)

    run_virtual(main())


def test_a_policy_that_cannot_work_is_refused() -> None:
    with pytest.raises(InvalidCoding):
        Policy(coding=Coding.from_text("4/6"), happy=3)
    with pytest.raises(InvalidCoding):
        Policy(coding=Coding.from_text("4/6"), happy=7)
    with pytest.raises(InvalidCoding):
        Policy(coding=Coding.from_text("4/6"), happy=5, placement="pairs")
    with pytest.raises(InvalidCoding):
        Policy(chunk_bytes=1000)


def test_closing_leaves_no_thread_and_no_connection() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            await got(client, (await client.put(content(3 * CHUNK))).cap)
            assert our_threads()
        assert our_threads() == []
        assert all(connection.closed for connection in grid.clients)

    run_virtual(main())


def test_many_operations_at_once_share_one_window() -> None:
    """Twenty puts and gets together stay within the memory of one."""
    limits = Limits(share_bytes=8 * CHUNK, open_bytes=8 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        for node in grid.nodes:
            node.faults.delay_s[""] = 0.01
        async with grid.client(SMALL, limits=limits) as client:
            files = [content(5 * CHUNK + seed, seed) for seed in range(20)]
            stored = await asyncio.gather(*(client.put(data) for data in files))
            back = await asyncio.gather(*(got(client, result.cap) for result in stored))
            assert back == files
            assert client._sender.pool.peak_bytes <= limits.share_bytes
            assert client._fetcher.pool.peak_bytes <= limits.open_bytes
            assert client._sender.pool.used_bytes == client._fetcher.pool.used_bytes == 0

    run_virtual(main())


@pytest.mark.parametrize("coding", ["4/6", "3/10", "rep-3"])
def test_memory_is_bounded_however_long_the_stream(coding: str) -> None:
    code = Coding.from_text(coding)
    policy = Policy(coding=code, happy=code.k, chunk_bytes=CHUNK)
    limits = Limits(share_bytes=1024 * KIB)

    async def main() -> None:
        grid = FakeGrid(6)
        for node in grid.nodes:
            node.faults.store = False
            node.faults.delay_s["put"] = 0.5
        async with grid.client(policy, limits=limits) as client:
            result = await client.put(pieces(content(CHUNK) * 80, CHUNK - 1))
            assert result.size_bytes == 80 * CHUNK
            assert client._sender.pool.peak_bytes <= limits.share_bytes

    run_virtual(main())
