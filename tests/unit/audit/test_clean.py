"""Audits of volumes with which nothing is wrong."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.audit.support import lived
from tests.unit.volume.support import member

from muniment.audit.report import Verdict


async def test_a_volume_is_clean(tmp_path: Path) -> None:
    files = await lived(tmp_path)
    report = await files.audit()
    assert report.findings == []
    assert report.verdict is Verdict.CLEAN
    assert report.entries == report.signatures == report.judged > 30
    assert (report.content, report.view) == (None, None)
    assert report.transactions == 30
    assert report.view_entries == report.entries
    assert report.view_rows > 30
    assert report.view_samples == 6
    assert (report.notes, report.cosignatures) == (4, 6)
    assert report.blobs is not None
    assert json.loads(json.dumps(report.to_json()))["verdict"] == "clean"
    assert report.text().startswith("clean")


async def test_who_only_verifies_audits_all_but_the_content(tmp_path: Path) -> None:
    files = await lived(tmp_path)
    report = await files.audit(member("audrey").read.verify, with_view=False)
    assert report.verdict is Verdict.CLEAN
    assert report.entries == report.signatures == report.judged
    assert report.content is not None
    assert report.transactions == 0
