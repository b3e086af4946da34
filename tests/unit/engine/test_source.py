"""Sources: full chunks whatever the reads give, memory given back, pipes and devices."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import pytest
from tests.unit.engine.support import content

from muniment.engine.source import BUFFERS, FileSource, Source, open_source
from muniment.errors import FileFailed, InvalidRequest
from muniment.testing.virtual_time import StepClock, run_virtual


async def drained(source: Source) -> list[bytes]:
    """Every chunk, each given back before the next is asked for."""
    chunks = []
    try:
        while (piece := await source.next()) is not None:
            chunks.append(bytes(piece.plain))
            piece.free()
    finally:
        await source.aclose()
    return chunks


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 1000])
def test_chunks_are_full_but_for_the_last(size: int, tmp_path: Path) -> None:
    data = content(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    expected = [data[at : at + 100] for at in range(0, size, 100)]

    async def main() -> None:
        for file in (data, io.BytesIO(data), path):
            assert await drained(open_source(file, 100, StepClock())) == expected

    run_virtual(main())


def test_no_more_is_read_than_there_are_buffers() -> None:
    async def main() -> None:
        stream = io.BytesIO(content(1000))
        source = FileSource(stream, 100, StepClock())
        pieces = [await source.next() for _ in range(BUFFERS)]
        await asyncio.sleep(1)
        assert stream.tell() == BUFFERS * 100
        assert source.total_bytes == 1000
        for piece in pieces:
            assert piece is not None
            piece.free()
        await asyncio.sleep(1)
        assert stream.tell() == 2 * BUFFERS * 100
        await source.aclose()

    run_virtual(main())


def test_a_partly_read_file_is_read_from_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(1000))

    async def main() -> None:
        with path.open("rb") as stream:
            stream.read(150)
            source = open_source(stream, 100, StepClock())
            assert source.total_bytes == 850
            assert b"".join(await drained(source)) == content(1000)[150:]

    run_virtual(main())


def test_a_named_pipe_by_path(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = content(250)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(None, pipe.write_bytes, data)
        assert b"".join(await drained(open_source(pipe, 100, StepClock()))) == data
        await writing

    asyncio.run(main())


def test_a_device_without_content() -> None:
    async def main() -> None:
        assert await drained(open_source(Path(os.devnull), 100, StepClock())) == []

    run_virtual(main())


def test_a_pipe_in_a_buffered_reader_gives_what_came_so_far() -> None:
    async def main() -> None:
        out, into = os.pipe()
        os.write(into, content(150))
        with os.fdopen(out, "rb") as stream:
            source = open_source(stream, 100, StepClock())
            first = await source.next()
            assert first is not None
            assert bytes(first.plain) == content(150)[:100]
            os.close(into)
            last = await source.next()
            assert last is not None
            assert bytes(last.plain) == content(150)[100:]
            await source.aclose()

    asyncio.run(main())


def test_errors_come_after_what_was_read() -> None:
    class Breaking(io.RawIOBase):
        reads = 0

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # narrower than needed
            self.reads += 1
            if self.reads > 1:
                raise OSError(5, "gone")
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    async def main() -> None:
        source = open_source(Breaking(), 100, StepClock())
        piece = await source.next()
        assert piece is not None
        with pytest.raises(OSError, match="gone"):
            await source.next()
        await source.aclose()

    run_virtual(main())


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(InvalidRequest):
            open_source(None, 100, StepClock())  # type: ignore[arg-type]  # what is refused
        for path, error in ((tmp_path, InvalidRequest), (tmp_path / "absent", FileFailed)):
            with pytest.raises(error):
                await drained(open_source(path, 100, StepClock()))

    run_virtual(main())


def test_closing_before_anything_was_read_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(1000))

    async def main() -> None:
        await open_source(path, 100, StepClock()).aclose()

    run_virtual(main())
