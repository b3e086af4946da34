"""What a file system knows of files beside their content goes into a volume and comes back."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.volume.support import world
from tests.unit.volume.test_volume_files import CHUNK, POLICY, Desk, content

from muniment.engine.file_facts import Settler, read_xattrs
from muniment.engine.holes import SPANS_MAX, data_spans, within
from muniment.engine.tree_item import TreeItem
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import InvalidRequest
from muniment.spec.operation import ROOT, Kind, Make, RemoveXattr, SetXattr
from muniment.testing.fake_grid import FakeGrid

ROOT_USER = os.geteuid() == 0


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with world(POLICY) as founded, FakeGrid(6).client() as grid:
        volume = await founded.member("anna")
        yield Desk(founded, grid, volume, VolumeFiles(volume, grid))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def takes_xattrs(folder: Path) -> bool:
    """Whether this file system has attributes of users; some that live in memory do not."""
    try:
        os.setxattr(folder, b"user.probe", b"")
    except OSError:
        return False
    os.removexattr(folder, b"user.probe")
    return True


async def numbers(desk: Desk, top: bytes) -> dict[bytes, int]:
    return {one.path: one.inode.inode for one in await desk.files.walk(top)}


async def test_names_of_one_file_stay_together(desk: Desk, source: Path, tmp_path: Path) -> None:
    (source / "sub").mkdir()
    (source / "a").write_bytes(content(5000))
    (source / "sub" / "b").hardlink_to(source / "a")
    (source / "z").hardlink_to(source / "a")
    (source / "link").symlink_to("a")
    os.link(source / "link", source / "sub" / "link", follow_symlinks=False)
    (source / "alone").write_bytes((source / "a").read_bytes())
    longest = "./" * 2047 + "a"
    (source / "longest").symlink_to(longest)
    stored = await desk.files.put_tree(source, b"t")
    assert (stored.files, stored.size_bytes) == (4, 10_000)
    got = await desk.files.get_tree(b"t", tmp_path / "out")
    out = tmp_path / "out"
    assert got.files == 4
    same = {(out / name).stat().st_ino for name in ("a", "sub/b", "z")}
    assert len(same) == 1
    assert (out / "link").lstat().st_ino == (out / "sub" / "link").lstat().st_ino
    assert (out / "alone").stat().st_nlink == 1
    assert os.readlink(out / "longest") == longest  # noqa: PTH115 - as it stands, a path would be made short
    assert (out / "z").read_bytes() == (source / "a").read_bytes()


async def test_a_second_put_keeps_the_numbers_of_names_that_belong_together(desk: Desk, source: Path) -> None:
    for one, two in ((b"a1", b"a2"), (b"b1", b"b2")):
        (source / os.fsdecode(one)).write_bytes(content(4000))
        (source / os.fsdecode(two)).hardlink_to(source / os.fsdecode(one))
    await desk.files.put_tree(source, b"t")
    before = await numbers(desk, b"t")
    (source / "a2").write_bytes(b"changed")
    await desk.files.put_tree(source, b"t")
    assert await numbers(desk, b"t") == before
    assert await desk.read(b"t/a1") == b"changed"


async def test_names_that_belong_to_others_are_parted_and_not_written_through(
    desk: Desk, source: Path
) -> None:
    # In the volume a1 and b1 are one file, a2 and b2 another; here a1 and a2 are, and b1 and b2.
    for name, other in ((b"a1", b"b1"), (b"a2", b"b2")):
        await desk.files.put(name, name)
        await desk.files.link(name, other)
    await desk.files.link(b"a1", b"outside")
    for one, two in (("a1", "a2"), ("b1", "b2")):
        (source / one).write_bytes(one.encode() * 2000)
        (source / two).hardlink_to(source / one)
    (source / "outside").write_bytes(b"alone")
    await desk.files.put_tree(source, b"")
    found = await numbers(desk, b"")
    assert found[b"a1"] == found[b"a2"] != found[b"b1"] == found[b"b2"]
    assert await desk.read(b"a2") == b"a1" * 2000
    assert await desk.read(b"b2") == b"b1" * 2000
    assert await desk.read(b"outside") == b"alone"


async def test_names_in_several_leaves(desk: Desk, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muniment.engine.tree_reader.ENTRIES_MAX", 2)  # a leaf of 8192 takes seconds
    (source / "a").write_bytes(content(3000))
    for name in ("b", "c", "d", "e"):
        (source / name).hardlink_to(source / "a")
    await desk.files.put_tree(source, b"t")
    (source / "a").write_bytes(b"more")
    await desk.files.put_tree(source, b"t")
    found = await numbers(desk, b"t")
    assert len({found[name] for name in (b"a", b"b", b"c", b"d", b"e")}) == 1
    assert await desk.read(b"t/e") == b"more"


async def test_copies_and_restores_keep_names_together(desk: Desk, source: Path, tmp_path: Path) -> None:
    (source / "a").write_bytes(content(3000))
    (source / "b").hardlink_to(source / "a")
    (source / "c").write_bytes(b"other")
    then = (await desk.files.put_tree(source, b"t")).committed.index
    await desk.files.copy(b"t", b"u")
    copy = await numbers(desk, b"u")
    assert copy[b"a"] == copy[b"b"] != copy[b"c"]
    await desk.files.remove(b"t/b")
    await desk.files.remove(b"t/c")
    await desk.files.link(b"t/a", b"t/c")
    await desk.files.restore(b"t", then)
    back = await numbers(desk, b"t")
    assert back[b"a"] == back[b"b"] != back[b"c"]
    assert (await desk.read(b"t/a"), await desk.read(b"t/c")) == ((source / "a").read_bytes(), b"other")
    await desk.files.remove(b"t", recursive=True)
    await desk.files.restore(b"t", then)
    again = await numbers(desk, b"t")
    assert again[b"a"] == again[b"b"] != again[b"c"]
    # All names are gone, and the folder is still there.
    await desk.files.remove(b"t/a", b"t/b", b"t/c")
    await desk.files.restore(b"t", then)
    once_more = await numbers(desk, b"t")
    assert once_more[b"a"] == once_more[b"b"] != once_more[b"c"]
    assert await desk.read(b"t/b") == (source / "a").read_bytes()


async def test_attributes_there_and_back(desk: Desk, source: Path, tmp_path: Path) -> None:
    (source / "sub").mkdir()
    (source / "a").write_bytes(content(3000))
    wanted = {b"user.one": b"\0\xff", b"user.two": b""}
    await desk.files.put_tree(source, b"t")
    for path in (b"t", b"t/a", b"t/sub"):
        ino = (await desk.files.find(path)).inode
        ops = [SetXattr(ino, name, value) for name, value in wanted.items()]
        await desk.files.change(lambda _, ops=ops: ops)  # type: ignore[misc]
    got = await desk.files.get_tree(b"t", tmp_path / "out")
    if not takes_xattrs(source):
        assert got.left_out == {"attribute user.one": 3, "attribute user.two": 3}
        return
    assert not got.left_out
    for name in ("", "a", "sub"):
        assert dict(read_xattrs(os.fsencode(tmp_path / "out" / name), Counter())) == wanted
    await desk.files.put_tree(tmp_path / "out", b"again")
    assert await desk.files.look(lambda s: dict(s.xattrs(s.child(ROOT, b"again").inode))) == wanted  # type: ignore[union-attr]
    os.removexattr(tmp_path / "out" / "a", b"user.one")
    os.setxattr(tmp_path / "out" / "a", b"user.two", b"2")
    await desk.files.put_tree(tmp_path / "out", b"again")
    ino = (await desk.files.find(b"again/a")).inode
    assert await desk.files.look(lambda s: dict(s.xattrs(ino))) == {b"user.two": b"2"}


async def test_what_cannot_be_set_is_counted(desk: Desk, tmp_path: Path) -> None:
    def make(_: object) -> list[Make]:
        xattrs = ((b"nobody.knows", b"1"), (b"security.capability", b"2"))
        return [Make(ROOT, name, Kind.FILE, 0o4755, xattrs=xattrs) for name in (b"a", b"b")]

    await desk.files.change(make)
    got = await desk.files.get_tree(b"", tmp_path / "out", owners=False)
    assert got.left_out == {"attribute nobody.knows": 2, "attribute security.capability": 2}
    assert got.skipped == ()
    assert stat.S_IMODE((tmp_path / "out" / "a").stat().st_mode) == 0o755


async def test_owners_and_the_bits_that_depend_on_them(desk: Desk, source: Path, tmp_path: Path) -> None:
    (source / "tool").write_bytes(b"#!")
    (source / "tool").chmod(0o6750)
    mine = (source / "tool").stat()
    await desk.files.put_tree(source, b"t")
    inode = await desk.files.find(b"t/tool")
    assert (inode.mode, inode.uid, inode.gid) == (0o6750, mine.st_uid, mine.st_gid)
    await desk.files.get_tree(b"t", tmp_path / "out", owners=True)
    assert stat.S_IMODE((tmp_path / "out" / "tool").stat().st_mode) == 0o6750
    await desk.files.get_tree(b"t", tmp_path / "plain", owners=False)
    assert stat.S_IMODE((tmp_path / "plain" / "tool").stat().st_mode) == 0o750
    await desk.files.set_attributes(b"t/tool", uid=4321, gid=8765)
    got = await desk.files.get_tree(b"t", tmp_path / "theirs", owners=True)
    facts = (tmp_path / "theirs" / "tool").stat()
    if ROOT_USER:
        assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (4321, 8765, 0o6750)
        assert not got.left_out
    else:
        assert got.left_out == {"owner": 1}
        assert stat.S_IMODE(facts.st_mode) == 0o750


def test_an_owner_that_cannot_be_set_takes_the_bits_with_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)  # root is refused nothing, and tests may run as root
    (tmp_path / "x").write_bytes(b"")
    settler = Settler(owners=True)
    item = TreeItem(b"x", Kind.FILE, 0o4755, 10**18 + 1, owner=(1, 2))
    settler.settle(os.fsencode(tmp_path / "x"), item)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o755
    assert settler.left_out == {"owner": 1}


async def test_pipes_and_devices(desk: Desk, source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "pipe", 0o640)
    os.utime(source / "pipe", ns=(5, 10**18 + 7))
    await desk.files.put_tree(source, b"t")
    device = os.makedev(1, 3)
    top = (await desk.files.find(b"t")).inode

    def make(_: object) -> list[Make]:
        return [Make(top, b"null", Kind.CHARACTER_DEVICE, 0o666, rdev=device)]

    await desk.files.change(make)
    got = await desk.files.get_tree(b"t", tmp_path / "out")
    pipe = (tmp_path / "out" / "pipe").stat()
    assert stat.S_ISFIFO(pipe.st_mode)
    assert (stat.S_IMODE(pipe.st_mode), pipe.st_mtime_ns) == (0o640, 10**18 + 7)
    assert got.skipped == ()
    if got.left_out:
        assert got.left_out == {"device": 1}
        return
    await desk.files.put_tree(tmp_path / "out", b"u")
    inode = await desk.files.find(b"u/null")
    assert (inode.kind, inode.rdev) == (Kind.CHARACTER_DEVICE, device)


async def test_a_pipe_over_a_file_and_back(desk: Desk, source: Path) -> None:
    (source / "x").write_bytes(b"file")
    await desk.files.put_tree(source, b"t")
    (source / "x").unlink()
    os.mkfifo(source / "x")
    await desk.files.put_tree(source, b"t")
    assert (await desk.files.find(b"t/x")).kind is Kind.FIFO
    (source / "x").unlink()
    (source / "x").mkdir()
    with pytest.raises(InvalidRequest, match="not a folder in the volume"):
        await desk.files.put_tree(source, b"t")


def sparse(path: Path, size: int, *pieces: tuple[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)


HOLEY = {
    "all": (10 * CHUNK, ()),
    "small, all": (1000, ()),
    "small": (40_000, ((20_480, b"x" * 4096),)),
    "start": (3 * CHUNK, ((2 * CHUNK, b"x" * CHUNK),)),
    "end": (5 * CHUNK + 3, ((0, b"y" * 5000),)),
    "middle": (9 * CHUNK, ((0, b"a" * 100), (4 * CHUNK - 4096, b"b" * 8192), (9 * CHUNK - 1, b"c"))),
}


async def test_holes_stay_holes(desk: Desk, source: Path, tmp_path: Path) -> None:
    for name, (size, pieces) in HOLEY.items():
        sparse(source / name, size, *pieces)
    told: list[tuple[int, int | None]] = []
    stored = await desk.files.put_tree(
        source, b"t", progress=lambda p: told.append((p.done_bytes, p.total_bytes))
    )
    total = sum(size for size, _ in HOLEY.values())
    assert stored.size_bytes == total
    assert told[-1] == (total, total)
    got = await desk.files.get_tree(b"t", tmp_path / "out")
    assert got.size_bytes == total
    for name in HOLEY:
        before, after = source / name, tmp_path / "out" / name
        assert after.read_bytes() == before.read_bytes(), name
        assert after.stat().st_blocks <= before.stat().st_blocks, name
    blobs = set(desk.volume.view.blobs())
    assert sum(ref.plain_bytes for ref in blobs) < 7 * CHUNK


async def test_a_sparse_file_has_the_blobs_of_a_full_one(desk: Desk, source: Path) -> None:
    sparse(source / "a", 2 * CHUNK, (0, b"x" * 5000), (CHUNK + 4096, b"y" * 4096))
    (source / "b").write_bytes((source / "a").read_bytes())
    await desk.files.put_tree(source, b"t")
    assert len(set(desk.volume.view.blobs())) == 2


def test_where_data_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    sparse(path, 8 * 4096, (4096, b"x" * 4096), (5 * 4096, b"y"))
    with path.open("rb") as file:
        spans = data_spans(file.fileno(), os.fstat(file.fileno()))
        assert spans == [(4096, 8192), (5 * 4096, 6 * 4096)]
        assert file.tell() == 0
    assert within(spans, 5000, 5 * 4096 + 1) == [(5000, 8192), (5 * 4096, 5 * 4096 + 1)]
    path.write_bytes(b"full" * 4096)
    with path.open("rb") as file:
        assert data_spans(file.fileno(), os.fstat(file.fileno())) is None


def test_a_riddled_file_is_cut_into_a_bounded_number_of_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.engine.holes.SPANS_MAX", 3)  # of SPANS_MAX the file would be 32 MiB
    assert SPANS_MAX == 4096
    path, block = tmp_path / "x", 4096
    starts = [0, 2, 4, 9, 30]
    sparse(path, 31 * block, *((at * block, b"x" * block) for at in starts))
    with path.open("rb") as file:
        spans = data_spans(file.fileno(), os.fstat(file.fileno()))
    assert spans == [(0, 5 * block), (9 * block, 10 * block), (30 * block, 31 * block)]


async def test_the_folder_itself_comes_back_as_it_was(desk: Desk, source: Path, tmp_path: Path) -> None:
    (source / "a").write_bytes(b"1")
    os.chmod(source, 0o751)  # noqa: PTH101
    os.utime(source, ns=(0, 10**18 + 3))
    await desk.files.put_tree(source, b"t")
    await desk.files.get_tree(b"t", tmp_path / "out")
    facts = (tmp_path / "out").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == (0o751, 10**18 + 3)


@pytest.mark.parametrize("name", HOLEY)
async def test_holes_of_one_file(desk: Desk, source: Path, tmp_path: Path, name: str) -> None:
    size, pieces = HOLEY[name]
    sparse(source / "x", size, *pieces)
    stored = await desk.files.put(source / "x", b"x")
    assert stored.size_bytes == size
    assert await desk.read(b"x") == (source / "x").read_bytes()
    got = await desk.files.get(b"x", tmp_path / "y")
    assert got.size_bytes == size
    assert (tmp_path / "y").read_bytes() == (source / "x").read_bytes()
    assert (tmp_path / "y").stat().st_blocks <= (source / "x").stat().st_blocks
    assert await desk.read(b"x", start=3, stop=size - 7) == (source / "x").read_bytes()[3 : size - 7]
    await desk.files.put(b"now full", b"x")
    await desk.files.put(source / "x", b"x")
    assert (await desk.files.find(b"x")).size == size
    assert await desk.read(b"x") == (source / "x").read_bytes()


async def test_facts_of_one_file(desk: Desk, source: Path, tmp_path: Path) -> None:
    (source / "x").write_bytes(content(10))
    (source / "x").chmod(0o604)
    os.utime(source / "x", ns=(0, 10**18 + 1))
    has_xattrs = takes_xattrs(source)
    if has_xattrs:
        os.setxattr(source / "x", b"user.note", b"kept")
    await desk.files.put(source / "x", b"x")
    await desk.files.get(b"x", tmp_path / "new")
    facts = (tmp_path / "new").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == (0o604, 10**18 + 1)
    assert not has_xattrs or os.getxattr(tmp_path / "new", b"user.note") == b"kept"
    (tmp_path / "there").touch(0o600)
    await desk.files.get(b"x", tmp_path / "there")
    facts = (tmp_path / "there").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == (0o600, 10**18 + 1)


async def test_a_restore_over_a_file_brings_its_attributes_back_in_one_entry(desk: Desk) -> None:
    await desk.files.put(b"then", b"x")
    await desk.files.link(b"x", b"y")
    ino = (await desk.files.find(b"x")).inode
    before = {b"user.a": b"1", b"user.b": b"2"}
    ops = [SetXattr(ino, name, value) for name, value in before.items()]
    then = (await desk.files.change(lambda _: [*ops, SetXattr(ROOT, b"user.top", b"")])).index
    await desk.files.change(
        lambda _: [
            RemoveXattr(ino, b"user.a"),
            SetXattr(ino, b"user.b", b"other"),
            SetXattr(ino, b"user.c", b"new"),
            RemoveXattr(ROOT, b"user.top"),
        ]
    )
    await desk.files.put(b"now", b"x")
    for path in (b"x", b""):
        size = desk.volume.view.size
        await desk.files.restore(path, then)
        assert desk.volume.view.size == size + 1
        assert await desk.files.look(lambda s: dict(s.xattrs(ino))) == before
        assert await desk.read(b"y") == b"then"
    assert await desk.files.look(lambda s: dict(s.xattrs(ROOT))) == {b"user.top": b""}
    assert (await desk.files.find(b"y")).inode == ino
