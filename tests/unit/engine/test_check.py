"""Checks: three states per share and node, with the verify right only, asked or read; and node status."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, IMPATIENT, PLAIN, content

from muniment.core.capabilities import weaken
from muniment.engine import check as check_module
from muniment.engine import health as health_module
from muniment.engine.health import ShareState
from muniment.errors import AccountRefused
from muniment.ports import BlobCondition
from muniment.spec.cap import ManifestFile
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import LoopClock, run_virtual


@pytest.mark.parametrize("verify", [False, True])
def test_a_whole_file_is_healthy(verify: bool) -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(3 * CHUNK))).cap
            health = await client.check(weaken(cap), verify=verify)
            assert health.healthy
            assert health.recoverable
            assert (health.blobs, health.degraded, health.lost, health.unread) == (4, 0, 0, [])
            assert health.shares == {ShareState.HELD: 24}
            assert all(counts == {ShareState.HELD: 4} for counts in health.by_node.values())
            assert sum(blob.manifest for blob in health.details) == 1
            assert health.verified is verify
            assert (grid.calls()["get"] > 4 * 4) is verify
            assert "healthy" in health.text()

    run_virtual(main())


def test_a_read_capability_is_weakened_and_a_literal_needs_nobody() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(3 * CHUNK))).cap
            by_read, by_verify = await client.check(cap), await client.check(weaken(cap))
            assert by_read == by_verify
            literal = await client.check((await client.put(b"tiny")).cap)
            assert literal.healthy
            assert literal.worst is None
            assert "no node is needed" in literal.text()

    run_virtual(main())


def test_every_state_is_told_for_each_share_and_node() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(CHUNK))).cap
            ((_, holders),) = grid.holders().items()
            nodes = [holders[number][0] for number in sorted(holders)]
            nodes[0].faults.down = "off"
            nodes[1].shares.clear()
            grid.damage(lambda key: key.number == 2)
            asked = await client.check(cap)
            verified = await client.check(cap, verify=True)
            worst = verified.worst
            assert worst is not None
            assert [share.state for share in worst.shares] == [
                ShareState.OFFLINE,
                ShareState.MISSING,
                ShareState.DAMAGED,
                ShareState.HELD,
                ShareState.HELD,
                ShareState.HELD,
            ]
            assert [share.nodes[0][0] for share in worst.shares] == [node.node for node in nodes]
            assert (worst.live, worst.nodes, worst.margin) == (3, 3, -1)
            assert not verified.recoverable
            assert "NOT READABLE" in verified.text()
            assert asked.recoverable  # whoever only asks believes the node with the damaged share
            assert not asked.healthy
            assert "degraded" in asked.text()

    run_virtual(main())


def test_blobs_are_checked_by_their_names() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(3 * CHUNK))).cap
            names = [blob.name for blob in (await client.check(cap)).details]
            damaged, missing, whole, off = names
            grid.damage(lambda key: key.blob == damaged.blob and key.number < 2)
            for node in grid.nodes:
                node.shares.pop(missing.share(5), None)
            asked = await client.check_blobs(names)
            assert [one.name for one in asked] == names
            assert [one.live for one in asked] == [6, 5, 6, 6]
            read = await client.check_blobs(names, verify=True)
            assert read[0] == BlobCondition(damaged, 4, damaged=2, missing=0, offline=0)
            assert read[1] == BlobCondition(missing, 5, damaged=0, missing=1, offline=0)
            assert read[2] == BlobCondition(whole, 6, damaged=0, missing=0, offline=0)
            holder = grid.holders()[off.blob][off.share(0).number][0]
            holder.faults.down = "off"
            (known,) = await client.check_blobs([missing])
            assert (known.missing, known.live + known.offline) == (0, 6)  # that node may have it

    run_virtual(main())


@pytest.mark.parametrize("size", [CHUNK, 2000], ids=["large", "small"])
def test_a_lying_node_is_seen_through_by_verify(size: int) -> None:
    def flip(_: object, record: bytearray) -> bytearray:
        record[-1] ^= 1
        return record

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(size))).cap
            liar, thief = grid.nodes[0], grid.nodes[1]
            liar.faults.tamper = flip
            thief.faults.tamper = lambda _, __: None
            health = await client.check(cap, verify=True)
            assert health.by_node[liar.node] == {ShareState.DAMAGED: 1}
            assert health.by_node[thief.node] == {ShareState.MISSING: 1}
            assert (health.degraded, health.lost) == (1, 0)

    run_virtual(main())


def test_an_offline_node_is_waited_for_once() -> None:
    async def main() -> None:
        grid = FakeGrid(6, clock=LoopClock(asyncio.get_running_loop()))
        async with grid.client(PLAIN, limits=IMPATIENT) as client:
            cap = (await client.put(content(8 * CHUNK))).cap
            off = grid.nodes[0]
            off.faults.refuse_account = True
            off.faults.delay_s["have"] = 15.0
            begun_s = asyncio.get_running_loop().time()
            health = await client.check(cap)
            assert asyncio.get_running_loop().time() - begun_s < 16
            assert health.by_node[off.node] == {ShareState.OFFLINE: 9}
            assert health.shares == {ShareState.HELD: 45, ShareState.OFFLINE: 9}
            assert off.calls["have"] == 1

    run_virtual(main())


def test_a_manifest_that_cannot_be_read_ends_the_walk_and_is_told() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(3 * CHUNK))).cap
            assert isinstance(cap, ManifestFile)
            for node in grid.nodes[:3]:
                node.shares = {k: v for k, v in node.shares.items() if k.blob != cap.ref.name.blob}
            health = await client.check(cap)
            assert health.unread == [cap.ref.name.blob]
            assert (health.blobs, health.lost) == (1, 1)
            assert not health.recoverable
            assert "cannot be read" in health.text()

    run_virtual(main())


def test_a_large_file_is_checked_in_batches_within_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "_BATCH", 8)  # smaller than any file here
    monkeypatch.setattr(health_module, "DETAILS_MAX", 5)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(40 * CHUNK))).cap
            victim = next(key.blob for key in grid.nodes[0].shares if key.blob != cap_blob(cap))
            for node in grid.nodes[:2]:
                node.shares = {k: v for k, v in node.shares.items() if k.blob != victim}
            before = grid.calls()["have"]
            health = await client.check(cap)
            assert grid.calls()["have"] - before == 6 * 6
            assert (health.blobs, health.degraded) == (41, 1)
            assert len(health.details) == 5
            worst = health.worst
            assert worst is not None
            assert worst.name.blob == victim
            assert worst.margin == 0
            assert not json.loads(json.dumps(health.to_json()))["details_complete"]

    run_virtual(main())


def cap_blob(cap: object) -> bytes:
    assert isinstance(cap, ManifestFile)
    return cap.ref.name.blob


def test_health_as_json_has_everything() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(CHUNK))).cap
            grid.nodes[0].shares.clear()
            found = json.loads(json.dumps((await client.check(cap)).to_json()))
            assert found["healthy"] is False
            assert found["recoverable"] is True
            assert found["shares"] == {"held": 5, "damaged": 0, "missing": 1, "node offline": 0}
            assert len(found["nodes"]) == 6
            (blob,) = found["details"]
            assert blob["live_shares"] == blob["nodes"] == 5
            assert {share["state"] for share in blob["shares"]} == {"held", "missing"}

    run_virtual(main())


def test_a_tree_is_checked_with_its_verify_capability(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(content(1000))
    (tmp_path / "large").write_bytes(content(3 * CHUNK))

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put_tree(tmp_path)).cap
            health = await client.check(weaken(cap), verify=True)
            assert health.healthy
            assert health.blobs == 5

    run_virtual(main())


def test_a_cancelled_verify_leaves_nothing_under_way() -> None:
    async def main() -> None:
        grid = FakeGrid(6, clock=LoopClock(asyncio.get_running_loop()))
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(8 * CHUNK))).cap
            for node in grid.nodes:
                node.faults.delay_s["get"] = 10.0
            checking = asyncio.ensure_future(client.check(cap, verify=True))
            await asyncio.sleep(15)
            checking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await checking
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 2

    run_virtual(main())


def test_status_tells_of_every_node() -> None:
    async def main() -> None:
        grid = FakeGrid(
            4, clock=LoopClock(asyncio.get_running_loop()), zones=["a", "b"], capacity_bytes=1 << 20
        )
        policy = PLAIN
        async with grid.client(policy) as client:
            grid.nodes[0].faults.down = "no route to host"
            grid.nodes[1].faults.delay_s["info"] = 0.25
            found = await client.status()
            assert [one.node for one in found] == [node.node for node in grid.nodes]
            assert [one.reachable for one in found] == [False, True, True, True]
            assert "no route to host" in found[0].error
            assert found[1].latency_s == pytest.approx(0.25)
            assert (found[1].zone, found[1].free_bytes, found[1].version) == ("b", 1 << 20, "fake")
            shown = json.loads(json.dumps([one.to_json() for one in found]))
            assert shown[2]["capacity_bytes"] == 1 << 20

    run_virtual(main())


def test_status_of_a_node_that_leaves_in_that_moment() -> None:
    async def main() -> None:
        grid = FakeGrid(4)
        roster = grid.roster()
        async with grid.client(PLAIN, roster=roster) as client:
            await asyncio.sleep(0)
            asking = asyncio.ensure_future(client.status())
            roster.remove(grid.nodes[0].node)
            assert len(await asking) == 4

    run_virtual(main())


def test_an_account_that_is_refused_everywhere_sees_all_nodes_offline() -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(CHUNK))).cap
            for node in grid.nodes:
                node.faults.fail["have"] = [AccountRefused(account=b"a" * 32, reason="not invited")]
            health = await client.check(cap)
            assert health.shares == {ShareState.OFFLINE: 6}
            assert not health.recoverable

    run_virtual(main())
