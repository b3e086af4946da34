"""The blobs that a log names, asked for at simulated nodes, by a reader and by one who only verifies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.audit.support import Files, keep
from tests.unit.engine.support import PLAIN, content
from tests.unit.volume.support import member, world

from muniment.audit import blob_check
from muniment.audit.report import AuditReport, Verdict
from muniment.core.sealing import BlobBuffers
from muniment.crypto.cipher import encrypt_into
from muniment.engine.grid import Grid
from muniment.erasure.codec import Coding, codec_for
from muniment.errors import RosterEmpty
from muniment.ids import ShareNumber, id_text
from muniment.merkle.share_tree import blob_id, leaf_hashes
from muniment.merkle.tree import tree_root
from muniment.ports import BlobCondition
from muniment.spec.act import Role
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.cap import BlobFile
from muniment.spec.operation import ROOT, Extent, Kind, Make
from muniment.spec.share import BlobShape, ShareHeader
from muniment.spec.transaction import Transaction
from muniment.testing.fake_grid import FakeGrid


class Asked:
    """A grid that notes what it is asked for."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.names: list[BlobName] = []
        self.fails = False

    async def check_blobs(self, names: Sequence[BlobName], *, verify: bool) -> Sequence[BlobCondition]:
        if self.fails:
            raise RosterEmpty(source="nowhere")
        self.names += names
        return await self.grid.check_blobs(names, verify=verify)


async def stored(client: Grid, folder: Path, files: int) -> tuple[Files, list[BlobRef]]:
    """A volume with files of one blob each, which the nodes hold."""
    refs = []
    async with world() as volumes:
        anna = await volumes.member("anna")
        await volumes.join("audrey", Role.AUDITOR, anna)
        for at in range(files):
            cap = (await client.put(content(3000, at))).cap
            assert isinstance(cap, BlobFile)
            refs.append(cap.ref)
            pieces = (Extent(0, 3000, 0), Extent(4000, 3000, 0))
            made = Make(ROOT, b"%d" % at, Kind.FILE, 0o644, 0, 0, 0, 0, pieces, 7000)
            await anna.commit(lambda _, m=made, r=cap.ref: Transaction((m,), (r,)))  # type: ignore[misc]
        return await keep(volumes, folder), refs


@pytest.mark.parametrize("who", ["anna", "audrey"])
async def test_every_blob_is_asked_for_and_what_is_wrong_is_told(
    tmp_path: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_check, "BATCH", 2)
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client:
        files, refs = await stored(client, tmp_path, 5)
        secret = member(who).read if who == "anna" else member(who).read.verify

        async def audited(*, deep: bool) -> AuditReport:
            asked = Asked(client)
            report = await files.audit(secret, blobs=asked, deep=deep, with_view=who == "anna")
            assert sorted(name.blob for name in asked.names) == sorted(ref.name.blob for ref in refs)
            assert report.blobs_checked == 5
            return report

        report = await audited(deep=True)
        assert report.verdict is Verdict.CLEAN, report.text()
        assert report.blobs is None

        damaged, lost = refs[1].name, refs[3].name
        grid.damage(lambda key: key.blob == damaged.blob and key.number == 4)
        assert (await audited(deep=False)).verdict is Verdict.CLEAN  # nodes are believed
        for node in grid.nodes:
            for number in range(3):
                node.shares.pop(lost.share(number), None)
        report = await audited(deep=True)
        assert report.verdict is Verdict.DAMAGED
        told = {one.place: one for one in report.findings}
        assert set(told) == {f"blob {id_text(damaged.blob)}", f"blob {id_text(lost.blob)}"}
        assert "1 copies of shares do not verify" in told[f"blob {id_text(damaged.blob)}"].what
        assert "it can be read still" in told[f"blob {id_text(damaged.blob)}"].consequence
        assert "3 of 6 shares are nowhere" in told[f"blob {id_text(lost.blob)}"].what
        assert "it cannot be read" in told[f"blob {id_text(lost.blob)}"].consequence


def mixed(coding: Coding, own: int) -> tuple[BlobRef, list[bytes]]:
    """A blob of which the first `own` shares are of one content and the others of another, and its shares."""
    shape, words = BlobShape(coding.codec, coding.k, coding.n, 3016), []
    for plain in (b"A", b"B"):
        area, shares = BlobBuffers(coding).shares(shape)
        encrypt_into(b"k" * 32, plain * 3000, area)
        codec_for(coding).encode(shares[: coding.k], list(enumerate(shares))[coding.k :])
        words.append([bytes(share) for share in shares])
    datas = words[0][:own] + words[1][own:]
    leaves = [leaf_hashes(memoryview(data)) for data in datas]
    roots = b"".join(map(tree_root, leaves))
    ref = BlobRef(BlobName(blob_id(shape, roots), shape), b"k" * 32, 3000, Compression.NONE)
    return ref, [
        ShareHeader(shape, ShareNumber(at), roots).encode() + leaves[at] + data
        for at, data in enumerate(datas)
    ]


@pytest.mark.parametrize("own", [1, 2, 3, 4, 5, 6])
async def test_shares_that_verify_and_do_not_fit_together_are_told(tmp_path: Path, own: int) -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client:
        ref, records = mixed(Coding.from_text("4/6"), own)
        for node, (at, record) in zip(grid.nodes, enumerate(records), strict=True):
            node.shares[ref.name.share(at)] = record
        (asked,) = await client.check_blobs([ref.name], verify=False)
        assert (asked.live, asked.consistent) == (6, True)  # nobody has read anything
        (read,) = await client.check_blobs([ref.name], verify=True)
        assert (read.live, read.damaged, read.consistent) == (6, 0, own == 6)
        async with world() as volumes:
            anna = await volumes.member("anna")
            made = Make(ROOT, b"x", Kind.FILE, 0o644, 0, 0, 0, 0, (Extent(0, 3000, 0),), 3000)
            await anna.commit(lambda _: Transaction((made,), (ref,)))
            files = await keep(volumes, tmp_path)
        report = await files.audit(blobs=client, deep=True)
        assert report.verdict is (Verdict.CLEAN if own == 6 else Verdict.DAMAGED)
        for finding in report.findings:
            assert finding.place == f"blob {id_text(ref.name.blob)}"
            assert "not of one content" in finding.what


async def test_of_too_few_shares_nobody_says_that_they_do_not_fit() -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client:
        ref, records = mixed(Coding.from_text("4/6"), 2)
        for node, (at, record) in zip(grid.nodes[:3], list(enumerate(records))[:3], strict=True):
            node.shares[ref.name.share(at)] = record
        (read,) = await client.check_blobs([ref.name], verify=True)
        assert (read.live, read.missing, read.consistent) == (3, 3, True)


async def test_nodes_that_do_not_answer_prove_no_damage(tmp_path: Path) -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client:
        files, _ = await stored(client, tmp_path, 2)
        for node in grid.nodes[:3]:
            node.faults.down = "off"
        report = await files.audit(blobs=client)
        assert report.verdict is Verdict.CLEAN
        assert report.shares_offline == 6
        assert report.blobs_out_of_reach == 2


async def test_a_grid_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    grid = FakeGrid(6)
    async with grid.client(PLAIN) as client:
        files, _ = await stored(client, tmp_path, 2)
        asked = Asked(client)
        asked.fails = True
        report = await files.audit(blobs=asked)
        assert report.verdict is Verdict.CLEAN
        assert report.blobs is not None
        assert "no node is known" in report.blobs
