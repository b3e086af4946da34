"""A witness cosigns what continues what he has cosigned, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, folder, member, transaction, world

from muniment.crypto.checkpoints import open_cosignatures
from muniment.engine.evidence import verify_evidence
from muniment.engine.volume import Volume
from muniment.engine.witness import Witness
from muniment.errors import LogForked
from muniment.logs.checkpoints import MemoryCheckpoints
from muniment.ports import CheckpointStore
from muniment.spec.act import Role
from muniment.spec.checkpoint import witness_of
from muniment.testing.lying_log import SwitchedLog, service_of

WITNESS = member("wanda")
NAME = witness_of(WITNESS.member)


class Seen:
    """A volume with a witness, who follows the log through a switch."""

    def __init__(self, grid: World, anna: Volume, thread: ThreadPoolExecutor) -> None:
        self.grid, self.anna, self._thread = grid, anna, thread
        self.switch = SwitchedLog(grid.log)
        self.cosigned = MemoryCheckpoints()
        self.files: list[bytes] = []
        self.witness = self.restarted()

    def restarted(self, cosigned: CheckpointStore | None = None) -> Witness:
        def sink(evidence: bytes) -> str:
            self.files.append(evidence)
            return "file"

        return Witness(
            self.grid.volume,
            WITNESS.identity,
            self.switch,
            LOG_KEY.public_key,
            cosigned or self.cosigned,
            Now(),
            evidence_sink=sink,
        )

    async def make(self, name: bytes, by: Volume | None = None) -> None:
        await (by or self.anna).commit(lambda _: transaction(folder(name)))

    async def is_cosigned(self) -> bool:
        note = await self.grid.log.checkpoint()
        return NAME in open_cosignatures(note, {NAME: WITNESS.identity.public_key})

    def lie(self, entries: list[bytes]) -> None:
        self.switch.inner = service_of(self.grid.volume, entries, LOG_KEY, Now(), self._thread)


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    async with world() as grid:
        with ThreadPoolExecutor(1) as thread:
            anna = await grid.member("anna")
            await grid.join("wanda", Role.WITNESS, anna)
            yield Seen(grid, anna, thread)


async def test_what_continues_is_cosigned(seen: Seen) -> None:
    for at in range(4):
        await seen.make(b"%d" % at)
        assert not await seen.is_cosigned()
        assert (await seen.witness.cosign_newest()).size == seen.grid.store.size
        assert await seen.is_cosigned()
        seen.witness = seen.restarted()
    await seen.witness.cosign_newest()


async def test_a_fork_is_not_cosigned_also_after_a_restart(seen: Seen) -> None:
    entries = seen.grid.entries()
    await seen.make(b"on one side")
    await seen.witness.cosign_newest()
    seen.lie(entries)
    other = await seen.grid.member("anna", log=seen.switch)
    await seen.make(b"on the other", other)
    await seen.make(b"and more", other)
    witness = seen.restarted()
    with pytest.raises(LogForked, match="does not extend that of 4; evidence: file"):
        await witness.cosign_newest()
    assert "does not begin with the 4" in verify_evidence(seen.files[0]).says
    seen.switch.inner = seen.grid.log
    with pytest.raises(LogForked, match="refused before"):
        await witness.cosign_newest()


async def test_two_logs_of_one_size(seen: Seen) -> None:
    entries = seen.grid.entries()
    await seen.make(b"on one side")
    await seen.witness.cosign_newest()
    seen.lie(entries)
    await seen.make(b"on the other", await seen.grid.member("anna", log=seen.switch))
    with pytest.raises(LogForked, match="evidence: file"):
        await seen.witness.cosign_newest()
    assert "two different logs of 4 entries" in verify_evidence(seen.files[0]).says


async def test_a_log_that_forgets_is_not_cosigned(seen: Seen) -> None:
    entries = seen.grid.entries()
    await seen.make(b"x")
    await seen.witness.cosign_newest()
    seen.lie(entries)
    with pytest.raises(LogForked, match="has 3 entries and had signed for 4"):
        await seen.witness.cosign_newest()
    assert not seen.files
    seen.switch.inner = seen.grid.log
    await seen.witness.cosign_newest()


async def test_a_log_that_grows_meanwhile_is_cosigned_at_its_end(seen: Seen) -> None:
    class Growing(SwitchedLog):
        grown = False

        async def cosign(self, note: bytes) -> None:
            if not self.grown:
                self.grown = True
                await seen.make(b"meanwhile")
            await super().cosign(note)

    seen.switch = Growing(seen.grid.log)
    assert (await seen.restarted().cosign_newest()).size == seen.grid.store.size == 4
    assert await seen.is_cosigned()
