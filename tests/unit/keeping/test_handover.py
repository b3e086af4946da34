"""What a member stored is left to keepers when one has reported it leased, and not before."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from tests.unit.engine.support import content
from tests.unit.keeping.test_keeper import KEEPER
from tests.unit.keeping.test_reports import DAY_S, Kept, kept
from tests.unit.volume.support import kick, member

from muniment.crypto.identity import Identity
from muniment.engine.keeping.handover import hand_over
from muniment.errors import QuotaFull
from muniment.ids import AccountId, BlobId
from muniment.spec.act import Role
from muniment.spec.operation import ROOT, Extent, Kind, Make
from muniment.spec.transaction import Transaction
from muniment.testing.fake_node import FakeNode

ANNA = Identity.from_seed(b"a".ljust(32, b"\0")).account


def leased(k: Kept, account: AccountId, nodes: list[FakeNode] | None = None) -> set[BlobId]:
    """Blobs of which an account has a lease that it did not give up."""
    return {
        key.blob
        for node in nodes or k.grid.nodes
        for key, lease in node.leases.get(account, {}).items()
        if not lease.trashed
    }


@dataclass
class Client:
    """Anna's, with what it remembers."""

    k: Kept
    told: list[int] = field(default_factory=list)

    async def hand_over(self, name: str = "anna") -> int:
        await self.k.anna.sync()
        start = self.told[-1] if self.told else 0
        return await hand_over(self.k.anna, self.k.client, member(name).member, start, self.told.append)


async def test_what_a_keeper_has_reported_is_left_to_it() -> None:
    async with kept() as k:
        client, name = Client(k), await k.put(b"file", 1)
        assert await client.hand_over() == 0
        await k.keeper.begin()
        await k.worker.flush()
        assert leased(k, ANNA) == {name.blob}
        assert await client.hand_over() == 6
        assert (leased(k, ANNA), leased(k, KEEPER)) == (set(), {name.blob})
        late = await k.put(b"late", 2)
        assert await client.hand_over() == 0
        assert leased(k, ANNA) == {late.blob}
        await k.after(DAY_S)
        assert await client.hand_over() == 6
        assert leased(k, KEEPER) == {name.blob, late.blob}


async def test_a_node_that_drains_is_empty_when_the_keeper_has_moved_and_the_member_come_by() -> None:
    async with kept() as k:
        client = Client(k)
        for seed in range(4):
            await k.put(b"file%d" % seed, seed)
        await k.keeper.begin()
        await k.worker.flush()
        leaving = max(k.grid.nodes, key=lambda node: len(node.shares))
        leaving.draining = True
        k.roster.add(leaving.record)
        await k.after(DAY_S)
        await k.after(DAY_S)
        assert leased(k, KEEPER, [leaving]) == set()
        assert leased(k, ANNA, [leaving])
        await client.hand_over()
        assert leased(k, ANNA) == set()
        assert len(leased(k, KEEPER)) == 4


async def test_nothing_is_given_up_for_a_report_that_does_not_say_that_all_is_well() -> None:
    async with kept() as k:
        client, name = Client(k), await k.put(b"file", 1)
        node = next(node for node in k.grid.nodes if node.shares)
        node.faults.fail["lease"] = [QuotaFull(wanted_bytes=1, free_bytes=0)]
        await k.keeper.begin()
        (report,) = await k.told()
        assert report.record is not None
        assert report.record.unpaid == 1
        assert await client.hand_over() == 0
        assert leased(k, ANNA) == {name.blob}
        await k.after(DAY_S)
        assert await client.hand_over() == 6


async def test_nothing_is_given_up_for_a_report_of_last_week() -> None:
    async with kept() as k:
        client, name = Client(k), await k.put(b"file", 1)
        await k.keeper.begin()
        await k.told()
        k.clock.advance(4 * DAY_S)
        assert await client.hand_over() == 0
        assert leased(k, ANNA) == {name.blob}


async def test_what_a_later_entry_names_too_waits_for_the_next_report() -> None:
    async with kept() as k:
        client, name = Client(k), await k.put(b"file", 1)
        await k.keeper.begin()
        await k.told()
        assert await k.put(b"copy", 1) == name
        assert await client.hand_over() == 0
        assert leased(k, ANNA) == {name.blob}
        await k.after(DAY_S)
        assert await client.hand_over() == 6


async def test_of_entries_of_others_nothing_is_given_up() -> None:
    async with kept() as k:
        bert = await k.volumes.join("bert", Role.WRITER, k.anna)
        cap = (await k.client.put(content(3000, 7))).cap
        made = Make(ROOT, b"of bert", Kind.FILE, 0o644, content=(Extent(0, 3000, 0),), size=3000)
        await bert.commit(lambda _: Transaction((made,), (cap.ref,)))  # type: ignore[union-attr]
        await k.keeper.begin()
        await k.told()
        assert await Client(k).hand_over() == 0
        assert await Client(k).hand_over("bert") == 6


@pytest.mark.parametrize("down", [1, 6])
async def test_nodes_that_do_not_answer_keep_their_leases_and_if_none_does_all_is_tried_again(
    down: int,
) -> None:
    async with kept() as k:
        client = Client(k)
        await k.put(b"file", 1)
        await k.keeper.begin()
        await k.told()
        for node in k.grid.nodes[:down]:
            node.faults.down = "away"
        assert await client.hand_over() == 6 - down
        for node in k.grid.nodes:
            node.faults.down = None
        assert await client.hand_over() == (6 if down == 6 else 0)


async def test_who_may_not_verify_is_not_believed() -> None:
    async with kept() as k:
        client, _ = Client(k), await k.put(b"file", 1)
        await k.keeper.begin()
        await k.told()
        await k.anna.act(lambda state: kick(state, k.anna, member("otto")))
        assert await client.hand_over() == 0
