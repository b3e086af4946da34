"""A grid client that does not begin, or whose end is cancelled, leaves no thread and no connection."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, content, got

from muniment.caches.folder import FolderBlobCache
from muniment.engine.grid import Grid
from muniment.errors import ConfigInvalid
from muniment.ports import NodeConnection
from muniment.spec.limits import MIB
from muniment.spec.record import NodeRecord
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import run_virtual


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("muniment-")]


def test_a_client_that_cannot_begin_leaves_no_thread(tmp_path: Path) -> None:
    def connect(record: NodeRecord) -> NodeConnection:
        raise ConfigInvalid(where="here", reason="no way to connect")

    async def main() -> None:
        fake, cache = FakeGrid(), FolderBlobCache(tmp_path / "cache", MIB)
        with pytest.raises(ConfigInvalid):
            async with Grid(fake.roster(), connect, fake.clock, b"s" * 32, cache=cache):
                pass
        assert threads() == []
        cache.close()

    run_virtual(main())


def test_an_end_that_is_cancelled_ends_everything(tmp_path: Path) -> None:
    async def main() -> None:
        fake, cache = FakeGrid(), FolderBlobCache(tmp_path / "cache", MIB)
        grid = await fake.client(PLAIN, cache=cache).start()
        cap = (await grid.put(content(CHUNK))).cap
        assert await got(grid, cap) == content(CHUNK)
        gate = fake.nodes[0].faults.gate = asyncio.Event()
        await grid.put(content(4 * CHUNK, seed=1))  # happy without that node, and waits for it at the end
        assert threads()
        end = asyncio.create_task(grid.aclose())
        await asyncio.sleep(1)
        assert not end.done()
        end.cancel()
        await asyncio.wait({end})
        assert end.cancelled()
        assert threads() == []
        assert all(client.closed for client in fake.clients)
        gate.set()
        cache.close()

    run_virtual(main())
