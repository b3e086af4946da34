"""The file system against the machine's own: the same calls on both, then the same tree.

With one mount of the volume, with two that change what is theirs while they see each other's changes, and
with two that take turns at everything; their trees are laid anew at each entry of their own, or seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thoroughness import times
from tests.unit.fs.support import CHUNK, Mounted, Place, place

from muniment.errors import MunimentError
from muniment.fs.errnos import errno_of
from muniment.fs.filesystem import FileSystem
from muniment.fs.names import present
from muniment.fs.options import Options
from muniment.spec.operation import ROOT, Kind

PATHS = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/b"]
path = st.sampled_from(PATHS)
offset = st.one_of(st.integers(0, 40), st.integers(CHUNK - 3, CHUNK + 3), st.integers(0, 3 * CHUNK))
size = st.one_of(st.integers(1, 60), st.integers(2040, 2060), st.integers(1, 2 * CHUNK))
STEPS = st.one_of(
    st.tuples(st.just("mkdir"), path),
    st.tuples(st.just("create"), path),
    st.tuples(st.just("write"), path, offset, size),
    st.tuples(st.just("write"), path, offset, size),
    st.tuples(st.just("truncate"), path, offset),
    st.tuples(st.just("unlink"), path),
    st.tuples(st.just("rmdir"), path),
    st.tuples(st.just("rename"), path, path),
    st.tuples(st.just("link"), path, path),
    st.tuples(st.just("symlink"), path),
    st.tuples(st.just("chmod"), path, st.integers(0, 0o777)),
    st.tuples(st.just("xattr"), path, st.binary(max_size=8)),
    st.tuples(st.just("hold"), path),
    st.tuples(st.just("sync")),
    st.tuples(st.just("wait")),
)
Step = tuple[object, ...]


@dataclass
class Held:
    """An open file on both sides."""

    handle: int
    descriptor: int


class Both:
    """One file system and one folder, to which the same is done."""

    def __init__(self, mounted: Mounted, folder: Path, top: int = ROOT) -> None:
        self.here, self.files, self.folder, self.top = mounted, mounted.files, folder, top
        self.held: list[Held] = []
        self.count = 0

    def place(self, path: str) -> tuple[int, bytes]:
        """The folder that a path is in, and its last name."""
        ino, (*above, name) = self.top, path.encode().split(b"/")
        for part in above:
            ino = self.files.lookup(ino, part).inode
        return ino, name

    def inode(self, path: str) -> int:
        return self.files.lookup(*self.place(path)).inode

    async def step(self, step: Step) -> None:
        """Do it on both; they agree on whether it can be done, and but for renames on why not."""
        what, *rest = step
        ours = getattr(self, f"our_{what}", None)
        if ours is None:
            await getattr(self, f"do_{what}")(*rest)
            return
        if self.follows(str(what), [one for one in rest if isinstance(one, str)]):
            return
        self.count += 1
        said = await _number(ours, rest)
        expected = _their_number(getattr(self, f"their_{what}"), rest)
        same = (said == expected) or (what in ("rename", "link") and bool(said) == bool(expected))
        assert same, (step, os.strerror(said), os.strerror(expected))

    def follows(self, what: str, paths: Sequence[str]) -> bool:
        """Whether a symbolic link would be followed, which is the kernel's part."""
        above = any((self.folder / up).is_symlink() for one in paths for up in Path(one).parents)
        return above or (what in ("write", "truncate") and (self.folder / paths[0]).is_symlink())

    def data(self, size: int) -> bytes:
        return bytes((self.count * 31 + at) % 251 for at in range(size))

    # what is done to the file system, and to the folder

    async def our_mkdir(self, path: str) -> None:
        await self.files.make(*self.place(path), Kind.FOLDER, 0o755, 0, 0)

    def their_mkdir(self, path: Path) -> None:
        path.mkdir(0o755)

    async def our_create(self, path: str) -> None:
        await self.files.make(*self.place(path), Kind.FILE, 0o644, 0, 0)

    def their_create(self, path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))

    async def our_write(self, path: str, offset: int, size: int) -> None:
        handle = await self.files.open(self.inode(path), os.O_RDWR)
        try:
            await self.files.write(handle, offset, self.data(size))
            if self.count % 2:
                await self.files.flush(handle)
        finally:
            self.files.release(handle)

    def their_write(self, path: Path, offset: int, size: int) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, self.data(size), offset)
        finally:
            os.close(descriptor)

    async def our_truncate(self, path: str, size: int) -> None:
        await self.files.set_attributes(self.inode(path), size=size)

    def their_truncate(self, path: Path, size: int) -> None:
        os.truncate(path, size)

    async def our_unlink(self, path: str) -> None:
        await self.files.unlink(*self.place(path))

    def their_unlink(self, path: Path) -> None:
        path.unlink()

    async def our_rmdir(self, path: str) -> None:
        await self.files.rmdir(*self.place(path))

    def their_rmdir(self, path: Path) -> None:
        path.rmdir()

    async def our_rename(self, path: str, new: str) -> None:
        await self.files.rename(*self.place(path), *self.place(new))

    def their_rename(self, path: Path, new: Path) -> None:
        os.rename(path, new)  # noqa: PTH104 - the plain call

    async def our_link(self, path: str, new: str) -> None:
        await self.files.link(self.inode(path), *self.place(new))

    def their_link(self, path: Path, new: Path) -> None:
        os.link(path, new, follow_symlinks=False)

    async def our_symlink(self, path: str) -> None:
        await self.files.make(*self.place(path), Kind.SYMLINK, 0o777, 0, 0, target=b"nowhere")

    def their_symlink(self, path: Path) -> None:
        path.symlink_to("nowhere")

    async def our_chmod(self, path: str, mode: int) -> None:
        if self.files.inode(self.inode(path)).kind is not Kind.SYMLINK:
            await self.files.set_attributes(self.inode(path), mode=mode)

    def their_chmod(self, path: Path, mode: int) -> None:
        path.lstat()
        if not path.is_symlink():
            path.chmod(mode)

    async def our_xattr(self, path: str, value: bytes) -> None:
        await self.files.set_xattr(self.inode(path), b"trusted.x", value)

    def their_xattr(self, path: Path, value: bytes) -> None:
        os.setxattr(path, "trusted.x", value, follow_symlinks=False)

    async def do_hold(self, path: str) -> None:
        """Keep a file open, whatever happens to its names."""
        try:
            row = self.files.lookup(*self.place(path))
        except MunimentError:
            return
        if row.kind is Kind.FILE:
            handle = await self.files.open(row.inode, os.O_RDWR)
            self.held.append(Held(handle, os.open(self.folder / path, os.O_RDWR)))

    async def do_sync(self) -> None:
        await self.files.sync_all()

    async def do_wait(self) -> None:
        await asyncio.sleep(0.002)

    async def do_look(self) -> None:
        """See what others have changed; what this one has shown of its own stays as it is."""
        await self.files._saving.save_all()
        before = _times(self.files, self.top)
        await self.here.names()
        if self.top != ROOT:
            assert _times(self.files, self.top) == before

    # what there is then

    async def compare(self) -> None:
        assert await _tree(self.here, self.top) == _their_tree(self.folder)
        for one in self.held:
            theirs = os.pread(one.descriptor, 1 << 30, 0)
            assert await self.files.read(one.handle, 0, 1 << 30) == theirs

    async def close(self) -> None:
        for one in self.held:
            await self.files.flush(one.handle)
            self.files.release(one.handle)
            os.close(one.descriptor)


async def _number(call: Callable[..., Awaitable[None]], arguments: Sequence[object]) -> int:
    try:
        await call(*arguments)
    except MunimentError as error:
        return errno_of(error)
    return 0


def _their_number(call: Callable[..., None], arguments: Sequence[object]) -> int:
    folder = call.__self__.folder  # type: ignore[attr-defined]
    try:
        call(*(folder / one if isinstance(one, str) else one for one in arguments))
    except OSError as error:
        return error.errno or -1
    return 0


async def _tree(here: Mounted, ino: int, above: str = "") -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for name in await here.names(ino):
        row = here.files.lookup(ino, name)
        key = f"{above}{name.decode()}"
        xattr = here.files.xattrs(row.inode).get(b"trusted.x")
        match row.kind:
            case Kind.FOLDER:
                found[key] = (row.kind, row.mode, row.links, xattr)
                found |= await _tree(here, row.inode, f"{key}/")
            case Kind.SYMLINK:
                found[key] = (row.kind, here.files.readlink(row.inode), row.links, xattr)
            case _:
                found[key] = (row.kind, row.mode, row.links, xattr, await here.read(row.inode))
    return found


def _times(files: FileSystem, ino: int) -> dict[int, tuple[int, int, int]]:
    """Of a folder and all below, as shown."""
    row = files.inode(ino)
    found = {ino: (row.atime_ns, row.mtime_ns, row.ctime_ns)}
    if row.kind is Kind.FOLDER:
        for one in files._present.tree.names(ino):
            found |= _times(files, one.inode)
    return found


def _their_tree(folder: Path, above: str = "") -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.iterdir()):
        key, status = f"{above}{path.name}", path.lstat()
        mode, xattr = status.st_mode & 0o7777, None
        with contextlib.suppress(OSError):
            xattr = os.getxattr(path, "trusted.x", follow_symlinks=False)
        if path.is_symlink():
            found[key] = (Kind.SYMLINK, os.fsencode(path.readlink()), status.st_nlink, xattr)
        elif path.is_dir():
            found[key] = (Kind.FOLDER, mode, status.st_nlink, xattr)
            found |= _their_tree(path, f"{key}/")
        else:
            found[key] = (Kind.FILE, mode, status.st_nlink, xattr, path.read_bytes())
    return found


async def _run(steps: Sequence[Step], folder: Path, options: Options) -> None:
    async with place() as where:
        both = Both(await where.mount(options), folder)
        try:
            for step in steps:
                await both.step(step)
            await both.compare()
            await both.files.sync_all()
            await both.compare()
            await _elsewhere(where, folder)
        finally:
            await both.close()


async def _elsewhere(where: Place, folder: Path) -> None:
    other = await where.mount()
    assert await _tree(other, ROOT) == _their_tree(folder)


LINGERS = st.sampled_from([0.0, 0.001, 60.0])
KEPT = st.sampled_from([0, 8, 512])
"""How much a tree keeps on top of an older state."""


@contextlib.contextmanager
def _oracle(kept: int) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="muniment-oracle-"))
    try:
        with mock.patch.object(present, "_TOUCHED_IDLE_MAX", kept):  # a real tree of so few steps stays below
            yield folder
    finally:
        shutil.rmtree(folder)


@settings(max_examples=times(60), deadline=None)
@given(st.lists(STEPS, max_size=40), LINGERS, st.sampled_from([1, 2 * CHUNK, 1 << 24]), KEPT)
def test_it_does_what_the_machine_does(
    steps: list[Step], linger_s: float, dirty_bytes: int, kept: int
) -> None:
    with _oracle(kept) as folder:
        options = Options(linger_s=linger_s, dirty_bytes=dirty_bytes, deadline_s=20.0, strict=False)
        asyncio.run(_run(steps, folder, options))


LOOKING = st.one_of(STEPS, st.tuples(st.just("look")), st.tuples(st.just("sync")))
SIDES = st.sampled_from([0, 1])


async def _run_apart(steps: Sequence[tuple[int, Step]], folder: Path, linger_s: float) -> None:
    async with place() as where:
        sides = []
        for at in range(2):
            own = folder / f"own{at}"
            own.mkdir(0o755)
            here = await where.mount(Options(linger_s=linger_s, deadline_s=20.0))
            sides.append(Both(here, own, await here.make(own.name.encode(), kind=Kind.FOLDER, mode=0o755)))
        try:
            for at, step in steps:
                await sides[at].step(step)
            for side in sides:
                await side.compare()
                await side.files.sync_all()
            for side in sides:
                await side.do_look()
                await side.compare()
                assert await _tree(side.here, ROOT) == _their_tree(folder)
            await _elsewhere(where, folder)
        finally:
            for side in sides:
                await side.close()


@settings(max_examples=times(60), deadline=None)
@given(st.lists(st.tuples(SIDES, LOOKING), max_size=50), LINGERS, KEPT)
def test_two_who_change_what_is_theirs_do_what_the_machine_does(
    steps: list[tuple[int, Step]], linger_s: float, kept: int
) -> None:
    with _oracle(kept) as folder:
        asyncio.run(_run_apart(steps, folder, linger_s))


async def _run_in_turns(steps: Sequence[tuple[int, Step]], folder: Path, linger_s: float) -> None:
    async with place() as where:
        options = Options(linger_s=linger_s, deadline_s=20.0)
        sides = [Both(await where.mount(options), folder) for _ in range(2)]
        last = 0
        for at, step in steps:
            if at != last:
                await sides[last].files.sync_all()
                await sides[at].do_look()
            await sides[at].step(step)
            last = at
        await sides[last].files.sync_all()
        for side in sides:
            await side.do_look()
            await side.compare()
        await _elsewhere(where, folder)


@settings(max_examples=times(60), deadline=None)
@given(st.lists(st.tuples(SIDES, LOOKING.filter(lambda step: step[0] != "hold")), max_size=40), LINGERS, KEPT)
def test_two_who_take_turns_do_what_the_machine_does(
    steps: list[tuple[int, Step]], linger_s: float, kept: int
) -> None:
    with _oracle(kept) as folder:
        asyncio.run(_run_in_turns(steps, folder, linger_s))
