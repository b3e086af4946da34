"""How written files become blobs: those that are saved at the same time share one if they are small."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from tests.unit.fs.support import CHUNK, Mounted, Place, place

from muniment.fs.options import Options
from muniment.spec.blob import BlobRef
from muniment.spec.operation import ROOT

SMALL = 5000


@pytest.fixture
async def where() -> AsyncIterator[Place]:
    async with place() as made:
        yield made


async def written(here: Mounted, contents: dict[bytes, bytes]) -> dict[bytes, int]:
    """Files that are closed at the same time; their numbers."""
    made = {name: await here.make(name) for name in contents}
    await asyncio.gather(*(here.write(made[name], data) for name, data in contents.items()))
    return made


def blobs(here: Mounted) -> list[BlobRef]:
    """All that the names of the root refer to, in the volume's own state."""
    state, found = here.volume.view.reading(), []
    for name in state.children(ROOT, b"", 100):
        extents = state.extents(name.inode, 0, 1 << 30)
        found += [one.source for one in extents if isinstance(one.source, BlobRef)]
    return list(dict.fromkeys(found))


async def test_small_files_closed_at_the_same_time_share_a_blob(where: Place) -> None:
    here = await where.mount()
    contents = {b"%d" % at: os.urandom(SMALL + at) for at in range(8)}
    made = await written(here, contents)
    assert len(blobs(here)) < len(contents) / 2
    for name, data in contents.items():
        assert await here.read(made[name]) == data
    await here.files.unlink(ROOT, b"3")
    await here.files.sync_all()
    elsewhere = await where.mount()
    for name in contents.keys() - {b"3"}:
        assert await elsewhere.read(elsewhere.files.lookup(ROOT, name).inode) == contents[name]


async def test_more_than_a_shared_blob_holds_goes_into_several(where: Place) -> None:
    here = await where.mount()
    contents = {b"%d" % at: os.urandom(CHUNK // 3) for at in range(7)}
    made = await written(here, contents)
    assert 3 <= len(blobs(here)) < len(contents)
    for name, data in contents.items():
        assert await here.read(made[name]) == data


async def test_a_file_dropped_while_its_blob_is_shared_takes_nothing_from_the_others(where: Place) -> None:
    here = await where.mount()
    made = {name: await here.make(name) for name in (b"kept", b"dropped")}
    handles = {name: await here.files.open(ino, os.O_RDWR) for name, ino in made.items()}
    data = os.urandom(SMALL)
    for name in made:
        await here.files.write(handles[name], 0, data + name)
    saving = [asyncio.create_task(here.files.fsync(handle)) for handle in handles.values()]
    await asyncio.sleep(0)
    await here.files.unlink(ROOT, b"dropped")
    await asyncio.gather(*saving)
    for handle in handles.values():
        here.files.release(handle)
    assert await here.read(made[b"kept"]) == data + b"kept"


async def test_files_of_the_same_content_closed_at_the_same_time(where: Place) -> None:
    here = await where.mount()
    data = os.urandom(CHUNK)
    made = await written(here, {b"%d" % at: data for at in range(6)})
    for ino in made.values():
        assert await here.read(ino) == data


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
async def test_what_was_written_is_read_back_from_memory(where: Place, cache_bytes: int) -> None:
    here = await where.mount(Options(linger_s=0.0, cache_bytes=cache_bytes))
    contents = {b"large": os.urandom(3 * CHUNK + 5000), b"small": os.urandom(SMALL)}
    made = await written(here, contents)

    def asked() -> int:
        calls = where.fake.calls()
        return calls["get"] + calls["get_many"]

    assert asked() == 0
    for name, data in contents.items():
        assert await here.read(made[name]) == data
    assert (asked() == 0) == (cache_bytes > 0)
    elsewhere = await where.mount()
    assert await elsewhere.read(elsewhere.files.lookup(ROOT, b"large").inode) == contents[b"large"]
    assert asked() > 0
