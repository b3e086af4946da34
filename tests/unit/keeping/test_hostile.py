"""What must never cost a reader anything: nodes that lie, logs that withhold, clocks that jump, old books."""

from __future__ import annotations

import random

import pytest
from tests.unit.engine.support import CHUNK
from tests.unit.keeping.test_keeper import DAY_S, KEEPER, VOLUME, Named, World, world

from muniment.books.memory import MemoryBlobBook
from muniment.core.keeping.repair import Condition
from muniment.engine.keeping.duties import Duties
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.named import LogHead
from muniment.engine.keeping.work import Worker
from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.errors import NodeUnreachable, QuotaFull
from muniment.ids import AccountId, MemberId, ShareKey, ShareNumber, id_text
from muniment.ports import NamedBlobs
from muniment.queues.memory import MemoryQueue
from muniment.testing.fake_node import FakeNode
from muniment.testing.virtual_time import StepClock, run_virtual

ALL = frozenset(range(6))
THIN = Policy(coding=Coding.from_text("2/6"), happy=2, chunk_bytes=CHUNK, compress=False)


class Away(Named):
    """A log whose service cannot be reached while a test says so."""

    away = False

    async def follow(self) -> LogHead:
        if self.away:
            raise NodeUnreachable(node=b"n" * 32, reason="away")
        return self.head


def second(w: World, log: Named, book: MemoryBlobBook | None = None) -> tuple[Keeper, Worker]:
    """Another keeper of the same account, with a queue and a book of its own."""
    worker = Worker(MemoryQueue(), clock=w.clock, chance=random.Random(1).random)
    client = w.keeper._grid
    keeper = Keeper(log, client, book or MemoryBlobBook(), worker, w.clock, MemberId(b"o" * 32), Duties())
    return keeper, worker


def trashed(w: World) -> int:
    return sum(lease.trashed for node in w.grid.nodes for lease in node.leases.get(KEEPER, {}).values())


def honest_holders(w: World, key: ShareKey) -> list[FakeNode]:
    """Who has a share under a lease of the keeper's."""
    return [
        node
        for node in w.grid.nodes
        if key in node.shares
        and any(
            key in leases and not leases[key].trashed
            for account, leases in node.leases.items()
            if account == KEEPER
        )
    ]


def author_leaves(w: World) -> None:
    """The leases of uploads have ended."""
    for node in w.grid.nodes:
        for account in [account for account in node.leases if account != KEEPER]:
            del node.leases[account]


# --- collecting -----------------------------------------------------------------------------------


def test_a_keeper_with_an_empty_book_gives_nothing_up() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            log = Away(entries=w.log.entries)
            log.away = True
            keeper, worker = second(w, log)
            await keeper.begin()
            await worker.flush()
            await worker.add(*keeper.collections())
            await worker.flush()
            assert trashed(w) == 0

    run_virtual(main())


def test_a_keeper_from_whom_the_log_withholds_gives_nothing_up_that_another_one_took() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK, seed=1)
            old = Named(entries=list(w.log.entries))
            await w.put(2 * CHUNK, seed=2)
            await w.keeper.begin()
            await w.work()
            keeper, worker = second(w, old)
            await keeper.begin()
            await worker.flush()
            assert keeper.tally.scans == 1
            assert trashed(w) == 0

    run_virtual(main())


def test_what_a_newer_entry_names_again_is_not_given_up_by_a_book_that_is_behind() -> None:
    async def main() -> None:
        async with world() as w:
            cap = await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            names = tuple(await w.names(cap))
            w.log.entries.append(NamedBlobs(pruned=names))
            await w.keeper.follow()
            w.log.entries.append(NamedBlobs(added=names))
            await w.worker.add(*w.keeper.collections())
            await w.worker.flush()
            assert trashed(w) == 0

    run_virtual(main())


def test_without_the_log_nothing_is_given_up() -> None:
    async def main() -> None:
        async with world() as w:
            log = Away()
            w.log = log
            w.keeper._source = log
            cap = await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            log.entries.append(NamedBlobs(pruned=tuple(await w.names(cap))))
            await w.keeper.follow()
            log.away = True
            await w.work(days=3)
            assert trashed(w) == 0
            log.away = False
            await w.work(days=2)
            assert w.leases() == 0

    run_virtual(main())


def test_a_lease_that_somebody_else_gave_up_is_taken_again_within_the_grace() -> None:
    """Another keeper to whom the log shows a prune and not the entry that names the blob again."""

    async def main() -> None:
        async with world() as w:
            cap = await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            before = w.leases()
            forked = Named(entries=[*w.log.entries, NamedBlobs(pruned=tuple(await w.names(cap)))])
            keeper, worker = second(w, forked)
            await keeper.begin()
            await worker.flush()
            assert trashed(w) == before
            await w.work(days=2.1)
            assert (trashed(w), w.leases()) == (0, before)

    run_virtual(main())


def test_leases_that_a_node_has_forgotten_are_taken_again() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work()
            before = w.leases()
            for node in w.grid.nodes:
                node.leases.clear()  # its ledger was lost and made anew from the files
            await w.work(days=2.1)
            assert w.leases() == before

    run_virtual(main())


def test_a_node_that_lists_for_ever_holds_nobody_up() -> None:
    async def main() -> None:
        async with world() as w:
            cap = await w.put(CHUNK)
            w.grid.nodes[0].faults.endless_list = True
            await w.keeper.begin()
            await w.work()
            assert w.grid.nodes[0].calls["shares"] < 20
            w.log.entries.append(NamedBlobs(pruned=tuple(await w.names(cap))))
            await w.work(days=1.1)
            assert w.leases() == len(w.grid.nodes[0].shares)

    run_virtual(main())


def test_nodes_that_come_later_are_collected_too() -> None:
    async def main() -> None:
        async with world(nodes=7) as w:
            late = w.grid.nodes[0]
            w.roster.remove(late.node)
            await w.keeper.begin()
            await w.work()
            w.roster.add(late.record)
            cap = await w.put(4 * CHUNK)
            await w.work(days=1.1)
            assert late.leases[KEEPER]
            w.log.entries.append(NamedBlobs(pruned=tuple(await w.names(cap))))
            await w.work(days=2.1)
            assert w.leases() == 0

    run_virtual(main())


# --- second copies --------------------------------------------------------------------------------


def test_for_a_copy_that_is_only_claimed_nothing_is_given_up() -> None:
    async def main() -> None:
        async with world(sample=1 << 40) as w:
            await w.put(4 * CHUNK)
            await w.keeper.begin()
            await w.work()
            before = w.leases()
            liars = [node for node in w.grid.nodes if not node.shares] + w.grid.nodes[:3]
            for liar in liars[:3]:
                liar.faults.claims = ALL
            await w.work(days=3)
            assert w.keeper.tally.collected == trashed(w) == 0
            assert w.leases() >= before

    run_virtual(main())


def test_a_copy_is_not_given_up_for_one_that_gets_no_lease() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(5000)  # one blob
            await w.keeper.begin()
            await w.work()
            (blob,) = w.grid.holders()
            others = [node for node in w.grid.nodes if not node.shares]
            for number, other in enumerate(others):
                key = ShareKey(blob, ShareNumber(number))
                (wanted,) = w.grid.holders()[blob][key.number]
                other.shares[key] = wanted.shares[key]
                other.lease_share(KEEPER, key, 30 * DAY_S)
                wanted.leases[KEEPER].clear()  # where it should lie, a stranger alone has a lease on it
                wanted.lease_share(AccountId(b"s" * 32), key, DAY_S)
                wanted.faults.fail["lease"] = [QuotaFull(wanted_bytes=1, free_bytes=0)] * 99
            await w.work(days=4)
            for number in ALL:
                assert honest_holders(w, ShareKey(blob, ShareNumber(number)))

    run_virtual(main())


def test_while_shares_are_missing_no_second_copy_is_given_up() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(5000)
            await w.keeper.begin()
            await w.work()
            (blob,) = w.grid.holders()
            spare = next(node for node in w.grid.nodes if not node.shares)
            (here,) = w.grid.holders()[blob][ShareNumber(0)]
            key = ShareKey(blob, ShareNumber(0))
            spare.shares[key] = here.shares[key]
            spare.lease_share(KEEPER, key, 30 * DAY_S)
            for number in (4, 5):
                (gone,) = w.grid.holders()[blob][ShareNumber(number)]
                gone.shares.clear()
                gone.faults.down = "for good"
            for node in w.grid.nodes:
                node.draining = True  # nobody takes anything
            await w.work(days=4)
            assert len(honest_holders(w, key)) == 2

    run_virtual(main())


def test_a_share_is_not_moved_to_a_node_that_takes_it_and_drops_it() -> None:
    async def main() -> None:
        async with world(nodes=10) as w:
            liar = w.grid.nodes[0]
            w.roster.remove(liar.node)
            await w.put(8 * CHUNK)
            await w.keeper.begin()
            await w.work()
            held = {key for node in w.grid.nodes for key in node.shares}
            liar.faults.store = False
            liar.faults.claims = ALL
            w.roster.add(liar.record)
            await w.work(days=2)
            assert liar.put_bytes > 0
            assert all(honest_holders(w, key) for key in held)

    run_virtual(main())


# --- going on -------------------------------------------------------------------------------------


def test_leases_are_renewed_while_the_log_is_away_for_months() -> None:
    async def main() -> None:
        async with world() as w:
            log = Away()
            w.log = log
            w.keeper._source = log
            await w.put(CHUNK)
            await w.keeper.begin()
            await w.work()
            log.away = True
            for _ in range(8):
                await w.work(days=5)
                leases = [node.leases.get(KEEPER, {}) for node in w.grid.nodes]
                ends = [lease.expires_s for own in leases for lease in own.values()]
                assert min(ends) > w.clock.now_s() + 10 * DAY_S

    run_virtual(main())


def test_leases_are_renewed_beside_repairs_that_take_weeks() -> None:
    async def main() -> None:
        async with world(lease_s=4 * DAY_S) as w:
            await w.put(60 * CHUNK)
            await w.keeper.begin()
            await w.work()
            w.grid.nodes[0].shares.clear()
            carry_out, left_s = w.keeper._repairer.carry_out, []

            async def slow(*args: object) -> None:
                """The rate lets one through now and then."""
                w.clock.advance(DAY_S / 6)
                leases = [node.leases.get(KEEPER, {}) for node in w.grid.nodes[1:]]
                left_s.append(min(one.expires_s for own in leases for one in own.values()) - w.clock.now_s())
                await carry_out(*args)  # type: ignore[arg-type]

            w.keeper._repairer.carry_out = slow  # type: ignore[method-assign, assignment]
            await w.work(days=1.1)
            assert len(left_s) * DAY_S / 6 > 4 * DAY_S
            assert min(left_s) > 0

    run_virtual(main())


def test_a_clock_that_was_ahead_ends_no_lease_and_hides_no_dead_node() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK)
            ahead = w.clock.now_s() + 4000 * DAY_S
            now_s, w.clock.now_s = w.clock.now_s, lambda: ahead  # type: ignore[method-assign]
            await w.keeper.follow()
            names = list(w.book.kept(None, 99))
            check = w.keeper._grid.checker(w.keeper._checks(b"s" * 32)[1]._depth, b"s" * 32)
            await w.keeper._looking.look(check, names, proven=True)
            w.clock.now_s = now_s  # type: ignore[method-assign]
            for node in w.grid.nodes:
                for lease in node.leases[KEEPER].values():
                    lease.expires_s = w.clock.now_s() + 31 * DAY_S  # the nodes' clocks were right
            dead = max(w.grid.nodes, key=lambda node: len(node.shares))
            dead.faults.down = "for good"
            await w.keeper.begin()
            await w.work(days=2)
            assert w.keeper.repaired.rebuilt == len(dead.shares) > 0
            await w.work(days=40)
            ends = [
                lease.expires_s
                for node in w.grid.nodes
                if node is not dead
                for lease in node.leases.get(KEEPER, {}).values()
                if not lease.trashed
            ]
            assert min(ends) > w.clock.now_s()

    run_virtual(main())


@pytest.mark.parametrize("jump_s", [-4000 * DAY_S, -15 * DAY_S, -2 * DAY_S, 2 * DAY_S, 4000 * DAY_S])
def test_a_clock_that_jumps_stops_no_scan_ends_no_lease_and_starts_nothing_over_and_over(
    jump_s: float,
) -> None:
    """The keeper's; nodes' clocks are right."""

    async def main() -> None:
        async with world() as w:
            await w.put(2 * CHUNK)
            await w.keeper.begin()
            await w.work(days=10)
            jumped = StepClock(w.clock.now_s() + jump_s - w.clock.offset_s)
            w.keeper._clock = w.worker._clock = jumped
            for day in range(1, 41):
                for _ in range(24):
                    jumped.advance(DAY_S / 24)
                    await w.work(days=1 / 24)
                assert w.keeper.tally.scans in (11 + day - 1, 11 + day)
                leases = [one for node in w.grid.nodes for one in node.leases.get(KEEPER, {}).values()]
                assert min(one.expires_s for one in leases) > w.clock.now_s()

    run_virtual(main())


def test_a_node_that_says_it_holds_all_and_never_proves_it_is_replaced() -> None:
    async def main() -> None:
        async with world(sample=2) as w:
            await w.put(12 * CHUNK)
            await w.keeper.begin()
            await w.work()
            liar = max(w.grid.nodes, key=lambda node: len(node.shares))
            had = set(liar.shares)
            liar.faults.claims = ALL
            silence = NodeUnreachable(node=liar.node, reason="too busy to prove anything")
            liar.faults.fail["prove"] = [silence] * 999
            liar.shares.clear()
            await w.work(days=5)
            honest = {key for node in w.grid.nodes if node is not liar for key in node.shares}
            assert had <= honest

    run_virtual(main())


def test_a_node_that_answers_for_some_blobs_only_is_not_waited_for_with_the_others() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put(12 * CHUNK)
            await w.keeper.begin()
            await w.work()
            liar = max(w.grid.nodes, key=lambda node: len(node.shares))
            had = set(liar.shares)
            for key in sorted(had)[1:]:
                del liar.shares[key]  # it keeps one, and falls silent when it is asked for another
            liar.faults.claims, liar.faults.silent_on_missing = ALL, True
            for _ in range(24):
                w.book.answered([liar.node], w.clock.now_s())  # as when it is asked for the one it keeps
                await w.work(days=0.25)
            honest = {key for node in w.grid.nodes if node is not liar for key in node.shares}
            assert had - set(liar.shares) <= honest

    run_virtual(main())


# --- grids that are small -------------------------------------------------------------------------


def test_a_node_that_died_in_a_grid_of_no_more_nodes_than_shares_is_made_up_for_once() -> None:
    async def main() -> None:
        async with world(nodes=6) as w:
            await w.put(4 * CHUNK)
            await w.keeper.begin()
            await w.work()
            dead = w.grid.nodes[0]
            had = len(dead.shares)
            dead.faults.down = "for good"
            await w.work(days=4)
            others = {key for node in w.grid.nodes[1:] for key in node.shares}
            assert set(dead.shares) <= others
            assert w.keeper.repaired.rebuilt == had
            kinds = (await w.worker.status()).kinds
            assert f"repair.{id_text(VOLUME)}" not in kinds
            assert w.keeper.tally.conditions == {Condition.WHOLE: 5}

    run_virtual(main())


def test_a_node_is_drained_though_every_other_has_a_share_already() -> None:
    async def main() -> None:
        async with world(nodes=6) as w:
            await w.put(4 * CHUNK)
            await w.keeper.begin()
            await w.work()
            leaving = w.grid.nodes[0]
            leaving.draining = True
            w.roster.add(leaving.record)
            await w.work(days=3.1)
            assert all(lease.trashed for lease in leaving.leases[KEEPER].values())
            left = {key for node in w.grid.nodes[1:] for key in node.shares}
            assert set(leaving.shares) <= left
            moved = w.keeper.repaired.moved
            await w.work(days=3)
            assert w.keeper.repaired.moved == moved == 5

    run_virtual(main())


def test_two_shares_rebuilt_at_one_node_are_no_failure() -> None:
    async def main() -> None:
        async with world(nodes=3) as w:
            w.author._policy = THIN
            await w.put(CHUNK)
            await w.keeper.begin()
            await w.work()
            w.grid.nodes[0].shares.clear()
            await w.work(days=1.1)
            assert w.live() == {6}
            assert w.keeper.repaired.rebuilt == 2
            assert f"repair.{id_text(VOLUME)}" not in (await w.worker.status()).kinds

    run_virtual(main())


@pytest.mark.parametrize("below", [1, 4])
def test_nobody_waits_with_repairs_until_a_blob_is_lost(below: int) -> None:
    async def main() -> None:
        async with world(repair_below=below) as w:
            await w.put(5000)
            await w.keeper.begin()
            await w.work()
            (blob,) = w.grid.holders()
            for number in (0, 1):
                (gone,) = w.grid.holders()[blob][ShareNumber(number)]
                gone.shares.clear()
            await w.work(days=1.1)
            assert w.live() == {6}

    run_virtual(main())
