"""Access lists against those of the machine's own file system."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.thoroughness import times
from tests.unit.fs.support import Mounted, place

from muniment.errors import MalformedRecord, MunimentError
from muniment.fs.errnos import errno_of
from muniment.spec.access_list import ACCESS, DEFAULT, AccessEntry, AccessList, Who
from muniment.spec.operation import ROOT, Kind

RIGHTS = st.integers(0, 7)
MODES = st.one_of(st.sampled_from([0o777, 0o666, 0o755, 0o2775]), st.integers(0, 0o7777))
NAMED = st.lists(st.tuples(st.sampled_from([Who.USER, Who.GROUP]), RIGHTS, st.integers(1, 5)), max_size=3)


@st.composite
def lists(draw: Callable[..., Any]) -> bytes:
    """A proper list, often one that a mode says too."""
    named = {(who, id_): rights for who, rights, id_ in draw(NAMED)}
    entries = [AccessEntry(who, rights, id_) for (who, id_), rights in named.items()]
    entries += [AccessEntry(who, draw(RIGHTS)) for who in (Who.OWNER, Who.OWNING_GROUP, Who.OTHERS)]
    if named or draw(st.booleans()):
        entries.append(AccessEntry(Who.MASK, draw(RIGHTS)))
    return AccessList(tuple(sorted(entries, key=lambda one: (one.who, one.id)))).dump()


@st.composite
def near_lists(draw: Callable[..., Any]) -> bytes:
    """What may be a list."""
    tags = st.sampled_from([*Who, *Who, 0, 3, 0x40])
    entries = draw(st.lists(st.tuples(tags, st.integers(0, 9), st.just(7)), min_size=1, max_size=6))
    if draw(st.booleans()):
        entries.sort()
    return struct.pack("<I", draw(st.sampled_from([2, 2, 2, 1]))) + b"".join(
        struct.pack("<HHI", *one) for one in entries
    )


def their_list(path: Path, name: bytes) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


def of_user(id_: int) -> bytes:
    """A list with an entry of one user."""
    entries = (1, 7, 0xFFFF_FFFF), (2, 7, id_), (4, 5, 0), (0x10, 7, 0), (0x20, 5, 0)
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


def _taken(value: bytes) -> bool:
    with tempfile.NamedTemporaryFile(prefix="muniment-oracle-") as file:
        try:
            os.setxattr(file.name, ACCESS, value)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            return False
        return True


@settings(max_examples=times(75), deadline=None)
@given(st.one_of(near_lists(), lists()))
@example(struct.pack("<I", 2) + b"\1")
@example(b"\2\0\0")
@example(of_user(1000))
@example(of_user(0xFFFF_FFFF))
def test_what_the_kernel_takes_for_a_list_is_one(value: bytes) -> None:
    try:
        loaded = AccessList.load(value)
    except MalformedRecord:
        assert not _taken(value)
    else:
        assert _taken(value)
        assert loaded.dump() == value


STEPS = st.one_of(
    st.tuples(st.just("default"), lists()),
    st.tuples(st.just("default"), lists()),
    st.tuples(st.just("access"), st.sampled_from(["", "d", "f"]), lists()),
    st.tuples(
        st.just("bare"), st.sampled_from([("", DEFAULT), ("d", DEFAULT), ("d", ACCESS), ("f", ACCESS)])
    ),
    st.tuples(st.just("chmod"), st.sampled_from(["", "d", "f"]), MODES),
    st.tuples(st.just("make"), st.sampled_from(["d", "f"]), MODES, st.sampled_from([0, 0o022, 0o077])),
)
Step = tuple[Any, ...]


class Both:
    """A folder here and one of the machine, to which the same is done."""

    def __init__(self, here: Mounted, top: int, folder: Path) -> None:
        self.files, self.top, self.folder = here.files, top, folder

    def inode(self, name: str) -> int:
        return self.files.lookup(self.top, name.encode()).inode if name else self.top

    async def our_default(self, value: bytes) -> None:
        await self.files.set_xattr(self.top, DEFAULT, value)

    def their_default(self, value: bytes) -> None:
        os.setxattr(self.folder, DEFAULT, value)

    async def our_access(self, name: str, value: bytes) -> None:
        await self.files.set_xattr(self.inode(name), ACCESS, value)

    def their_access(self, name: str, value: bytes) -> None:
        os.setxattr(self.folder / name, ACCESS, value)

    async def our_bare(self, which: tuple[str, bytes]) -> None:
        ino = self.inode(which[0])
        if which[1] in self.files.xattrs(ino):
            await self.files.remove_xattr(ino, which[1])

    def their_bare(self, which: tuple[str, bytes]) -> None:
        path = self.folder / which[0]
        path.lstat()
        if their_list(path, which[1]) is not None:
            os.removexattr(path, which[1])

    async def our_chmod(self, name: str, mode: int) -> None:
        await self.files.set_attributes(self.inode(name), mode=mode)

    def their_chmod(self, name: str, mode: int) -> None:
        (self.folder / name).chmod(mode)

    async def our_make(self, name: str, mode: int, umask: int) -> None:
        mode &= 0o1777
        kind = Kind.FOLDER if name == "d" else Kind.FILE
        await self.files.make(self.top, name.encode(), kind, mode, os.geteuid(), os.getegid(), umask=umask)

    def their_make(self, name: str, mode: int, umask: int) -> None:
        mode &= 0o1777
        old = os.umask(umask)
        try:
            if name == "d":
                (self.folder / name).mkdir(mode)
            else:
                os.close(os.open(self.folder / name, os.O_CREAT | os.O_EXCL, mode))
        finally:
            os.umask(old)

    def compare_all(self) -> None:
        self.compare("")
        for path in self.folder.iterdir():
            self.compare(path.name)

    def compare(self, name: str) -> None:
        path, ino = self.folder / name, self.inode(name)
        assert oct(self.files.inode(ino).mode) == oct(path.stat().st_mode & 0o7777), name
        for which in (ACCESS, DEFAULT) if path.is_dir() else (ACCESS,):
            assert self.files.xattrs(ino).get(which) == their_list(path, which), (name, which)


async def _number(work: Coroutine[Any, Any, None]) -> int:
    try:
        await work
    except MunimentError as error:
        return errno_of(error)
    return 0


def _their_number(call: Callable[..., None], arguments: Sequence[Any]) -> int:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


async def _run(steps: Sequence[Step], folder: Path) -> None:
    async with place() as where:
        here = await where.mount()
        here.files.attributes.has_access_lists = True
        top = (await here.files.make(ROOT, b"top", Kind.FOLDER, 0o755, os.geteuid(), os.getegid())).inode
        both = Both(here, top, folder)
        for what, *rest in steps:
            said = await _number(getattr(both, f"our_{what}")(*rest))
            assert said == _their_number(getattr(both, f"their_{what}"), rest), (what, rest)
            both.compare_all()


@settings(max_examples=times(13), deadline=None)
@given(st.lists(STEPS, max_size=10))
def test_lists_modes_and_what_is_made_are_as_the_machine_has_them(steps: list[Step]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="muniment-oracle-"))
    folder.chmod(0o755)
    try:
        asyncio.run(_run(steps, folder))
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


MINE = AccessList(
    (
        AccessEntry(Who.OWNER, 6),
        AccessEntry(Who.USER, 7, 1000),
        AccessEntry(Who.OWNING_GROUP, 4),
        AccessEntry(Who.MASK, 5),
        AccessEntry(Who.OTHERS, 0),
    )
).dump()


async def test_lists_are_kept_for_other_mounts_and_refused_where_nobody_heeds_them() -> None:
    async with place() as where:
        here = await where.mount()
        ino = await here.make(b"a", mode=0o2750)
        with pytest.raises(MunimentError) as refused:
            await here.files.set_xattr(ino, ACCESS, MINE)
        assert errno_of(refused.value) == errno.EOPNOTSUPP
        here.files.attributes.has_access_lists = True
        await here.files.set_xattr(ino, ACCESS, MINE, takes_setgid=True)
        await here.files.sync_all()
        elsewhere = await where.mount()
        other = elsewhere.files.lookup(ROOT, b"a")
        assert other.mode == 0o650
        assert elsewhere.files.xattrs(other.inode) == {}
        elsewhere.files.attributes.has_access_lists = True
        assert elsewhere.files.xattr(other.inode, ACCESS) == MINE


async def test_what_has_no_list_is_refused_one() -> None:
    async with place() as where:
        here = await where.mount()
        here.files.attributes.has_access_lists = True
        ino = await here.make(b"a")
        link = (await here.files.make(ROOT, b"l", Kind.SYMLINK, 0o777, 0, 0, target=b"a")).inode
        for what, name, value, expected in [
            (ino, DEFAULT, MINE, errno.EPERM),
            (link, ACCESS, MINE, errno.EOPNOTSUPP),
            (ino, ACCESS, MINE[:-1], errno.EINVAL),
            (ino, b"system.other", b"", errno.EOPNOTSUPP),
            (ino, b"muniment.lock", b"", errno.EOPNOTSUPP),
        ]:
            with pytest.raises(MunimentError) as refused:
                await here.files.set_xattr(what, name, value)
            assert errno_of(refused.value) == expected
        assert here.files.inode(ino).mode == 0o644
