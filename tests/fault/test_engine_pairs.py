"""The pair table end to end (rows L9, L18-L21): users, subsets of nodes, their states, orders of commands."""

from __future__ import annotations

import asyncio
from itertools import combinations, product

import pytest
from tests.unit.engine.support import CHUNK, content, got, got_with_result

from muniment.crypto.identity import Identity
from muniment.engine.grid import Grid
from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.errors import InvalidCoding, NotHappy, TooFewShares
from muniment.spec.cap import BlobFile, Cap
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import LoopClock, run_virtual

PAIRS = Policy(coding=Coding.from_text("4/4"), happy=4, chunk_bytes=CHUNK, placement="pairs", compress=False)


def test_all_sixteen_subsets_of_nodes_in_all_four_turns() -> None:
    async def main() -> None:
        grid = FakeGrid(4)
        turns = set()
        async with grid.client(PAIRS) as client:
            files = [(data, (await client.put(data)).cap) for data in (content(CHUNK, s) for s in range(12))]
        for data, cap in files:
            assert isinstance(cap, BlobFile)
            turns.add(cap.ref.name.blob[-1] % 4)
            for count in range(5):
                for down in combinations(range(4), count):
                    for at, node in enumerate(grid.nodes):
                        node.faults.down = "down" if at in down else None
                    opposite = count == 2 and down[1] - down[0] == 2
                    async with grid.client(PAIRS) as client:
                        if count <= 1 or opposite:
                            assert await got(client, cap) == data
                        else:
                            with pytest.raises(TooFewShares):
                                await got(client, cap)
        assert turns == {0, 1, 2, 3}

    run_virtual(main())


STATES = ("down", "stranger", "empty", "first", "second", "full")


@pytest.mark.parametrize("first", STATES)
def test_every_combination_of_the_states_of_the_nodes(first: str) -> None:
    """Row L20, with half a pair as either half; the four turns take the rows in turn."""

    async def main() -> None:
        grid = FakeGrid(4)
        files: dict[int, tuple[bytes, BlobFile]] = {}
        async with grid.client(PAIRS) as client:
            for seed in range(12):
                data = content(1000, seed)
                cap = (await client.put(data)).cap
                assert isinstance(cap, BlobFile)
                files[cap.ref.name.blob[-1] % 4] = (data, cap)
        stored = [dict(node.shares) for node in grid.nodes]
        for at, others in enumerate(product(STATES, repeat=3)):
            data, cap = files[at % 4]
            left: set[int] = set()
            for number, state in enumerate((first, *others)):
                node = grid.nodes[number]
                turned = number - at % 4
                pair = [turned % 4, (turned + 1) % 4]
                held = {"first": pair[:1], "second": pair[1:], "full": pair}.get(state, [])
                node.faults.down = "down" if state == "down" else None
                node.faults.refuse_account = state == "stranger"
                keys = [cap.ref.name.share(share) for share in held]
                node.shares = {key: stored[number][key] for key in keys}
                left.update(held)
            async with grid.client(PAIRS) as client:
                if len(left) == 4:
                    assert await got(client, cap) == data
                else:
                    with pytest.raises(TooFewShares) as caught:
                        await got(client, cap)
                    assert (caught.value.needed, caught.value.found) == (4, len(left))

    run_virtual(main())


def test_every_user_with_each_node_down() -> None:
    """Row L18: each user keeps files apart, and reads them with the first, a middle or the last node down."""
    users = (b"Alice", b"Bob", b"Eve")

    async def main() -> None:
        grid = FakeGrid(4)
        files: dict[bytes, list[tuple[bytes, Cap]]] = {}
        for user in users:
            async with grid.client(PAIRS, account=user) as client:
                datas = [content(3000, seed) for seed in range(4)]  # the same for all
                files[user] = [(data, (await client.put(data)).cap) for data in datas]
        blobs = {blob_of(cap) for kept in files.values() for _, cap in kept}
        assert len(blobs) == 12
        for node in grid.nodes:
            for user in users:
                account = Identity.from_seed(user.ljust(32, b"\0")).account
                assert {key.blob for key in node.leases[account]} == {blob_of(cap) for _, cap in files[user]}
                assert node.account_usage(account).share_count == 8
        for down in grid.nodes:
            down.faults.down = "down"
            for user in users:
                async with grid.client(PAIRS, account=user) as client:
                    for data, cap in files[user]:
                        assert await got(client, cap) == data
            down.faults.down = None

    run_virtual(main())


def blob_of(cap: Cap) -> bytes:
    assert isinstance(cap, BlobFile)
    return cap.ref.name.blob


def test_a_put_needs_all_four_nodes_and_the_next_one_sends_the_rest() -> None:
    """Row L19 for writing; the predecessor reported success with servers missing (row L6)."""

    async def main() -> None:
        grid = FakeGrid(4)
        for subset in range(15):
            data = content(3000, subset)
            for at, node in enumerate(grid.nodes):
                node.faults.down = None if subset >> at & 1 else "down"
            async with grid.client(PAIRS) as client:
                with pytest.raises(NotHappy) as caught:
                    await client.put(data)
                assert caught.value.placed < 4
            assert grid.reserved_bytes == 0
            before = grid.used_bytes
            for node in grid.nodes:
                node.faults.down = None
            async with grid.client(PAIRS) as client:
                stored = await client.put(data)
                assert (stored.placed, stored.missing) == (4, 0)
                assert grid.used_bytes - before == stored.new_bytes
                assert await got(client, stored.cap) == data

    run_virtual(main())


COMMANDS = ("put", "list", "get")


async def command(client: Grid, name: str, data: bytes, cap: Cap) -> str:
    """Give one command; says in a word what came of it."""
    match name:
        case "put":
            assert (await client.put(data)).cap == cap
            return "stored"
        case "get":
            try:
                found = await got(client, cap)
            except TooFewShares:
                return "nothing"
            assert found == data
            return "read"
    health = await client.check(cap)
    assert len(await client.status()) == 4
    return "all" if health.healthy else "some" if health.recoverable else "nothing"


async def known_cap(data: bytes) -> Cap:
    """The capability the file will have: equal content of one account gives equal blobs anywhere."""
    async with FakeGrid(4).client(PAIRS) as client:
        return (await client.put(data)).cap


def test_commands_in_every_order() -> None:
    """Row L21: each command sees what the earlier ones did; an account nobody has used yet is no error."""
    data = content(3000)

    async def main() -> None:
        cap = await known_cap(data)
        for order in product(COMMANDS, repeat=4):
            grid = FakeGrid(4)
            async with grid.client(PAIRS) as client:
                done = False
                for name in order:
                    done = done or name == "put"
                    expected = {"put": "stored", "list": "all" if done else "nothing"}
                    assert await command(client, name, data, cap) == expected.get(
                        name, "read" if done else "nothing"
                    ), order
            assert grid.reserved_bytes == 0

    run_virtual(main())


@pytest.mark.parametrize("there", [False, True])
def test_commands_within_commands(there: bool) -> None:
    """Row L21: a get or put while a listing is under way, and any other pair, begun at any moment."""
    data = content(3000)

    async def main() -> None:
        cap = await known_cap(data)
        for outer, inner in product(COMMANDS, repeat=2):
            for delay_s in (0.0, 0.05, 0.15, 0.25):
                grid = FakeGrid(4, clock=LoopClock(asyncio.get_running_loop()))
                async with grid.client(PAIRS) as client:
                    if there:
                        await client.put(data)
                    for node in grid.nodes:
                        node.faults.delay_s[""] = 0.1
                    first = asyncio.create_task(command(client, outer, data, cap))
                    await asyncio.sleep(delay_s)
                    second = await command(client, inner, data, cap)
                    for name, said in ((outer, await first), (inner, second)):
                        full = {"put": "stored", "list": "all", "get": "read"}[name]
                        if there or name == "put":
                            assert said == full, (outer, inner, delay_s)
                        else:
                            assert said in (full, "some", "nothing")
                    if there or "put" in (outer, inner):
                        assert await got(client, cap) == data
                assert grid.reserved_bytes == 0

    run_virtual(main())


def test_every_share_lies_on_two_nodes_and_each_byte_is_read_once() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(4)
        async with grid.client(PAIRS) as client:
            stored = await client.put(data)
            ((_, shares),) = grid.holders().items()
            assert {number: len(nodes) for number, nodes in shares.items()} == dict.fromkeys(range(4), 2)
            assert stored.new_bytes == grid.used_bytes
            found, result = await got_with_result(client, stored.cap)
            assert found == data
            assert (result.shares, result.decoded) == (4, 0)
            assert result.share_bytes == stored.new_bytes // 2
            assert [node.calls["get"] + node.items["get_many"] for node in grid.nodes] == [1, 1, 1, 1]

    run_virtual(main())


def test_the_table_needs_four_nodes_to_write_and_finds_its_shares_in_any_grid() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        roster = grid.roster()
        for node in grid.nodes[4:]:
            roster.remove(node.node)
        async with grid.client(PAIRS, roster=roster) as client:
            cap = (await client.put(data)).cap
        async with grid.client(PAIRS) as client:
            with pytest.raises(InvalidCoding, match="exactly 4 nodes, not 6"):
                await client.put(content(CHUNK, 1))
            assert client._sender.pool.used_bytes == 0
            assert await got(client, cap) == data
        async with grid.client() as client:  # a reader that knows nothing of pairs
            assert await got(client, cap) == data

    run_virtual(main())
