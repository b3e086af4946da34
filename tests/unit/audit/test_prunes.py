"""The audit of prunes: what rules let go may be missing, what a rule or a hold keeps names its author."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.thoroughness import times
from tests.unit.audit.support import Files, change, keep
from tests.unit.engine.support import PLAIN, content
from tests.unit.volume.support import World, member, world

from muniment.audit.report import AuditReport, Verdict
from muniment.engine.grid import Grid
from muniment.engine.pruning import plan_prune, prune, pruned_blobs
from muniment.engine.volume import Volume
from muniment.errors import ActRefused
from muniment.ids import id_text
from muniment.spec.act import FOR_EVER_S, Act, Hold, Prune, Quorum, Retain, Role, VolumePolicy
from muniment.spec.blob import BlobName, BlobRef
from muniment.spec.cap import BlobFile
from muniment.spec.operation import ROOT, Extent, Kind, Make, Rename, Truncate, Write
from muniment.spec.statement import encode_pruned, encode_reason
from muniment.spec.transaction import Transaction
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.sample_volume import RandomVolume, blob_ref

POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "2/3", 2, 1 << 20)
FOLDER, FILE = 2, 3


async def stored(client: Grid, seed: int) -> BlobRef:
    cap = (await client.put(content(3000, seed))).cap
    assert isinstance(cap, BlobFile)
    return cap.ref


async def filled(volumes: World, refs: list[BlobRef]) -> Volume:
    """A folder with a file that had these contents one after the other."""
    anna = await volumes.member("anna")
    await volumes.join("audrey", Role.AUDITOR, anna)
    await anna.commit(lambda _: Transaction((Make(ROOT, b"books", Kind.FOLDER, 0o755),)))
    piece = (Extent(0, 3000, 0),)
    made = Make(FOLDER, b"ledger", Kind.FILE, 0o644, content=piece, size=3000)
    await anna.commit(lambda _: Transaction((made,), refs[:1]))  # type: ignore[arg-type]
    changes = (Truncate(FILE, None, 0), Write(FILE, None, piece))
    for ref in refs[1:]:
        await anna.commit(lambda _, r=ref: Transaction(changes, (r,)))  # type: ignore[misc]
    return anna


async def ruled(anna: Volume, *acts: Act) -> None:
    for act in acts:
        if isinstance(act, Hold):
            await anna.declare(lambda _, a=act: (a, encode_reason("a test")))  # type: ignore[misc]
        else:
            await anna.act(lambda _, a=act: a)  # type: ignore[misc]


async def forge(anna: Volume, *names: BlobName) -> int:
    """A prune of whatever its author likes."""
    statement = encode_pruned(tuple(sorted(names, key=lambda name: name.blob)))
    return (await anna.declare(lambda s: (Prune(s.size, s.time_ns, len(names)), statement))).index


def lose(grid: FakeGrid, *names: BlobName) -> None:
    for node in grid.nodes:
        for name in names:
            for share in range(name.shape.n):
                node.shares.pop(name.share(share), None)


async def audits(files: Files, client: Grid) -> tuple[AuditReport, AuditReport]:
    """By one who reads, and by one who only verifies."""
    return (
        await files.audit(blobs=client),
        await files.audit(member("audrey").read.verify, blobs=client, with_view=False),
    )


async def test_what_was_pruned_may_be_missing_and_nothing_else(tmp_path: Path) -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client, world(POLICY) as volumes:
        refs = [await stored(client, seed) for seed in range(3)]
        anna = await filled(volumes, refs)
        await ruled(anna, Retain(ROOT, 0))
        now_ns = anna.now_ns()
        await prune(anna, await anna.run(lambda: plan_prune(anna, now_ns)))
        files = await keep(volumes, tmp_path)
        lose(grid, refs[0].name, refs[1].name)
        for report in await audits(files, client):
            assert report.verdict is Verdict.CLEAN, report.text()
            assert (report.prunes, report.pruned_blobs, report.blobs_checked) == (1, 2, 3)
        reads, verifies = await audits(files, client)
        assert reads.prune_rules is None
        assert verifies.prune_rules == "1 of 1 prunes: the content is not open"
        assert "not checked: prunes" in verifies.text()
        lose(grid, refs[2].name)
        for report in await audits(files, client):
            assert report.verdict is Verdict.DAMAGED
            assert [one.place for one in report.findings] == [f"blob {id_text(refs[2].name.blob)}"]


async def test_what_is_named_again_later_must_be_there(tmp_path: Path) -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client, world(POLICY) as volumes:
        refs = [await stored(client, seed) for seed in range(2)]
        anna = await filled(volumes, refs)
        await ruled(anna, Retain(ROOT, 0))
        await forge(anna, refs[0].name)
        again = Make(ROOT, b"again", Kind.FILE, 0o644, content=(Extent(0, 3000, 0),), size=3000)
        await anna.commit(lambda _: Transaction((again,), (refs[0],)))
        files = await keep(volumes, tmp_path)
        for report in await audits(files, client):
            assert report.verdict is Verdict.CLEAN, report.text()
        lose(grid, refs[0].name)
        for report in await audits(files, client):
            assert report.verdict is Verdict.DAMAGED


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        ([Retain(ROOT, 0), Hold(FOLDER, on=True)], "a hold lay"),
        ([Retain(ROOT, 0), Hold(ROOT, on=True)], "a hold lay"),
        ([Retain(ROOT, 3600)], "to be kept for 3600 s"),
        ([Retain(ROOT, 0), Retain(FOLDER, 60)], "to be kept for 60 s"),
        ([Retain(ROOT, 0), Retain(FILE, FOR_EVER_S)], "no rule let go"),
        ([Retain(9, 0)], "no rule let go"),
    ],
)
async def test_a_prune_of_what_is_kept_is_forged_by_its_author(
    tmp_path: Path, acts: list[Act], said: str
) -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client, world(POLICY) as volumes:
        refs = [await stored(client, seed) for seed in range(2)]
        anna = await filled(volumes, refs)
        await ruled(anna, *acts)
        index = await forge(anna, refs[0].name)
        await ruled(anna, Retain(ROOT, 1), Retain(FOLDER, 1))  # later rules do not count
        files = await keep(volumes, tmp_path)
        report = await files.audit(blobs=client)
        assert report.verdict is Verdict.FORGED
        (finding,) = report.findings
        assert finding.place == f"entry {index}"
        assert id_text(member("anna").member) in finding.what
        assert said in finding.what
        lose(grid, refs[0].name)
        places = {one.place for one in (await files.audit(blobs=client)).findings}
        assert places == {f"entry {index}", f"blob {id_text(refs[0].name.blob)}"}


async def test_a_hold_follows_what_is_moved_away_and_the_present_is_never_pruned(tmp_path: Path) -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client, world(POLICY) as volumes:
        refs = [await stored(client, seed) for seed in range(2)]
        anna = await filled(volumes, refs)
        await anna.commit(lambda _: Transaction((Rename(FOLDER, b"ledger", FILE, ROOT, b"away"),)))
        await ruled(anna, Retain(ROOT, 0))
        await forge(anna, refs[1].name)
        await ruled(anna, Hold(FOLDER, on=True))
        await forge(anna, refs[0].name)
        await ruled(anna, Hold(FOLDER, on=False))
        await forge(anna, refs[0].name)
        report = await (await keep(volumes, tmp_path)).audit()
        said = [one.what for one in report.findings]
        assert len(said) == 2
        assert "whose content it was" in said[0]
        assert "a hold lay" in said[1]


@pytest.mark.parametrize("seed", range(times(3)))
async def test_what_is_planned_passes_and_anything_more_is_forged(tmp_path: Path, seed: int) -> None:
    """Random volumes under random rules: two independent readings of one page agree."""
    chance, lived = random.Random(seed), RandomVolume(seed)
    async with world(POLICY) as volumes:
        anna = await volumes.member("anna")
        for _ in range(60):
            await change(anna, lived.transaction)
            inode = chance.choice([ROOT, ROOT, *range(2, 12)])
            try:
                match chance.randrange(12):
                    case 0 | 1:
                        await ruled(anna, Retain(inode, chance.choice([None, 0, 0, 0, 3600, FOR_EVER_S])))
                    case 2:
                        await ruled(anna, Hold(inode + 3, on=chance.random() < 0.4))
                    case 3 | 4:
                        now_ns = anna.now_ns()
                        plan = await anna.run(lambda n=now_ns: plan_prune(anna, n))  # type: ignore[misc]
                        await prune(anna, plan)
            except ActRefused:
                continue
        inode = anna.view.reading().next_inode
        piece = (Extent(0, 64, 0),)
        made = Make(ROOT, b"overwritten", Kind.FILE, 0o644, content=piece, size=64)
        await anna.commit(lambda _: Transaction((made,), (blob_ref(100),)))
        await anna.commit(lambda _: Transaction((Write(inode, None, piece),), (blob_ref(101),)))
        await ruled(anna, Retain(inode, 0))
        now_ns = anna.now_ns()
        plan = await anna.run(lambda: plan_prune(anna, now_ns))
        assert blob_ref(100).name in plan.blobs
        await prune(anna, plan)
        clean = await (await keep(volumes, tmp_path)).audit(with_view=False)
        assert clean.verdict is Verdict.CLEAN, clean.text()
        now_ns = anna.now_ns()
        plan = await anna.run(lambda: plan_prune(anna, now_ns))
        gone = {name.blob for name in plan.blobs} | set(pruned_blobs(anna.follower))
        kept = [ref.name for ref in anna.view.blobs() if ref.name.blob not in gone]
        index = await forge(anna, chance.choice(kept))
        (tmp_path / "again").mkdir()
        report = await (await keep(volumes, tmp_path / "again")).audit(with_view=False)
        assert [one.place for one in report.findings] == [f"entry {index}"]
        assert report.prunes > 1
