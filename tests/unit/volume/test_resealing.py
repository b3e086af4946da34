"""What is stored before a removal and committed after it is not named under the removed member's secret."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.volume.support import World, kick, member, world

from muniment.core.entries import open_names
from muniment.crypto.entries import open_entry
from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.engine.results import Progress, UploadTally
from muniment.engine.volume import Volume
from muniment.engine.volume_files import VolumeFiles
from muniment.erasure.codec import Coding
from muniment.errors import EpochPassed
from muniment.ids import BlobId
from muniment.ports import Appended
from muniment.spec.act import Leave, Quorum, Role, VolumePolicy
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.lying_log import SwitchedLog

CHUNK = 1 << 16
POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "4/6", 5, CHUNK)


class Late(SwitchedLog):
    """Lets somebody else be faster: runs `before` when the next transaction is on its way to the log."""

    def __init__(self, world: World) -> None:
        super().__init__(world.log)
        self.before: list[Volume] = []
        self.gone: list[str] = []

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        if self.gone and open_entry(signed[0]).entry.act is None:
            owner, name = self.before[0], self.gone.pop(0)
            await owner.sync()
            await owner.act(lambda state: kick(state, owner, member(name)))
        return await super().append(signed)


@dataclass
class Desk:
    """Bert writes while Anna removes others.

    Attributes:
        removed: is, when Bert's next transaction is on its way.
    """

    world: World
    grid: Grid
    anna: Volume
    bert: Volume
    removed: Volume
    files: VolumeFiles
    log: Late

    def removes(self, *names: str) -> None:
        self.log.before, self.log.gone = [self.anna], list(names)

    async def guessed(self, guess: bytes, by: Volume) -> BlobId:
        """The name that this content has under the newest secret that a member has."""
        keys = await by.run(lambda: by.follower.ring.newest)
        assert keys is not None
        policy = Policy(coding=Coding.from_text(POLICY.coding), happy=POLICY.happy, chunk_bytes=CHUNK)
        writer = self.grid.blob_writer(keys.convergence_secret(), policy, UploadTally())
        return (await writer.store(memoryview(bytearray(guess)), len(guess))).name.blob

    async def committed(self) -> list[BlobId]:
        """All blobs that the log names."""
        await self.anna.sync()
        found: list[BlobId] = []
        for signed in self.world.entries():
            entry = open_entry(signed).entry
            if entry.act is None:
                found += [name.blob for name in open_names(entry, self.anna.follower.ring)]
        return found

    async def read(self, path: bytes) -> bytes:
        target = io.BytesIO()
        await self.files.get(path, target)
        return target.getvalue()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with world(POLICY) as founded, FakeGrid(6).client() as grid:
        anna, log = await founded.member("anna"), Late(founded)
        await founded.join("bert", Role.WRITER, anna)
        bert = await founded.member("bert", log=log)
        removed = await founded.join("carl", Role.READER, anna)
        await founded.join("dora", Role.READER, anna)
        await bert.sync()
        yield Desk(founded, grid, anna, bert, removed, VolumeFiles(bert, grid), log)


async def test_a_file_committed_after_a_removal_is_not_under_the_old_secret(desk: Desk) -> None:
    secret, told = os.urandom(3 * CHUNK), list[Progress]()
    desk.removes("carl")
    await desk.files.put(secret, b"x", progress=told.append)
    assert desk.anna.membership.epoch == 1
    chunks = [secret[at : at + CHUNK] for at in range(0, len(secret), CHUNK)]
    named = await desk.committed()
    assert [await desk.guessed(chunk, desk.bert) for chunk in chunks] == named
    for chunk in chunks:  # he knows what he is looking for, has all the keys he ever got, and finds nothing
        assert await desk.guessed(chunk, desk.removed) not in named
    assert await desk.read(b"x") == secret
    again = told[-4:]
    assert (again[0].done_bytes, again[-1].done_bytes, again[-1].total_bytes) == (0, 3 * CHUNK, 3 * CHUNK)


async def test_a_write_into_a_file_too(desk: Desk) -> None:
    await desk.files.put(bytes(CHUNK), b"x")
    secret = os.urandom(CHUNK)
    desk.removes("carl")
    await desk.files.write(b"x", CHUNK, secret)
    assert await desk.guessed(secret, desk.removed) not in await desk.committed()
    assert await desk.read(b"x") == bytes(CHUNK) + secret


async def test_a_tree_during_which_two_are_removed(desk: Desk, tmp_path: Path) -> None:
    content = {f"{at}": os.urandom(CHUNK) for at in range(6)} | {"twice": b"t" * CHUNK, "again": b"t" * CHUNK}
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    desk.removes("carl", "dora")
    await desk.files.put_tree(tmp_path, b"tree")
    await desk.files.put_tree(tmp_path, b"other")
    assert desk.bert.membership.epoch == 2
    named = await desk.committed()
    for data in content.values():
        assert await desk.guessed(data, desk.removed) not in named
        assert await desk.guessed(data, desk.bert) in named
    for name, data in content.items():
        assert await desk.read(b"tree/" + name.encode()) == data


async def test_a_view_snapshot_too(desk: Desk, tmp_path: Path) -> None:
    await desk.files.put(b"small", b"x")
    desk.removes("carl")
    made = await desk.files.snapshot_view(tmp_path)
    assert desk.bert.membership.epoch == 1
    assert made.committed.index == desk.world.store.size - 1


async def test_small_content_needs_no_second_time(desk: Desk) -> None:
    told = list[Progress]()
    desk.removes("carl")
    await desk.files.put(b"small", b"x", progress=told.append)
    assert await desk.read(b"x") == b"small"
    assert told == []


async def test_new_keys_are_made_before_content_is_sealed_where_they_are_due(desk: Desk) -> None:
    secret, told = os.urandom(CHUNK), list[Progress]()
    await desk.removed.sync()
    await desk.removed.act(lambda _: Leave())
    await desk.bert.sync()
    await desk.files.put(secret, b"x", progress=told.append)
    assert desk.bert.membership.epoch == 1
    assert [one.done_bytes for one in told] == [CHUNK]
    assert await desk.guessed(secret, desk.removed) not in await desk.committed()


async def test_a_volume_commits_nothing_for_an_epoch_that_passed(desk: Desk) -> None:
    size = desk.world.store.size
    with pytest.raises(EpochPassed):
        await desk.bert.commit(lambda _: pytest.fail("not planned"), epoch=1)
    assert desk.world.store.size == size


async def test_when_keys_change_again_and_again_it_gives_up_with_the_reason(desk: Desk) -> None:
    names = [f"guest{at}" for at in range(9)]
    for name in names:
        await desk.world.join(name, Role.WITNESS, desk.anna)
    await desk.bert.sync()
    desk.removes(*names)
    with pytest.raises(EpochPassed):
        await asyncio.wait_for(desk.files.put(os.urandom(CHUNK), b"x"), 20)
    assert await desk.committed() == []
