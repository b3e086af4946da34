"""Whatever a mount did when it lost the log, the nodes or the answers: the next one shows the same tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.fs.support import CHUNK, Mounted, Place, place
from tests.unit.fs.test_faults import Silent

from muniment.errors import FileRefused, OperationRejected
from muniment.fs.options import Options
from muniment.spec.operation import ROOT, Kind

NAMES = [b"a", b"b", b"c", b"d"]
Tree = dict[bytes, tuple[object, ...]]


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committing.committer._PAUSES_S", (0.01,))
    async with place() as made:
        yield made


class Program:
    """Does what comes to its mind in a mount."""

    def __init__(self, here: Mounted, rng: random.Random) -> None:
        self.here, self.files, self.rng = here, here.files, rng
        self.folders, self.handles = [ROOT], list[int]()

    async def step(self) -> None:
        """One call; what the file system refuses is none."""
        parent, name = self.rng.choice(self.folders), self.rng.choice(NAMES)
        with contextlib.suppress(OperationRejected, FileRefused):
            await self.rng.choice([self.make, self.write, self.write, self.write, self.change, self.move])(
                parent, name
            )

    async def make(self, parent: int, name: bytes) -> None:
        match self.rng.randrange(4):
            case 0:
                self.folders.append(await self.here.make(name, parent, Kind.FOLDER, 0o755))
            case 1:
                await self.files.make(parent, name, Kind.SYMLINK, 0o777, 1, 2, target=b"to " + name)
            case _:
                self.handles.append(
                    (await self.files.create(parent, name, 0o644, 1, 2, os.O_RDWR | os.O_EXCL))[0]
                )

    async def write(self, parent: int, name: bytes) -> None:
        if self.handles and self.rng.random() < 0.5:
            handle = self.rng.choice(self.handles)
        else:
            row = self.files.lookup(parent, name)
            if row.kind is not Kind.FILE:
                return
            handle = await self.files.open(row.inode, os.O_RDWR)
            self.handles.append(handle)
        size = self.rng.choice([3, 3000, CHUNK, 2 * CHUNK])
        await self.files.write(handle, self.rng.randrange(2 * CHUNK), self.rng.randbytes(size))

    async def change(self, parent: int, name: bytes) -> None:
        ino = self.files.lookup(parent, name).inode
        match self.rng.randrange(4):
            case 0:
                await self.files.set_attributes(
                    ino, mode=self.rng.randrange(0o1000), uid=self.rng.randrange(9)
                )
            case 1:
                await self.files.set_attributes(ino, mtime_ns=self.rng.randrange(10**18))
            case 2:
                await self.files.set_xattr(ino, b"user." + name, self.rng.randbytes(9))
            case _ if self.files.inode(ino).kind is Kind.FILE:
                # With a time: an entry gives a truncation its own.
                await self.files.set_attributes(
                    ino, size=self.rng.randrange(3 * CHUNK), mtime_ns=self.rng.randrange(10**18)
                )

    async def move(self, parent: int, name: bytes) -> None:
        other, new = self.rng.choice(self.folders), self.rng.choice(NAMES)
        row = self.files.lookup(parent, name)
        match self.rng.randrange(4):
            case 0 if row.kind is Kind.FOLDER:
                await self.files.rmdir(parent, name)
            case 0:
                await self.files.unlink(parent, name)
            case 1 if row.kind is not Kind.FOLDER:
                await self.files.link(row.inode, other, new)
            case 2:
                await self.files.rename(parent, name, other, new, exchange=True)
            case _:
                await self.files.rename(parent, name, other, new)


async def tree(here: Mounted, folder: int = ROOT, path: bytes = b"") -> Tree:
    """All that a program can see, but numbers, and times of folders and of changes."""
    found: Tree = {}
    for name in await here.names(folder):
        row = here.files.lookup(folder, name)
        facts = (row.kind, stat.S_IMODE(row.mode), row.uid, row.gid, dict(here.files.xattrs(row.inode)))
        content: object = None
        match row.kind:
            case Kind.FOLDER:
                found |= await tree(here, row.inode, path + b"/" + name)
            case Kind.SYMLINK:
                content = here.files.readlink(row.inode)
            case _:
                content = row.size, await here.read(row.inode), row.mtime_ns, row.links
        found[path + b"/" + name] = (*facts, content)
    return found


@pytest.mark.parametrize("seed", range(8))
async def test_the_next_mount_shows_what_the_last_one_showed(where: Place, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    plain = where.world.log
    where.world.log = log = Silent(plain)
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.3, strict=False, writeback_s=0.05))
    where.world.log = plain
    program = Program(here, rng)
    for _ in range(rng.randrange(60)):
        await program.step()
        if rng.random() < 0.2:
            await asyncio.sleep(0.001)
    if rng.random() < 0.5:
        log.lost_answers = 1 << 20  # what is sent comes to the log, and nobody hears of it
    else:
        log.stopped = True
    without_nodes = rng.random() < 0.5
    for _ in range(60):
        await program.step()
        if rng.random() < 0.2:
            await asyncio.sleep(0.001)
        if without_nodes and rng.random() < 0.1:
            for node in where.fake.nodes:
                node.faults.down = "no power"
    for handle in program.handles:
        here.files.release(handle)
    for node in where.fake.nodes:
        node.faults.down = None
    shown = await tree(here)
    for node in where.fake.nodes:
        node.faults.down = "no power" if without_nodes else None
    kept = await here.files.aclose(tmp_path)
    assert kept is not None
    for node in where.fake.nodes:
        node.faults.down = None
    again = await where.mount()
    back = await again.files.unsaved.bring_back(kept.path)
    assert not kept.path.exists()
    assert (back.beside, back.refused) == ([], [])
    assert await tree(again) == shown
    assert await tree(await where.mount()) == shown
