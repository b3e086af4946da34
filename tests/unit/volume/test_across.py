"""Copies from one volume into another: everything comes along, and no blob of the first is named."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.volume.support import world
from tests.unit.volume.test_volume_facts import HOLEY, sparse
from tests.unit.volume.test_volume_files import CHUNK, POLICY, Desk, content, make_tree, read_tree

from muniment.engine.volume_files import VolumeFiles
from muniment.errors import InvalidRequest, PathUnknown
from muniment.spec.act import Quorum, VolumePolicy
from muniment.spec.operation import SetXattr
from muniment.testing.fake_grid import FakeGrid

OTHER = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "2/5", 4, 2 * CHUNK)


@pytest.fixture
async def desks() -> AsyncIterator[tuple[Desk, Desk]]:
    """Two volumes of other policies over one grid."""
    async with world(POLICY) as one, world(OTHER) as two, FakeGrid(6).client() as grid:
        first, second = await one.member("anna"), await two.member("anna")
        yield (
            Desk(one, grid, first, VolumeFiles(first, grid)),
            Desk(two, grid, second, VolumeFiles(second, grid)),
        )


async def test_a_folder_with_everything(desks: tuple[Desk, Desk], tmp_path: Path) -> None:
    here, there = desks
    source = tmp_path / "in"
    files = make_tree(source)
    for name, (size, pieces) in HOLEY.items():
        sparse(source / f"holes {name}", size, *pieces)
    (source / "second").hardlink_to(source / "big")
    os.mkfifo(source / "pipe", 0o610)
    (source / "a").chmod(0o4711)
    await here.files.put_tree(source, b"t")
    ino = (await here.files.find(b"t/a")).inode
    await here.files.change(lambda _: [SetXattr(ino, b"user.note", b"kept")])
    before = there.volume.view.size
    stored = await there.files.copy_across(here.files, b"t", b"copy")
    assert there.volume.view.size == before + 2  # the folder, and one leaf
    assert stored.files == len(files) + len(HOLEY) + 1
    await there.files.get_tree(b"copy", tmp_path / "out", owners=True)
    assert read_tree(tmp_path / "out") == read_tree(source)
    out = tmp_path / "out"
    assert (out / "second").stat().st_ino == (out / "big").stat().st_ino
    assert stat.S_ISFIFO((out / "pipe").stat().st_mode)
    assert (out / "link").readlink() == (source / "link").readlink()
    for path in (source, *source.rglob("*")):
        was, now = path.lstat(), (out / path.relative_to(source)).lstat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid), path
        assert now.st_mtime_ns == was.st_mtime_ns, path
        assert now.st_blocks <= was.st_blocks, path
    ino = (await there.files.find(b"copy/a")).inode
    assert await there.files.look(lambda s: dict(s.xattrs(ino))) == {b"user.note": b"kept"}
    assert not set(there.volume.view.blobs()) & set(here.volume.view.blobs())


async def test_single_files_and_the_past(desks: tuple[Desk, Desk]) -> None:
    here, there = desks
    versions = [content(size) for size in (0, 1, 2049, CHUNK, 5 * CHUNK + 1)]
    indexes = [(await here.files.put(data, b"x")).committed.index for data in versions]
    for at, data in zip(indexes, versions, strict=True):
        await there.files.copy_across(here.files, b"x", b"y", at=at)
        assert await there.read(b"y") == data
    assert len(await there.files.history(b"y")) == len(versions)
    with pytest.raises(PathUnknown):
        await there.files.copy_across(here.files, b"nothing", b"y")
    with pytest.raises(InvalidRequest):
        await there.files.copy_across(here.files, b"x", b"")


async def test_many_leaves(desks: tuple[Desk, Desk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muniment.engine.volume_across.ENTRIES_MAX", 7)  # one of 8192 takes seconds
    here, there = desks
    files = make_tree(tmp_path / "in")
    await here.files.put_tree(tmp_path / "in", b"")
    await there.files.copy_across(here.files, b"", b"all")
    await there.files.get_tree(b"all", tmp_path / "out")
    assert read_tree(tmp_path / "out") == files
