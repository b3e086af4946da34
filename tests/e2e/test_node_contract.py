"""The real node over loopback, TLS and disk passes the suite that every node connection passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muniment.crypto.identity import Identity
from muniment.ids import ShareKey
from muniment.net.http_client import HttpConnector
from muniment.node.clock import SystemClock
from muniment.node.compose import init_node, run_node
from muniment.node.config import NodeConfig
from muniment.spec.address import PeerAddress
from muniment.spec.record import NodeRecord
from muniment.testing.contracts.node_connection import CAPACITY_BYTES, NodeConnectionContract, NodeUnderTest


class TestHttpNode(NodeConnectionContract):
    @pytest.fixture
    async def node(self, tmp_path: Path) -> AsyncIterator[NodeUnderTest]:
        folder = tmp_path / "node"
        init_node(folder, NodeConfig(capacity_bytes=CAPACITY_BYTES))
        serving: asyncio.Future[PeerAddress] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        running = asyncio.create_task(run_node(folder, ready=serving.set_result, stop=stop))
        address = await serving
        record = NodeRecord(address.node, b"", (address.host_port,), "", 0, 0, (), 0, 0)
        connectors = [HttpConnector(Identity.from_seed(bytes([n]) * 32), SystemClock()) for n in (1, 2)]
        account, stranger = (connector(record) for connector in connectors)

        def damage(key: ShareKey) -> None:
            (path,) = (folder / "store").glob(f"shares/*/{key}")
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)

        yield NodeUnderTest(account, stranger, damage)
        await account.aclose()
        await stranger.aclose()
        for connector in connectors:
            connector.close()
        stop.set()
        await running
