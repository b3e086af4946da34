"""An operator's wish to drain a node reaches it while it runs, and only then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.node.support import ALICE, BOB, make_bench, make_blob, reasons

from muniment.errors import ConfigInvalid
from muniment.node.compose import init_node
from muniment.node.config import NodeConfig
from muniment.node.draining import follow, is_draining, set_draining
from muniment.node.folder import FolderLock
from muniment.ports import Held


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_node(tmp_path / "n", NodeConfig(capacity_bytes=1))
    return tmp_path / "n"


def test_a_draining_node_takes_nothing_new_and_keeps_what_it_has(tmp_path: Path) -> None:
    node = make_bench(tmp_path)
    promised = make_blob(seed=1)
    held = node.stored(ALICE, make_blob(), 0)
    node.reserve(ALICE, promised, 0)
    node.books.draining = True
    assert reasons(node.reserve(ALICE, held, 0, 1)) == ["held", "node-draining"]
    assert reasons(node.reserve(BOB, held, 0)) == ["node-draining"], "he shall store it where it stays"
    assert node.put(ALICE, promised, 0) == [Held()], "what was promised is kept"
    assert node.service.get(held.key(0)) == held.records[0]
    assert node.books.lease(ALICE, [held.key(0)], 5000) == [True]
    assert node.books.lease(BOB, [held.key(0)], 5000) == [True], "a lease protects what is still here"
    assert node.books.trash(ALICE, [held.key(0)]) == [True]
    assert node.service.info().draining
    node.books.draining = False
    assert reasons(node.reserve(ALICE, held, 1)) == ["accepted"]


def test_a_stopped_node_is_not_drained(folder: Path) -> None:
    with pytest.raises(ConfigInvalid, match="its node does not run; start it first with 'muni node run"):
        set_draining(folder, draining=True)
    assert not is_draining(folder)


def test_a_folder_of_no_node_is_not_drained(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="missing"):
        set_draining(tmp_path, draining=True)


def test_the_wish_stays_and_can_be_taken_back(folder: Path) -> None:
    lock = FolderLock(folder)
    for draining in (True, True, False, False):
        set_draining(folder, draining=draining)
        assert is_draining(folder) is draining
    lock.close()


async def test_a_running_node_hears_of_each_change_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.node.draining._LOOK_S", 0.0)
    heard: list[bool] = []
    lock = FolderLock(folder)
    task = asyncio.create_task(follow(folder, heard.append))
    for draining in (False, True, False):
        set_draining(folder, draining=draining)
        for _ in range(10):
            await asyncio.sleep(0)
    task.cancel()
    lock.close()
    assert heard == [False, True, False]
