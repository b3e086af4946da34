"""The keeper of a volume over a grid in memory, in virtual time: scans, repairs, leases, moves, collects."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, content

from muniment.books.memory import MemoryBlobBook
from muniment.core.capabilities import weaken
from muniment.core.keeping.repair import Condition
from muniment.crypto.identity import Identity
from muniment.engine.covered import covered_blobs
from muniment.engine.fetcher import Fetcher
from muniment.engine.grid import Grid
from muniment.engine.keeping.duties import Duties
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.named import LogHead
from muniment.engine.keeping.work import Worker
from muniment.errors import QuotaFull
from muniment.ids import AccountId, MemberId, VolumeId, id_text
from muniment.ports import NamedBlobs
from muniment.queues.memory import MemoryQueue
from muniment.spec.blob import BlobName
from muniment.spec.cap import Cap
from muniment.testing.fake_grid import FakeGrid, FakeRoster
from muniment.testing.virtual_time import StepClock, run_virtual

DAY_S = 86400.0
VOLUME = VolumeId(b"v" * 32)
KEEPER = Identity.from_seed(b"keeper".ljust(32, b"\0")).account


@dataclass
class Named:
    """A log that names what a test says."""

    volume: VolumeId = VOLUME
    entries: list[NamedBlobs] = field(default_factory=list)

    @property
    def head(self) -> LogHead:
        return LogHead(len(self.entries), self.root(len(self.entries)))

    async def follow(self) -> LogHead:
        return self.head

    def root(self, size: int) -> bytes:
        return hashlib.sha256(repr(self.entries[:size]).encode()).digest()

    def page(self, start: int) -> list[NamedBlobs]:
        return self.entries[start : start + 2]


@dataclass
class World:
    """A grid with an author and a keeper."""

    grid: FakeGrid
    roster: FakeRoster
    author: Grid
    keeper: Keeper
    worker: Worker
    book: MemoryBlobBook
    log: Named
    clock: StepClock

    async def put(self, size: int, seed: int = 0) -> Cap:
        """Store a file, and have the log name its blobs."""
        cap = (await self.author.put(content(size, seed))).cap
        self.log.entries.append(NamedBlobs(added=tuple(await self.names(cap))))
        return cap

    async def names(self, cap: Cap) -> list[BlobName]:
        fetcher: Fetcher = self.author._fetcher
        return [name async for name, _ in covered_blobs(fetcher, weaken(cap), [])]

    async def work(self, days: float = 0.0) -> None:
        """So many days of keeping, looked at every hour."""
        await self.worker.flush()
        for _ in range(round(days * 24)):
            self.clock.advance(DAY_S / 24)
            await self.worker.flush()

    def leases(self, account: AccountId = KEEPER) -> int:
        return sum(
            not lease.trashed for node in self.grid.nodes for lease in node.leases.get(account, {}).values()
        )

    def live(self) -> set[int]:
        """For each blob, how many distinct shares there are."""
        return {len(holders) for holders in self.grid.holders().values()}


@contextlib.asynccontextmanager
async def world(nodes: int = 9, **duties: float) -> AsyncIterator[World]:
    clock = StepClock()
    grid = FakeGrid(nodes, clock=clock)
    roster, log, book = grid.roster(), Named(), MemoryBlobBook()
    worker = Worker(MemoryQueue(), clock=clock, chance=lambda: 0.5)
    async with (
        grid.client(PLAIN, roster=roster) as author,
        grid.client(PLAIN, account=b"keeper", roster=roster) as client,
    ):
        told = Duties(**({"follow_s": DAY_S / 8} | duties))  # type: ignore[arg-type]
        keeper = Keeper(log, client, book, worker, clock, MemberId(b"m" * 32), told)
        yield World(grid, roster, author, keeper, worker, book, log, clock)


def test_what_the_log_names_is_leased_proven_and_left_alone() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(5 * CHUNK)
            await w.keeper.begin()
            await w.work()
            assert w.keeper.tally.conditions == {Condition.WHOLE: 6}
            assert w.keeper.tally.proofs == 36
            assert w.leases() == 36
            assert w.keeper.repaired.rebuilt == 0
            calls = w.grid.calls()["lease"]
            await w.work(days=3)
            assert w.keeper.tally.scans == 4
            assert w.grid.calls()["lease"] == calls  # no lease is half over

    run_virtual(main())


def test_leases_are_renewed_for_as_long_as_there_is_a_keeper() -> None:
    async def main() -> None:
        async with world(lease_s=4 * DAY_S) as w:
            await w.put(CHUNK)
            await w.keeper.begin()
            for _ in range(12):
                await w.work(days=1)
                ends = [
                    lease.expires_s for node in w.grid.nodes for lease in node.leases.get(KEEPER, {}).values()
                ]
                assert len(ends) == 6
                assert min(ends) > w.clock.now_s() + 0.9 * DAY_S

    run_virtual(main())


def test_lost_shares_come_back_and_are_leased() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(5 * CHUNK)
            await w.keeper.begin()
            await w.work()
            w.grid.nodes[0].shares.clear()
            w.grid.nodes[1].shares.clear()
            await w.work(days=1.1)
            assert w.live() == {6}
            assert w.keeper.repaired.rebuilt > 0
            assert w.leases() >= 36
            await w.work(days=1.1)
            assert w.keeper.tally.conditions == {Condition.WHOLE: 6}

    run_virtual(main())


def test_a_node_that_lies_gets_nothing_of_what_it_lied_about() -> None:
    """It says that it holds whatever is brought to it: a repair that believed that would never end."""

    def last_byte(_: object, record: bytearray) -> bytearray:
        record[-1] ^= 1
        return record

    async def main() -> None:
        async with world(7) as w:
            for seed in range(6):
                await w.put(5000, seed)  # one leaf for each share: every challenge hits it
            liar = max(w.grid.nodes, key=lambda node: len(node.shares))
            lied_about = {key.blob for key in liar.shares}
            liar.faults.tamper = last_byte
            await w.keeper.begin()
            await w.work(days=2.1)
            assert w.keeper.tally.conditions == {Condition.WHOLE: 6}
            assert w.keeper.repaired.rebuilt == len(lied_about)
            assert w.keeper.repaired.moved == 0
            honest = {key for node in w.grid.nodes if node is not liar for key in node.shares}
            assert {key.blob for key in honest} >= lied_about
            assert all(sum(key.blob == blob for key in honest) == 6 for blob in lied_about)

    run_virtual(main())


def test_a_node_that_is_away_for_an_hour_costs_nothing_and_for_days_its_shares() -> None:
    async def main() -> None:
        async with world(scan_s=DAY_S / 24) as w:
            await w.put(5 * CHUNK)
            await w.keeper.begin()
            await w.work()
            away = max(w.grid.nodes, key=lambda node: len(node.shares))
            away.faults.down = "away"
            await w.work(days=0.5)
            assert w.keeper.repaired.rebuilt == 0
            await w.work(days=1)
            assert w.keeper.repaired.rebuilt == len(away.shares) > 0
            away.faults.down = None
            await w.work(days=0.2)  # back from the dead: its copies are one too many, and given up
            assert all(lease.trashed for lease in away.leases[KEEPER].values()) or w.leases() == 36
            assert w.leases() == 36
            assert away.shares  # given up, not deleted

    run_virtual(main())


def test_a_node_that_hangs_holds_repairs_up_once_and_not_each_of_them() -> None:
    async def main() -> None:
        async with world(offline_s=3 * DAY_S) as w:
            await w.put(60 * CHUNK)
            await w.keeper.begin()
            await w.work()
            lost, hanging = w.grid.nodes[:2]
            count = len(lost.shares)
            lost.shares.clear()
            hanging.faults.hang_s = 15.0
            w.clock.advance(DAY_S)
            began_s = asyncio.get_running_loop().time()
            await w.worker.flush()
            took_s = asyncio.get_running_loop().time() - began_s
            assert w.keeper.repaired.rebuilt == count > 30
            assert took_s < 3 * 15  # one of the scan, one of the repairs at most

    run_virtual(main())


def test_the_rarest_blob_is_repaired_first() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(8 * CHUNK)
            await w.keeper.begin()
            await w.work()
            rare = max(w.grid.holders())
            for number, blobs in ((0, None), (1, rare)):
                for node in w.grid.nodes:
                    for key in [key for key in node.shares if key.number == number]:
                        if blobs is None or key.blob == blobs:
                            del node.shares[key]
            first: list[object] = []
            carry_out = w.keeper._repairer.carry_out

            async def noted(name: BlobName, needed: object) -> None:
                first.append(name.blob)
                await carry_out(name, needed)  # type: ignore[arg-type]

            w.keeper._repairer.carry_out = noted  # type: ignore[method-assign]
            await w.work(days=1.1)
            assert len(first) == 9
            assert first.index(rare) < 8  # among those of the first turn: eight run beside each other
            assert w.live() == {6}

    run_virtual(main())


def test_what_nothing_refers_to_any_more_is_given_up_and_nothing_else() -> None:
    async def main() -> None:
        async with world() as w:
            kept = await w.put(3 * CHUNK, seed=1)
            gone = await w.put(2 * CHUNK, seed=2)
            await w.keeper.begin()
            await w.work()
            before = w.leases()
            w.log.entries.append(NamedBlobs(pruned=tuple(await w.names(gone))))
            await w.work(days=2.1)
            dropped = {name.blob for name in await w.names(gone)}
            assert w.keeper.tally.collected == 6 * len(dropped)
            assert w.leases() == before - 6 * len(dropped)
            for node in w.grid.nodes:
                for key, lease in node.leases.get(KEEPER, {}).items():
                    assert lease.trashed == (key.blob in dropped)
            assert (await w.author.check(kept, verify=True)).healthy
            w.log.entries.append(NamedBlobs(added=tuple(await w.names(gone))))  # and stored again by somebody
            await w.work(days=32)
            assert w.leases() == before

    run_virtual(main())


def test_a_second_copy_is_given_up_though_nobody_noted_its_lease() -> None:
    """As after a repair, or a keeper that was killed between taking the lease and writing it down."""

    async def main() -> None:
        async with world() as w:
            await w.put(5000)
            await w.keeper.begin()
            await w.work()
            (key, record) = next(iter(next(node for node in w.grid.nodes if node.shares).shares.items()))
            other = next(node for node in w.grid.nodes if not node.shares)
            other.shares[key] = record
            assert other.lease_share(KEEPER, key, 31 * int(DAY_S))
            assert w.leases() == 7
            await w.work(days=3.1)
            assert w.leases() == 6
            assert w.live() == {6}

    run_virtual(main())


def test_a_node_that_gives_no_lease_is_told_and_tried_again() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(CHUNK)
            poor = next(node for node in w.grid.nodes if node.shares)
            poor.faults.fail["lease"] = [QuotaFull(wanted_bytes=1, free_bytes=0)] * 2
            await w.keeper.begin()
            await w.work()
            assert w.keeper.tally.unpaid == {"quota-full": 1}
            assert w.leases() == 5
            await w.work(days=1.1)
            assert w.keeper.tally.unpaid == {"quota-full": 1}  # of this scan, not of all
            await w.work(days=1.1)
            assert w.keeper.tally.unpaid == {}
            assert w.leases() == 6

    run_virtual(main())


@pytest.mark.parametrize("count", [2])
def test_nodes_that_join_get_their_part_and_the_old_ones_give_it_up(count: int) -> None:
    async def main() -> None:
        async with world(nodes=11) as w:
            late = w.grid.nodes[:count]
            for node in late:
                w.roster.remove(node.node)
            await asyncio.sleep(0)
            await w.put(8 * CHUNK)
            await w.keeper.begin()
            await w.work()
            for node in late:
                w.roster.add(node.record)
            await w.work(days=3.1)
            won = sum(len(node.shares) for node in late)
            assert w.keeper.repaired.moved == won > 0
            assert w.leases() == 6 * len(w.grid.holders())

    run_virtual(main())


def test_a_keeper_that_is_started_anew_goes_on_where_the_queue_is() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            await w.keeper.begin()
            await w.keeper.begin()
            assert (await w.worker.status()).kinds[f"scan.{id_text(VOLUME)}"].waiting == 1

    run_virtual(main())
