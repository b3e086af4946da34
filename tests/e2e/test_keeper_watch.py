"""A keeper in this process, over real nodes and an introducer: a node that drains is empty at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.e2e.muni_command import Done, User
from tests.e2e.node_processes import Plain, eventually, running_introducer, running_node
from tests.e2e.test_node_keeping import status

from muniment.crypto.identity import Identity
from muniment.engine.grid import Grid
from muniment.engine.keeping.duties import Duties
from muniment.net.server import free_port
from muniment.node import compose
from muniment.node.config import NodeConfig
from muniment.node.keepers import Post, accounts_of, run_keepers

PATIENCE_S = 30.0


def good(done: Done) -> str:
    assert done.code == 0, done.err
    return done.text


def test_a_node_that_drains_is_empty_at_once_where_the_member_keeps_what_he_stored(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(random.Random(1).randbytes(3_000_000))
    with contextlib.ExitStack() as stack:
        introducer = stack.enter_context(running_introducer(tmp_path / "i"))
        nodes = {}
        for number in range(7):
            config = NodeConfig(
                capacity_bytes=1 << 30,
                port=free_port("127.0.0.1"),
                introducers=[str(introducer.address)],
            )
            folder = tmp_path / f"n{number}"
            nodes[folder] = stack.enter_context(running_node(folder, config))
        user = User(tmp_path, str(introducer.address))
        eventually(lambda: "7 of 7 nodes up" in user.muni("grid", "status").text)
        good(user.muni("identity", "new", "--unlocked"))
        good(user.muni("volume", "create", "books", "--log", "local", "--own-name", "anna"))
        good(user.muni("put", "file", "books:/file"))
        home = tmp_path / "muniment"
        account = dict(accounts_of(home, "books", str))["keeper"].account

        def leased(folder: Path) -> int:
            """How many shares the node keeps, for whom ever."""
            with Plain(nodes[folder].address) as client:
                return status(client).leased_count

        async def main() -> None:
            scanned, stop = asyncio.Event(), asyncio.Event()

            def tell(post: Post) -> None:
                assert post.account == account
                scanned.set()

            roster = str(introducer.address)

            def open_grid(account: Identity) -> AbstractAsyncContextManager[Grid]:
                return compose.open_grid(home, roster, account=account)

            duties = Duties(soon_s=0.1, settle_s=0.1)
            keeping = asyncio.create_task(
                run_keepers(home, ["books"], open_grid, str, duties, tell, stop=stop)
            )
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await scanned.wait()
                    counts = {folder: await asyncio.to_thread(leased, folder) for folder in nodes}
                    leaving = max(counts, key=counts.__getitem__)
                    draining = stack.enter_context(user.starting("node", "drain", leaving))
                    assert draining.stdout is not None
                    # The next scan of its own accord is a day away.
                    await asyncio.to_thread(eventually, lambda: not leased(leaving))
                    assert await asyncio.to_thread(draining.wait, PATIENCE_S) == 0
            finally:
                stop.set()
                await keeping

        asyncio.run(main())
        good(user.muni("get", "books:/file", "back"))
        assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
