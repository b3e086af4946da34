"""A node back from the dead: with an empty disk, with an old one, without its books.

Whatever it brings, it deletes nothing, tells the truth about what it has, and a repair then does what is
needed and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import random
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.node_processes import in_time

from muniment.crypto.identity import Identity
from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.ids import ShareKey
from muniment.net.http_client import HttpConnector
from muniment.net.server import free_port
from muniment.node.clock import SystemClock
from muniment.node.compose import init_node, run_node
from muniment.node.config import NodeConfig, Times
from muniment.ports import NodeConnection
from muniment.spec.address import PeerAddress
from muniment.spec.cap import Cap
from muniment.spec.limits import MIB
from muniment.spec.record import PROTOCOL_VERSION, NodeRecord
from muniment.stores.naming import parse_key
from muniment.testing.fake_grid import FakeRoster

POLICY = Policy(coding=Coding.from_text("2/4"), happy=4, chunk_bytes=64 << 10, compress=False)
SEED = b"s" * 32


@dataclass
class House:
    """One node's folder, and the node in it while it runs."""

    folder: Path
    port: int
    connection: NodeConnection | None = None
    record: NodeRecord | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> PeerAddress:
        """Run it; returns when it serves."""
        serving: asyncio.Future[PeerAddress] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()
        running = run_node(self.folder, ready=serving.set_result, stop=self._stopping)
        self._task = asyncio.create_task(running)
        return await serving

    async def stop(self) -> None:
        if self._task is not None:
            self._stopping.set()
            await self._task
            self._task = None

    @property
    def node(self) -> NodeConnection:
        assert self.connection is not None
        return self.connection

    async def reconciled(self) -> None:
        """Wait until store and ledger were compared."""

        async def reconciled() -> bool:
            return (await self.node.info()).reconciled

        await in_time(reconciled)

    def files(self) -> list[str]:
        """What lies on its disk under any name, by content."""
        return sorted(
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self.folder / "store").rglob("*")
            if path.is_file() and path.name != "lock"
        )

    def held(self) -> set[ShareKey]:
        """Shares in their places."""
        names = (path.name for path in (self.folder / "store" / "shares").glob("*/*"))
        return {key for key in map(parse_key, names) if key is not None}


@dataclass
class Street:
    """Four houses and a client."""

    houses: list[House]
    grid: Grid

    async def stored(self, seed: int) -> Cap:
        """A file of some chunks, a share of each at every node."""
        cap = (await self.grid.put(random.Random(seed).randbytes(300_000))).cap
        assert cap is not None
        return cap

    async def assert_reads(self, cap: Cap, seed: int) -> None:
        target = io.BytesIO()
        await self.grid.get(cap, target)
        assert target.getvalue() == random.Random(seed).randbytes(300_000)

    async def repair(self, cap: Cap) -> tuple[int, int, int]:
        """Rebuilt, moved, failed."""
        result = await self.grid.repair(cap, seed=SEED, move=True)
        return result.rebuilt, result.moved, result.failed

    async def assert_whole(self, *caps: Cap) -> None:
        for cap in caps:
            assert await self.repair(cap) == (0, 0, 0)


@contextlib.asynccontextmanager
async def street(folder: Path) -> AsyncIterator[Street]:
    async with contextlib.AsyncExitStack() as stack:
        connector = HttpConnector(Identity.from_seed(b"a" * 32), SystemClock())
        stack.callback(connector.close)
        houses, records = [], []
        for number in range(4):
            house = House(folder / f"n{number}", free_port("127.0.0.1"))
            config = NodeConfig(capacity_bytes=100 * MIB, port=house.port, times=Times(stop_grace_s=0))
            init_node(house.folder, config)
            stack.push_async_callback(house.stop)
            address = await house.start()
            record = NodeRecord(address.node, b"", (address.host_port,), "", 1, 0, (PROTOCOL_VERSION,), 0, 0)
            house.connection = connector(record)
            stack.push_async_callback(house.connection.aclose)
            houses.append(house)
            records.append(record)
        grid = Grid(FakeRoster(records), connector, SystemClock(), b"s" * 32, POLICY)
        yield Street(houses, await stack.enter_async_context(grid))


async def test_a_replaced_disk_is_filled_again_by_a_repair(tmp_path: Path) -> None:
    async with street(tmp_path) as here:
        cap = await here.stored(1)
        house = here.houses[0]
        held = house.held()
        await house.stop()
        shutil.rmtree(house.folder / "store")
        await house.start()
        await house.reconciled()
        status = await house.node.info()
        assert (status.share_count, status.used_bytes, status.quarantined_count) == (0, 0, len(held))
        missing = await house.node.quarantined(after=None, limit=100)
        assert {row.reason for row in missing} == {"missing from the store"}
        await here.assert_reads(cap, 1)
        assert await here.repair(cap) == (len(held), 0, 0)
        assert house.held() == held, "the same shares at the same node, and no other"
        assert await house.node.quarantined(after=None, limit=100) == []
        await here.assert_whole(cap)


async def test_an_older_copy_of_the_disk_costs_only_what_it_lacks(tmp_path: Path) -> None:
    async with street(tmp_path) as here:
        old = await here.stored(1)
        house = here.houses[1]
        await house.stop()
        shutil.copytree(house.folder / "store", tmp_path / "copy")
        before = house.held()
        await house.start()
        new = await here.stored(2)
        added = house.held() - before
        assert added
        await house.stop()
        shutil.rmtree(house.folder / "store")
        shutil.copytree(tmp_path / "copy", house.folder / "store")
        files = house.files()
        await house.start()
        await house.reconciled()
        assert house.files() == files, "nothing was deleted"
        assert house.held() == before
        status = await house.node.info()
        assert (status.share_count, status.quarantined_count) == (len(before), len(added))
        assert await here.repair(old) == (0, 0, 0)
        assert await here.repair(new) == (len(added), 0, 0)
        assert house.held() == before | added
        await here.assert_whole(old, new)


async def test_an_older_copy_of_everything_gives_back_what_was_given_up_and_lacks_what_is_newer(
    tmp_path: Path,
) -> None:
    async with street(tmp_path) as here:
        given_up = await here.stored(1)
        house = here.houses[2]
        await house.stop()
        shutil.copytree(house.folder, tmp_path / "copy")
        before = house.held()
        await house.start()
        await house.node.trash(sorted(before))
        new = await here.stored(2)
        await house.stop()
        shutil.rmtree(house.folder)
        shutil.copytree(tmp_path / "copy", house.folder)
        files = house.files()
        await house.start()
        await house.reconciled()
        assert house.files() == files
        status = await house.node.info()
        assert (status.share_count, status.quarantined_count) == (len(before), 0)
        assert status.leased_count == len(before), (
            "the trash was emptied with the rest: nothing is lost by it"
        )
        rebuilt, moved, failed = await here.repair(new)
        assert (rebuilt > 0, moved, failed) == (True, 0, 0)
        await here.assert_whole(given_up, new)
        await here.assert_reads(new, 2)


async def test_a_lost_ledger_costs_no_share_and_the_owner_has_his_back_with_the_next_lease(
    tmp_path: Path,
) -> None:
    async with street(tmp_path) as here:
        cap = await here.stored(1)
        house = here.houses[3]
        held, files = house.held(), house.files()
        await house.stop()
        for file in house.folder.glob("ledger.sqlite*"):
            file.unlink()
        await house.start()
        await house.reconciled()
        assert (house.held(), house.files()) == (held, files)
        status = await house.node.info()
        assert (status.share_count, status.quarantined_count) == (len(held), 0)
        assert (await house.node.usage()).share_count == 0, "who wanted what was in the ledger"
        await here.assert_whole(cap)
        assert await house.node.lease(sorted(held), 3600) == [True] * len(held)
        assert (await house.node.usage()).share_count == len(held)


async def test_files_of_others_in_the_store_are_set_aside_whole(tmp_path: Path) -> None:
    async with street(tmp_path) as here:
        cap = await here.stored(1)
        house = here.houses[0]
        held = house.held()
        await house.stop()
        stray = house.folder / "store" / "shares" / "somebody's"
        stray.mkdir()
        (stray / "thesis.txt").write_bytes(b"the only copy")
        files = house.files()
        await house.start()
        await house.reconciled()
        assert (house.held(), house.files()) == (held, files), "moved, at most"
        assert not (stray / "thesis.txt").exists()
        await here.assert_whole(cap)
