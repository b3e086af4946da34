"""A witness cosigns what continues what he has cosigned, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, folder, member, transaction, world

from muniment.crypto.checkpoints import open_cosignatures
from muniment.engine.evidence import verify_evidence
from muniment.engine.volume import Volume
from muniment.engine.witness import RENEWED_S, Cosigned, Trouble, Witness
from muniment.errors import DiskFull, LogForked, NodeUnreachable, NotMember
from muniment.logs.checkpoints import MemoryCheckpoints
from muniment.ports import CheckpointStore, Clock
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
        self.paused: list[float] = []
        self.witness = self.restarted()

    def restarted(
        self,
        cosigned: CheckpointStore | None = None,
        *,
        seen: CheckpointStore | None = None,
        clock: Clock | None = None,
        refused: Callable[[], str] = str,
    ) -> Witness:
        def sink(evidence: bytes) -> str:
            self.files.append(evidence)
            return "file"

        async def pause(seconds: float) -> None:
            self.paused.append(seconds)
            await asyncio.sleep(0)

        return Witness(
            self.grid.volume,
            WITNESS.identity,
            self.switch,
            LOG_KEY.public_key,
            cosigned or self.cosigned,
            clock or Now(),
            seen=seen,
            evidence_sink=sink,
            refused=refused,
            pause=pause,
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


async def test_a_note_of_a_size_cosigned_before_and_another_root(seen: Seen) -> None:
    """The service goes back, and to another log: two notes of one size are evidence without its help."""
    entries = seen.grid.entries()
    await seen.make(b"on one side")
    await seen.witness.cosign_newest()
    await seen.make(b"more")
    await seen.witness.cosign_newest()
    seen.lie(entries)
    await seen.make(b"on the other", await seen.grid.member("anna", log=seen.switch))
    seen.switch.proves = False
    with pytest.raises(LogForked, match="evidence: file"):
        await seen.witness.cosign_newest()
    assert "two different logs of 4 entries" in verify_evidence(seen.files[0]).says


async def test_what_was_seen_otherwise_binds_the_witness_too(seen: Seen) -> None:
    entries, others = seen.grid.entries(), MemoryCheckpoints()
    await seen.make(b"on one side")
    others.keep(4, await seen.grid.log.checkpoint())
    seen.lie(entries)
    with pytest.raises(LogForked, match="has 3 entries and had signed for 4"):
        await seen.restarted(seen=others).cosign_newest()
    await seen.make(b"on the other", await seen.grid.member("anna", log=seen.switch))
    with pytest.raises(LogForked, match="evidence: file"):
        await seen.restarted(seen=others).cosign_newest()
    assert "two different logs of 4 entries" in verify_evidence(seen.files[0]).says
    assert seen.cosigned.newest() == b""


async def test_a_log_refused_by_another_command_is_not_cosigned(seen: Seen) -> None:
    found = [""]
    witness = seen.restarted(refused=lambda: found[0])
    await witness.cosign_newest()
    found[0] = "evidence-1"
    with pytest.raises(LogForked, match="refused before; evidence: evidence-1"):
        await witness.cosign_newest()


async def test_who_is_no_member_is_told_so(seen: Seen) -> None:
    stranger = member("stranger")
    witness = Witness(
        seen.grid.volume, stranger.identity, seen.grid.log, LOG_KEY.public_key, MemoryCheckpoints(), Now()
    )
    with pytest.raises(NotMember):
        await witness.cosign_newest()


async def test_nothing_is_signed_that_could_not_be_kept(seen: Seen) -> None:
    class Full(MemoryCheckpoints):
        def flush(self) -> None:
            raise DiskFull(where="here")

    witness, told = seen.restarted(Full()), Told()
    with pytest.raises(DiskFull):
        await witness.run(told.append)
    assert not told
    assert not await seen.is_cosigned()


# --- for a long time


class Told(list[Cosigned | Trouble]):
    """What a witness tells, and somebody who waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def append(self, what: Cosigned | Trouble) -> None:
        super().append(what)
        self._more.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self) < count:
                self._more.clear()
                await self._more.wait()


async def test_what_comes_is_cosigned_until_there_is_evidence(seen: Seen) -> None:
    told = Told()
    running = asyncio.create_task(seen.witness.run(told.append))
    await told.wait(1)
    entries = seen.grid.entries()
    for at in range(2):
        await seen.make(b"%d" % at)
        await told.wait(at + 2)
        assert await seen.is_cosigned()
    seen.lie(entries)
    other = await seen.grid.member("anna", log=seen.switch)
    for at in range(3):
        await seen.make(b"on the other side %d" % at, other)
    await seen.make(b"wakes it")
    async with asyncio.timeout(10):
        assert "evidence: file" in str(await running)
    # A call that was under way when the service changed may have cost a try.
    assert [one.size for one in told if isinstance(one, Cosigned)] == [3, 4, 5]
    verify_evidence(seen.files[0])


async def test_what_a_later_try_may_mend_is_told_once_and_tried_again(seen: Seen) -> None:
    class Away(SwitchedLog):
        away = 9

        async def checkpoint(self) -> bytes:
            if self.away:
                self.away -= 1
                raise NodeUnreachable(node=b"n" * 32, reason="refused")
            return await super().checkpoint()

    seen.switch, told = Away(seen.grid.log), Told()
    running = asyncio.create_task(seen.restarted().run(told.append))
    await told.wait(2)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert [type(one) for one in told] == [Trouble, Cosigned]
    assert seen.paused[:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_a_checkpoint_that_stays_the_newest_is_cosigned_again(seen: Seen) -> None:
    class Stepping(Now):
        time_s = 1_000_000.0

        def now_s(self) -> float:
            return self.time_s

    class Quiet(SwitchedLog):
        async def wait_beyond(self, size: int, wait_s: float) -> bytes:
            clock.time_s += wait_s
            return await self.inner.checkpoint()

    clock, told = Stepping(), Told()
    seen.switch = Quiet(seen.grid.log)
    running = asyncio.create_task(seen.restarted(clock=clock).run(told.append))
    await told.wait(3)
    running.cancel()
    await asyncio.wait([running])
    first, second, third = (one for one in told[:3] if isinstance(one, Cosigned))
    assert second.time_s - first.time_s == third.time_s - second.time_s == RENEWED_S
    assert set(seen.paused) == {1.0}  # a service that answers at once is not asked without rest
