"""Logs that somebody with a key has forged: the service, or a member.  All signatures are real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.audit.support import keep
from tests.unit.volume.support import LOG_KEY, World, folder, kick, member, transaction, world

from muniment.audit.report import AuditReport, Severity, Verdict
from muniment.audit.volume import audit_volume
from muniment.crypto.checkpoints import sign_checkpoint
from muniment.crypto.entries import open_entry, sign_entry
from muniment.crypto.identity import Identity
from muniment.engine.volume import Volume
from muniment.merkle.log_tree import Frontier
from muniment.ports import AuditedLog, AuditedView
from muniment.spec.act import Role
from muniment.spec.checkpoint import Checkpoint, origin_of
from muniment.spec.entry import NO_ENTRY, Entry
from muniment.testing.lying_log import store_of
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView


@pytest.fixture
async def grid() -> AsyncIterator[World]:
    async with world() as grid:
        yield grid


@pytest.fixture
async def honest(grid: World) -> list[bytes]:
    """Founding, join and acceptance of a writer, six changes in turn, join and acceptance of a reader."""
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    for at in range(3):
        await make(anna, b"a%d" % at)
        await bert.sync()
        await make(bert, b"b%d" % at)
        await anna.sync()
    await grid.join("rita", Role.READER, anna)
    await make(anna, b"last")
    return await grid.log.entries(0, 100)


async def make(volume: Volume, name: bytes) -> None:
    await volume.commit(lambda _: transaction(folder(name)))


async def audited(
    grid: World,
    entries: Sequence[bytes],
    *,
    notes: Sequence[bytes] = (),
    store: AuditedLog | None = None,
    view: AuditedView | None = None,
) -> AuditReport:
    """What an audit says of these entries under a valid checkpoint."""
    log = store or store_of(grid.volume, entries, LOG_KEY)
    return await audit_volume(
        grid.volume,
        member("anna").read,
        LOG_KEY.public_key,
        log=lambda: log,
        view=None if view is None else lambda: view,
        notes=notes,
    )


def check_forged(report: AuditReport, place: str, what: str) -> None:
    assert report.verdict is Verdict.FORGED, report.text()
    finding = next(one for one in report.findings if one.severity is Severity.FORGED)
    assert finding.place == place
    assert what in finding.what
    assert finding.consequence


def signed_for(grid: World, entries: Sequence[bytes]) -> bytes:
    """A checkpoint of another log of this volume."""
    frontier, _ = Frontier().extend(open_entry(one).hash for one in entries)
    return sign_checkpoint(LOG_KEY, Checkpoint(origin_of(grid.volume), frontier.size, frontier.root()))


def resigned(name: str, signed: bytes, **other: object) -> bytes:
    """An entry that its author signed otherwise."""
    entry: Entry = replace(open_entry(signed).entry, **other)  # type: ignore[arg-type]
    return sign_entry(member(name).identity, entry)


async def test_an_honest_log_is_clean(grid: World, honest: list[bytes]) -> None:
    report = await audited(grid, honest, notes=[signed_for(grid, honest[:5]), signed_for(grid, honest)])
    assert report.verdict is Verdict.CLEAN, report.text()
    assert report.notes == 3


async def test_forged_by_nobody(grid: World, honest: list[bytes]) -> None:
    changed = bytearray(honest[5])
    changed[-1] ^= 1
    report = await audited(grid, [*honest[:5], bytes(changed), *honest[6:]])
    check_forged(report, "entry 5", "no author signed it")
    assert report.content is not None


async def test_what_no_checkpoint_covers_is_damage(grid: World, honest: list[bytes]) -> None:
    changed = bytearray(honest[-1])
    changed[-1] ^= 1
    store = store_of(grid.volume, [*honest[:-1], bytes(changed)], LOG_KEY)
    store.replace_checkpoint(signed_for(grid, honest[:-1]))
    report = await audited(grid, [], store=store)
    assert report.verdict is Verdict.DAMAGED, report.text()


async def test_forged_by_a_stranger(grid: World, honest: list[bytes]) -> None:
    stranger = member("stranger")
    entry = replace(open_entry(honest[-1]).entry, author=stranger.member, sequence=0, previous=NO_ENTRY)
    report = await audited(grid, [*honest, sign_entry(stranger.identity, entry)])
    check_forged(report, f"entry {len(honest)}", "is not a member")


async def test_a_right_that_a_member_does_not_have(grid: World, honest: list[bytes]) -> None:
    rita = member("rita")
    theirs = [opened for one in honest if (opened := open_entry(one)).entry.author == rita.member]
    entry = replace(
        open_entry(honest[-1]).entry, author=rita.member, sequence=len(theirs), previous=theirs[-1].hash
    )
    report = await audited(grid, [*honest, sign_entry(rita.identity, entry)])
    check_forged(report, f"entry {len(honest)}", "the role reader")


@pytest.mark.parametrize("at", [0, 1, 3, 5, 8])
async def test_dropped(grid: World, honest: list[bytes], at: int) -> None:
    report = await audited(grid, honest[:at] + honest[at + 1 :])
    assert report.verdict is Verdict.FORGED, report.text()


@pytest.mark.parametrize("at", [1, 3, 5, 7])
async def test_reordered(grid: World, honest: list[bytes], at: int) -> None:
    other = [*honest]
    other[at], other[at + 1] = other[at + 1], other[at]
    report = await audited(grid, other)
    assert report.verdict is Verdict.FORGED, report.text()
    assert report.findings[0].place in (f"entry {at}", f"entry {at + 1}")


async def test_replayed(grid: World, honest: list[bytes]) -> None:
    check_forged(await audited(grid, [*honest, honest[5]]), f"entry {len(honest)}", "does not follow")


async def test_replayed_from_another_volume(grid: World, honest: list[bytes]) -> None:
    async with world() as other:
        anna = await other.member("anna")
        await make(anna, b"elsewhere")
        foreign = await other.log.entries(0, 10)
        note = await other.log.checkpoint()
    report = await audited(grid, [*honest[:5], foreign[1], *honest[5:]])
    check_forged(report, "entry 5", "of another volume")
    check_forged(await audited(grid, foreign), "entry 0", "founds another volume")
    store = store_of(grid.volume, honest, LOG_KEY)
    store.replace_checkpoint(note)
    check_forged(await audited(grid, [], store=store), "the stored checkpoint", "signed it for")
    check_forged(await audited(grid, honest, notes=[note]), "note 0", "signed it for")


async def test_forked(grid: World, honest: list[bytes]) -> None:
    """Two logs that are both in order; who has a checkpoint of the one knows that the other is not all."""
    last = resigned("anna", honest[-1], time_ns=int(grid.clock.now_s() * 1e9) + 1)
    forked = [*honest[:-1], last]
    assert (await audited(grid, forked)).verdict is Verdict.CLEAN
    report = await audited(grid, forked, notes=[signed_for(grid, honest[:-1]), signed_for(grid, honest)])
    check_forged(report, "note 1", "signed another log")
    store = store_of(grid.volume, honest, LOG_KEY)
    store.replace_checkpoint(signed_for(grid, forked))
    check_forged(await audited(grid, [], store=store), "the stored checkpoint", "signed another log")


async def test_an_author_who_was_shown_another_log(grid: World, honest: list[bytes]) -> None:
    last = resigned("anna", honest[-1], seen_root=bytes(32))
    check_forged(await audited(grid, [*honest[:-1], last]), f"entry {len(honest) - 1}", "another log of")


async def test_rolled_back(grid: World, honest: list[bytes]) -> None:
    """Entries that are not there prove no forgery; the note that proves that they were is named."""
    report = await audited(grid, honest[:-2], notes=[signed_for(grid, honest)])
    assert report.verdict is Verdict.DAMAGED
    assert report.findings[0].place == "note 0"
    assert "are missing" in report.findings[0].consequence


async def test_written_after_a_removal(grid: World, honest: list[bytes]) -> None:
    anna, bert = await grid.member("anna"), await grid.member("bert")
    await anna.act(lambda state: kick(state, anna, member("bert")))
    entries = await grid.log.entries(0, 100)
    mine = [opened for one in entries if (opened := open_entry(one)).entry.author == member("bert").member]
    entry = replace(mine[-1].entry, sequence=len(mine), previous=mine[-1].hash, epoch=1)
    report = await audited(grid, [*entries, sign_entry(member("bert").identity, entry)])
    check_forged(report, f"entry {len(entries)}", "is not a member")
    assert bert.id == grid.volume


async def test_checkpoints_of_a_service_that_had_the_log_before(grid: World, honest: list[bytes]) -> None:
    new = Identity.from_seed(b"n" * 32)
    frontier, _ = Frontier().extend(open_entry(one).hash for one in honest)
    moved = sign_checkpoint(new, Checkpoint(origin_of(grid.volume), frontier.size, frontier.root()))
    store = store_of(grid.volume, honest, LOG_KEY)
    store.replace_checkpoint(moved)
    notes = [signed_for(grid, honest[:5])]
    for former, verdict in (((LOG_KEY.public_key,), Verdict.CLEAN), ((), Verdict.DAMAGED)):
        report = await audit_volume(
            grid.volume,
            member("anna").read,
            new.public_key,
            log=lambda: store,
            notes=notes,
            former_log_keys=former,
        )
        assert report.verdict is verdict, report.text()


async def test_a_view_of_another_history(grid: World, honest: list[bytes], tmp_path: Path) -> None:
    """A view that is ahead, one of another volume, and an honest one in memory."""
    files = await keep(grid, tmp_path)
    view = SqliteView(files.view)
    report = await audited(grid, honest[:-1], view=view)
    assert [one.place for one in report.findings] == ["the view"]
    async with world() as other:
        anna = await other.member("anna")
        await make(anna, b"elsewhere")
        mine = anna.view
        assert isinstance(mine, MemoryView)
        report = await audited(grid, honest, view=mine)
        assert report.verdict is Verdict.DAMAGED
        assert any(one.place == "view: entry 0" for one in report.findings)
        assert any("name in folder 1" in one.place for one in report.findings)
    again = (await grid.member("anna")).view
    assert isinstance(again, MemoryView)
    report = await audited(grid, honest, view=again)
    assert report.verdict is Verdict.CLEAN, report.text()
    assert report.view_entries == len(honest)
