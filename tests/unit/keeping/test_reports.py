"""Reports of a keeper on a real log: what stands in them, how often they come, and what is warned of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.unit.engine.support import PLAIN, content
from tests.unit.volume.support import LOG_KEY, World, member, world

from muniment.books.memory import MemoryBlobBook
from muniment.engine.follower import Follower
from muniment.engine.grid import Grid
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.named import NamedByLog
from muniment.engine.keeping.reports import KeptReport, Reporter, newest_reports, reports, warnings
from muniment.engine.keeping.work import Worker
from muniment.engine.volume import Volume
from muniment.errors import NotCapable
from muniment.logs.memory import MemoryLog
from muniment.queues.memory import MemoryQueue
from muniment.spec.act import Quorum, Report, Role, VolumePolicy
from muniment.spec.blob import BlobName
from muniment.spec.cap import BlobFile
from muniment.spec.operation import ROOT, Extent, Kind, Make
from muniment.spec.statement import KeepingRecord
from muniment.spec.transaction import Transaction
from muniment.testing.fake_grid import FakeGrid, FakeRoster
from muniment.testing.virtual_time import StepClock
from muniment.views.memory import MemoryView

POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "2/3", 2, 1 << 20)
HOUR_S, DAY_S = 3600, 86400


@dataclass
class Kept:
    """A volume of "anna" on six nodes, kept by "otto"."""

    volumes: World
    anna: Volume
    grid: FakeGrid
    roster: FakeRoster
    client: Grid
    keeper: Keeper
    worker: Worker
    reporter: Reporter
    follower: Follower
    clock: StepClock

    async def put(self, name: bytes, seed: int) -> BlobName:
        cap = (await self.client.put(content(3000, seed))).cap
        assert isinstance(cap, BlobFile)
        ref, piece = cap.ref, (Extent(0, 3000, 0),)
        made = Make(ROOT, name, Kind.FILE, 0o644, content=piece, size=3000)
        await self.anna.commit(lambda _: Transaction((made,), (ref,)))
        return ref.name

    async def told(self) -> list[KeptReport]:
        """Do all that is due; returns the reports that anna sees, the newest first."""
        await self.worker.flush()
        await self.anna.sync()
        return await self.anna.run(lambda: list(reports(self.anna.follower)))

    async def after(self, seconds: float) -> list[KeptReport]:
        self.clock.advance(seconds)
        return await self.told()

    async def warned(self) -> list[str]:
        return await self.anna.run(lambda: warnings(self.anna))

    def lose(self, name: BlobName) -> None:
        for node in self.grid.nodes:
            for share in range(name.shape.n):
                node.shares.pop(name.share(share), None)


@contextlib.asynccontextmanager
async def kept(role: Role | None = Role.AUDITOR, *, every_s: float = HOUR_S) -> AsyncIterator[Kept]:
    clock = StepClock()
    grid = FakeGrid(6, clock=clock)
    roster = grid.roster()
    async with (
        grid.client(PLAIN, roster=roster) as client,
        grid.client(PLAIN, account=b"keeper", roster=roster) as keeping,
        world(POLICY, clock) as volumes,
    ):
        anna = await volumes.member("anna")
        if role is not None:
            await volumes.join("otto", role, anna)
        secret = member("otto")
        follower = Follower(volumes.volume, secret.read.verify, LOG_KEY.public_key, MemoryLog(), MemoryView())
        volume = Volume(follower, None, volumes.log, clock, os.urandom)
        volumes.stack.push_async_callback(volume.aclose)
        worker, book = Worker(MemoryQueue(), clock=clock, chance=lambda: 0.5), MemoryBlobBook()
        keeper = Keeper(NamedByLog(volume), keeping, book, worker, clock, secret.member)
        reporter = Reporter(
            keeper, book, volume, secret, volumes.log, clock, os.urandom, lambda: 7, every_s=every_s
        )
        reporter.register(worker)
        yield Kept(volumes, anna, grid, roster, client, keeper, worker, reporter, follower, clock)


def record_of(report: KeptReport) -> KeepingRecord:
    assert report.record is not None
    return report.record


async def test_an_auditor_reports_what_his_keeper_did() -> None:
    async with kept() as k:
        await k.put(b"file", 1)
        await k.keeper.begin()
        (first,) = await k.told()
        record = record_of(first)
        assert (record.blobs, record.whole, record.proofs, record.leased) == (1, 1, 6, 6)
        assert (record.lost, record.unreadable, record.since_s, record.archived) == ((), 0, 0, 7)
        assert record.log_size == first.index
        assert record.leases_until_s == int(k.clock.now_s()) + 31 * DAY_S
        assert first.author == member("otto").member
        second, again = await k.after(DAY_S)
        assert again == first
        assert (record_of(second).since_s, record_of(second).leased) == (record.until_s, 0)
        assert record_of(second).proofs == 6
        with pytest.raises(NotCapable):
            k.follower.ring.keys(0).read_key()  # what signs gives the keeper no key of any content


async def test_reports_come_no_more_often_than_told() -> None:
    async with kept(every_s=3 * DAY_S) as k:
        await k.put(b"file", 1)
        await k.keeper.begin()
        assert len(await k.told()) == 1
        assert len(await k.after(DAY_S)) == 1
        assert len(await k.after(DAY_S)) == 1
        assert k.keeper.tally.scans == 3
        later = await k.after(DAY_S)
        assert len(later) == 2
        assert record_of(later[0]).proofs == 18


async def test_what_is_lost_is_told_at_once_and_once() -> None:
    async with kept(every_s=30 * DAY_S) as k:
        kept_name, lost = await k.put(b"kept", 1), await k.put(b"lost", 2)
        await k.keeper.begin()
        await k.told()
        k.lose(lost)
        told = await k.after(DAY_S)
        assert len(told) == 2
        assert record_of(told[0]).lost == (lost.blob,)
        assert record_of(told[0]).unreadable == 1
        assert kept_name.blob not in record_of(told[0]).lost
        assert [one.urgent for one in k.anna.membership.reports()] == [True, False]
        assert len(await k.after(DAY_S)) == 2


@pytest.mark.parametrize("role", [Role.WITNESS, None])
async def test_who_may_not_report_keeps_without(role: Role | None) -> None:
    async with kept(Role.AUDITOR) as k:
        await k.keeper.begin()
        await k.told()
        before = k.volumes.store.size
        stranger = Reporter(
            k.keeper,
            MemoryBlobBook(),
            k.anna,
            member("nobody"),
            k.volumes.log,
            k.clock,
            os.urandom,
        )
        if role is not None:
            await k.volumes.join("nobody", role, k.anna)
            before = k.volumes.store.size
        assert await stranger.report() is None
        assert k.volumes.store.size == before


async def test_nothing_is_reported_before_a_scan_has_ended() -> None:
    async with kept() as k:
        assert await k.reporter.report() is None


async def test_two_keepers_of_one_member_report_once() -> None:
    async with kept() as k:
        await k.put(b"file", 1)
        await k.keeper.begin()
        assert len(await k.told()) == 1
        assert await k.reporter.report() is None
        assert await k.reporter._write(Report(urgent=False), b"too early") is None  # as one that was slower


async def test_who_writes_meanwhile_is_joined_on() -> None:
    async with kept(Role.WRITER) as k:
        await k.put(b"file", 1)
        otto = await k.volumes.member("otto")
        await k.keeper.begin()
        assert len(await k.told()) == 1
        piece = Make(ROOT, b"mine", Kind.FOLDER, 0o755)
        await otto.commit(lambda _: Transaction((piece,)))
        k.clock.advance(2 * HOUR_S)
        signed = k.reporter._signed
        calls = 0

        def slower(act: Report, statement: bytes) -> bytes:
            nonlocal calls
            calls += 1
            return signed(act, statement)

        k.reporter._signed = slower  # type: ignore[method-assign]
        assert await k.reporter._write(Report(urgent=False), b"x") is not None
        assert calls == 2


async def test_silence_and_leases_that_end_are_warned_of() -> None:
    async with kept() as k:
        assert await k.warned() == []
        await k.put(b"file", 1)
        k.clock.advance(20 * DAY_S)
        assert await k.warned() == []
        k.clock.advance(2 * DAY_S)
        (silent,) = await k.warned()
        assert "no keeper has reported for 22 days" in silent
        await k.keeper.begin()
        await k.told()
        assert await k.warned() == []
        k.clock.advance(20.5 * DAY_S)
        assert await k.warned() == []
        k.clock.advance(0.6 * DAY_S)
        told = await k.warned()
        assert [one.split(":")[0] for one in told] == [
            "no keeper has reported for 21 days",
            "leases on some content end in 9 days",
        ]
        assert len(await k.anna.run(lambda: newest_reports(k.anna.follower))) == 1
