"""Every kind of false share, with enough and too few good ones: never a wrong byte, the liar is named."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from tests.unit.engine.support import CHUNK, PLAIN, SMALL, content, got, got_with_result

from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.errors import BlobCorrupt, TooFewShares
from muniment.ids import ShareKey
from muniment.spec.blob import BlobRef
from muniment.spec.cap import BlobFile
from muniment.spec.share import FIXED_BYTES, decode_header
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.fake_node import FakeNode
from muniment.testing.virtual_time import run_virtual

Tamper = Callable[[ShareKey, bytearray], bytes | bytearray | None]


def bad_leaf(key: ShareKey, record: bytearray) -> bytearray:
    record[-1] ^= 1
    return record


def bad_first_leaf(key: ShareKey, record: bytearray) -> bytearray:
    record[decode_header(memoryview(record)).shape.head_bytes] ^= 0x80
    return record


def bad_leaf_list(key: ShareKey, record: bytearray) -> bytearray:
    record[decode_header(memoryview(record)).shape.head_bytes - 1] ^= 1
    return record


def bad_root_list(key: ShareKey, record: bytearray) -> bytearray:
    record[FIXED_BYTES + 5] ^= 1
    return record


def truncated(key: ShareKey, record: bytearray) -> bytearray:
    return record[:-1]


def longer(key: ShareKey, record: bytearray) -> bytearray:
    return record + b"\0"


def empty(key: ShareKey, record: bytearray) -> bytearray:
    return record[:0]


def foreign_version(key: ShareKey, record: bytearray) -> bytearray:
    record[8] = 200
    return record


def foreign_magic(key: ShareKey, record: bytearray) -> bytearray:
    record[:8] = b"NOTSHARE"
    return record


def zeroed(key: ShareKey, record: bytearray) -> bytearray:
    return bytearray(len(record))


def other_number(key: ShareKey, record: bytearray) -> bytearray:
    """The header says another share."""
    record[15] = (record[15] + 1) % 6
    return record


def denied(key: ShareKey, record: bytearray) -> None:
    """Listed, and not given out."""
    return


TAMPERS = [
    bad_leaf,
    bad_first_leaf,
    bad_leaf_list,
    bad_root_list,
    truncated,
    longer,
    empty,
    foreign_version,
    foreign_magic,
    zeroed,
    other_number,
    denied,
]
LIES = [tamper for tamper in TAMPERS if tamper not in (truncated, longer, empty, denied)]
"""Those that arrive as a whole share of the right size and are false."""


def data_holders(grid: FakeGrid) -> list[FakeNode]:
    """The nodes in the order of the one blob's shares."""
    ((_, shares),) = grid.holders().items()
    return [shares[number][0] for number in sorted(shares)]


@pytest.mark.parametrize("size", [CHUNK, 3000], ids=["large", "small"])
@pytest.mark.parametrize("liars", [1, 2])
@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
def test_with_enough_good_shares_every_byte_is_right(tamper: Tamper, liars: int, size: int) -> None:
    """Large shares come one by one, small ones in batches."""
    data = content(size)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            lying = data_holders(grid)[:liars]
            for node in lying:
                node.faults.tamper = tamper
            found, result = await got_with_result(client, cap)
            assert found == data
            assert result.decoded == 1
            if tamper in LIES:
                assert result.liars == {node.node: 1 for node in lying}
            else:
                assert result.liars == {}

    run_virtual(main())


@pytest.mark.parametrize("size", [CHUNK, 3000], ids=["large", "small"])
@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.__name__)
def test_with_too_few_good_shares_nothing_is_written(tamper: Tamper, size: int) -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(size))).cap
            for node in data_holders(grid)[1:4]:
                node.faults.tamper = tamper
            target = io.BytesIO()
            with pytest.raises(TooFewShares) as caught:
                await client.get(cap, target)
            assert target.getvalue() == b""
            assert (caught.value.needed, caught.value.found) == (4, 3)

    run_virtual(main())


@pytest.mark.parametrize("enough", [True, False])
def test_swapped_shares_are_found_out(enough: bool) -> None:
    """Two nodes answer with each other's (true!) shares."""
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            nodes = data_holders(grid)
            records = [next(iter(node.shares.values())) for node in nodes]
            for first, second in ((0, 1),) if enough else ((0, 1), (2, 3)):
                nodes[first].faults.tamper = lambda _, __, record=records[second]: record
                nodes[second].faults.tamper = lambda _, __, record=records[first]: record
            if enough:
                found, result = await got_with_result(client, cap)
                assert found == data
                assert result.liars == {nodes[0].node: 1, nodes[1].node: 1}
            else:
                with pytest.raises(TooFewShares):
                    await got(client, cap)

    run_virtual(main())


def test_a_share_of_another_blob_is_found_out() -> None:
    data, other = content(CHUNK, 1), content(CHUNK, 2)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            liar = data_holders(grid)[2]
            await client.put(other)
            foreign = next(record for key, record in liar.shares.items() if key.blob != cap_blob(cap))
            liar.faults.tamper = lambda _, __: foreign
            found, result = await got_with_result(client, cap)
            assert found == data
            assert result.liars == {liar.node: 1}

    run_virtual(main())


def cap_blob(cap: object) -> bytes:
    assert isinstance(cap, BlobFile)
    return cap.ref.name.blob


def test_replicas_survive_all_liars_but_one() -> None:
    policy = Policy(coding=Coding.from_text("rep-5"), happy=5, chunk_bytes=CHUNK)
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(policy) as client:
            cap = (await client.put(data)).cap
            holders = data_holders(grid)
            for node in holders[:4]:
                node.faults.tamper = bad_leaf
            found, result = await got_with_result(client, cap)
            assert found == data
            assert set(result.liars) == {node.node for node in holders[:4]}
            holders[4].faults.tamper = bad_leaf
            with pytest.raises(TooFewShares):
                await got(client, cap)

    run_virtual(main())


def test_a_liar_is_asked_once_for_each_blob_and_comes_last_for_the_next() -> None:
    data = content(6 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            liar = grid.nodes[0]
            liar.faults.tamper = bad_leaf
            found, result = await got_with_result(client, cap)
            assert found == data
            assert list(result.liars) == [liar.node]
            served = liar.calls["get"] + liar.items["get_many"]
            assert await got(client, cap) == data
            assert liar.calls["get"] + liar.items["get_many"] == served

    run_virtual(main())


def test_a_liar_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(content(CHUNK))).cap
            data_holders(grid)[0].faults.tamper = bad_leaf
            await got(client, cap)

    run_virtual(main())
    assert any("served a false share" in record.message for record in caplog.records)


def test_honest_nodes_with_damaged_disks_are_not_called_liars() -> None:
    data = content(4 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            assert grid.damage(lambda key: key.number in (0, 5)) == 10
            found, result = await got_with_result(client, cap)
            assert found == data
            assert result.liars == {}
            assert result.decoded == 5

    run_virtual(main())


def test_false_manifests_are_replaced_like_any_share() -> None:
    data = content(3 * CHUNK)

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(PLAIN) as client:
            cap = (await client.put(data)).cap
            for node in grid.nodes[:2]:
                node.faults.tamper = bad_leaf
            assert await got(client, cap) == data

    run_virtual(main())


def test_a_wrong_key_opens_nothing() -> None:
    """All shares verify; the capability itself is false.  Nobody is blamed."""

    async def main() -> None:
        grid = FakeGrid(6)
        async with grid.client(SMALL) as client:
            cap = (await client.put(content(CHUNK))).cap
            assert isinstance(cap, BlobFile)
            false = BlobFile(BlobRef(cap.ref.name, b"\1" * 32, cap.ref.plain_bytes, cap.ref.compression))
            target = io.BytesIO()
            with pytest.raises(BlobCorrupt):
                await client.get(false, target)
            assert target.getvalue() == b""
            assert client._fetcher.pool.used_bytes == 0

    run_virtual(main())


def test_nodes_that_claim_to_have_everything_waste_a_bounded_number_of_requests() -> None:
    data = content(CHUNK)

    async def main() -> None:
        grid = FakeGrid(12)
        roster = grid.roster()
        for node in grid.nodes[6:]:
            roster.remove(node.node)
        async with grid.client(PLAIN, roster=roster) as client:
            cap = (await client.put(data)).cap
        for node in grid.nodes[6:]:
            await node.connect(client_account).aclose()
            node.faults.tamper = denied
        async with grid.client(PLAIN) as client:
            assert await got(client, cap) == data
            assert all(node.calls["get"] + node.items["get_many"] <= 6 for node in grid.nodes)

    client_account = FakeGrid(1).nodes[0].identity.account
    run_virtual(main())
