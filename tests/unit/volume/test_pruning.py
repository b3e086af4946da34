"""Prunes in a real volume: planned from its view, written by an owner, and told to who asks for the past."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from tests.unit.volume.support import World, world

from muniment.books.memory import MemoryBlobBook
from muniment.core.keeping.pruning import PrunePlan
from muniment.engine.keeping.named import NamedByLog
from muniment.engine.pruning import past_reading, plan_prune, prune, pruned_blobs
from muniment.engine.volume import Volume
from muniment.engine.volume_names import VolumeNames
from muniment.errors import ActRefused, ContentPruned, RoleForbids
from muniment.ids import BlobId
from muniment.spec.act import Hold, Prune, Quorum, Retain, Role, VolumePolicy
from muniment.spec.operation import ROOT, Extent, Kind, Make, Truncate, Write
from muniment.spec.statement import encode_pruned, encode_reason
from muniment.spec.transaction import Transaction
from muniment.testing.sample_volume import blob_ref

POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "2/3", 2, 1 << 20)
FOLDER, FILE = 2, 3


@pytest.fixture
async def grid() -> AsyncIterator[World]:
    async with world(POLICY) as grid:
        yield grid


async def make(volume: Volume, name: bytes, seed: int, parent: int = ROOT) -> int:
    ref = blob_ref(seed)
    made = Make(parent, name, Kind.FILE, 0o644, content=(Extent(0, 64, 0),), size=64)
    return (await volume.commit(lambda _: Transaction((made,), (ref,)))).index


async def write(volume: Volume, seed: int, inode: int = FILE) -> int:
    ref = blob_ref(seed)
    changes = (Truncate(inode, None, 0), Write(inode, None, (Extent(0, 64, 0),)))
    return (await volume.commit(lambda _: Transaction(changes, (ref,)))).index


async def filled(grid: World) -> Volume:
    """A folder with a file in it, whose first content was overwritten."""
    anna = await grid.member("anna")
    await anna.commit(lambda _: Transaction((Make(ROOT, b"books", Kind.FOLDER, 0o755),)))
    await make(anna, b"ledger", 1, FOLDER)
    await write(anna, 2)
    return anna


async def planned(volume: Volume) -> PrunePlan:
    now_ns = volume.now_ns()
    return await volume.run(lambda: plan_prune(volume, now_ns))


def blobs(plan: PrunePlan) -> list[BlobId]:
    return [name.blob for name in plan.blobs]


async def test_without_a_rule_nothing_goes(grid: World) -> None:
    anna = await filled(grid)
    assert not (await planned(anna)).blobs
    names = (blob_ref(1).name,)
    with pytest.raises(ActRefused):
        await anna.declare(lambda s: (Prune(s.size, s.time_ns, 1), encode_pruned(names)))


async def test_what_is_superseded_goes_and_is_told(grid: World) -> None:
    anna = await filled(grid)
    before = anna.view.size - 2
    rule = (await anna.act(lambda _: Retain(ROOT, 0))).index
    plan = await planned(anna)
    assert blobs(plan) == [blob_ref(1).name.blob]
    assert [(one.inode, one.ends) for one in plan.files] == [(FILE, (before + 1,))]
    (done,) = await prune(anna, plan)
    assert not (await planned(anna)).blobs
    assert list(pruned_blobs(anna.follower)) == blobs(plan)
    names = VolumeNames(anna)
    with pytest.raises(ContentPruned) as told:
        await names.look(lambda state: state.extents(FILE, 0, 64), at=before)
    assert (told.value.entry, told.value.rule, told.value.keep_s) == (done.index, rule, 0)
    for change in (names.restore(b"books/ledger", before), names.copy(b"books/ledger", b"old", at=before)):
        with pytest.raises(ContentPruned):
            await change
    listed = await names.listing(b"books", at=before)
    assert [(one.path, one.inode.size) for one in listed] == [(b"ledger", 64)]
    assert await names.look(lambda state: state.extents(FILE, 0, 64), at=before + 1)
    assert await names.look(lambda state: state.extents(FILE, 0, 64))


async def test_the_nearest_rule_counts_and_time_must_go_by(grid: World) -> None:
    anna = await filled(grid)
    await anna.act(lambda _: Retain(FOLDER, 3600))
    await anna.act(lambda _: Retain(ROOT, 0))
    assert not (await planned(anna)).blobs
    later = anna.now_ns() + 3601 * 10**9
    plan = await anna.run(lambda: plan_prune(anna, later))
    assert blobs(plan) == [blob_ref(1).name.blob]
    with pytest.raises(ActRefused):  # nobody can take time that has not gone by
        await prune(anna, plan)


async def test_a_hold_keeps_also_what_was_moved_away(grid: World) -> None:
    anna = await filled(grid)
    await anna.act(lambda _: Retain(ROOT, 0))
    await VolumeNames(anna).move(b"books/ledger", b"elsewhere")
    held = await anna.declare(lambda _: (Hold(FOLDER, on=True), encode_reason("case 7")))
    plan = await planned(anna)
    assert (plan.blobs, plan.held) == ((), 1)
    assert anna.membership.holds[FOLDER].index == held.index
    await anna.declare(lambda _: (Hold(FOLDER, on=False), encode_reason("closed")))
    assert blobs(await planned(anna)) == [blob_ref(1).name.blob]


async def test_a_rule_or_hold_in_between_makes_a_plan_void(grid: World) -> None:
    anna = await filled(grid)
    await anna.act(lambda _: Retain(ROOT, 0))
    plan = await planned(anna)
    await anna.declare(lambda _: (Hold(FILE, on=True), encode_reason("case 7")))
    with pytest.raises(ActRefused):
        await prune(anna, plan)


async def test_only_owners_prune(grid: World) -> None:
    anna = await filled(grid)
    await anna.act(lambda _: Retain(ROOT, 0))
    plan = await planned(anna)
    bert = await grid.join("bert", Role.WRITER, anna)
    with pytest.raises(RoleForbids):
        await prune(bert, plan)


async def test_many_blobs_are_several_entries(grid: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched: 65,536 blobs take seconds.
    monkeypatch.setattr("muniment.engine.pruning.PRUNED_MAX", 2)
    anna = await filled(grid)
    for seed in range(3, 7):
        await write(anna, seed)
    await anna.act(lambda _: Retain(ROOT, 0))
    plan = await planned(anna)
    done = await prune(anna, plan)
    assert (len(plan.blobs), len(done)) == (5, 3)
    assert sorted(pruned_blobs(anna.follower)) == blobs(plan)


async def test_what_is_named_while_a_prune_is_under_way_is_kept(grid: World) -> None:
    anna = await filled(grid)
    bert = await grid.join("bert", Role.WRITER, anna)
    await anna.sync()
    await anna.act(lambda _: Retain(ROOT, 0))
    plan = await planned(anna)
    before = anna.view.size - 1
    await bert.sync()
    await make(bert, b"again", 1)  # the content that goes, stored by somebody else
    await prune(anna, plan)
    book, named = MemoryBlobBook(), NamedByLog(anna)
    head = await named.follow()
    while book.size < head.size:
        book.take_in(book.size, await anna.run(lambda: named.page(book.size)))
    assert book.is_kept([blob_ref(1).name.blob]) == [True]
    first = before - 4
    assert (await anna.run(lambda: past_reading(anna, first))).extents(FILE, 0, 64)
    assert not (await planned(anna)).blobs
    await write(anna, 9, FILE + 1)  # and gone again
    assert blobs(await planned(anna)) == [blob_ref(1).name.blob]


async def test_who_only_verifies_sees_what_goes(grid: World) -> None:
    anna = await filled(grid)
    await anna.act(lambda _: Retain(ROOT, 0))
    await prune(anna, await planned(anna))
    otto = await grid.join("otto", Role.AUDITOR, anna)
    named = NamedByLog(otto)
    head = await named.follow()
    book = MemoryBlobBook()
    while book.size < head.size:
        book.take_in(book.size, await otto.run(lambda: named.page(book.size)))
    assert [name.blob for name in book.kept(None, 9)] == [blob_ref(2).name.blob]


async def test_a_statement_that_opens_for_nobody_gives_nothing_up(grid: World) -> None:
    anna = await filled(grid)
    await anna.act(lambda _: Retain(ROOT, 0))
    names = (blob_ref(1).name, blob_ref(2).name)
    await anna.declare(lambda s: (Prune(s.size, s.time_ns, 2), os.urandom(90)))
    await anna.declare(lambda s: (Prune(s.size, s.time_ns, 1), encode_pruned(names)))
    assert not pruned_blobs(anna.follower)
    assert blobs(await planned(anna)) == [blob_ref(1).name.blob]
