"""Nodes, an introducer and a client's roster: come, go, and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.e2e.muni_command import PATIENCE_S
from tests.e2e.node_processes import eventually, running_introducer, running_node

from muniment.discovery.introducer import IntroducerRoster
from muniment.errors import RosterEmpty
from muniment.ids import NodeId
from muniment.net.introducer_client import HttpIntroducer
from muniment.node.clock import SystemClock
from muniment.node.config import NodeConfig
from muniment.spec.address import PeerAddress
from muniment.spec.record import NodeRecord


async def nobody(address: PeerAddress) -> str:
    raise AssertionError(address)


@asynccontextmanager
async def following(address: PeerAddress) -> AsyncIterator[IntroducerRoster]:
    """A client's roster, as soon as any node has announced itself."""
    source = HttpIntroducer(address)
    roster = IntroducerRoster(str(address), source, nobody, SystemClock(), cache=None, chance=lambda: 0.5)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not roster.nodes_nowait():
                with contextlib.suppress(RosterEmpty):
                    await roster.start()
        yield roster
    finally:
        await roster.aclose()


async def until(roster: IntroducerRoster, nodes: set[NodeId]) -> Mapping[NodeId, NodeRecord]:
    async with asyncio.timeout(PATIENCE_S):
        while set(roster.nodes_nowait()) != nodes:
            await roster.wait_changed()
    return roster.nodes_nowait()


async def test_nodes_come_and_go_and_an_introducer_restarts(tmp_path: Path) -> None:
    with running_introducer(tmp_path / "i") as introducer:
        config = NodeConfig(capacity_bytes=1 << 20, introducers=[str(introducer.address)], zone="here")
        with running_node(tmp_path / "a", config) as first:
            async with following(introducer.address) as roster:
                known = await until(roster, {first.address.node})
                record = known[first.address.node]
                assert (record.zone, record.addresses) == ("here", (first.address.host_port,))
                with running_node(tmp_path / "b", config) as second:
                    await until(roster, {first.address.node, second.address.node})
                    assert await asyncio.to_thread(second.stop) == 0
                    await until(roster, {first.address.node})  # told by withdrawal, an hour before expiry
            assert introducer.stop() == 0
            with running_introducer(tmp_path / "i") as again:
                assert again.address == introducer.address
                async with following(again.address) as roster:
                    assert set(roster.nodes_nowait()) == {first.address.node}
                with running_node(
                    tmp_path / "b"
                ) as second:  # quickly restarted: no later than its withdrawal
                    async with following(again.address) as roster:
                        await until(roster, {first.address.node, second.address.node})
                again.kill()
            with running_introducer(tmp_path / "i") as third:
                async with following(third.address) as roster:
                    assert first.address.node in roster.nodes_nowait()


async def test_an_introducer_stops_although_clients_wait(tmp_path: Path) -> None:
    with running_introducer(tmp_path / "i") as introducer:
        source, other = HttpIntroducer(introducer.address), HttpIntroducer(introducer.address)
        epoch = (await source.roster("", 0, 0)).epoch
        waiting = asyncio.create_task(source.roster(epoch, 0, 60))
        for _ in range(20):  # who asks later is answered: so he waits there by now
            await other.roster("", 0, 0)
        assert not waiting.done()
        assert await asyncio.to_thread(introducer.stop) == 0
        assert (await waiting).records == []
        await source.aclose()
        await other.aclose()
        eventually(lambda: introducer.process.poll() == 0)
