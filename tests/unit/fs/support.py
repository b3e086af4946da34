"""File systems over one volume with real members, keys and folds, and a grid in memory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.volume.support import Now, World, world

from muniment.core.history import Difference
from muniment.engine.grid import Grid
from muniment.engine.volume import Volume
from muniment.engine.volume_files import VolumeFiles
from muniment.fs.filesystem import FileSystem
from muniment.fs.options import Options
from muniment.ports import Clock
from muniment.spec.act import Quorum, VolumePolicy
from muniment.spec.operation import ROOT, Kind
from muniment.testing.fake_grid import FakeGrid

CHUNK = 1 << 16
POLICY = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "4/6", 5, CHUNK)
OPTIONS = Options(linger_s=0.0, deadline_s=10.0)


@dataclass
class Mounted:
    """One file system of the volume's founder, with the calls that tests make often."""

    files: FileSystem
    volume: Volume
    grid: Grid
    invalidated: list[Difference] = field(default_factory=list)

    async def make(self, name: bytes, parent: int = ROOT, kind: Kind = Kind.FILE, mode: int = 0o644) -> int:
        """Something new that the caller goes on to know; its number."""
        row = await self.files.make(parent, name, kind, mode, 0, 0)
        self.files.know(row.inode)
        return row.inode

    async def write(self, ino: int, data: bytes, offset: int = 0) -> None:
        """Open, write and close."""
        handle = await self.files.open(ino, 2)
        await self.files.write(handle, offset, data)
        await self.files.flush(handle)
        self.files.release(handle)

    async def read(self, ino: int, offset: int = 0, size: int = 1 << 30) -> bytes:
        """Open, read and close."""
        handle = await self.files.open(ino, 0)
        try:
            return bytes(await self.files.read(handle, offset, size))
        finally:
            self.files.release(handle)

    async def names(self, ino: int = ROOT) -> list[bytes]:
        """What a folder holds."""
        handle = await self.files.open_folder(ino)
        try:
            return [one.name for one in self.files.names(handle)]
        finally:
            self.files.release(handle)

    def outside(self) -> VolumeFiles:
        """The same volume as commands see it."""
        return VolumeFiles(self.volume, self.grid)


@dataclass
class Place:
    """A volume that can be mounted many times."""

    world: World
    fake: FakeGrid
    stack: contextlib.AsyncExitStack

    async def mount(
        self,
        options: Options = OPTIONS,
        at: int | None = None,
        clock: Clock | None = None,
        sent: Path | None = None,
    ) -> Mounted:
        """One more; closed with the place, unless it was before."""
        volume = await self.world.member("anna")
        grid = await self.stack.enter_async_context(self.fake.client())
        told: list[Difference] = []
        files = FileSystem(volume, grid, clock or Now(), options, at=at, invalidate=told.append, sent=sent)
        await files.start()
        self.stack.push_async_callback(files.aclose)
        return Mounted(files, volume, grid, told)


@contextlib.asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with world(POLICY) as founded, contextlib.AsyncExitStack() as stack:
        yield Place(founded, FakeGrid(6), stack)
