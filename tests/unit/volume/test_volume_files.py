"""Files and folders of a volume over a grid in memory: there and back, history, restore, copies, holes."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.volume.support import World, world

from muniment.engine.grid import Grid
from muniment.engine.volume import Volume
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import FileFailed, InvalidRequest, OperationRejected, PathUnknown, RangeOutOfBounds
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.spec.operation import Extent, Kind, Truncate, Write
from muniment.testing.fake_grid import FakeGrid

CHUNK = 1 << 16
POLICY = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "4/6", 5, CHUNK)
SIZES = [0, 1, 2048, 2049, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17]


@dataclass
class Desk:
    """A member at work."""

    world: World
    grid: Grid
    volume: Volume
    files: VolumeFiles

    async def read(
        self, path: bytes, *, at: int | None = None, start: int = 0, stop: int | None = None
    ) -> bytes:
        target = io.BytesIO()
        await self.files.get(path, target, at=at, start=start, stop=stop)
        return target.getvalue()

    async def names(self, path: bytes = b"", *, at: int | None = None) -> list[bytes]:
        return [one.path for one in await self.files.listing(path, at=at)]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with world(POLICY) as founded, FakeGrid(6).client() as grid:
        volume = await founded.member("anna")
        yield Desk(founded, grid, volume, VolumeFiles(volume, grid))


def content(size: int) -> bytes:
    return os.urandom(size)


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_there_and_back(desk: Desk, size: int, tmp_path: Path) -> None:
    data = content(size)
    (tmp_path / "x").write_bytes(data)
    (tmp_path / "x").chmod(0o640)
    stored = await desk.files.put(tmp_path / "x", b"x")
    assert (stored.size_bytes, stored.files) == (size, 1)
    assert await desk.read(b"x") == data
    inode = await desk.files.find(b"x")
    assert (inode.mode, inode.size) == (0o640, size)
    assert inode.mtime_ns == (tmp_path / "x").stat().st_mtime_ns
    await desk.files.get(b"x", tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == data


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (CHUNK - 1, CHUNK + 1), (3 * CHUNK, 3 * CHUNK), (7, 99_999)]
)
async def test_a_range_of_a_file(desk: Desk, start: int, stop: int) -> None:
    data = content(5 * CHUNK)
    await desk.files.put(data, b"x")
    assert await desk.read(b"x", start=start, stop=stop) == data[start:stop]
    with pytest.raises(RangeOutOfBounds):
        await desk.read(b"x", start=1, stop=len(data) + 1)


async def test_each_version_of_a_file_can_be_read(desk: Desk) -> None:
    versions = [content(size) for size in (10, 3 * CHUNK, 0, 2 * CHUNK + 5)]
    indexes = [(await desk.files.put(data, b"x")).committed.index for data in versions]
    assert [await desk.read(b"x", at=at) for at in indexes] == versions
    history = await desk.files.history(b"x")
    assert [one.index for one in history] == indexes
    assert [one.size for one in history] == [len(data) for data in versions]


async def test_a_write_only_over_the_version_it_knows(desk: Desk) -> None:
    await desk.files.put(b"one", b"x")
    known = (await desk.files.find(b"x")).version
    await desk.files.put(b"two", b"x", if_version=known)
    with pytest.raises(OperationRejected, match="changed"):
        await desk.files.put(b"three", b"x", if_version=known)
    assert await desk.read(b"x") == b"two"


def make_tree(folder: Path) -> dict[str, bytes]:
    files = {"a": content(10), "big": content(3 * CHUNK + 1), "sub/deep/b": content(5000), "sub/empty": b""}
    files |= {f"many/{at}": content(3000) for at in range(50)}
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "link").symlink_to("sub/deep/b")
    (folder / "nothing").mkdir()
    (folder / "sub" / "deep").chmod(0o700)
    return files


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def test_a_folder_there_and_back(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    stored = await desk.files.put_tree(tmp_path / "in", b"books/2026")
    assert (stored.files, stored.skipped) == (len(files), ())
    got = await desk.files.get_tree(b"books/2026", tmp_path / "out")
    assert got.files == len(files)
    assert read_tree(tmp_path / "out") == files
    assert (tmp_path / "out" / "link").readlink() == Path("sub/deep/b")
    assert (tmp_path / "out" / "nothing").is_dir()
    assert (tmp_path / "out" / "sub" / "deep").stat().st_mode & 0o777 == 0o700
    assert await desk.read(b"books/2026/link") == files["sub/deep/b"]


async def test_small_files_around_large_ones(desk: Desk, tmp_path: Path) -> None:
    # The small ones share a blob, which is begun before the large ones' and ends after them.
    sizes = {"a": 3000, "b": CHUNK, "c": 4000, "d": 2 * CHUNK + 1, "e": 100, "f": 2500}
    files = {name: content(size) for name, size in sizes.items()}
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    await desk.files.put_tree(tmp_path / "in", b"t")
    await desk.files.get_tree(b"t", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files


async def test_a_folder_put_twice_sends_nothing_and_changes_what_differs(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    await desk.files.put_tree(tmp_path / "in", b"t")
    again = await desk.files.put_tree(tmp_path / "in", b"t")
    assert again.new_bytes == 0
    (tmp_path / "in" / "a").write_bytes(b"other")
    await desk.files.put_tree(tmp_path / "in", b"t")
    await desk.files.get_tree(b"t", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files | {"a": b"other"}


async def test_another_member_reads_and_writes_the_same_tree(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    await desk.files.put_tree(tmp_path / "in", b"t")
    bert = await desk.world.join("bert", Role.WRITER, desk.volume)
    theirs = VolumeFiles(bert, desk.grid)
    await theirs.get_tree(b"t", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files
    await theirs.put(b"of bert", b"t/a")
    await desk.volume.sync()
    assert await desk.read(b"t/a") == b"of bert"


async def test_moving_removing_and_restoring_a_tree(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    then = (await desk.files.put_tree(tmp_path / "in", b"t")).committed.index
    await desk.files.make_folder(b"elsewhere")
    await desk.files.move(b"t", b"elsewhere")
    assert await desk.names() == [b"elsewhere"]
    await desk.files.remove(b"elsewhere", recursive=True)
    assert await desk.names() == []
    await desk.files.restore(b"t", then)
    await desk.files.get_tree(b"t", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files


async def test_the_whole_volume_is_restored(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    then = (await desk.files.put_tree(tmp_path / "in", b"")).committed.index
    await desk.files.remove(b"sub", recursive=True)
    await desk.files.put(b"changed", b"a")
    await desk.files.put(b"new", b"new")
    await desk.files.restore(b"", then)
    await desk.files.get_tree(b"", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files
    with pytest.raises(PathUnknown):
        await desk.files.find(b"new")


async def test_a_restore_touches_only_what_differs(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    then = (await desk.files.put_tree(tmp_path / "in", b"t")).committed.index
    numbers = {one.path: one.inode.inode for one in await desk.files.walk(b"t")}
    await desk.files.put(b"other", b"t/sub/deep/b")
    await desk.files.remove(b"t/many/7", b"t/sub/empty", b"t/link")
    await desk.files.make_folder(b"t/new/er", parents=True)
    await desk.files.remove(b"t/nothing")
    await desk.files.put(b"no folder", b"t/nothing")
    await desk.files.set_attributes(b"t/sub", mode=0o711)
    await desk.files.restore(b"t", then)
    after = {one.path: one.inode.inode for one in await desk.files.walk(b"t")}
    assert set(after) == set(numbers)
    changed = {path for path in after if after[path] != numbers[path]}
    assert changed == {b"many/7", b"sub/empty", b"link", b"nothing"}
    assert (await desk.files.find(b"t/sub")).mode == 0o755
    await desk.files.get_tree(b"t", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files


async def test_a_file_is_restored_under_its_number(desk: Desk) -> None:
    then = (await desk.files.put(content(3 * CHUNK), b"x")).committed.index
    before = await desk.read(b"x")
    inode = (await desk.files.find(b"x")).inode
    await desk.files.put(b"other", b"x")
    await desk.files.restore(b"x", then)
    assert await desk.read(b"x") == before
    assert (await desk.files.find(b"x")).inode == inode


async def test_times_of_folders_come_back(desk: Desk, tmp_path: Path) -> None:
    make_tree(tmp_path / "in")
    folders = [path for path in (tmp_path / "in").rglob("*") if path.is_dir() and not path.is_symlink()]
    for at, path in enumerate(sorted(folders, reverse=True)):
        os.utime(path, ns=(0, at * 10**9 + 5))
    times = {path.relative_to(tmp_path / "in"): path.stat().st_mtime_ns for path in folders}
    then = (await desk.files.put_tree(tmp_path / "in", b"t")).committed.index
    await desk.files.copy(b"t", b"u")
    await desk.files.remove(b"t", recursive=True)
    await desk.files.restore(b"", then)
    for number, name in enumerate((b"t", b"u")):
        if name == b"u":
            await desk.files.copy(b"t", b"u")
        out = tmp_path / f"out{number}"
        await desk.files.get_tree(name, out)
        assert {path: (out / path).stat().st_mtime_ns for path in times} == times


async def test_copies_share_their_blobs(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    await desk.files.put_tree(tmp_path / "in", b"t")
    blobs = set(desk.volume.view.blobs())
    await desk.files.copy(b"t", b"u")
    await desk.files.copy(b"t/big", b"u/copy")
    assert set(desk.volume.view.blobs()) == blobs
    await desk.files.get_tree(b"u", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files | {"copy": files["big"]}


async def test_a_write_in_place_stores_what_it_changes(desk: Desk) -> None:
    data = content(4 * CHUNK)
    await desk.files.put(data, b"x")
    inode = (await desk.files.find(b"x")).inode
    patch = b"patched"
    await desk.files.change(lambda _: [Write(inode, None, (Extent(CHUNK + 3, len(patch), patch),))])
    changed = bytearray(data)
    changed[CHUNK + 3 : CHUNK + 3 + len(patch)] = patch
    assert await desk.read(b"x") == changed


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 5), (CHUNK - 2, 4000), (CHUNK + 7, 2 * CHUNK), (9 * CHUNK, 3)]
)
async def test_only_what_is_written_is_stored(desk: Desk, offset: int, size: int) -> None:
    data, patch = content(4 * CHUNK), content(size)
    await desk.files.put(data, b"x")
    whole = (await desk.files.find(b"x")).version
    stored = await desk.files.write(b"x", offset, patch, if_version=whole)
    assert stored.new_bytes < 2 * size + 9000
    changed = bytearray(max(len(data), offset + size))
    changed[: len(data)] = data
    changed[offset : offset + size] = patch
    assert await desk.read(b"x") == changed
    with pytest.raises(OperationRejected, match="changed"):
        await desk.files.write(b"x", 0, b"late", if_version=whole)
    assert await desk.read(b"x", at=whole) == data


async def test_holes_read_as_zeros(desk: Desk, tmp_path: Path) -> None:
    await desk.files.put(content(CHUNK), b"x")
    inode = (await desk.files.find(b"x")).inode
    await desk.files.change(
        lambda _: [
            Truncate(inode, None, 10),
            Write(inode, None, (Extent(5000, 3, b"end"),)),
            Truncate(inode, None, 9000),
        ]
    )
    data = await desk.read(b"x")
    assert (len(data), data[10:5000], data[5000:5003], data[5003:]) == (
        9000,
        bytes(4990),
        b"end",
        bytes(3997),
    )
    assert await desk.read(b"x", start=4999, stop=5001) == b"\0e"
    await desk.files.get_tree(b"", tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == data


async def test_links_and_attributes(desk: Desk) -> None:
    await desk.files.put(b"data", b"x")
    await desk.files.link(b"x", b"y")
    await desk.files.symlink(b"y", b"z")
    assert await desk.read(b"z") == b"data"
    assert await desk.files.target(b"z") == b"y"
    longest = b"./" * 2047 + b"y"
    await desk.files.symlink(longest, b"l")
    assert await desk.files.target(b"l") == longest
    assert await desk.read(b"l") == b"data"
    assert (await desk.files.find(b"x")).links == 2
    await desk.files.set_attributes(b"x", mode=0o600, mtime_ns=5)
    inode = await desk.files.find(b"y")
    assert (inode.mode, inode.mtime_ns) == (0o600, 5)
    assert (await desk.files.find(b"z", follow=False)).kind is Kind.SYMLINK


async def test_what_cannot_be(desk: Desk) -> None:
    await desk.files.put(b"data", b"x")
    await desk.files.make_folder(b"full/of", parents=True)
    with pytest.raises(PathUnknown):
        await desk.files.put(b"data", b"no/such/folder")
    with pytest.raises(InvalidRequest):
        await desk.files.put(b"data", b"x/under a file")
    with pytest.raises(OperationRejected, match="not-empty"):
        await desk.files.remove(b"full")
    with pytest.raises(OperationRejected, match="into-itself"):
        await desk.files.move(b"full", b"full/of/itself")
    with pytest.raises(OperationRejected, match="exists"):
        await desk.files.make_folder(b"full")
    with pytest.raises(InvalidRequest):
        await desk.read(b"full")
    with pytest.raises(InvalidRequest):
        await desk.files.find(b"../x")
    await desk.files.symlink(b"loop", b"loop")
    with pytest.raises(InvalidRequest, match="too many"):
        await desk.files.find(b"loop")


async def test_snapshots_have_names(desk: Desk) -> None:
    await desk.files.put(b"one", b"x")
    await desk.files.snapshot(b"year end")
    await desk.files.put(b"two", b"x")
    ((name, at),) = desk.volume.view.snapshots()
    assert name == b"year end"
    assert await desk.read(b"x", at=at) == b"one"


async def test_several_files_are_one_entry(desk: Desk, tmp_path: Path) -> None:
    names = {b"a": content(10), b"b\xff": content(3000), b"c": content(3 * CHUNK), b"-d\n": b""}
    places = {}
    for at, (name, data) in enumerate(names.items()):
        places[name] = tmp_path / str(at) / "local"
        places[name].parent.mkdir()
        places[name].write_bytes(data)
    (tmp_path / "link").symlink_to("0/local")
    places[b"linked"] = tmp_path / "link"
    await desk.files.make_folder(b"t")
    before = desk.volume.view.size
    stored = await desk.files.put_files(places, b"t")
    assert desk.volume.view.size == before + 1
    assert (stored.files, stored.committed.index) == (5, before)
    for name, data in (names | {b"linked": names[b"a"]}).items():
        assert await desk.read(b"t/" + name) == data
    places[b"absent"] = tmp_path / "absent"
    assert [one.path for one in (await desk.files.put_files(places, b"t")).skipped] == ["absent"]
    with pytest.raises(FileFailed):
        await desk.files.put_files({b"absent": tmp_path / "absent"}, b"t")
