"""A volume that version 0.1.0 left on disk opens for ever: its home, its log service, its nodes.

The files are frozen (`tests/vectors/make_volume.py`); a test unpacks them and works on the copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.e2e.node_processes import running

from muniment.audit.report import Verdict
from muniment.engine.opened import OpenVolume
from muniment.engine.volume_files import VolumeFiles
from muniment.node import auditing, compose, log_auditing, volumes
from muniment.node.volume_home import VIEW_FILE, cap_of, find_volume, make_identity
from muniment.spec.act import Role

VECTORS = Path(__file__).parents[1] / "vectors"
V1: dict[str, Any] = json.loads((VECTORS / "volume_v1.json").read_text())
ARCHIVE_BYTES_MAX = 300_000


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vectors_make_volume", VECTORS / "make_volume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()
unlocked = MAKER.unlocked


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folders as they were left."""
    with tarfile.open(VECTORS / "volume_v1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def hashes(contents: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in contents.items()}


def without_hashes(files: dict[str, Any]) -> dict[str, Any]:
    return {
        path: {key: value for key, value in facts.items() if key != "sha256"} for path, facts in files.items()
    }


def check_state(opened: OpenVolume) -> None:
    """What the log folds to, and all names, kinds, times and attributes."""
    view = opened.volume.view
    assert (view.size, view.state_hash().digest().hex()) == (V1["entries"], V1["state_hash"])
    nothing = dict.fromkeys(V1["files"], b"")
    assert without_hashes(MAKER.described(opened, nothing)) == without_hashes(V1["files"])
    membership = opened.volume.membership
    assert membership.epoch == V1["epoch"]
    assert sorted(one.card.name for one in membership.members.values()) == V1["members"]


async def test_it_opens_offline_and_is_clean(old: Path) -> None:
    home = old / "home"
    report = await auditing.audit(home, "books", unlocked, None, deep=False)
    assert report.verdict is Verdict.CLEAN, report.text()
    assert (report.content, report.view, report.judged) == (None, None, V1["entries"])
    assert report.state_hash.hex() == V1["state_hash"]
    assert report.rejected == 1
    async with volumes.open_offline(home, "books", unlocked) as opened:
        check_state(opened)
    service = await log_auditing.audit_logs(old / "log")
    assert service.verdict is Verdict.CLEAN, service.text()
    assert [log.judged for log in service.logs] == [V1["entries"]]


async def test_its_log_still_folds_to_the_same(old: Path) -> None:
    home = old / "home"
    view = find_volume(home, "books").folder / VIEW_FILE
    for path in view.parent.glob(f"{VIEW_FILE}*"):
        path.unlink()
    async with volumes.open_offline(home, "books", unlocked) as opened:
        check_state(opened)


@contextlib.contextmanager
def processes(old: Path) -> Iterator[tuple[str, Path]]:
    """Log service and nodes as they are started today; the log's address and a roster."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(running("run_log", old / "log"))
        nodes = [stack.enter_context(running("run_node", old / f"node{at}")) for at in range(2)]
        roster = old / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        yield str(log.address), roster
        for process in (log, *nodes):
            assert process.stop() == 0


async def read_all(files: VolumeFiles) -> None:
    """Every byte of every file, now and as it was."""
    expected = {path: facts["sha256"] for path, facts in V1["files"].items() if "sha256" in facts}
    now = hashes(await MAKER.contents(files))
    assert {path: now[path] for path in expected} == expected
    assert hashes(await MAKER.contents(files, at=V1["snapshot"])) == V1["then"]


async def test_its_processes_start_and_it_lives_on(old: Path) -> None:
    home, bert = old / "home", old / "new member"
    with processes(old) as (log, roster):
        await volumes.move_volume(home, "books", log, unlocked)  # the same service, at another port
        async with volumes.open_files(home, "books", str(roster), unlocked) as (opened, files):
            check_state(opened)
            await read_all(files)
            stored = await files.put(b"appended today " * 1000, b"tree/today")
            assert stored.committed.index == V1["entries"]
            invitation = cap_of(opened, None)
        async with compose.open_grid(home, str(roster)) as grid:
            report = await auditing.audit(home, "books", unlocked, grid, deep=True)
        assert report.verdict is Verdict.CLEAN, report.text()
        assert report.blobs is None
        assert report.blobs_checked > 5

        make_identity(bert, "")
        await volumes.join_volume(
            bert, invitation, name=None, role=Role.READER, own_name="new", note="", passphrase=unlocked
        )
        async with volumes.open_volume(home, "books", unlocked) as opened:
            (joiner,) = opened.volume.membership.joins()
            await opened.members.accept(joiner)
        async with volumes.open_files(bert, "books", str(roster), unlocked) as (_, files):
            await read_all(files)
            contents = await MAKER.contents(files)
            assert contents[b"tree/today".hex()] == b"appended today " * 1000


def test_it_is_small_and_holds_what_it_must() -> None:
    assert (VECTORS / "volume_v1.tar.gz").stat().st_size < ARCHIVE_BYTES_MAX
    kinds = {facts["kind"] for facts in V1["files"].values()}
    assert kinds >= {"FILE", "FOLDER", "SYMLINK", "FIFO"}
    assert V1["epoch"] == 1
    assert any(facts["xattrs"] for facts in V1["files"].values())
    assert any(facts["links"] > 1 for facts in V1["files"].values() if facts["kind"] == "FILE")
