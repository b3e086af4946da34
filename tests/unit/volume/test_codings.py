"""A volume whose coding policy has changed: its files refer to blobs of both codings from then on."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.audit.support import keep
from tests.unit.volume.support import member, world
from tests.unit.volume.test_volume_files import CHUNK, POLICY, Desk, content, read_tree

from muniment.audit.report import Verdict
from muniment.core.capabilities import weaken
from muniment.engine.volume_files import VolumeFiles
from muniment.spec.act import ChangePolicy
from muniment.testing.fake_grid import FakeGrid

OLD = content(2 * CHUNK + 5)
NEW = content(2 * CHUNK + 7)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """`old` and `folder/old` were written under 4/6; the policy is 2/5 now, and `folder/new` is written."""
    async with world(POLICY) as founded, FakeGrid(6).client() as grid:
        volume = await founded.member("anna")
        desk = Desk(founded, grid, volume, VolumeFiles(volume, grid))
        await desk.files.make_folder(b"folder")
        await desk.files.put(OLD, b"old")
        await desk.files.put(content(CHUNK), b"folder/old")
        await volume.act(lambda _: ChangePolicy(dataclasses.replace(POLICY, coding="2/5", happy=4)))
        await desk.files.put(NEW, b"folder/new")
        yield desk


def codings(desk: Desk) -> set[tuple[int, int]]:
    return {(ref.name.shape.k, ref.name.shape.n) for ref in desk.volume.view.blobs()}


async def mixed(desk: Desk) -> bytes:
    """Write into `old` and behind its end; returns what it holds then."""
    await desk.files.write(b"old", CHUNK + 3, NEW[:5000])
    await desk.files.write(b"old", len(OLD), NEW[:CHUNK])
    return OLD[: CHUNK + 3] + NEW[:5000] + OLD[CHUNK + 5003 :] + NEW[:CHUNK]


async def test_a_file_of_two_codings_is_read_copied_and_restored(desk: Desk, tmp_path: Path) -> None:
    held = await mixed(desk)
    assert codings(desk) == {(4, 6), (2, 5)}
    assert await desk.read(b"old") == held
    then = (await desk.files.copy(b"old", b"copy")).index
    assert await desk.read(b"copy") == held
    await desk.files.put(b"short", b"old")
    await desk.files.remove(b"copy")
    await desk.files.restore(b"", then)
    assert (await desk.read(b"old"), await desk.read(b"copy")) == (held, held)
    assert [one.size for one in await desk.files.history(b"old")][-1] == len(held)


async def test_a_folder_of_two_codings(desk: Desk, tmp_path: Path) -> None:
    then = (await desk.files.copy(b"folder", b"second")).index
    await desk.files.remove(b"folder", recursive=True)
    await desk.files.restore(b"folder", then)
    for name in ("folder", "second"):
        await desk.files.get_tree(name.encode(), tmp_path / name)
    assert read_tree(tmp_path / "folder") == read_tree(tmp_path / "second")
    assert (tmp_path / "folder" / "new").read_bytes() == NEW


async def test_another_member_and_an_auditor_read_such_an_entry(desk: Desk, tmp_path: Path) -> None:
    held = await mixed(desk)
    await desk.files.copy(b"old", b"copy")
    (tmp_path / "kept").mkdir()
    kept = await keep(desk.world, tmp_path / "kept")
    reader = member("anna").read
    for secret in (reader, reader.verify):
        report = await kept.audit(secret, with_view=secret is reader)
        assert report.verdict is Verdict.CLEAN, report.findings
    again = await desk.world.member("anna")
    theirs = VolumeFiles(again, desk.grid)
    target = io.BytesIO()
    await theirs.get(b"copy", target)
    assert target.getvalue() == held
    assert again.view.state_hash() == desk.volume.view.state_hash()


@pytest.mark.parametrize("path", [b"old", b""])
async def test_what_is_shared_has_one_coding(desk: Desk, tmp_path: Path, path: bytes) -> None:
    held = await mixed(desk)
    cap = await desk.files.share(path)
    assert (await desk.grid.check(weaken(cap), verify=True)).healthy
    if path:
        target = io.BytesIO()
        await desk.grid.get(cap, target)
        assert target.getvalue() == held
    else:
        await desk.grid.get_tree(cap, tmp_path / "out")
        assert (tmp_path / "out" / "old").read_bytes() == held
        assert (tmp_path / "out" / "folder" / "new").read_bytes() == NEW
