"""A witness that is killed, or loses power, between any two steps never signs both sides of a fork."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, folder, member, transaction, world

from muniment.crypto.checkpoints import open_cosignatures
from muniment.engine.evidence import verify_evidence
from muniment.engine.witness import Witness
from muniment.errors import LogForked
from muniment.logs.checkpoints import FolderCheckpoints, MemoryCheckpoints
from muniment.ports import LogClient
from muniment.spec.act import Role
from muniment.spec.checkpoint import decode_checkpoint, decode_note, witness_of
from muniment.testing.lying_log import SwitchedLog, service_of

WITNESS = member("wanda")
NAME = witness_of(WITNESS.member)


class Killed(BaseException):
    """The process is gone."""


class Steps:
    """Counts what a witness does, and kills it at one step.

    Attributes:
        at: the step that is not made any more; None: none.
        made: so far.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at, self.made = at, 0

    def step(self) -> None:
        if self.made == self.at:
            raise Killed
        self.made += 1


class Disk:
    """What survives of a witness's store."""

    def __init__(self) -> None:
        self.durable: list[tuple[int, bytes]] = []


class LosingPower(MemoryCheckpoints):
    """A store of which only what was flushed is there again."""

    def __init__(self, disk: Disk, steps: Steps) -> None:
        super().__init__()
        self._disk, self._steps = disk, steps
        for kept in disk.durable:
            super().keep(*kept)

    def keep(self, size: int, note: bytes) -> None:
        self._steps.step()
        super().keep(size, note)

    def flush(self) -> None:
        self._steps.step()
        self._disk.durable = list(self._kept)
        self._steps.step()


class Watched(SwitchedLog):
    """The way to a service: a step before each call, and another behind it; sees what the witness signed."""

    def __init__(self, inner: LogClient, disk: Disk, steps: Steps) -> None:
        super().__init__(inner)
        self.disk, self.steps = disk, steps
        self.cosigned: list[bytes] = []

    async def checkpoint(self) -> bytes:
        self.steps.step()
        return await super().checkpoint()

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        self.steps.step()
        return await super().consistency(old, new)

    async def cosign(self, note: bytes) -> None:
        texts = {decode_note(kept).text for _, kept in self.disk.durable}
        assert decode_note(note).text in texts  # what is signed is durable
        self.cosigned.append(note)
        self.steps.step()
        await super().cosign(note)
        self.steps.step()


@asynccontextmanager
async def forked() -> AsyncIterator[tuple[World, bytes, LogClient]]:
    """A volume with a witness, the last checkpoint of both sides, and the service that shows the other."""
    async with world() as grid:
        with ThreadPoolExecutor(1) as thread:
            anna = await grid.member("anna")
            await grid.join("wanda", Role.WITNESS, anna)
            common = await grid.log.checkpoint()
            other = service_of(grid.volume, grid.entries(), LOG_KEY, Now(), thread)
            second = await grid.member("anna", log=other)
            for volume, side in ((anna, b"one"), (second, b"other")):
                for at in range(2):
                    await volume.commit(lambda _, s=side, n=at: transaction(folder(s + b"%d" % n)))  # type: ignore[misc]
            yield grid, common, other


def witness_of_log(grid: World, log: LogClient, disk: Disk, steps: Steps, files: list[bytes]) -> Witness:
    def sink(evidence: bytes) -> str:
        files.append(evidence)
        return "file"

    return Witness(
        grid.volume,
        WITNESS.identity,
        log,
        LOG_KEY.public_key,
        LosingPower(disk, steps),
        Now(),
        evidence_sink=sink,
    )


async def test_killed_at_each_step_and_shown_the_other_side_then() -> None:
    async with forked() as (grid, common, other):
        for at in range(100):
            disk, files, steps = Disk(), list[bytes](), Steps(at)
            disk.durable.append((3, common))
            way = Watched(grid.log, disk, steps)
            try:
                await witness_of_log(grid, way, disk, steps, files).cosign_newest()
                ended = True
            except Killed:
                ended = False
            way.inner, way.steps = other, Steps()
            again = witness_of_log(grid, way, disk, Steps(), files)
            if len(disk.durable) > 1:
                with pytest.raises(LogForked, match="evidence: file"):
                    await again.cosign_newest()
                verify_evidence(files[0])
            else:
                await again.cosign_newest()
            roots = {decode_checkpoint(decode_note(note).text).root for note in way.cosigned}
            assert len(roots) <= 1
            if ended:
                break
        assert at == 8  # so many steps one cosignature has


async def test_a_log_that_is_honest_is_cosigned_after_each_kill() -> None:
    async with forked() as (grid, _common, _other):
        disk = Disk()
        for at in range(100):
            steps = Steps(at)
            way = Watched(grid.log, disk, steps)
            try:
                await witness_of_log(grid, way, disk, steps, []).cosign_newest()
                break
            except Killed:
                continue
        note = await grid.log.checkpoint()
        assert NAME in open_cosignatures(note, {NAME: WITNESS.identity.public_key})


def test_a_flush_makes_note_file_and_folder_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that a process made which was killed before it flushed."""
    real: Callable[[int], None] = os.fsync
    flushed: list[Path] = []

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    # Patched: whether a name is durable shows only when the power goes.
    monkeypatch.setattr(os, "fsync", fsync)
    store = FolderCheckpoints(tmp_path / "cosigned")
    store.keep(3, b"note")
    store.close()
    again = FolderCheckpoints(tmp_path / "cosigned")
    again.keep(3, b"note")
    again.flush()
    again.close()
    (file,) = (tmp_path / "cosigned").iterdir()
    assert set(flushed) == {file, file.parent, tmp_path}
