"""What a mount could not save when it ended is kept on its machine and brought back by the next."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.unit.fs.support import CHUNK, Mounted, Place, place
from tests.unit.fs.test_faults import Silent

from muniment.errors import MalformedRecord, MunimentError, NotHappy
from muniment.fs.options import Options
from muniment.fs.unsaved.bringing_back import Brought
from muniment.fs.unsaved.keeping import Kept
from muniment.ports import Appended, LogClient
from muniment.spec.operation import ROOT, Kind
from muniment.testing.lying_log import SwitchedLog


class DeafenedLog(SwitchedLog):
    """Tells when it has ordered something, though not its author."""

    def __init__(self, inner: LogClient) -> None:
        super().__init__(inner)
        self.ordered = asyncio.Event()

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        try:
            return await super().append(signed)
        finally:
            self.ordered.set()


SHORT = Options(linger_s=0.0, deadline_s=0.2, strict=False)
SMALL, LARGE = b"a few words", os.urandom(3 * CHUNK + 100)


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committing.committer._PAUSES_S", (0.01,))
    monkeypatch.setattr("muniment.fs.unsaved.keeping._PATIENCE_S", 0.5)
    async with place() as made:
        yield made


def nodes_are(where: Place, down: str | None) -> None:
    for node in where.fake.nodes:
        node.faults.down = down


async def without_log(where: Place) -> Mounted:
    """A mount whose log service is silent from now on."""
    plain = where.world.log
    where.world.log = log = Silent(plain)
    here = await where.mount(SHORT)
    where.world.log = plain
    log.stopped = True
    return here


async def ended(here: Mounted, folder: Path) -> Kept:
    kept = await here.files.aclose(folder)
    assert kept is not None
    return kept


async def brought(where: Place, kept: Kept) -> tuple[Mounted, Brought]:
    here = await where.mount(Options(linger_s=0.0, deadline_s=10.0))
    back = await here.files.unsaved.bring_back(kept.path)
    assert not kept.path.exists()
    return here, back


async def content(where: Place, name: bytes) -> bytes:
    here = await where.mount()
    return await here.read(here.files.lookup(ROOT, name).inode)


def held(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def put(here: Mounted, ino: int, data: bytes, offset: int = 0) -> None:
    """Written and not saved."""
    handle = await here.files.open(ino, os.O_RDWR)
    await here.files.write(handle, offset, data)


async def test_changes_and_content_without_log_and_nodes_are_in_the_volume_after_the_next_mount(
    where: Place, tmp_path: Path
) -> None:
    first = await where.mount()
    await first.write(await first.make(b"old"), LARGE)
    await first.make(b"gone")
    await first.files.sync_all()
    here = await without_log(where)
    nodes_are(where, "no power")
    folder = await here.make(b"folder", kind=Kind.FOLDER)
    await put(here, await here.make(b"small", parent=folder), SMALL)
    large = await here.make(b"large")
    await put(here, large, LARGE)
    await here.files.set_attributes(large, mode=0o640)
    await here.files.set_xattr(large, b"user.colour", b"blue")
    await put(here, here.files.lookup(ROOT, b"old").inode, b"new", 5)
    await here.files.rename(ROOT, b"large", folder, b"moved")
    await here.files.unlink(ROOT, b"gone")
    kept = await ended(here, tmp_path)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    raw = kept.path.read_bytes()
    assert SMALL not in raw
    assert LARGE[100:200] not in raw
    assert (kept.files, kept.size_bytes) == (1, len(LARGE))  # what is small stands in a change

    nodes_are(where, None)
    again, back = await brought(where, kept)
    assert not back.beside
    assert not back.refused
    assert back.files == 1
    elsewhere = await where.mount()
    assert await elsewhere.names() == [b"folder", b"old"]
    inside = elsewhere.files.lookup(ROOT, b"folder").inode
    assert await elsewhere.names(inside) == [b"moved", b"small"]
    assert await elsewhere.read(elsewhere.files.lookup(inside, b"small").inode) == SMALL
    moved = elsewhere.files.lookup(inside, b"moved")
    assert stat.S_IMODE(moved.mode) == 0o640
    assert await elsewhere.read(moved.inode) == LARGE
    assert elsewhere.files.xattr(moved.inode, b"user.colour") == b"blue"
    assert await content(where, b"old") == LARGE[:5] + b"new" + LARGE[8:]
    await again.files.aclose()


async def test_an_end_that_is_broken_off_keeps_what_it_has_not_saved(where: Place, tmp_path: Path) -> None:
    here = await where.mount(Options(linger_s=0.0, deadline_s=30.0, strict=False))
    await put(here, await here.make(b"large"), LARGE)
    gate = asyncio.Event()
    for node in where.fake.nodes:
        node.faults.gate = gate
    ending = asyncio.create_task(here.files.aclose(tmp_path))
    await asyncio.sleep(0.05)
    ending.cancel()  # somebody is impatient
    asyncio.get_running_loop().call_later(0.05, gate.set)
    with pytest.raises(asyncio.CancelledError):
        await ending
    (path,) = held(tmp_path)
    again = await where.mount(Options(linger_s=0.0, deadline_s=10.0))
    await again.files.unsaved.bring_back(path)
    assert await content(where, b"large") == LARGE


async def test_content_that_was_stored_and_not_named_is_named_by_the_next_mount(
    where: Place, tmp_path: Path
) -> None:
    here = await without_log(where)
    await put(here, await here.make(b"large"), LARGE)
    kept = await ended(here, tmp_path)
    assert kept.size_bytes == 0  # the grid has it
    await brought(where, kept)
    assert await content(where, b"large") == LARGE


async def test_an_entry_whose_answer_was_lost_is_not_made_twice(where: Place, tmp_path: Path) -> None:
    plain = where.world.log
    where.world.log = log = DeafenedLog(plain)
    here = await where.mount(SHORT)
    where.world.log = plain
    log.lost_answers = 1 << 20
    folder = await here.make(b"folder", kind=Kind.FOLDER)
    await here.make(b"a", parent=folder)
    await asyncio.wait_for(log.ordered.wait(), 5)
    await put(here, await here.make(b"b", parent=folder), SMALL)
    kept = await ended(here, tmp_path)
    assert kept.changes
    _, back = await brought(where, kept)
    assert not back.beside
    assert not back.refused
    elsewhere = await where.mount()
    assert await elsewhere.names() == [b"folder"]
    inside = elsewhere.files.lookup(ROOT, b"folder").inode
    assert await elsewhere.names(inside) == [b"a", b"b"]
    assert await elsewhere.read(elsewhere.files.lookup(inside, b"b").inode) == SMALL


async def test_what_others_have_made_impossible_goes_beside_and_theirs_stays(
    where: Place, tmp_path: Path
) -> None:
    first = await where.mount()
    for name in (b"changed", b"removed", b"target", b"same", b"vanished"):
        await first.write(await first.make(name), LARGE)
    here = await without_log(where)
    nodes_are(where, "no power")
    for name in (b"changed", b"removed", b"same"):
        await put(here, here.files.lookup(ROOT, name).inode, b"mine", CHUNK - 2)
    await put(here, await here.make(b"new"), b"my new one")
    await put(here, await here.make(b"draft"), b"my target")
    await here.files.rename(ROOT, b"draft", ROOT, b"target")
    await put(here, await here.make(b"other draft"), b"mine at last")
    await here.files.rename(ROOT, b"other draft", ROOT, b"vanished")
    await here.files.unlink(ROOT, b"same")
    await here.make(b"folder", kind=Kind.FOLDER)
    kept = await ended(here, tmp_path)
    nodes_are(where, None)

    lookup = first.files.lookup
    await first.write(lookup(ROOT, b"changed").inode, b"theirs")
    await first.write(lookup(ROOT, b"target").inode, b"theirs")
    await first.files.unlink(ROOT, b"removed")
    await first.files.unlink(ROOT, b"vanished")
    await first.write(await first.make(b"new"), b"theirs")
    await first.make(b"folder", kind=Kind.FOLDER)
    await first.files.sync_all()

    again, back = await brought(where, kept)
    assert not back.refused
    names = await again.names()
    assert sorted(back.beside) == sorted(name for name in names if b".unsaved-20" in name)
    assert [name.split(b".unsaved-")[0] for name in sorted(back.beside)] == [
        b"changed", b"folder", b"new", b"removed", b"target",
    ]  # fmt: skip
    beside = {name.split(b".")[0]: name for name in back.beside}
    mine = LARGE[: CHUNK - 2] + b"mine" + LARGE[CHUNK + 2 :]
    assert await content(where, beside[b"changed"]) == mine
    assert await content(where, beside[b"removed"]) == mine
    assert await content(where, beside[b"new"]) == b"my new one"
    assert await content(where, beside[b"target"]) == b"my target"
    assert await content(where, b"vanished") == b"mine at last"
    assert await content(where, b"new") == b"theirs"
    assert (await content(where, b"changed"))[:6] == b"theirs"
    assert (await content(where, b"target"))[:6] == b"theirs"
    assert b"same" not in names
    assert b"draft" not in names


async def test_a_removal_that_others_made_pointless_is_told(where: Place, tmp_path: Path) -> None:
    first = await where.mount()
    await first.make(b"a")
    await first.files.sync_all()
    here = await without_log(where)
    await here.files.unlink(ROOT, b"a")
    kept = await ended(here, tmp_path)
    await first.files.unlink(ROOT, b"a")
    await first.files.sync_all()
    _, back = await brought(where, kept)
    assert back.refused == ["unlink a"]


async def test_while_nodes_are_still_away_it_waits_and_is_kept_again(where: Place, tmp_path: Path) -> None:
    here = await without_log(where)
    nodes_are(where, "no power")
    await put(here, await here.make(b"large"), LARGE)
    kept = await ended(here, tmp_path)
    second = await where.mount(SHORT)
    await second.files.unsaved.bring_back(kept.path)
    assert kept.path.exists()
    ino = second.files.lookup(ROOT, b"large").inode
    assert await second.read(ino) == LARGE
    once_more = await ended(second, tmp_path)
    assert not kept.path.exists()
    nodes_are(where, None)
    await brought(where, once_more)
    assert await content(where, b"large") == LARGE
    assert not held(tmp_path)


async def test_one_that_is_killed_while_it_brings_back_loses_nothing(where: Place, tmp_path: Path) -> None:
    first = await where.mount()
    await first.write(await first.make(b"old"), LARGE)
    here = await without_log(where)
    nodes_are(where, "no power")
    await put(here, await here.make(b"new"), LARGE[::-1])
    await put(here, here.files.lookup(ROOT, b"old").inode, b"mine")
    kept = await ended(here, tmp_path)
    nodes_are(where, None)
    data = kept.path.read_bytes()
    await brought(where, kept)
    kept.path.write_bytes(data)  # killed before it could remove it
    _, back = await brought(where, kept)
    beside = {name.split(b".")[0]: name for name in back.beside}
    mine = b"mine" + LARGE[4:]
    for name in (b"old", beside[b"old"]):
        assert await content(where, name) == mine
    for name in (b"new", beside[b"new"]):
        assert await content(where, name) == LARGE[::-1]
    assert not back.refused


async def test_nodes_that_hang_hold_up_no_end(where: Place, tmp_path: Path) -> None:
    here = await without_log(where)
    gate = asyncio.Event()
    for node in where.fake.nodes:
        node.faults.gate = gate
    await put(here, await here.make(b"large"), LARGE)
    began = asyncio.get_running_loop().time()
    kept = await ended(here, tmp_path)
    await here.grid.aclose()
    assert asyncio.get_running_loop().time() - began < 4  # and not also what lingering and releasing may take
    assert kept.size_bytes == len(LARGE)
    gate.set()
    await brought(where, kept)
    assert await content(where, b"large") == LARGE


async def test_a_damaged_file_is_told_and_left_alone(where: Place, tmp_path: Path) -> None:
    here = await without_log(where)
    await here.make(b"a")
    kept = await ended(here, tmp_path)
    data = bytearray(kept.path.read_bytes())
    again = await where.mount()
    for at in (0, 10, 20, len(data) - 1):
        kept.path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(MunimentError):
            await again.files.unsaved.bring_back(kept.path)
    kept.path.write_bytes(data[:-1])
    with pytest.raises(MalformedRecord):
        await again.files.unsaved.bring_back(kept.path)
    assert await again.names() == []
    assert kept.path.exists()


async def test_who_keeps_nothing_is_told_what_was_not_saved(where: Place) -> None:
    here = await where.mount()
    nodes_are(where, "no power")
    await put(here, await here.make(b"large"), LARGE)
    with pytest.raises(NotHappy):
        await here.files.aclose()
    nodes_are(where, None)


async def test_what_is_saved_is_not_kept(where: Place, tmp_path: Path) -> None:
    here = await where.mount()
    await here.write(await here.make(b"a"), SMALL)
    assert await here.files.aclose(tmp_path) is None
    assert not held(tmp_path)
