"""Capabilities of what is in a volume, read as anybody would read them, and what they do not open."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.volume.support import world
from tests.unit.volume.test_volume_files import CHUNK, POLICY, Desk, content, make_tree, read_tree

from muniment.core.capabilities import weaken
from muniment.engine.results import DownloadTally, UploadTally
from muniment.engine.volume_files import VolumeFiles
from muniment.engine.volume_share import Share, what_to_share
from muniment.errors import InvalidRequest, PathUnknown
from muniment.spec.blob import BlobRef
from muniment.spec.cap import BlobFile, LiteralFile, ManifestFile, ReadCap, TreeReadCap
from muniment.spec.manifest import Manifest, ManifestKind
from muniment.spec.operation import Extent, Truncate, Write
from muniment.testing.fake_grid import FakeGrid


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with world(POLICY) as founded, FakeGrid(6).client() as grid:
        volume = await founded.member("anna")
        yield Desk(founded, grid, volume, VolumeFiles(volume, grid))


async def read_cap(desk: Desk, cap: ReadCap) -> bytes:
    target = io.BytesIO()
    await desk.grid.get(cap, target)
    return target.getvalue()


async def opened_refs(desk: Desk, ref: BlobRef) -> set[BlobRef]:
    """Every blob of content that a manifest gives the key of."""
    manifest: Manifest = await desk.grid._fetcher.manifest(ref, DownloadTally())
    found: set[BlobRef] = set()
    for row in manifest.rows:
        found |= await opened_refs(desk, row.ref) if row.nested else {row.ref}
    return found


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (0, LiteralFile),
        (128, LiteralFile),
        (129, BlobFile),
        (2048, BlobFile),
        (CHUNK - 1, BlobFile),
        (CHUNK, BlobFile),
        (CHUNK + 1, ManifestFile),
        (5 * CHUNK + 17, ManifestFile),
    ],
)
async def test_a_file_is_read_without_membership(desk: Desk, size: int, kind: type[ReadCap]) -> None:
    data = content(size)
    await desk.files.put(data, b"x")
    cap = await desk.files.share(b"x")
    assert isinstance(cap, kind)
    assert await read_cap(desk, cap) == data
    health = await desk.grid.check(weaken(cap), verify=True)
    assert health.healthy


async def test_whole_blobs_are_not_stored_again(desk: Desk) -> None:
    await desk.files.put(content(5 * CHUNK), b"x")
    blobs = set(desk.volume.view.blobs())
    cap = await desk.files.share(b"x")
    assert isinstance(cap, ManifestFile)
    assert await opened_refs(desk, cap.ref) == blobs


async def test_a_folder_is_restored_without_membership(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    await desk.files.put_tree(tmp_path / "in", b"t")
    cap = await desk.files.share(b"t")
    await desk.grid.get_tree(cap, tmp_path / "out")
    assert read_tree(tmp_path / "out") == files
    assert (tmp_path / "out" / "link").readlink() == Path("sub/deep/b")
    assert (tmp_path / "out" / "nothing").is_dir()
    assert (tmp_path / "out" / "sub" / "deep").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "out" / "a").stat().st_mtime_ns == (tmp_path / "in" / "a").stat().st_mtime_ns
    assert (await desk.grid.check(weaken(cap), verify=True)).healthy
    assert isinstance(cap, TreeReadCap)
    assert await opened_refs(desk, cap.ref) <= set(desk.volume.view.blobs())


async def test_a_part_of_a_tree_does_not_open_its_neighbours(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    await desk.files.put_tree(tmp_path / "in", b"t")
    packs = {ref for ref in desk.volume.view.blobs() if ref.plain_bytes != CHUNK}
    one = await desk.files.share(b"t/many/7")
    some = await desk.files.share(b"t/sub")
    assert isinstance(one, BlobFile)
    assert isinstance(some, TreeReadCap)
    assert one.ref not in packs
    assert not await opened_refs(desk, some.ref) & packs
    assert await read_cap(desk, one) == files["many/7"]
    await desk.grid.get_tree(some, tmp_path / "out")
    assert read_tree(tmp_path / "out") == {"deep/b": files["sub/deep/b"], "empty": b""}


async def test_what_was_overwritten_is_not_opened(desk: Desk, tmp_path: Path) -> None:
    data = bytearray(content(3 * CHUNK))
    await desk.files.put(bytes(data), b"x")
    old = set(desk.volume.view.blobs())
    inode = (await desk.files.find(b"x")).inode
    patch = Write(inode, None, (Extent(CHUNK + 10, 5, b"patch"),))
    await desk.files.change(lambda _: [patch, Truncate(inode, None, 2 * CHUNK + 100)])
    data[CHUNK + 10 : CHUNK + 15] = b"patch"
    del data[2 * CHUNK + 100 :]
    cap = await desk.files.share(b"x")
    assert isinstance(cap, ManifestFile)
    assert await read_cap(desk, cap) == data
    assert len(await opened_refs(desk, cap.ref) & old) == 1
    tree = await desk.files.share(b"")
    await desk.grid.get_tree(tree, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == data


async def test_holes_are_shared_as_zeros(desk: Desk, tmp_path: Path) -> None:
    await desk.files.put(content(CHUNK), b"x")
    inode = (await desk.files.find(b"x")).inode
    await desk.files.change(
        lambda _: [
            Truncate(inode, None, 10),
            Write(inode, None, (Extent(3 * CHUNK + 5, 3, b"end"),)),
            Truncate(inode, None, 5 * CHUNK + 7),
        ]
    )
    data = await desk.read(b"x")
    assert await read_cap(desk, await desk.files.share(b"x")) == data
    await desk.grid.get_tree(await desk.files.share(b""), tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == data


async def test_a_file_of_many_chunks_has_a_manifest_of_its_own(desk: Desk, tmp_path: Path) -> None:
    data = os.urandom(257 * CHUNK + 1)
    await desk.files.put(data, b"x")
    cap = await desk.files.share(b"")
    assert isinstance(cap, TreeReadCap)
    manifest = await desk.grid._fetcher.manifest(cap.ref, DownloadTally())
    assert [row.nested for row in manifest.rows] == [True]
    await desk.grid.get_tree(cap, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == data


async def test_a_tree_of_many_names_has_an_index(desk: Desk, tmp_path: Path) -> None:
    files = make_tree(tmp_path / "in")
    await desk.files.put_tree(tmp_path / "in", b"t")
    what = await desk.files.look(lambda state: what_to_share(state, b"t"))
    writer = (await desk.files._writer(UploadTally())).blobs
    cap = await Share(desk.grid, writer, entries_max=10).run(what)
    assert isinstance(cap, TreeReadCap)
    manifest = await desk.grid._fetcher.manifest(cap.ref, DownloadTally())
    assert (manifest.kind, len(manifest.rows)) == (ManifestKind.TREE_INDEX, 6)
    await desk.grid.get_tree(cap, tmp_path / "out")
    assert read_tree(tmp_path / "out") == files


async def test_the_past_is_shared_as_it_was(desk: Desk) -> None:
    then = (await desk.files.put(b"old" * 100, b"x")).committed.index
    await desk.files.put(b"new" * 100, b"x")
    assert await read_cap(desk, await desk.files.share(b"x", at=then)) == b"old" * 100
    assert await read_cap(desk, await desk.files.share(b"x")) == b"new" * 100


async def test_what_cannot_be_shared(desk: Desk) -> None:
    await desk.files.symlink(b"nowhere", b"l")
    with pytest.raises(PathUnknown):
        await desk.files.share(b"l")
    with pytest.raises(PathUnknown):
        await desk.files.share(b"nothing")
    await desk.files.symlink(b"l2", b"l2")
    with pytest.raises(InvalidRequest):
        await desk.files.share(b"l2")
