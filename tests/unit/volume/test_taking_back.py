"""What a put into a volume has stored is given up if nothing can ever refer to it, and kept otherwise."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from tests.unit.engine.test_taking_back import wanted
from tests.unit.volume.support import World, world

from muniment.engine.volume import Volume
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import InvalidRequest, NodeUnreachable, NotHappy, OperationRejected, PathUnknown
from muniment.ids import ShareKey
from muniment.ports import Appended
from muniment.spec.act import Quorum, VolumePolicy
from muniment.testing.fake_grid import FakeGrid

CHUNK = 1 << 16
POLICY = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "4/6", 5, CHUNK)


@dataclass
class Desk:
    """A member at work."""

    world: World
    nodes: FakeGrid
    volume: Volume
    files: VolumeFiles

    def wanted(self) -> set[ShareKey]:
        return wanted(self.nodes)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    nodes = FakeGrid(6)
    async with world(POLICY) as founded, nodes.client() as grid:
        volume = await founded.member("anna")
        yield Desk(founded, nodes, volume, VolumeFiles(volume, grid))


async def test_a_put_to_where_nothing_can_be_leaves_nothing(desk: Desk) -> None:
    await desk.files.put(os.urandom(2 * CHUNK), b"x")
    held = desk.wanted()
    with pytest.raises(PathUnknown):
        await desk.files.put(os.urandom(3 * CHUNK), b"no/such/folder")
    assert desk.wanted() == held
    with pytest.raises(PathUnknown):
        await desk.files.write(b"neither", 0, os.urandom(3 * CHUNK))
    assert desk.wanted() == held


async def test_a_put_without_space_leaves_nothing(desk: Desk) -> None:
    await desk.files.put(os.urandom(2 * CHUNK), b"x")
    held = desk.wanted()
    for node in desk.nodes.nodes:
        node.capacity_bytes = node.used_bytes + CHUNK
    with pytest.raises(NotHappy):
        await desk.files.put(os.urandom(9 * CHUNK), b"y")
    assert desk.wanted() == held


async def test_what_the_log_names_stays_though_the_change_was_rejected(desk: Desk) -> None:
    await desk.files.put(b"one", b"x")
    known = (await desk.files.find(b"x")).version
    await desk.files.put(b"two", b"x")
    with pytest.raises(OperationRejected):
        await desk.files.put(os.urandom(2 * CHUNK), b"x", if_version=known)
    assert len(desk.wanted()) == 12


async def test_what_was_sent_to_the_log_stays_whatever_came_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(signed: Sequence[bytes]) -> list[Appended]:
        raise InvalidRequest(reason="an answer that says nothing about what was done")

    monkeypatch.setattr(
        desk.volume._log, "append", lost
    )  # the real log would have to lose an answer for ever
    with pytest.raises(InvalidRequest):
        await desk.files.put(os.urandom(2 * CHUNK), b"x")
    assert len(desk.wanted()) == 12


async def test_what_is_in_the_volume_stays_when_the_same_content_is_refused_elsewhere(desk: Desk) -> None:
    data = os.urandom(2 * CHUNK)
    await desk.files.put(data, b"x")
    with pytest.raises(PathUnknown):
        await desk.files.put(data, b"no/such/folder")
    assert len(desk.wanted()) == 12


async def test_a_node_that_is_away_then_keeps_its_shares(desk: Desk) -> None:
    away = desk.nodes.nodes[0]
    away.faults.fail["trash"] = [NodeUnreachable(node=away.node, reason="gone")]
    with pytest.raises(PathUnknown):
        await desk.files.put(os.urandom(3 * CHUNK), b"no/such/folder")
    assert desk.wanted() == set(away.shares)
