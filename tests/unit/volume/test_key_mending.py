"""Who rotates the keys can break the chain to earlier ones: others mend it, and trust nobody for that."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from tests.unit.volume.support import Careless, World, folder, kick, member, transaction, world

from muniment.core.key_ring import KeyRing
from muniment.core.keys import mend, open_mended, rotation
from muniment.core.membership import Membership
from muniment.crypto.entries import open_entry
from muniment.engine.members import Members
from muniment.engine.volume import Volume
from muniment.errors import ActRefused, MalformedRecord, NotCapable
from muniment.ids import VolumeId
from muniment.spec.act import Act, Grant, Leave, Mend, Quorum, Role, Rotate, Rotation, VolumePolicy

POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "2/3", 2, 1 << 20)

Harm = Callable[[Rotation], Rotation]


@pytest.fixture
async def grid() -> AsyncIterator[World]:
    async with world(POLICY) as grid:
        yield grid


def without_chain(made: Rotation) -> Rotation:
    return replace(made, chain_read=bytes(48), chain_verify=bytes(48))


def without_read_chain(made: Rotation) -> Rotation:
    return replace(made, chain_read=bytes(48))


def without_verify_chain(made: Rotation) -> Rotation:
    return replace(made, chain_verify=bytes(48))


def for_nobody(made: Rotation) -> Rotation:
    wrapped = tuple(Grant(g.member, bytes(len(g.read)), bytes(len(g.verify))) for g in made.grants)
    return replace(made, grants=wrapped)


async def make(volume: Volume, name: bytes) -> int:
    return (await volume.commit(lambda _: transaction(folder(name)))).index


def state(volume: Volume) -> tuple[int, bytes]:
    return volume.view.size, volume.view.state_hash().digest()


async def harmed(grid: World, by: Volume, *harms: Harm) -> None:
    """Somebody leaves, and `by` makes the new keys as it likes; for each harm."""
    for number, harm in enumerate(harms):
        leaving = f"leaving{by.membership.epoch}{number}"
        owner = await grid.member("anna", kind=Careless)
        gone = await grid.join(leaving, Role.WITNESS, owner)
        await gone.act(lambda _: Leave())
        await by.sync()

        def plan(state: Membership, harm: Harm = harm) -> Act:
            made, _ = rotation(state, by.newest_keys(), os.urandom)
            return Rotate(harm(made))

        await by.act(plan)


async def take_in(grid: World, name: str, role: Role) -> Volume:
    """A newcomer whom an owner accepts who mends nothing."""
    owner = await grid.member("anna", kind=Careless)
    return await grid.join(name, role, owner)


@pytest.mark.parametrize(
    "harms",
    [
        (without_chain,),
        (without_read_chain,),
        (without_chain, without_chain),
        (without_read_chain, without_verify_chain),
    ],
)
async def test_a_broken_chain_costs_newcomers_until_the_next_owner_comes(
    grid: World, harms: tuple[Harm, ...]
) -> None:
    anna = await grid.member("anna")
    bad = await grid.join("bad", Role.WRITER, anna)
    early = await grid.join("early", Role.READER, anna)
    await make(anna, b"past")
    await harmed(grid, bad, *harms)
    await make(bad, b"of the one who broke it")
    before = await take_in(grid, "before", Role.WRITER)
    assert before.view.size == 4 + 1  # of the founding, two joins and their acceptances: nothing else opens
    with pytest.raises(NotCapable):
        await make(before, b"blind")

    await anna.sync()
    await before.sync()
    await make(before, b"seeing")
    await anna.sync()
    await anna.act(lambda s: kick(s, anna, member("bad")))
    await make(anna, b"without him")
    after = await take_in(grid, "after", Role.READER)
    for volume in (early, before, after, anna):
        await volume.sync()
    assert len({state(volume) for volume in (anna, early, before, after)}) == 1
    assert state(after)[0] == grid.store.size


@pytest.mark.parametrize("harm", [without_chain, without_verify_chain])
async def test_auditors_reach_the_names_of_earlier_blobs_again(grid: World, harm: Harm) -> None:
    anna = await grid.member("anna")
    bad = await grid.join("bad", Role.WRITER, anna)
    await harmed(grid, bad, harm)
    await take_in(grid, "otto", Role.AUDITOR)
    otto = KeyRing(member("otto").verify)

    def follow() -> None:
        seen = Membership()
        for at, signed in enumerate(grid.entries()):
            seen.admit(open_entry(signed), at)
        otto.follow(seen)

    follow()
    with pytest.raises(NotCapable):
        otto.keys(0)
    await anna.sync()
    follow()
    assert otto.keys(0).verify == anna.follower.ring.keys(0).verify
    assert otto.keys(0).read is None


async def test_any_writer_mends_and_nobody_does_it_twice(grid: World) -> None:
    anna = await grid.member("anna")
    bad, good = await grid.join("bad", Role.WRITER, anna), await grid.join("good", Role.WRITER, anna)
    reader = await grid.join("reader", Role.READER, anna)
    await make(anna, b"past")
    await harmed(grid, bad, without_chain)
    size = grid.store.size
    await reader.sync()
    assert grid.store.size == size
    await good.sync()
    assert grid.store.size == size + 1
    for volume in (anna, bad, good):
        await volume.sync()
    assert grid.store.size == size + 1
    newcomer = await take_in(grid, "newcomer", Role.READER)
    assert state(newcomer) == (grid.store.size, anna.view.state_hash().digest())


async def test_who_mends_wrongly_is_not_believed_and_keeps_nobody_from_mending(grid: World) -> None:
    anna = await grid.member("anna")
    bad = await grid.join("bad", Role.WRITER, anna)
    await make(anna, b"past")
    await harmed(grid, bad, without_chain)
    right = mend(bad.id, bad.newest_keys(), bad.follower.ring.keys(0), os.urandom)
    await bad.act(lambda _: Mend(0, os.urandom(len(right.read)), os.urandom(len(right.verify))))
    with pytest.raises(ActRefused):
        await bad.act(lambda _: right)
    newcomer = await take_in(grid, "newcomer", Role.READER)
    assert newcomer.view.size < grid.store.size
    await anna.sync()
    await newcomer.sync()
    assert state(newcomer) == state(anna)
    assert anna.membership.mended[1].author == member("anna").member


async def test_keys_that_were_withheld_are_replaced_by_the_next_owner_who_writes(grid: World) -> None:
    anna = await grid.member("anna")
    bad, good = await grid.join("bad", Role.WRITER, anna), await grid.join("good", Role.WRITER, anna)
    await make(anna, b"past")
    await harmed(grid, bad, for_nobody)
    for volume in (anna, good):
        await volume.sync()
        assert volume.follower.ring.refusal is not None
    with pytest.raises(NotCapable):
        await make(good, b"without keys")
    await make(anna, b"with new ones")
    assert anna.membership.epoch == 2
    await anna.act(lambda s: kick(s, anna, member("bad")))
    await good.sync()
    await make(good, b"too")
    await anna.sync()
    newcomer = await take_in(grid, "newcomer", Role.READER)
    for volume in (anna, good):
        await volume.sync()
    assert len({state(volume) for volume in (anna, good, newcomer)}) == 1
    with pytest.raises(NotCapable):
        newcomer.follower.ring.keys(1)  # nobody but the one who made them has these


async def test_an_owner_from_whom_keys_were_withheld_can_remove_who_did_it(grid: World) -> None:
    anna = await grid.member("anna")
    bad = await grid.join("bad", Role.WRITER, anna)
    await make(anna, b"past")
    await harmed(grid, bad, for_nobody)
    await anna.sync()

    await Members(anna, os.urandom).kick(member("bad").member)
    await make(anna, b"present")
    newcomer = await take_in(grid, "newcomer", Role.READER)
    await anna.sync()
    assert state(newcomer) == state(anna)


async def test_who_came_late_and_left_learns_nothing_from_what_is_mended(grid: World) -> None:
    anna = await grid.member("anna")
    bad = await grid.join("bad", Role.WRITER, anna)
    await make(anna, b"past")
    await harmed(grid, bad, without_chain)
    late = await take_in(grid, "late", Role.READER)
    await late.act(lambda _: Leave())
    size = grid.store.size
    await anna.sync()  # with him still in the keys, nothing is given away under them
    assert grid.store.size == size
    await make(anna, b"present")
    await late.sync()
    (mended,) = anna.membership.mended
    assert (mended.under, mended.epoch) == (2, 0)
    had = late.follower.ring.keys(1)
    with pytest.raises(MalformedRecord):
        open_mended(anna.id, had, mended, anna.membership.epoch_start(0).commitment)
    for epoch in (0, 2):
        with pytest.raises(NotCapable):
            late.follower.ring.keys(epoch)


async def test_mended_keys_open_in_their_volume_and_place_only(grid: World) -> None:
    anna = await grid.member("anna")
    await anna.act(lambda s: Rotate(rotation(s, anna.newest_keys(), os.urandom)[0]))
    old, new = anna.follower.ring.keys(0), anna.follower.ring.keys(1)
    given = mend(anna.id, new, old, os.urandom)
    await anna.act(lambda _: given)
    (mended,), commitment = anna.membership.mended, anna.membership.epoch_start(0).commitment
    assert open_mended(anna.id, new, mended, commitment) == old
    other = VolumeId(bytes(32))
    for wrong in (
        (other, new, mended, commitment),
        (anna.id, old, mended, commitment),
        (anna.id, new, replace(mended, epoch=1), commitment),
        (anna.id, new, replace(mended, read=mended.verify), commitment),
        (anna.id, new, mended, new.commitment),
    ):
        with pytest.raises(MalformedRecord):
            open_mended(*wrong)
