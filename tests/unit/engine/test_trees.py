"""Folders: what is stored, how it is packed, and that a restore never leaves its folder."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, THREE, content, names, our_threads

from muniment.core.manifesting import content_row, nested_row
from muniment.core.sealing import BlobBuffers, Sealer
from muniment.durable_file import flush_all
from muniment.engine import tree_reader
from muniment.engine.results import Progress
from muniment.engine.tree_reader import Chunk, FileEnd, Leaf, NeedBuffer, TreeReader
from muniment.errors import BlobCorrupt, DiskFull, FileFailed, InvalidRequest, MalformedRecord, TooFewShares
from muniment.ports import ShareClaim, ShareUpload
from muniment.spec.blob import BlobRef
from muniment.spec.cap import TreeReadCap
from muniment.spec.manifest import Manifest, ManifestKind
from muniment.spec.tree_entry import EntryType, Extent, TreeEntry
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import LoopClock, run_virtual

Facts = dict[str, tuple[str, int, int, object]]


def described(folder: Path) -> Facts:
    """Everything below a folder: kind, permissions, time, content."""
    found: Facts = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        what: object = None
        if path.is_symlink():
            what = path.readlink()
        elif path.is_file():
            what = path.read_bytes()
        mode = 0 if path.is_symlink() else stat.S_IMODE(facts.st_mode)
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path.relative_to(folder))] = (kind, mode, facts.st_mtime_ns, what)
    return found


def make_tree(root: Path) -> None:
    """Every kind of entry and every size class."""
    (root / "a" / "deep" / "er").mkdir(parents=True)
    (root / "a-b").mkdir()
    (root / "empty folder").mkdir(mode=0o750)
    for name, size in {
        "empty": 0,
        "tiny": 128,
        "small": 129,
        "a/small": 5000,
        "a/almost": CHUNK - 1,
        "a/chunk": CHUNK,
        "a/deep/er/large": 3 * CHUNK + 5,
        "a-b/x": 700,
        "z": 60_000,
        "z.y": 3000,
    }.items():
        (root / name).write_bytes(content(size, size))
    (root / os.fsdecode(b"not utf-8 \xff\xfe")).write_bytes(b"bytes are bytes")
    (root / "a" / "link").symlink_to("../z")
    (root / "dangling").symlink_to("/nowhere/at/all")
    (root / "script").write_bytes(b"#!/bin/sh\n")
    (root / "script").chmod(0o755)
    for at, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18 + at, 10**18 + at * 1001), follow_symlinks=False)


def test_a_tree_comes_back_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    make_tree(source)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            told: list[Progress] = []
            stored = await client.put_tree(source, progress=told.append)
            size = sum(
                path.lstat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink()
            )
            assert (stored.files, stored.size_bytes, stored.skipped) == (12, size, ())
            assert told[-1] == Progress(size, size)
            told.clear()
            result = await client.get_tree(stored.cap, target, progress=told.append)
            assert (result.files, result.size_bytes, result.skipped) == (12, size, ())
            assert described(target) == described(source)
            assert names(tmp_path) == ["source", "target"]
            again = await client.put_tree(target)
            assert again.cap == stored.cap
            assert again.new_bytes == 0
        assert our_threads() == []
        assert grid.reserved_bytes == 0

    run_virtual(main())


def test_small_files_share_blobs_and_large_ones_are_those_of_put(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for at in range(100):
        (source / f"{at:03}").write_bytes(content(1000, at))
    (source / "large").write_bytes(content(2 * CHUNK))

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            await client.put(source / "large")
            stored = await client.put_tree(source)
            assert stored.blobs == 5  # two packs of 100,000 bytes, two chunks known already, one manifest
            assert stored.present_bytes > 0
            result = await client.get_tree(stored.cap, tmp_path / "target")
            assert result.blobs == 5  # each fetched once
            assert described(tmp_path / "target") == described(source)

    run_virtual(main())


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()

    async def main() -> None:
        grid = FakeGrid(3)
        async with grid.client(THREE) as client:
            stored = await client.put_tree(tmp_path / "source")
            result = await client.get_tree(stored.cap, tmp_path / "new" / "target")
            assert (result.files, result.size_bytes) == (0, 0)
            assert names(tmp_path / "new" / "target") == []

    run_virtual(main())


@pytest.mark.parametrize("limit", ["entries", "rows", "bytes"])
def test_large_trees_nest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """With limits a real tree cannot reach in a test."""
    match limit:
        case "entries":
            monkeypatch.setattr(tree_reader, "ENTRIES_MAX", 7)
        case "rows":
            monkeypatch.setattr(tree_reader, "ROWS_MAX", 6)
        case "bytes":
            monkeypatch.setattr(tree_reader, "_ENTRY_BYTES_MAX", 500)
    source = tmp_path / "source"
    source.mkdir()
    make_tree(source)
    for at in range(40):
        (source / f"n{at}").write_bytes(content(40_000 + at, at))

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            stored = await client.put_tree(source)
            assert (await client.check(stored.cap)).healthy
            await client.get_tree(stored.cap, tmp_path / "target")
            assert described(tmp_path / "target") == described(source)

    run_virtual(main())


def test_a_file_of_many_chunks_gets_a_manifest_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_reader, "DIRECT_CHUNKS_MAX", 3)  # a gigabyte otherwise
    source = tmp_path / "source"
    source.mkdir()
    make_tree(source)
    (source / "huge").write_bytes(content(9 * CHUNK + 1))

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            stored = await client.put_tree(source)
            await client.get_tree(stored.cap, tmp_path / "target")
            assert described(tmp_path / "target") == described(source)
            assert (await client.check(stored.cap, verify=True)).healthy

    run_virtual(main())


def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "closed").mkdir(parents=True)
    (source / "closed" / "inside").write_bytes(b"x")
    (source / "good").write_bytes(content(1000))
    (source / "locked").write_bytes(content(1000))
    os.mkfifo(source / "pipe")
    real_open, real_list = os.open, os.listdir

    def guarded_open(path: bytes, *args: int) -> int:
        if bytes(path).endswith(b"locked"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *args)

    def guarded_list(path: bytes) -> Sequence[bytes]:
        if bytes(path).endswith(b"closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_list(path)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            with monkeypatch.context() as patch:  # the tests may run as root, whom nothing is forbidden
                patch.setattr(os, "open", guarded_open)
                patch.setattr(os, "listdir", guarded_list)
                stored = await client.put_tree(source)
            assert sorted((skipped.path, skipped.reason) for skipped in stored.skipped) == [
                ("closed", "Permission denied"),
                ("locked", "Permission denied"),
                ("pipe", "neither a file, a folder nor a symbolic link"),
            ]
            await client.get_tree(stored.cap, tmp_path / "target")
            assert names(tmp_path / "target") == ["closed", "good"]

    run_virtual(main())


def steps_of(reader: TreeReader, meanwhile: Callable[[], None] = lambda: None) -> list[object]:
    """Drive a reader to its end; `meanwhile` happens each time it waits for a buffer."""
    steps: list[object] = []
    step = reader.step()
    while step is not None:
        if isinstance(step, NeedBuffer):
            meanwhile()
            step = reader.step(memoryview(bytearray(CHUNK)))
            continue
        steps.append(step)
        step = reader.step()
    return steps


@pytest.mark.parametrize("now", [0, 1, 500, 5 * CHUNK])
@pytest.mark.parametrize("before", [1000, CHUNK + 10, 3 * CHUNK])
def test_a_file_that_changes_while_it_is_read_is_stored_as_read(
    tmp_path: Path, before: int, now: int
) -> None:
    (tmp_path / "changing").write_bytes(content(before))
    changed = content(now, 7)

    def change() -> None:
        (tmp_path / "changing").write_bytes(changed)

    steps = steps_of(TreeReader(tmp_path, CHUNK), change)
    leaf = steps[-1]
    assert isinstance(leaf, Leaf)
    (entry,) = leaf.entries
    read = b"".join(bytes(step.buffer[: step.size_bytes]) for step in steps if isinstance(step, Chunk))
    assert entry.size_bytes == len(read) == min(before, now)
    assert read == changed[: len(read)]
    assert leaf.row_count == len({extent.source for extent in entry.extents})


def test_a_large_file_that_shrinks_to_nothing_has_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_reader, "DIRECT_CHUNKS_MAX", 1)
    path = tmp_path / "shrinking"
    path.write_bytes(content(3 * CHUNK))

    def empty() -> None:
        path.write_bytes(b"")

    steps = steps_of(TreeReader(tmp_path, CHUNK), empty)
    assert not [step for step in steps if isinstance(step, Chunk | FileEnd)]


def test_a_file_that_fails_in_the_middle_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bad", "good"):
        (tmp_path / name).write_bytes(content(3 * CHUNK))
    real, calls = os.readv, 0

    def failing(fd: int, buffers: Sequence[memoryview]) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", failing)  # a bad sector cannot be had otherwise
    reader = TreeReader(tmp_path, CHUNK)
    leaf = steps_of(reader)[-1]
    assert isinstance(leaf, Leaf)
    assert [entry.path for entry in leaf.entries] == [b"good"]
    assert [(skipped.path, skipped.reason) for skipped in reader.skipped] == [("bad", "Input/output error")]
    assert leaf.row_count == 4  # the one that was read of the bad file names nothing


def test_the_folder_itself_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            with pytest.raises(FileFailed):
                await client.put_tree(tmp_path / "absent")
            with pytest.raises(InvalidRequest, match="not a folder"):
                await client.put_tree(tmp_path / "file")
        assert our_threads() == []

    run_virtual(main())


def test_a_full_folder_is_kept_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "new").write_bytes(content(1000))
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "old").write_bytes(b"old")

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put_tree(source)).cap
            with pytest.raises(InvalidRequest, match="not empty"):
                await client.get_tree(cap, target)
            assert names(target) == ["sub"]
            with pytest.raises(InvalidRequest, match="not a folder"):
                await client.get_tree(cap, source / "new", replace=True)
            await client.get_tree(cap, target, replace=True)
            assert described(target) == described(source)
            assert names(tmp_path) == ["source", "target"]
            for path in target.iterdir():
                path.unlink()
            await client.get_tree(cap, target)  # empty now
            assert described(target) == described(source)

    run_virtual(main())


def test_a_restore_that_fails_or_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    make_tree(source)

    async def main() -> None:
        grid = FakeGrid(6, clock=LoopClock(asyncio.get_running_loop()))
        async with grid.client(PLAIN) as client:
            cap = (await client.put_tree(source)).cap
            for node in grid.nodes:
                node.faults.delay_s["get"] = node.faults.delay_s["get_many"] = 0.2
            for at_s in (0.0, 0.1, 0.3, 0.39):
                get = asyncio.ensure_future(client.get_tree(cap, tmp_path / "target"))
                await asyncio.sleep(at_s)
                get.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await get
                assert names(tmp_path) == ["source"]
            manifest = cap.ref.name.blob if isinstance(cap, TreeReadCap) else b""
            for node in grid.nodes[:3]:
                node.shares = {key: kept for key, kept in node.shares.items() if key.blob == manifest}
            with pytest.raises(TooFewShares):
                await client.get_tree(cap, tmp_path / "target")
            assert names(tmp_path) == ["source"]
            assert client._fetcher.pool.used_bytes == 0
            assert not [name for name in our_threads() if "tree" in name]

    run_virtual(main())


def test_a_full_disk_ends_the_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    make_tree(source)

    def full(fd: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put_tree(source)).cap
            monkeypatch.setattr(os, "pwrite", full)  # a full disk cannot be had otherwise
            with pytest.raises(DiskFull):
                await client.get_tree(cap, tmp_path / "target")
            assert names(tmp_path) == ["source"]

    run_virtual(main())


def test_without_syncfs_everything_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library that lacks the call."""
    called: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(os, "sync", lambda: called.append("sync"))
    flush_all(tmp_path)
    assert called == ["sync"]


# --- manifests that were made to harm


async def store_manifest(grid: FakeGrid, manifest: Manifest) -> BlobRef:
    """Seal any manifest and put all its shares on the nodes, as a hostile owner can."""
    sealer = Sealer(b"h" * 32, THREE.coding)
    sealed = sealer.seal_manifest(manifest, BlobBuffers(THREE.coding, CHUNK))
    account = grid.nodes[0].identity.account
    for number, node in enumerate(grid.nodes[:3]):
        key, parts = sealed.ref.name.share(number), sealed.parts(number)
        connection = node.connect(account)
        await connection.reserve([ShareClaim(key, sum(map(len, parts)))])
        await connection.put([ShareUpload(key, parts)])
    return sealed.ref


def entry(path: bytes, kind: EntryType = EntryType.FILE, inline: bytes = b"") -> TreeEntry:
    size = len(inline) if kind is EntryType.FILE else 0
    return TreeEntry(path, kind, 0o4755, 10**18, size, inline)


def test_nothing_is_written_through_a_link_of_the_same_tree(tmp_path: Path) -> None:
    """Two leaves: the first makes `a` a link to the outside, the second writes `a/evil`."""
    outside = tmp_path / "outside"
    outside.mkdir()

    async def main() -> None:
        grid = FakeGrid(3)
        link = entry(b"a", EntryType.SYMLINK, os.fsencode(outside))
        evil = entry(b"a/evil", inline=b"gotcha")
        leaves = [
            await store_manifest(grid, Manifest(ManifestKind.TREE, (), entries))
            for entries in ((link,), (evil,), (link,))
        ]
        index = Manifest(ManifestKind.TREE_INDEX, tuple(nested_row(leaf, 0) for leaf in leaves))
        cap = TreeReadCap(await store_manifest(grid, index))
        async with grid.client(THREE) as client:
            result = await client.get_tree(cap, tmp_path / "target")
            assert names(outside) == []
            assert (tmp_path / "target" / "a" / "evil").read_bytes() == b"gotcha"
            assert [skipped.path for skipped in result.skipped] == ["a", "a"]

    run_virtual(main())


def test_permissions_lose_what_lets_others_act_as_you(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(3)
        manifest = Manifest(ManifestKind.TREE, (), (entry(b"suid", inline=b"#!"),))
        cap = TreeReadCap(await store_manifest(grid, manifest))
        async with grid.client(THREE) as client:
            await client.get_tree(cap, tmp_path / "target")
            assert stat.S_IMODE((tmp_path / "target" / "suid").stat().st_mode) == 0o755

    run_virtual(main())


def test_the_same_file_twice_is_made_once(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(3)
        leaves = [
            await store_manifest(grid, Manifest(ManifestKind.TREE, (), (entry(b"f", inline=inline),)))
            for inline in (b"first", b"second")
        ]
        index = Manifest(ManifestKind.TREE_INDEX, tuple(nested_row(leaf, 0) for leaf in leaves))
        cap = TreeReadCap(await store_manifest(grid, index))
        async with grid.client(THREE) as client:
            result = await client.get_tree(cap, tmp_path / "target")
            assert (tmp_path / "target" / "f").read_bytes() == b"first"
            assert [skipped.path for skipped in result.skipped] == ["f"]
            assert result.files == 1

    run_virtual(main())


def test_manifests_nested_without_end_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(3)
        ref = await store_manifest(grid, Manifest(ManifestKind.TREE, (), ()))
        for _ in range(10):
            ref = await store_manifest(grid, Manifest(ManifestKind.TREE_INDEX, (nested_row(ref, 0),)))
        async with grid.client(THREE) as client:
            with pytest.raises(MalformedRecord, match="too deep"):
                await client.get_tree(TreeReadCap(ref), tmp_path / "target")
            with pytest.raises(MalformedRecord, match="too deep"):
                await client.check(TreeReadCap(ref))
            assert names(tmp_path) == []

    run_virtual(main())


def test_a_manifest_of_another_kind_is_no_tree(tmp_path: Path) -> None:
    async def main() -> None:
        grid = FakeGrid(3)
        file = await store_manifest(grid, Manifest(ManifestKind.FILE, ()))
        tree = await store_manifest(grid, Manifest(ManifestKind.TREE, ()))
        holder = Manifest(
            ManifestKind.TREE,
            (nested_row(tree, 5),),
            (TreeEntry(b"f", EntryType.FILE, 0o644, 0, 5, b"", (Extent(0, 0, 5),)),),
        )
        async with grid.client(THREE) as client:
            for cap in (TreeReadCap(file), TreeReadCap(await store_manifest(grid, holder))):
                with pytest.raises(BlobCorrupt):
                    await client.get_tree(cap, tmp_path / "target")
            assert names(tmp_path) == []

    run_virtual(main())


def test_files_may_share_and_reorder_content(tmp_path: Path) -> None:
    """Extents in any order, across rows, overlapping: as another writer may have laid them out."""
    data = content(CHUNK, 3)

    async def main() -> None:
        grid = FakeGrid(3)
        async with grid.client(THREE, account=b"h") as client:
            refs = [(await client.put(part)).cap for part in (data[:40_000], data[40_000:])]
            rows = tuple(content_row(cap.ref) for cap in refs if hasattr(cap, "ref"))
            last = len(data) - 40_000
            entries = (
                TreeEntry(b"a", EntryType.FILE, 0o644, 0, 30, b"", (Extent(1, 5, 10), Extent(0, 7, 20))),
                TreeEntry(b"b", EntryType.FILE, 0o644, 0, last, b"", (Extent(1, 0, last),)),
            )
            cap = TreeReadCap(await store_manifest(grid, Manifest(ManifestKind.TREE, rows, entries)))
            await client.get_tree(cap, tmp_path / "target")
            assert (tmp_path / "target" / "a").read_bytes() == data[40_005:40_015] + data[7:27]
            assert (tmp_path / "target" / "b").read_bytes() == data[40_000:]

    run_virtual(main())
