"""Many clients at once over real nodes, and one that is killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.e2e.node_processes import Plain, Running, eventually, problem, running_node

from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.node.compose import open_grid
from muniment.node.config import NodeConfig, Times
from muniment.node.home import account_identity
from muniment.spec.cap import Cap, cap_text
from muniment.spec.limits import KIB, MIB

NODES = 3
CLIENTS = 50
POLICY = Policy(coding=Coding.from_text("2/3"), happy=3, chunk_bytes=64 * KIB, compress=False)


def content(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


@contextlib.contextmanager
def running_grid(folder: Path, times: Times | None = None) -> Iterator[tuple[list[Running], Path]]:
    """Nodes, and the roster file that lists them."""
    config = NodeConfig(capacity_bytes=100 * MIB, times=times or Times())
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running_node(folder / f"n{at}", config)) for at in range(NODES)]
        roster = folder / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        yield nodes, roster


async def got(grid: Grid, cap: Cap) -> bytes:
    target = io.BytesIO()
    await grid.get(cap, target)
    return target.getvalue()


@pytest.mark.timeout(60)
async def test_fifty_clients_each_with_an_account_and_a_file(tmp_path: Path) -> None:
    """All bytes right, nothing left reserved, and every byte accounted for, to the byte."""
    caps: dict[int, asyncio.Future[Cap]] = {
        number: asyncio.get_running_loop().create_future() for number in range(CLIENTS)
    }
    sent = [0] * CLIENTS

    async def work(number: int, roster: Path) -> None:
        neighbour = (number + 1) % CLIENTS
        async with open_grid(tmp_path / f"home{number}", str(roster), POLICY) as grid:
            stored = await grid.put(content(number, 3000 + number))
            assert (stored.placed, stored.missing, stored.present_bytes) == (3, 0, 0)
            sent[number] = stored.new_bytes
            caps[number].set_result(stored.cap)
            assert await got(grid, stored.cap) == content(number, 3000 + number)
            assert await got(grid, await caps[neighbour]) == content(neighbour, 3000 + neighbour)

    with running_grid(tmp_path) as (nodes, roster):
        await asyncio.gather(*(work(number, roster) for number in range(CLIENTS)))
        total = 0
        for node in nodes:
            used = 0
            for number in range(CLIENTS):
                with Plain(node.address, account_identity(tmp_path / f"home{number}")) as client:
                    usage = client.usage()
                assert (usage.share_count, usage.reserved_bytes) == (1, 0)
                assert usage.used_bytes == sent[number] // 3
                used += usage.used_bytes
            async with open_grid(tmp_path / "home0", str(roster)) as grid:
                (status,) = [one for one in await grid.status() if one.node == node.address.node]
            assert (status.used_bytes, status.reserved_bytes, status.share_count) == (used, 0, CLIENTS)
            total += used
        assert total == sum(sent)


async def test_clients_of_one_account_that_store_the_same_file_at_once(tmp_path: Path) -> None:
    """They share their reservations, and must not lose them to each other."""
    data = content(7, 700_000)

    async def work(roster: Path) -> Cap:
        async with open_grid(tmp_path / "home", str(roster), POLICY) as grid:
            stored = await grid.put(data)
            assert (stored.placed, stored.missing) == (3, 0)
            assert await got(grid, stored.cap) == data
            return stored.cap

    with running_grid(tmp_path) as (nodes, roster):
        caps = await asyncio.gather(*(work(roster) for _ in range(8)))
        assert len({cap_text(cap) for cap in caps}) == 1
        for node in nodes:
            with Plain(node.address, account_identity(tmp_path / "home")) as account:
                usage = account.usage()
            assert (usage.share_count, usage.reserved_bytes) == (12, 0)


CLIENT = """
import asyncio, sys
from pathlib import Path
from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.node.compose import open_grid

async def main():
    policy = Policy(coding=Coding.from_text("2/3"), happy=3, chunk_bytes=65536, compress=False)
    async with open_grid(Path(sys.argv[1]), sys.argv[2], policy) as grid:
        await grid.put(sys.stdin.buffer)

asyncio.run(main())
"""


@dataclass
class Uploading:
    """A client in a process of its own that stores what it is fed."""

    process: subprocess.Popen[bytes]

    def feed(self, data: bytes) -> None:
        """Returns at once; the client takes it when it can."""
        threading.Thread(target=self._feed, args=(data,), daemon=True).start()

    def _feed(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


@contextlib.contextmanager
def uploading(home: Path, roster: Path) -> Iterator[Uploading]:
    command = [sys.executable, "-c", CLIENT, str(home), str(roster)]
    client = Uploading(subprocess.Popen(command, stdin=subprocess.PIPE))
    try:
        yield client
    finally:
        client.kill()
        assert client.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            client.process.stdin.close()


def shares(store: Path) -> list[str]:
    """The shares that show."""
    return [path.name for path in store.glob("shares/*/*")]


def test_a_client_that_is_killed_while_it_uploads(tmp_path: Path) -> None:
    """What it had reserved comes back, nothing half-written shows, and the next put sends only the rest.

    One node is stopped when the client dies: it finds requests of a client that is gone, and part of a body.
    """
    data = content(1, 4 * MIB)
    home, stores = tmp_path / "home", [tmp_path / f"n{at}" / "store" for at in range(NODES)]
    with running_grid(tmp_path, Times(reservation_s=1)) as (nodes, roster):
        with uploading(home, roster) as client:
            client.feed(data[:MIB])
            eventually(lambda: all(len(shares(store)) > 3 for store in stores))
            nodes[2].process.send_signal(signal.SIGSTOP)
            before = len(shares(stores[0]))
            client.feed(data[MIB:-1])
            eventually(lambda: len(shares(stores[0])) > before)
            client.kill()
        nodes[2].process.send_signal(signal.SIGCONT)
        for node, store in zip(nodes, stores, strict=True):
            with Plain(node.address, account_identity(home)) as account:
                eventually(partial(settled, account, store))
                for name in shares(store):
                    status, record = account.ask("GET", "/v1/shares/" + name.replace(".", "/"))
                    assert status == 200, problem((status, record))
        asyncio.run(put_the_rest(home, roster, data))


def settled(account: Plain, store: Path) -> bool:
    """Nothing is promised, nothing unfinished lies about, and books and disk agree."""
    usage = account.usage()
    return (usage.reserved_bytes, usage.share_count) == (0, len(shares(store))) and not any(
        (store / "incoming").iterdir()
    )


async def put_the_rest(home: Path, roster: Path, data: bytes) -> None:
    async with open_grid(home, str(roster), POLICY) as grid:
        stored = await grid.put(data)
        assert stored.present_bytes > 0
        assert stored.new_bytes > 0
        assert await got(grid, stored.cap) == data
