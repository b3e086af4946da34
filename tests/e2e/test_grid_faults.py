"""A client's grid over real nodes, disks and TLS, with everything between and on them going wrong.

Between the client and each node stands a relay that can hold, slow down or cut what passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.e2e.node_processes import in_time

from muniment.crypto.identity import Identity
from muniment.engine.grid import Grid
from muniment.engine.policy import Limits, Policy
from muniment.erasure.codec import Coding
from muniment.errors import NotHappy, TooFewShares
from muniment.net.http_client import HttpConnector
from muniment.net.server import free_port
from muniment.net.timeouts import Timeouts
from muniment.node.clock import SystemClock
from muniment.node.compose import init_node, run_node
from muniment.node.config import NodeConfig, Times
from muniment.node.service import NodeService
from muniment.ports import NodeConnection
from muniment.spec.address import PeerAddress
from muniment.spec.cap import Cap
from muniment.spec.limits import CHUNK_BYTES_MIN, KIB, LEAF_BYTES, LITERAL_BYTES_MAX, MIB
from muniment.spec.record import PROTOCOL_VERSION, NodeRecord
from muniment.testing.fake_grid import FakeRoster
from muniment.testing.lying_node import LyingService

POLICY = Policy(coding=Coding.from_text("2/4"), happy=3, chunk_bytes=MIB, compress=False)
PATIENT = Limits(
    put_patience_s=60.0,
    get_patience_s=60.0,
    first_patience_s=60.0,
    trouble_s=0.0,
    cleanup_s=0.5,
    linger_s=0.0,
)
"""Where nodes answer or break off: on a busy machine any of them may take its time."""
READER = replace(PATIENT, get_patience_s=0.2, first_patience_s=0.5)
"""For gets past silent nodes."""
WRITER = replace(READER, put_patience_s=0.2)
"""For puts past them too."""
SOON_S = 30.0
"""Long before a call to a silent node ends, and long enough on a busy machine."""
WEIGHT = 1
"""Of every node, whatever its capacity."""
HALF_SHARE = 200 * KIB
"""Bytes after which a relay cuts: inside a share, behind everything that comes before it."""


class Relay:
    """Passes TCP connections on to a node.

    Attributes:
        port: where it listens.
        cut_up_bytes: a connection breaks when the client has sent so much.
        cut_down_bytes: it breaks when the node has.
        flowing: while this is not set, nothing passes to the client.
        delay_s: before each piece to the client.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.cut_up_bytes = self.cut_down_bytes = 1 << 60
        self.delay_s = 0.0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._target = target
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # however it ends, and if it never began

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_node, to_node = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return
        both = [
            asyncio.create_task(self._up(reader, to_node)),
            asyncio.create_task(self._down(from_node, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            to_node.transport.abort()
            await asyncio.gather(*both, return_exceptions=True)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while (data := await reader.read(16 * KIB)) and passed < self.cut_up_bytes:
            passed += len(data)
            writer.write(data)
            await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while (data := await reader.read(16 * KIB)) and passed < self.cut_down_bytes:
            passed += len(data)
            await self.flowing.wait()
            await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()


@dataclass
class Place:
    """One node, the relay before it, and a direct way to it."""

    folder: Path
    record: NodeRecord
    relay: Relay
    direct: NodeConnection

    def shares(self) -> list[Path]:
        """What shows in its store."""
        return list((self.folder / "store").glob("shares/*/*"))

    def incoming(self) -> list[Path]:
        """What is being written there."""
        return list((self.folder / "store" / "incoming").iterdir())


@dataclass
class Faulty:
    """A grid of real nodes behind relays.

    Args:
        folder: for the nodes.
        capacities: of the nodes, in bytes.
        liars: which of them lie.
    """

    folder: Path
    capacities: tuple[int, ...] = (100 * MIB,) * 4
    liars: tuple[int, ...] = ()
    places: list[Place] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def client(self, policy: Policy = POLICY, limits: Limits = PATIENT) -> AsyncIterator[Grid]:
        """Run the nodes, and a client."""
        account = Identity.from_seed(b"a" * 32)
        async with contextlib.AsyncExitStack() as stack:
            connector = HttpConnector(account, SystemClock(), Timeouts(control_s=3 * SOON_S))
            stack.callback(connector.close)
            stopping = asyncio.Event()
            nodes: list[asyncio.Task[None]] = []
            stack.push_async_callback(ended, nodes, stopping)
            for at, capacity_bytes in enumerate(self.capacities):
                service = LyingService if at in self.liars else NodeService
                self.places.append(await self._run(at, capacity_bytes, service, nodes, stopping, connector))
                stack.push_async_callback(self.places[-1].relay.aclose)
                stack.push_async_callback(self.places[-1].direct.aclose)
            roster = FakeRoster([place.record for place in self.places])
            grid = Grid(roster, connector, SystemClock(), b"s" * 32, policy, limits=limits)
            yield await stack.enter_async_context(grid)

    async def _run(
        self,
        at: int,
        capacity_bytes: int,
        service: type[NodeService],
        nodes: list[asyncio.Task[None]],
        stopping: asyncio.Event,
        connector: HttpConnector,
    ) -> Place:
        folder, port = self.folder / f"n{at}", free_port("127.0.0.1")
        times = Times(stop_grace_s=0)
        init_node(folder, NodeConfig(capacity_bytes=capacity_bytes, port=port, times=times))
        serving: asyncio.Future[PeerAddress] = asyncio.get_running_loop().create_future()
        running = run_node(folder, ready=serving.set_result, stop=stopping, service_type=service)
        nodes.append(asyncio.create_task(running))
        node = (await serving).node
        relay = Relay(port)
        await relay.start()
        direct, relayed = (
            NodeRecord(node, b"", (f"127.0.0.1:{to}",), "", WEIGHT, 0, (PROTOCOL_VERSION,), 0, 0)
            for to in (port, relay.port)
        )
        return Place(folder, relayed, relay, connector(direct))

    async def settled(self) -> None:
        """Wait until no node has anything reserved or half-written."""

        async def settled() -> bool:
            return not any(
                [(await one.direct.usage()).reserved_bytes or one.incoming() for one in self.places]
            )

        await in_time(settled)


async def ended(nodes: list[asyncio.Task[None]], stopping: asyncio.Event) -> None:
    stopping.set()
    await asyncio.gather(*nodes)


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def got(grid: Grid, cap: Cap) -> bytes:
    target = io.BytesIO()
    await grid.get(cap, target)
    return target.getvalue()


def holders(faulty: Faulty) -> list[Place]:
    """The nodes in the order of the one blob's shares."""
    found = {path.name.rpartition(".")[2]: place for place in faulty.places for path in place.shares()}
    return [found[number] for number in sorted(found)]


# --- sizes ----------------------------------------------------------------------------------------


async def test_every_size_round_a_boundary_comes_back(tmp_path: Path) -> None:
    tag, k = 16, 2
    edges = (LITERAL_BYTES_MAX, LEAF_BYTES, k * LEAF_BYTES - tag, MIB, MIB - tag, 2 * MIB)
    sizes = sorted({0, 1, *(edge + off for edge in edges for off in (-1, 0, 1))})
    faulty = Faulty(tmp_path)
    async with faulty.client() as grid:
        for size in sizes:
            stored = await grid.put(content(size))
            assert (stored.size_bytes, stored.missing) == (size, 0)
            assert await got(grid, stored.cap) == content(size)
        await faulty.settled()


# --- downloads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cuts", "slow", "hangs", "refuses"])
async def test_a_get_past_two_bad_ways(tmp_path: Path, fault: str) -> None:
    """The data shares come too late, in part, or not at all: every byte is right, and nobody is blamed."""
    data = content(MIB)
    faulty = Faulty(tmp_path)
    async with faulty.client(limits=READER) as grid:
        cap = (await grid.put(data)).cap
        for place in holders(faulty)[:2]:
            await spoil(place, fault)
        target = io.BytesIO()
        async with asyncio.timeout(SOON_S):
            result = await grid.get(cap, target)
        assert target.getvalue() == data
        assert (result.liars, result.decoded) == ({}, 1)
        await freed(grid)


async def freed(grid: Grid) -> None:
    """Threads that were broken off let go of their buffers."""

    async def freed() -> bool:
        return not grid._fetcher.pool.used_bytes

    await in_time(freed)


async def spoil(place: Place, fault: str) -> None:
    match fault:
        case "cuts":
            place.relay.cut_down_bytes = HALF_SHARE
        case "slow":
            place.relay.delay_s = 5.0  # before each of some thirty pieces of a share
        case "hangs":
            place.relay.flowing.clear()
        case "refuses":
            await place.relay.aclose()


async def test_a_get_past_three_bad_ways_says_how_many_shares_there_are(tmp_path: Path) -> None:
    faulty = Faulty(tmp_path)
    async with faulty.client() as grid:
        cap = (await grid.put(content(MIB))).cap
        for place in holders(faulty)[1:]:
            await spoil(place, "cuts")
        target = io.BytesIO()
        with pytest.raises(TooFewShares) as caught:
            await grid.get(cap, target)
        assert (caught.value.found, target.getvalue()) == (1, b"")


async def test_nodes_that_lie_are_named_and_their_shares_replaced(tmp_path: Path) -> None:
    data = content(20 * CHUNK_BYTES_MIN)
    faulty = Faulty(tmp_path, liars=(1, 3))
    async with faulty.client(replace(POLICY, chunk_bytes=CHUNK_BYTES_MIN)) as grid:
        cap = (await grid.put(data)).cap
        target = io.BytesIO()
        result = await grid.get(cap, target)
        assert target.getvalue() == data
        assert set(result.liars) <= {faulty.places[1].record.node, faulty.places[3].record.node}
        assert result.liars


async def test_with_too_many_nodes_that_lie_nothing_is_written(tmp_path: Path) -> None:
    faulty = Faulty(tmp_path, liars=(0, 1, 3))
    async with faulty.client() as grid:
        cap = (await grid.put(content(MIB))).cap
        target = io.BytesIO()
        with pytest.raises(TooFewShares) as caught:
            await grid.get(cap, target)
        assert (caught.value.found, target.getvalue()) == (1, b"")


async def test_disks_that_damage_shares_are_noticed_by_their_nodes(tmp_path: Path) -> None:
    data = content(MIB)
    faulty = Faulty(tmp_path)
    async with faulty.client() as grid:
        cap = (await grid.put(data)).cap
        for place in holders(faulty)[:2]:
            (path,) = place.shares()
            path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
        target = io.BytesIO()
        result = await grid.get(cap, target)
        assert target.getvalue() == data
        assert result.liars == {}
        assert sum(len(place.shares()) for place in faulty.places) == 2
        assert (await grid.put(data)).new_bytes > 0  # stored anew in the place of the damaged ones
        assert sum(len(place.shares()) for place in faulty.places) == 4


# --- uploads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cuts", "hangs", "refuses"])
async def test_a_put_past_one_bad_way(tmp_path: Path, fault: str) -> None:
    """Three of four nodes are enough; on the fourth nothing half-written shows or stays reserved."""
    data = content(2 * MIB)
    faulty = Faulty(tmp_path)
    async with faulty.client(limits=WRITER if fault == "hangs" else PATIENT) as grid:
        bad = faulty.places[2]
        if fault == "cuts":
            bad.relay.cut_up_bytes = HALF_SHARE
        else:
            await spoil(bad, fault)
        async with asyncio.timeout(SOON_S):
            stored = await grid.put(data)
        assert stored.placed == 3
        assert await got(grid, stored.cap) == data
        await grid.aclose()
        assert all(path.stat().st_size < HALF_SHARE for path in bad.shares())  # the manifest may get through
        if fault != "hangs":  # there the release does not get through either: the promise runs out
            await faulty.settled()


async def test_a_put_past_two_bad_ways_is_not_happy_and_leaves_nothing(tmp_path: Path) -> None:
    faulty = Faulty(tmp_path)
    async with faulty.client() as grid:
        for place in faulty.places[1:3]:
            place.relay.cut_up_bytes = HALF_SHARE
        with pytest.raises(NotHappy) as caught:
            await grid.put(content(3 * MIB))
        assert len(caught.value.reasons) == 2
        assert grid._sender.pool.used_bytes == 0
        await faulty.settled()


async def test_a_put_that_fills_its_nodes_up_goes_on_at_others(tmp_path: Path) -> None:
    """Two of five nodes have room for two shares each; every blob wants to use at least one of them."""
    small = 2 * 530_000
    data = content(6 * MIB)
    faulty = Faulty(tmp_path, capacities=(small, 100 * MIB, small, 100 * MIB, 100 * MIB))
    async with faulty.client() as grid:
        stored = await grid.put(data)
        assert stored.placed >= 3
        assert await got(grid, stored.cap) == data
        await faulty.settled()
        for place in faulty.places:
            status = await place.direct.info()
            assert status.used_bytes <= status.capacity_bytes
            assert status.used_bytes == sum(path.stat().st_size for path in place.shares())
        assert any(len(place.shares()) >= 2 for place in (faulty.places[0], faulty.places[2]))
