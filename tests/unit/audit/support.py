"""A real volume whose log and view lie in files, and audits of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.unit.volume.support import LOG_KEY, Now, World, member, world

from muniment.audit.report import AuditReport
from muniment.audit.volume import audit_volume
from muniment.core.tree_state import TreeReading
from muniment.crypto.checkpoints import cosign
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.engine.follower import Follower
from muniment.engine.volume import Volume
from muniment.errors import OperationRejected
from muniment.ids import VolumeId
from muniment.logs.sqlite import SqliteLog
from muniment.ports import BlobChecker
from muniment.spec.act import Role
from muniment.spec.checkpoint import witness_of
from muniment.spec.transaction import Transaction
from muniment.testing.sample_volume import RandomVolume
from muniment.views.sqlite import SqliteView


@dataclass(frozen=True)
class Files:
    """What one member has of a volume on his disk.

    Attributes:
        volume: which one.
        log: the replica's file.
        view: the view's file.
        notes: checkpoints that he has kept.
    """

    volume: VolumeId
    log: Path
    view: Path
    notes: tuple[bytes, ...]

    def copy(self, folder: Path) -> Files:
        """The same once more."""
        folder.mkdir(exist_ok=True)
        log, view = folder / "log", folder / "view"
        for source, target in ((self.log, log), (self.view, view)):
            for tail in ("-wal", "-shm"):
                target.with_name(target.name + tail).unlink(missing_ok=True)
            shutil.copyfile(source, target)
        return Files(self.volume, log, view, self.notes)

    async def audit(
        self,
        secret: ReadSecret | VerifySecret | None = None,
        *,
        notes: Sequence[bytes] | None = None,
        with_view: bool = True,
        blobs: BlobChecker | None = None,
        deep: bool = False,
    ) -> AuditReport:
        """As "anna", unless somebody else is named."""
        return await audit_volume(
            self.volume,
            secret or member("anna").read,
            LOG_KEY.public_key,
            log=lambda: SqliteLog(self.log),
            view=(lambda: SqliteView(self.view)) if with_view else None,
            notes=self.notes if notes is None else notes,
            blobs=blobs,
            deep=deep,
        )


async def change(volume: Volume, plan: Callable[[TreeReading], Transaction]) -> bool:
    """Commit a transaction; False if the fold rejects it."""
    try:
        await volume.commit(plan)
    except OperationRejected:
        return False
    return True


async def cosigned(grid: World, name: str) -> bytes:
    """Have a member cosign the newest checkpoint; returns the note."""
    secret = member(name)
    note = cosign(
        secret.identity,
        witness_of(secret.member),
        await grid.log.checkpoint(),
        time_s=int(grid.clock.now_s()),
    )
    await grid.log.cosign(note)
    return await grid.log.checkpoint()


async def keep(grid: World, folder: Path, notes: Sequence[bytes] = ()) -> Files:
    """What "anna" has on her disk after following the log; the folder is there."""
    log, view = folder / "log", folder / "view"
    follower = Follower(
        grid.volume, member("anna").read, LOG_KEY.public_key, SqliteLog(log), SqliteView(view)
    )
    volume = Volume(follower, None, grid.log, Now(), os.urandom)
    await volume.sync()
    follower.replica.replace_checkpoint(await grid.log.checkpoint())
    await volume.aclose()
    return Files(grid.volume, log, view, tuple(notes))


async def lived(folder: Path, *, changes: int = 30, seed: int = 1) -> Files:
    """A volume that two members have changed, and one of them has cosigned."""
    async with world() as grid:
        anna = await grid.member("anna")
        chance = RandomVolume(seed)
        bert = await grid.join("bert", Role.WRITER, anna)
        await grid.join("audrey", Role.AUDITOR, anna)
        notes = []
        for at in range(changes):
            author = (anna, bert)[at % 2]
            await author.sync()
            await change(author, chance.transaction)
            if at % 10 == 9:
                notes.append(await cosigned(grid, "anna"))
        notes[-1] = await cosigned(grid, "bert")
        return await keep(grid, folder, notes)
