"""Room and holes in files: `fallocate` and seeking, against an array that knows its holes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thoroughness import times
from tests.unit.fs.support import CHUNK, Mounted, Place, place

from muniment.errors import FileRefused, MunimentError
from muniment.fs.content.holes import Allocate
from muniment.fs.errnos import errno_of
from muniment.fs.options import Options
from muniment.spec.blob import BlobRef
from muniment.spec.operation import ROOT, SIZE_MAX

PUNCH = Allocate.PUNCH_HOLE | Allocate.KEEP_SIZE
FALLOC_COLLAPSE, FALLOC_INSERT, FALLOC_UNSHARE = 0x08, 0x20, 0x40


@pytest.fixture
async def where() -> AsyncIterator[Place]:
    async with place() as made:
        yield made


async def number_of(work: object) -> int:
    """The errno with which a call is refused."""
    with pytest.raises(MunimentError) as refused:
        await work  # type: ignore[misc]
    return errno_of(refused.value)


def holes(here: Mounted, handle: int, size: int) -> list[tuple[int, int]]:
    """The ranges without bytes, as a program finds them."""
    found, at = [], 0
    while at < size:
        start = here.files.seek(handle, at, os.SEEK_HOLE)
        if start == size:
            break
        try:
            at = here.files.seek(handle, start, os.SEEK_DATA)
        except FileRefused:
            at = size
        found.append((start, at))
    return found


async def test_a_punched_hole_is_a_hole_of_the_volume_and_its_blobs_are_let_go(where: Place) -> None:
    here = await where.mount()
    ino, data = await here.make(b"a"), os.urandom(4 * CHUNK)
    await here.write(ino, data)
    handle = await here.files.open(ino, os.O_RDWR)
    await here.files.allocate(handle, PUNCH, CHUNK - 5, 2 * CHUNK)
    await here.files.flush(handle)
    here.files.release(handle)
    expected = data[: CHUNK - 5] + bytes(2 * CHUNK) + data[3 * CHUNK - 5 :]
    elsewhere = await where.mount()
    other = elsewhere.files.lookup(ROOT, b"a").inode
    assert await elsewhere.read(other) == expected
    handle = await elsewhere.files.open(other, os.O_RDONLY)
    assert holes(elsewhere, handle, 4 * CHUNK) == [(CHUNK - 5, 3 * CHUNK - 5)]
    elsewhere.files.release(handle)
    state = elsewhere.volume.view.reading()
    extents = state.extents(state.child(ROOT, b"a").inode, 0, SIZE_MAX)  # type: ignore[union-attr]
    assert len({one.source for one in extents if isinstance(one.source, BlobRef)}) == 3


async def test_room_makes_a_file_longer_unless_it_is_to_keep_its_size(where: Place) -> None:
    here = await where.mount()
    handle, row = await here.files.create(ROOT, b"a", 0o644, 0, 0, os.O_RDWR)
    await here.files.allocate(handle, Allocate.KEEP_SIZE, 0, 5000)
    assert here.files.inode(row.inode).size == 0
    await here.files.allocate(handle, 0, 100, 5000)
    assert here.files.inode(row.inode).size == 5100
    await here.files.allocate(handle, 0, 0, 10)
    assert here.files.inode(row.inode).size == 5100
    await here.files.flush(handle)
    here.files.release(handle)
    assert (await where.mount()).files.lookup(ROOT, b"a").size == 5100


async def test_what_cannot_be_done_is_refused_by_its_number(where: Place) -> None:
    here = await where.mount()
    ino = await here.make(b"a")
    await here.write(ino, b"text")
    handle = await here.files.open(ino, os.O_RDWR)
    reader = await here.files.open(ino, os.O_RDONLY)
    allocate = here.files.allocate
    for mode in (FALLOC_COLLAPSE, FALLOC_INSERT, FALLOC_UNSHARE, Allocate.PUNCH_HOLE, PUNCH | 0x10):
        assert await number_of(allocate(handle, mode, 0, 1)) == errno.EOPNOTSUPP
    assert await number_of(allocate(handle, 0, -1, 1)) == errno.EINVAL
    assert await number_of(allocate(handle, 0, 0, 0)) == errno.EINVAL
    assert await number_of(allocate(handle, 0, SIZE_MAX, 1)) == errno.EFBIG
    assert await number_of(allocate(reader, 0, 0, 1)) == errno.EBADF
    _, free = await here.files.room_bytes()
    assert await number_of(allocate(handle, 0, 0, free + 5)) == errno.ENOSPC
    assert (await here.read(ino), here.files.inode(ino).size) == (b"text", 4)
    await allocate(handle, 0, 4, 4)
    for offset, whence in [(4, os.SEEK_DATA), (8, os.SEEK_DATA), (8, os.SEEK_HOLE), (-1, os.SEEK_HOLE)]:
        with pytest.raises(FileRefused) as refused:
            here.files.seek(reader, offset, whence)
        assert errno_of(refused.value) == errno.ENXIO
    for one in (handle, reader):
        here.files.release(one)


async def test_a_hole_at_the_end_of_what_is_not_saved_yet_keeps_the_size(where: Place) -> None:
    here = await where.mount(Options(linger_s=60.0))
    handle, row = await here.files.create(ROOT, b"a", 0o644, 0, 0, os.O_RDWR)
    await here.files.write(handle, 0, b"x" * 100)
    await here.files.allocate(handle, PUNCH, 50, 1000)
    assert here.files.inode(row.inode).size == 100
    assert await here.files.read(handle, 0, 200) == b"x" * 50 + bytes(50)
    here.files.release(handle)


async def test_a_file_as_long_as_may_be_is_searched_in_few_steps(where: Place) -> None:
    here = await where.mount()
    handle, _ = await here.files.create(ROOT, b"a", 0o644, 0, 0, os.O_RDWR)
    await here.files.write(handle, SIZE_MAX - 1, b"x")
    for _ in range(2):
        assert here.files.seek(handle, 0, os.SEEK_DATA) == SIZE_MAX - 1
        assert here.files.seek(handle, SIZE_MAX - 1, os.SEEK_HOLE) == SIZE_MAX
        await here.files.fsync(handle)
    here.files.release(handle)


OFFSET = st.one_of(st.integers(0, 40), st.integers(CHUNK - 3, CHUNK + 3), st.integers(0, 3 * CHUNK))
SIZE = st.one_of(st.integers(1, 60), st.integers(2040, 2060), st.integers(1, 2 * CHUNK))
STEPS = st.one_of(
    st.tuples(st.just("write"), OFFSET, SIZE),
    st.tuples(st.just("write"), OFFSET, SIZE),
    st.tuples(st.sampled_from([0, 1, 3, 3, 0x10, 0x11]), OFFSET, SIZE),
    st.tuples(st.just("truncate"), OFFSET, st.just(0)),
    st.tuples(st.just("sync"), st.just(0), st.just(0)),
)


class Model:
    """A file and which of its bytes were written."""

    def __init__(self) -> None:
        self.data, self.has = bytearray(), bytearray()

    def resize(self, size: int) -> None:
        for array in (self.data, self.has):
            del array[size:]
            array.extend(bytes(size - len(array)))

    def do(self, what: str | int, offset: int, size: int, data: bytes) -> None:
        stop = offset + size
        if what == "truncate":
            self.resize(offset)
        elif what == "write" or (isinstance(what, int) and not what & Allocate.KEEP_SIZE):
            self.resize(max(stop, len(self.data)))
        if what == "write":
            self.data[offset:stop], self.has[offset:stop] = data, b"\1" * size
        elif isinstance(what, int) and what & (Allocate.PUNCH_HOLE | Allocate.ZERO_RANGE):
            stop = max(offset, min(stop, len(self.data)))
            self.data[offset:stop] = self.has[offset:stop] = bytes(stop - offset)

    def holes(self) -> list[tuple[int, int]]:
        found, at = [], self.has.find(0)
        while at >= 0:
            stop = self.has.find(1, at)
            stop = len(self.has) if stop < 0 else stop
            found.append((at, stop))
            at = self.has.find(0, stop)
        return found


async def _check(here: Mounted, handle: int, model: Model) -> None:
    assert await here.files.read(handle, 0, 1 << 30) == bytes(model.data)
    assert holes(here, handle, len(model.data)) == model.holes()


async def _run(steps: Sequence[tuple[str | int, int, int]], options: Options) -> None:
    async with place() as where:
        here, model = await where.mount(options), Model()
        handle, row = await here.files.create(ROOT, b"a", 0o644, 0, 0, os.O_RDWR)
        for count, (what, offset, size) in enumerate(steps, 1):
            data = bytes((count * 31 + at) % 251 for at in range(size))
            model.do(what, offset, size, data)
            match what:
                case "write":
                    await here.files.write(handle, offset, data)
                case "truncate":
                    await here.files.set_attributes(row.inode, size=offset)
                case "sync":
                    await here.files.fsync(handle)
                case int():
                    await here.files.allocate(handle, what, offset, size)
            assert here.files.inode(row.inode).size == len(model.data)
        await _check(here, handle, model)
        await here.files.fsync(handle)
        await _check(here, handle, model)
        elsewhere = await where.mount()
        other = await elsewhere.files.open(elsewhere.files.lookup(ROOT, b"a").inode, os.O_RDONLY)
        await _check(elsewhere, other, model)
        for files, one in ((here.files, handle), (elsewhere.files, other)):
            files.release(one)


@settings(max_examples=times(10), deadline=None)
@given(st.lists(STEPS, max_size=12), st.sampled_from([1, 2 * CHUNK, 1 << 24]))
def test_bytes_and_holes_are_where_they_belong(
    steps: list[tuple[str | int, int, int]], dirty_bytes: int
) -> None:
    options = Options(linger_s=0.0, dirty_bytes=dirty_bytes, deadline_s=20.0, strict=False)
    asyncio.run(_run(steps, options))
