"""Audits of volumes with which nothing is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.audit.support import keep, lived
from tests.unit.volume.support import LOG_KEY, folder, kick, member, transaction, world

from muniment.audit.log_check import unverified
from muniment.audit.report import FINDINGS_MAX, AuditReport, Severity, Verdict
from muniment.audit.volume import audit_volume
from muniment.core.keys import rotation
from muniment.logs.sqlite import SqliteLog
from muniment.spec.act import Role, Rotate
from muniment.views.sqlite import SqliteView


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
    assert report.view_samples == 4
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


async def test_a_view_that_lags_behind_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    async with world() as grid:
        anna = await grid.member("anna")
        for at in range(3):
            await anna.commit(lambda _, at=at: transaction(folder(b"%d" % at)))  # type: ignore[misc]
        files = await keep(grid, tmp_path)
        await anna.commit(lambda _: transaction(folder(b"later")))
        old = files.view.read_bytes()
        files = await keep(grid, tmp_path)
        files.view.write_bytes(old)
    report = await files.audit()
    assert report.verdict is Verdict.CLEAN, report.text()
    assert (report.entries, report.view_entries) == (5, 4)
    assert report.view == "from entry 4 on: it is not folded yet"


async def test_who_was_removed_audits_what_he_could_read(tmp_path: Path) -> None:
    async with world() as grid:
        anna = await grid.member("anna")
        bert = await grid.join("bert", Role.WRITER, anna)
        await bert.commit(lambda _: transaction(folder(b"before")))
        await anna.sync()
        await anna.act(lambda state: kick(state, anna, member("bert")))
        await anna.commit(lambda _: transaction(folder(b"after")))
        files = await keep(grid, tmp_path)
        await bert.sync()
        report = await audit_volume(
            grid.volume,
            member("bert").read,
            LOG_KEY.public_key,
            log=lambda: SqliteLog(files.log),
            view=lambda: bert.view,  # type: ignore[arg-type, return-value]
        )
    assert report.verdict is Verdict.CLEAN, report.text()
    assert report.judged == report.entries == 6
    assert report.transactions == 1
    assert report.content is not None
    assert "from entry 5 on" in report.content


@pytest.mark.parametrize("role", [Role.READER, Role.AUDITOR])
async def test_who_joined_later_audits_what_was_before_too(role: Role) -> None:
    async with world() as grid:
        anna = await grid.member("anna")
        for name in (b"one", b"two"):
            await anna.commit(lambda _, name=name: transaction(folder(name)))  # type: ignore[misc]
        await anna.act(lambda state: Rotate(rotation(state, anna.newest_keys(), os.urandom)[0]))
        await anna.commit(lambda _: transaction(folder(b"three")))
        bert = await grid.join("bert", role, anna)
        await anna.commit(lambda _: transaction(folder(b"four")))
        await bert.sync()
        report = await audit_volume(
            grid.volume,
            member("bert").read,
            LOG_KEY.public_key,
            log=lambda: bert.follower.replica,  # type: ignore[arg-type, return-value]
            view=lambda: bert.view,  # type: ignore[arg-type, return-value]
        )
    assert report.verdict is Verdict.CLEAN, report.text()
    assert report.judged == report.entries == 8
    assert report.transactions == (4 if role is Role.READER else 0)
    assert (report.content is None) == (role is Role.READER)


async def test_signatures_may_be_verified_elsewhere(tmp_path: Path) -> None:
    files = await lived(tmp_path)
    with ThreadPoolExecutor(1) as executor:
        report = await audit_volume(
            files.volume,
            member("anna").read,
            LOG_KEY.public_key,
            log=lambda: SqliteLog(files.log),
            view=lambda: SqliteView(files.view),
            executor=executor,
        )
    assert report.verdict is Verdict.CLEAN
    assert report.signatures == report.entries
    assert unverified([b"no entry"]) == ["not a log entry: not CBOR"]


async def test_a_cancelled_audit_leaves_nothing_open(tmp_path: Path) -> None:
    files = await lived(tmp_path)
    running = asyncio.create_task(files.audit())
    await asyncio.sleep(0)
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        pass
    assert not [one.name for one in threading.enumerate() if one.name.startswith("audit")]
    assert (await files.audit()).verdict is Verdict.CLEAN


async def test_findings_are_bounded_and_a_forgery_is_always_told(tmp_path: Path) -> None:
    report = AuditReport((await lived(tmp_path, changes=10)).volume)
    for at in range(2 * FINDINGS_MAX):
        report.damaged(f"entry {at}", "what", "consequence")
    report.forged("entry 7", "what", "consequence")
    assert len(report.findings) == FINDINGS_MAX
    assert report.findings[-1].severity is Severity.FORGED
    assert report.verdict is Verdict.FORGED
    told = report.to_json()
    assert (told["damaged"], told["forged"], told["findings_complete"]) == (2 * FINDINGS_MAX, 1, False)
    assert f"and {2 * FINDINGS_MAX + 1 - 20} more" in report.text()
