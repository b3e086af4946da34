"""The log service loses its disk: a member hosts the log anew, and nothing acknowledged is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.e2e.node_processes import running

from muniment.audit.report import Verdict
from muniment.engine.opened import OpenVolume
from muniment.errors import FolderBusy, LogForked, VolumeUnknown
from muniment.node import auditing, volumes
from muniment.node.compose import init_log
from muniment.node.config import LogConfig
from muniment.node.volume_home import cap_of, make_identity
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.spec.operation import ROOT, Kind, Make
from muniment.spec.transaction import Transaction

POLICY = VolumePolicy(Quorum.ONE, 3600, "4/6", 5, 1 << 20)


def unlocked() -> str:
    return ""


async def make(opened: OpenVolume, name: bytes) -> None:
    await opened.volume.commit(lambda _: Transaction((Make(ROOT, name, Kind.FOLDER, 0o755),)))


def names(opened: OpenVolume) -> list[bytes]:
    return [one.name for one in opened.volume.view.reading().children(ROOT, b"", 99)]


async def test_a_lost_log_service_is_replaced_from_a_members_replica(tmp_path: Path) -> None:
    anna, bert = tmp_path / "anna", tmp_path / "bert"
    for home in (anna, bert):
        make_identity(home, "")
    init_log(tmp_path / "old", LogConfig())
    with running("run_log", tmp_path / "old") as old:
        await volumes.create_volume(
            anna, "books", str(old.address), POLICY, own_name="anna", passphrase=unlocked
        )
        async with volumes.open_volume(anna, "books", unlocked) as opened:
            invitation = cap_of(opened, None)
            await make(opened, b"first")
        await volumes.join_volume(
            bert, invitation, name=None, role=Role.WRITER, own_name="bert", note="", passphrase=unlocked
        )
        async with volumes.open_volume(anna, "books", unlocked) as opened:
            (joiner,) = opened.volume.membership.joins()
            await opened.members.accept(joiner)
        async with volumes.open_volume(bert, "books", unlocked) as opened:
            assert names(opened) == [b"first"]
        async with volumes.open_volume(anna, "books", unlocked) as opened:
            await make(opened, b"second")
        old.kill()
    shutil.rmtree(tmp_path / "old")

    # Bert has seen less than Anna: what he hosts is not enough for her.
    init_log(tmp_path / "new", LogConfig())
    bert_had = volumes.rehost_volume(bert, "books", tmp_path / "new")
    with running("run_log", tmp_path / "new") as new:
        with pytest.raises(FolderBusy):
            volumes.rehost_volume(anna, "books", tmp_path / "new")
        with pytest.raises(LogForked, match="lacks what was seen"):
            await volumes.move_volume(anna, "books", str(new.address), unlocked)
        assert new.stop() == 0
    # She adds what he had not seen, and then both go on.
    assert volumes.rehost_volume(anna, "books", tmp_path / "new") == bert_had + 1
    with running("run_log", tmp_path / "new") as new:
        for home in (anna, bert):
            await volumes.move_volume(home, "books", str(new.address), unlocked)
        async with volumes.open_volume(bert, "books", unlocked) as opened:
            assert names(opened) == [b"first", b"second"]
            await make(opened, b"third")
        async with volumes.open_volume(anna, "books", unlocked) as opened:
            assert names(opened) == [b"first", b"second", b"third"]
        assert new.stop() == 0


async def test_a_log_on_this_machine_moves_to_a_service(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_identity(home, "")
    await volumes.create_volume(home, "books", "local", POLICY, own_name="anna", passphrase=unlocked)
    async with volumes.open_volume(home, "books", unlocked) as opened:
        await make(opened, b"first")
    init_log(tmp_path / "log", LogConfig())
    volumes.rehost_volume(home, "books", tmp_path / "log")
    with running("run_log", tmp_path / "log") as log:
        known = await volumes.move_volume(home, "books", str(log.address), unlocked)
        assert known.log == str(log.address)
        async with volumes.open_volume(home, "books", unlocked) as opened:
            await make(opened, b"second")
            assert names(opened) == [b"first", b"second"]
        report = await auditing.audit(home, "books", unlocked, None, deep=False)
        assert report.verdict is Verdict.CLEAN, report.text()  # with what the first one signed
        assert report.notes > 2
        with pytest.raises(VolumeUnknown):
            await volumes.move_volume(home, "papers", str(log.address), unlocked)
