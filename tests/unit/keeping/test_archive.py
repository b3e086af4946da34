"""A volume's log on a grid in memory: archived, tended, restored; crashes between steps, nodes that lie."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
from tests.unit.volume.support import LOG_KEY, World, folder, member, transaction, world

from muniment.core.keeping.tiles import HeldTile, cover, seal_tile
from muniment.crypto.checkpoints import sign_checkpoint
from muniment.crypto.identity import Identity
from muniment.crypto.keeping import archive_account, archive_secret
from muniment.crypto.member import MemberSecret
from muniment.engine.grid import Grid
from muniment.engine.keeping.archive import ArchiveDuties, LogArchiver, Standing, VolumeLog
from muniment.engine.keeping.restore import LogRestorer, Restored
from muniment.engine.keeping.shelf import TileShelf
from muniment.engine.keeping.work import Worker
from muniment.engine.policy import Limits, Policy
from muniment.engine.rehost import rehost
from muniment.engine.volume import Volume
from muniment.erasure.codec import Coding
from muniment.errors import InvalidRequest, LogIncomplete, NodeUnreachable, NotHappy
from muniment.ids import ShareKey
from muniment.logs.memory import MemoryLog
from muniment.queues.memory import MemoryQueue
from muniment.spec.act import Role
from muniment.spec.archive import Tile, TileRange
from muniment.spec.checkpoint import Checkpoint, origin_of
from muniment.testing.fake_grid import FakeGrid, FakeRoster
from muniment.testing.lying_log import store_of
from muniment.testing.virtual_time import StepClock

POLICY = Policy(coding=Coding.from_text("2/3"), happy=2)
ANNA = member("anna")


@dataclass
class Archive:
    """A volume, its grid, and an archiver of "anna".

    Attributes:
        entries_of: that were in the log when asked.
    """

    log: World
    nodes: FakeGrid
    anna: Volume
    clock: StepClock
    stack: contextlib.AsyncExitStack
    archiver: LogArchiver = field(init=False)
    roster: FakeRoster = field(init=False)
    shelf: TileShelf = field(init=False)
    grid: Grid = field(init=False)

    def __post_init__(self) -> None:
        self.roster = self.nodes.roster()

    async def begin(self, **duties: float) -> None:
        """As a process that has just been started."""
        self.grid, self.shelf = await self.open(ANNA)
        told = ArchiveDuties(**duties)  # type: ignore[arg-type]
        self.archiver = LogArchiver(
            VolumeLog(self.anna), self.shelf, self.grid, self.clock, ANNA.member, told
        )

    async def open(self, secret: MemberSecret) -> tuple[Grid, TileShelf]:
        """A client under a member's archive account, and his tiles."""
        account = archive_account(secret.verify, self.log.volume)
        limits = Limits(put_patience_s=0.2, first_patience_s=0.2, linger_s=0.2)
        made = Grid(self.roster, self.nodes.connector(account), self.clock, bytes(32), POLICY, limits=limits)
        grid = await self.stack.enter_async_context(made)
        return grid, TileShelf(grid, archive_secret(secret.verify, self.log.volume), os.urandom)

    async def write(self, count: int) -> None:
        """So many entries."""
        at = self.log.store.size
        for number in range(count):
            await self.anna.commit(lambda _, n=number: transaction(folder(b"%d-%d" % (at, n))))  # type: ignore[misc]

    async def archive(self, count: int = 0) -> Standing:
        """Write so many entries, and archive all that there are."""
        await self.write(count)
        return await self.archiver.round(everything=True)

    async def store(self, start: int, stop: int, **changed: object) -> HeldTile:
        """Put a tile of these entries beside the archiver's."""
        entries = tuple(self.log.entries()[start:stop])
        tile = Tile(start, LOG_KEY.public_key, self.log.store.checkpoint(), entries)
        return await self.shelf.store(replace(tile, **changed), POLICY)  # type: ignore[arg-type]

    async def ranges(self) -> list[tuple[int, int]]:
        """Of all tiles at the nodes that were not given up."""
        _, shelf = await self.open(ANNA)
        tiles = (await shelf.look()).tiles
        return sorted((tile.range.start, tile.range.stop) for tile in tiles)

    async def restored(self, *, incomplete: bool = False) -> tuple[MemoryLog, Restored]:
        """What somebody restores who has Anna's capability and a roster, and nothing else."""
        target = MemoryLog()
        _, shelf = await self.open(ANNA)
        result = await LogRestorer(self.log.volume, shelf, target).run()
        if result.missing and not incomplete:
            raise result.missing
        return target, result

    async def assert_whole(self) -> Restored:
        """All entries can be restored, and a new service can be made of them."""
        target, result = await self.restored()
        everything = self.log.entries()
        assert target.read(0, target.size, bytes_max=1 << 30) == everything
        assert result.entries == len(everything)
        hosted = MemoryLog()
        assert rehost(target, hosted, Identity.from_seed(b"n" * 32)) == self.log.volume
        assert hosted.size == len(everything)
        return result

    def tamper(self, how: Callable[[bytearray], bytes | bytearray | None], *numbers: int) -> None:
        """Have these nodes change what they serve."""
        for number in numbers:
            self.nodes.nodes[number].faults.tamper = lambda _, record: how(record)


@pytest.fixture
async def archive() -> AsyncIterator[Archive]:
    clock = StepClock()
    async with contextlib.AsyncExitStack() as stack:
        log = await stack.enter_async_context(world(clock=clock))
        nodes = FakeGrid(5, clock=clock)
        made = Archive(log, nodes, await log.member("anna"), clock, stack)
        await made.begin()
        yield made


# --- archiving ------------------------------------------------------------------------------------


async def test_a_log_is_archived_and_restored_from_a_capability_and_a_roster(archive: Archive) -> None:
    standing = await archive.archive(8)
    assert (standing.size, standing.archived, standing.tiles, standing.written) == (9, 9, 1, 1)
    result = await archive.assert_whole()
    assert (result.name, result.tiles, result.troubles) == ("books", 1, [])


async def test_nothing_is_archived_before_it_is_old_or_much(archive: Archive) -> None:
    await archive.write(2)
    assert (await archive.archiver.round()).written == 0
    archive.clock.advance(230)
    assert (await archive.archiver.round()).written == 0
    archive.clock.advance(20)  # the next look, in a minute, would find it older than it may be
    assert (await archive.archiver.round()).archived == 3
    assert (await archive.archiver.round()).written == 0
    archive.clock.advance(-250)
    await archive.begin(bytes_max=1000)
    await archive.write(1)
    assert (await archive.archiver.round()).written == 0
    await archive.write(3)
    assert (await archive.archiver.round()).archived == 7


async def test_an_entry_whose_author_is_ahead_of_time_waits_no_longer_than_others(archive: Archive) -> None:
    archive.clock.advance(-10_000)  # by this clock all entries are of the future
    assert (await archive.archiver.round()).written == 0
    archive.clock.advance(301)
    assert (await archive.archiver.round()).archived == 1


async def test_a_longer_tile_replaces_those_it_contains(archive: Archive) -> None:
    for _ in range(12):
        await archive.archive(2)
    assert len(await archive.ranges()) <= 5
    chain = await archive.ranges()
    assert [start for start, _ in chain] == [0, *(stop for _, stop in chain[:-1])]
    assert chain[-1][1] == 25
    await archive.assert_whole()


async def test_a_new_process_goes_on_with_what_the_nodes_list(archive: Archive) -> None:
    await archive.archive(4)
    await archive.begin()
    assert (await archive.archiver.round(everything=True)).written == 0
    standing = await archive.archive(9)
    assert standing.archived == 14
    assert standing.given_up == 1
    assert await archive.ranges() == [(0, 14)]


async def test_a_round_that_only_looks_changes_nothing(archive: Archive) -> None:
    await archive.archive(1)
    await archive.write(5)
    before = archive.nodes.calls()
    standing = await archive.archiver.round(write=False)
    assert (standing.archived, standing.size, standing.written) == (2, 7, 0)
    after = archive.nodes.calls()
    assert {call for call in after if after[call] != before[call]} <= {"shares", "prove"}


async def test_the_job_archives_for_ever_one_tile_a_step(archive: Archive) -> None:
    queue = MemoryQueue()
    worker = Worker(queue, clock=archive.clock, chance=lambda: 0.5)
    archive.archiver.register(worker)
    await archive.archiver.begin(worker)
    for wanted in (3, 5):
        await archive.write(2)
        archive.clock.advance(400)
        await worker.flush()
        assert archive.archiver.standing is not None
        assert archive.archiver.standing.archived == wanted
    (job,) = queue.jobs(limit=9)
    assert job.kind == archive.archiver.kind
    assert (job.done, job.total, job.tries) == (5, 5, 0)


async def test_the_job_waits_for_nodes_and_never_gives_up(archive: Archive) -> None:
    queue = MemoryQueue()
    worker = Worker(queue, clock=archive.clock, chance=lambda: 0.5)
    archive.archiver.register(worker)
    await archive.archiver.begin(worker)
    for node in archive.nodes.nodes:
        node.faults.down = "power cut"
    for _ in range(15):
        archive.clock.advance(700)
        await worker.flush()
    (job,) = queue.jobs(limit=9)
    assert job.tries == 15
    for node in archive.nodes.nodes:
        node.faults.down = None
    archive.clock.advance(700)
    await asyncio.sleep(0)
    await archive.begin()
    fresh = Worker(queue, clock=archive.clock, chance=lambda: 0.5)
    archive.archiver.register(fresh)
    await fresh.flush()
    await archive.assert_whole()


# --- tending --------------------------------------------------------------------------------------


async def test_leases_are_renewed_in_bulk_when_half_is_over(archive: Archive) -> None:
    await archive.archive(3)
    assert (await archive.archiver.round()).leased == 0
    archive.clock.advance(80 * 86400.0)  # fake nodes give 90 days
    await archive.begin()
    standing = await archive.archiver.round()
    assert standing.leased == 3
    assert archive.nodes.calls()["lease"] == 3
    assert (await archive.archiver.round()).leased == 0


async def test_lost_shares_of_tiles_are_rebuilt(archive: Archive) -> None:
    await archive.archive(3)
    holder = next(node for node in archive.nodes.nodes if node.shares)
    holder.shares.clear()
    standing = await archive.archiver.round()
    assert archive.archiver.repaired.rebuilt == 1
    assert standing.weak == 0
    assert {len(found) for found in archive.nodes.holders().values()} == {3}


async def test_a_tile_that_nodes_list_and_nobody_has_is_archived_anew(archive: Archive) -> None:
    await archive.archive(3)
    gone = {key for node in archive.nodes.nodes for key in node.shares}
    for node in archive.nodes.nodes:
        node.faults.tamper = lambda key, record: None if key in gone else record
    standing = await archive.archiver.round(everything=True)
    assert (standing.written, standing.archived) == (1, 4)
    await archive.assert_whole()


async def test_damaged_shares_are_found_though_nodes_list_them(archive: Archive) -> None:
    await archive.archive(3)
    lost = archive.nodes.damage(lambda key: key.number == 1)
    assert lost == 1
    await archive.archiver.round()
    assert archive.archiver.repaired.rebuilt == 1
    await archive.assert_whole()


# --- crashes --------------------------------------------------------------------------------------


async def test_a_crash_before_the_old_tile_is_given_up_leaves_one_too_many(archive: Archive) -> None:
    await archive.archive(3)
    await archive.write(4)
    await archive.store(0, 8)  # the new tile is there, and then the process is gone
    assert await archive.ranges() == [(0, 4), (0, 8)]
    await archive.assert_whole()
    await archive.begin()
    standing = await archive.archiver.round()
    assert (standing.written, standing.given_up, standing.archived) == (0, 1, 8)
    assert await archive.ranges() == [(0, 8)]


async def test_a_crash_while_the_old_tile_is_given_up_is_finished_later(archive: Archive) -> None:
    await archive.archive(3)
    old = next(iter(archive.nodes.holders()))
    await archive.write(4)
    await archive.store(0, 8)
    node = next(node for node in archive.nodes.nodes if node.numbers(old))
    for keys in node.leases.values():
        for key, lease in keys.items():
            lease.trashed |= key.blob == old
    await archive.begin()
    await archive.archiver.round()
    assert await archive.ranges() == [(0, 8)]
    trashed = [
        lease.trashed
        for node in archive.nodes.nodes
        for keys in node.leases.values()
        for key, lease in keys.items()
        if key.blob == old
    ]
    assert trashed == [True] * 3


async def test_a_crash_in_the_middle_of_a_tile_leaves_shares_that_are_given_up(archive: Archive) -> None:
    await archive.archive(3)
    await archive.write(9)
    torn = await archive.store(4, 13)
    for node in archive.nodes.nodes:  # but one share, and not the one with the head
        for key in [key for key in node.shares if key.blob == torn.name.blob and key.number != 2]:
            del node.shares[key]
    assert await archive.ranges() == [(0, 4)]
    await archive.begin()
    standing = await archive.archiver.round(everything=True)
    assert (standing.archived, standing.given_up) == (13, 2)
    _, shelf = await archive.open(ANNA)
    look = await shelf.look()
    assert len(look.rows) == 3  # what is given up is listed until the nodes' grace ends
    assert not all(row.trashed for rows in look.rows.values() for row in rows)
    assert [row.trashed for row in look.rows[torn.name.blob]] == [True]
    await archive.assert_whole()


async def test_the_old_tile_stays_if_the_new_one_is_not_happy(archive: Archive) -> None:
    await archive.archive(3)
    await archive.write(9)
    for node in archive.nodes.nodes:
        node.faults.refuse = NodeUnreachable(node=node.node, reason="full")
    with pytest.raises(NotHappy):
        await archive.archiver.round(everything=True)
    assert await archive.ranges() == [(0, 4)]
    for node in archive.nodes.nodes:
        node.faults.refuse = None
    assert (await archive.archiver.round(everything=True)).archived == 13
    assert await archive.ranges() == [(0, 13)]


async def test_the_old_tile_stays_if_nodes_only_say_that_they_have_the_new_one(archive: Archive) -> None:
    await archive.archive(3)
    await archive.write(9)
    for node in archive.nodes.nodes[:4]:
        node.faults.store, node.faults.claims = False, frozenset(range(3))
    with pytest.raises(NotHappy, match="do not prove it"):
        await archive.archiver.round(everything=True)
    assert (0, 4) in await archive.ranges()
    for node in archive.nodes.nodes:
        node.faults.store, node.faults.claims = True, frozenset()
    assert (await archive.archiver.round(everything=True)).archived == 13
    assert await archive.ranges() == [(0, 13)]
    await archive.assert_whole()


async def test_what_is_listed_and_not_proven_is_no_reason_to_give_up_others(archive: Archive) -> None:
    await archive.archive(3)
    await archive.write(4)
    blob = (await archive.store(0, 8)).name.blob  # by a process that is gone before it gave up the other
    for node in archive.nodes.nodes:
        node.faults.tamper = lambda key, record: None if key.blob == blob and key.number else record
    await archive.begin()
    for node in archive.nodes.nodes:
        node.faults.refuse = NodeUnreachable(node=node.node, reason="full")
    with pytest.raises(NotHappy):  # neither that tile nor a new one will do
        await archive.archiver.round(everything=True)
    assert (0, 4) in await archive.ranges()


async def test_tiles_leave_a_node_that_drains_within_minutes(archive: Archive) -> None:
    await archive.archive(3)
    account = archive_account(ANNA.verify, archive.log.volume).account
    leaving = max(archive.nodes.nodes, key=lambda node: len(node.shares))
    leaving.draining = True
    archive.roster.add(leaving.record)
    await archive.archiver._round(everything=False, tiles_max=1)
    assert not all(lease.trashed for lease in leaving.leases[account].values())  # it has looked just now
    archive.clock.advance(900)
    await archive.archiver._round(everything=False, tiles_max=1)
    assert all(lease.trashed for lease in leaving.leases[account].values())
    assert archive.archiver.repaired.moved == 1
    await archive.assert_whole()


async def test_a_clock_that_is_set_back_holds_up_no_look(archive: Archive) -> None:
    await archive.archive(3)
    shares, now_s = archive.nodes.calls()["shares"], archive.clock.now_s
    archive.clock.now_s = lambda: now_s() - 1e9  # type: ignore[method-assign]
    archive.clock.advance(86_400)
    await archive.archiver._round(everything=False, tiles_max=1)
    assert archive.nodes.calls()["shares"] > shares


async def test_two_keepers_of_one_member_harm_nothing(archive: Archive) -> None:
    first = archive.archiver
    await archive.archive(3)
    await archive.begin()
    second = archive.archiver
    for _ in range(4):
        await archive.write(2)
        await asyncio.gather(first.round(everything=True), second.round(everything=True))
    await second.round(everything=True)
    await archive.assert_whole()
    assert (await archive.ranges())[-1][1] == 12


# --- restoring ------------------------------------------------------------------------------------


async def test_a_gap_says_which_entries_are_missing_and_who_may_have_them(archive: Archive) -> None:
    await archive.log.join("bert", Role.WRITER, archive.anna)
    await archive.write(9)
    size = archive.log.store.size
    for start, stop in ((0, 4), (7, size)):
        await archive.store(start, stop)
    with pytest.raises(LogIncomplete) as caught:
        await archive.restored()
    assert (caught.value.start, caught.value.stop) == (4, 7)
    assert "entries 4 to 6" in str(caught.value)
    assert "anna, bert" in str(caught.value)
    target, result = await archive.restored(incomplete=True)
    assert target.size == result.entries == 4
    # A member who has not seen the end has what is missing in between, and the other way round.
    early, late = MemoryLog(), MemoryLog()
    for log, end in ((early, 8), (late, size)):
        served = store_of(archive.log.volume, archive.log.entries()[:end], LOG_KEY)
        rehost(served, log, LOG_KEY)
    for log in (early, late):
        filled = MemoryLog()
        result = await LogRestorer(archive.log.volume, archive.shelf, filled, [log]).run()
        assert (result.entries, result.missing) == (size, None)
        assert filled.read(0, size, bytes_max=1 << 30) == archive.log.entries()
    # Whoever has the log closes it.
    assert (await archive.archiver.round(everything=True)).archived == size
    await archive.assert_whole()


async def test_what_checkpoints_tell_of_is_missed_at_the_end_too(archive: Archive) -> None:
    await archive.write(6)
    await archive.store(0, 5)
    with pytest.raises(LogIncomplete, match="entries 5 to 6"):
        await archive.restored()


async def test_of_nothing_nothing_is_restored(archive: Archive) -> None:
    with pytest.raises(LogIncomplete, match="all entries"):
        await archive.restored()
    target, result = await archive.restored(incomplete=True)
    assert (target.size, result.name) == (0, "")


async def test_nodes_that_are_away_are_named(archive: Archive) -> None:
    await archive.archive(5)
    for node in archive.nodes.nodes[:4]:
        node.faults.down = "power cut"
    with pytest.raises(LogIncomplete, match="nodes that do not answer now"):
        await archive.restored()


async def test_lying_nodes_change_nothing(archive: Archive) -> None:
    archive.nodes.nodes[0].faults.refuse = NodeUnreachable(node=b"", reason="full")
    await archive.archive(6)

    def last_byte(record: bytearray) -> bytearray:
        record[-1] ^= 1
        return record

    holders = [at for at, node in enumerate(archive.nodes.nodes) if node.shares]
    archive.tamper(last_byte, holders[0])
    await archive.assert_whole()
    archive.tamper(lambda _: None, holders[0])
    await archive.assert_whole()
    archive.tamper(last_byte, *holders)
    with pytest.raises(LogIncomplete):
        await archive.restored()


async def test_a_node_that_lists_what_is_not_there_is_passed_over(archive: Archive) -> None:
    await archive.archive(6)
    liar = archive.nodes.nodes[0]
    real = next(iter(archive.nodes.holders()))
    account = archive_account(ANNA.verify, archive.log.volume).account
    for number in range(40):
        key = ShareKey(type(real)(bytes([number]) * 32), next(iter(archive.nodes.holders()[real])))
        liar.shares[key] = b"nonsense" * 100
        liar.lease_share(account, key, 3600)
    liar.faults.tamper = lambda key, record: record if key.blob == real else None
    result = await archive.assert_whole()
    assert len(result.troubles) == 41  # one for each, and one for the node


async def test_hostile_tiles_are_passed_over_with_a_warning_each(archive: Archive) -> None:
    await archive.write(6)
    entries, key = archive.log.entries(), Identity.from_seed(b"h" * 32)
    forged = entries[5][:-1] + bytes([entries[5][-1] ^ 1])
    other = store_of(archive.log.volume, [*entries[:5], forged, *entries[6:]], LOG_KEY).checkpoint()
    await archive.store(0, 7, entries=(*entries[:5], forged, entries[6]))  # forged by nobody
    await archive.store(0, 7, note=b"no note")
    await archive.store(0, 7, note=other)  # of another log
    await archive.store(0, 7, log_key=key.public_key)  # signed by another
    await archive.store(0, 7, entries=(*entries[1:], entries[0]))
    small = sign_checkpoint(LOG_KEY, Checkpoint(origin_of(archive.log.volume), 1, bytes(32)))
    await archive.store(0, 7, note=small)  # does not cover it
    foreign = seal_tile(Tile(0, key.public_key, b"n", (b"x",)), b"f" * 32, os.urandom)
    await archive.grid.store_sealed(foreign, POLICY)
    await archive.grid.store_sealed(b"short", POLICY)
    with pytest.raises(LogIncomplete):
        await archive.restored()
    await archive.store(0, 3)
    await archive.store(2, 7)
    result = await archive.assert_whole()
    assert len(result.troubles) == 8
    assert result.tiles in (1, 2)


async def test_tiles_of_another_volume_do_not_open_as_ours(archive: Archive) -> None:
    await archive.archive(2)
    async with world() as log:
        target = MemoryLog()
        result = await LogRestorer(log.volume, archive.shelf, target).run()
        assert "lacks entries 0 to 2" in str(result.missing)
        assert target.size == 0


async def test_tiles_that_were_given_up_are_taken_where_no_other_will_do(archive: Archive) -> None:
    await archive.archive(5)
    blob = next(iter(archive.nodes.holders()))
    assert await archive.shelf.give_up([blob]) == 3
    assert await archive.ranges() == []
    await archive.assert_whole()
    # And a keeper archives them again.
    await archive.begin()
    assert (await archive.archiver.round(everything=True)).written == 1


async def test_another_member_restores_his_own_archive_only(archive: Archive) -> None:
    await archive.log.join("bert", Role.WRITER, archive.anna)
    await archive.archive()
    _, shelf = await archive.open(member("bert"))
    result = await LogRestorer(archive.log.volume, shelf, MemoryLog()).run()
    assert (result.entries, result.troubles) == (0, [])
    assert "all entries" in str(result.missing)


async def test_another_history_on_this_machine_is_told(archive: Archive) -> None:
    await archive.archive(6)
    entries = archive.log.entries()
    other = store_of(archive.log.volume, [*entries[:3], *entries[4:]], LOG_KEY)
    with pytest.raises(InvalidRequest, match="another history"):
        await LogRestorer(archive.log.volume, archive.shelf, MemoryLog(), [other]).run()


async def test_many_tiles_are_restored_one_at_a_time(archive: Archive) -> None:
    await archive.write(20)
    for at in range(0, 21, 3):
        await archive.store(at, at + 3)
    assert len(cover((await archive.shelf.look()).tiles)) == 7
    assert (await archive.assert_whole()).tiles == 7
    assert TileRange(0, 3).stop == 3
