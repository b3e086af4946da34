"""What every `ports.NodeConnection` must do, whatever is behind it.

A driver's test module subclasses `NodeConnectionContract` and overrides the fixture `node`:

    class TestMyNode(NodeConnectionContract):
        @pytest.fixture
        async def node(self) -> AsyncIterator[NodeUnderTest]:  # type: ignore[override]
            ...
            yield NodeUnderTest(connection=..., stranger=..., damage=...)

The node must be empty, offer exactly `CAPACITY_BYTES` to anybody, and be new for each test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from muniment.crypto.records import open_record, record_from_text
from muniment.errors import (
    CapacityFull,
    InvalidRequest,
    MunimentError,
    ProtocolViolation,
    ReservationMissing,
    ShareCorrupt,
    ShareUnknown,
)
from muniment.ids import ShareKey, id_text
from muniment.merkle.share_tree import check_proof, check_share
from muniment.ports import Accepted, Held, NodeConnection, PutOutcome, Refused, ShareClaim, ShareUpload
from muniment.spec.limits import BATCH_SHARES_MAX, CHALLENGES_MAX, LEAF_BYTES, MIB, SHARES_MAX
from muniment.testing.sample_blob import SampleBlob, sample_blob

CAPACITY_BYTES: Final = 20 * MIB
_POLLS_MAX: Final = 2000


@dataclass(frozen=True)
class NodeUnderTest:
    """One node and two accounts' connections to it.

    Attributes:
        connection: the account under test.
        stranger: another account.
        damage: changes one byte of a stored share's data behind the node's back.
    """

    connection: NodeConnection
    stranger: NodeConnection
    damage: Callable[[ShareKey], None]


async def store(connection: NodeConnection, blob: SampleBlob, *numbers: int) -> list[PutOutcome]:
    """Reserve and put these shares of a blob (all of them if none is named)."""
    wanted = numbers or range(len(blob.records))
    reserved = await connection.reserve([blob.claim(number) for number in wanted])
    assert all(isinstance(outcome, Accepted | Held) for outcome in reserved), reserved
    return await connection.put([blob.upload(number) for number in wanted])


async def fetch(connection: NodeConnection, blob: SampleBlob, number: int) -> bytes:
    """Get one share, check it, and return its record."""
    head, data = bytearray(blob.name.shape.head_bytes), bytearray(blob.name.shape.share_bytes)
    await connection.get(blob.key(number), memoryview(head), memoryview(data))
    check_share(blob.name, number, memoryview(head), memoryview(data))
    return bytes(head + data)


def refusal(outcome: object) -> MunimentError:
    """The error of a refused outcome."""
    assert isinstance(outcome, Refused), outcome
    return outcome.error


class NodeConnectionContract:
    """The suite; see the module."""

    @pytest.fixture
    def node(self) -> NodeUnderTest:
        """The node under test; drivers override this, most of them with an asynchronous fixture."""
        raise NotImplementedError

    # --- info

    async def test_info_carries_the_nodes_own_signed_record(self, node: NodeUnderTest) -> None:
        status = await node.connection.info()
        record = open_record(record_from_text(status.record), now_s=status.time_s)
        assert record.node == node.connection.node
        assert status.capacity_bytes == CAPACITY_BYTES
        assert (status.used_bytes, status.reserved_bytes, status.share_count) == (0, 0, 0)

    # --- reserve, put, get

    async def test_what_was_put_can_be_got(self, node: NodeUnderTest) -> None:
        blob = sample_blob(1)
        assert await store(node.connection, blob) == [Held()] * 3
        for number in range(3):
            assert await fetch(node.connection, blob, number) == blob.records[number]

    @pytest.mark.parametrize("length", [1, 2, LEAF_BYTES * 2, LEAF_BYTES * 2 + 1, 2 * MIB + 12345])
    async def test_shares_of_any_size(self, node: NodeUnderTest, length: int) -> None:
        blob = sample_blob(2, length=length)
        assert await store(node.connection, blob, 1) == [Held()]
        assert await fetch(node.connection, blob, 1) == blob.records[1]

    async def test_a_share_may_come_in_any_parts(self, node: NodeUnderTest) -> None:
        blob = sample_blob(3)
        record = memoryview(blob.records[0])
        parts = (record[:7], bytes(record[7:8]), record[8:8], record[8:20_000], record[20_000:])
        await node.connection.reserve([blob.claim(0)])
        assert await node.connection.put([ShareUpload(blob.key(0), parts)]) == [Held()]
        assert await fetch(node.connection, blob, 0) == blob.records[0]

    async def test_reserving_what_is_held_says_so(self, node: NodeUnderTest) -> None:
        blob = sample_blob(4)
        await store(node.connection, blob, 0)
        outcomes = await node.connection.reserve([blob.claim(0), blob.claim(1)])
        assert outcomes[0] == Held()
        assert isinstance(outcomes[1], Accepted)
        assert outcomes[1].expires_s > (await node.connection.info()).time_s

    async def test_reserving_twice_reserves_once(self, node: NodeUnderTest) -> None:
        blob = sample_blob(5)
        for _ in range(2):
            await node.connection.reserve([blob.claim(0)])
        assert (await node.connection.usage()).reserved_bytes == len(blob.records[0])

    async def test_a_put_without_reservation_is_refused(self, node: NodeUnderTest) -> None:
        blob = sample_blob(6)
        outcomes = await node.connection.put([blob.upload(0)])
        assert isinstance(refusal(outcomes[0]), ReservationMissing)
        with pytest.raises(ShareUnknown):
            await fetch(node.connection, blob, 0)

    async def test_a_put_may_ask_for_its_space_itself(self, node: NodeUnderTest) -> None:
        blob = sample_blob(6)
        await node.connection.reserve([blob.claim(1)])
        both = [blob.upload(0), blob.upload(1)]
        for is_new in (True, False):
            outcomes = await node.connection.put(both, reserving=True)
            assert [isinstance(one, Held) and one.new for one in outcomes] == [is_new] * 2
        assert (await node.connection.usage()).reserved_bytes == 0
        assert await fetch(node.connection, blob, 0) == blob.records[0]

    async def test_such_a_put_gives_a_lease_on_what_others_have(self, node: NodeUnderTest) -> None:
        blob = sample_blob(6)
        await node.stranger.put([blob.upload(0)], reserving=True)
        assert (await node.connection.usage()).share_count == 0
        (outcome,) = await node.connection.put([blob.upload(0)], reserving=True)
        assert outcome == Held()
        assert not outcome.new
        assert (await node.connection.usage()).share_count == 1

    async def test_such_a_put_is_refused_as_a_reservation_would_be(self, node: NodeUnderTest) -> None:
        first, second, others = sample_blob(6), sample_blob(7), sample_blob(8, length=12 * MIB, k=1, n=1)
        left_bytes = CAPACITY_BYTES - first.upload(0).size_bytes - others.upload(0).size_bytes
        filling = ShareClaim(sample_blob(9).key(0), left_bytes)
        await node.stranger.reserve([others.claim(0), filling])
        outcomes = await node.connection.put([first.upload(0), second.upload(0)], reserving=True)
        assert outcomes[0] == Held()
        assert isinstance(refusal(outcomes[1]), CapacityFull)
        assert await node.connection.have([second.name.blob]) == {second.name.blob: frozenset()}

    async def test_another_accounts_reservation_is_no_permission(self, node: NodeUnderTest) -> None:
        blob = sample_blob(7)
        await node.stranger.reserve([blob.claim(0)])
        outcomes = await node.connection.put([blob.upload(0)])
        assert isinstance(refusal(outcomes[0]), ReservationMissing)

    async def test_each_share_of_a_put_has_its_own_fate(self, node: NodeUnderTest) -> None:
        good, bad, unasked = sample_blob(8), sample_blob(9), sample_blob(10)
        await node.connection.reserve([good.claim(0), bad.claim(0), good.claim(1)])
        record = bytearray(bad.records[0])
        record[-1] ^= 1
        outcomes = await node.connection.put(
            [
                good.upload(0),
                ShareUpload(bad.key(0), (bytes(record),)),
                unasked.upload(0),
                good.upload(1),
            ]
        )
        assert outcomes[0] == outcomes[3] == Held()
        assert isinstance(refusal(outcomes[1]), ShareCorrupt)
        assert isinstance(refusal(outcomes[2]), ReservationMissing)
        assert (await node.connection.usage()).reserved_bytes == 0
        assert await node.connection.have([bad.name.blob]) == {bad.name.blob: frozenset()}

    @pytest.mark.parametrize("spoil", ["leaf", "leaf list", "root list", "number", "other blob"])
    async def test_a_share_that_does_not_verify_is_never_stored(
        self, node: NodeUnderTest, spoil: str
    ) -> None:
        blob, other = sample_blob(11), sample_blob(12)
        record = bytearray(blob.records[0])
        shape = blob.name.shape
        match spoil:
            case "leaf":
                record[shape.head_bytes + 5] ^= 0x80
            case "leaf list":
                record[shape.head_bytes - 1] ^= 1
            case "root list":
                record[24] ^= 1
            case "number":
                record = bytearray(blob.records[1])
            case "other blob":
                record = bytearray(other.records[0])
        await node.connection.reserve([blob.claim(0)])
        outcomes = await node.connection.put([ShareUpload(blob.key(0), (bytes(record),))])
        assert isinstance(refusal(outcomes[0]), ShareCorrupt | ReservationMissing)
        with pytest.raises(ShareUnknown):
            await fetch(node.connection, blob, 0)
        await node.connection.release([blob.key(0)])
        assert (await node.connection.usage()).reserved_bytes == 0

    async def test_a_big_batch_of_small_shares(self, node: NodeUnderTest) -> None:
        blobs = [sample_blob(1000 + i, length=100, k=1, n=1) for i in range(200)]
        await node.connection.reserve([blob.claim(0) for blob in blobs])
        assert await node.connection.put([blob.upload(0) for blob in blobs]) == [Held()] * 200
        records = await node.connection.get_many([blob.key(0) for blob in blobs])
        assert records == [blob.records[0] for blob in blobs]

    async def test_several_big_shares_in_one_put(self, node: NodeUnderTest) -> None:
        blob = sample_blob(13, length=3 * MIB, k=3, n=4)
        assert await store(node.connection, blob) == [Held()] * 4
        assert await fetch(node.connection, blob, 3) == blob.records[3]

    async def test_many_calls_at_once(self, node: NodeUnderTest) -> None:
        blobs = [sample_blob(2000 + i) for i in range(12)]
        stored = await asyncio.gather(*(store(node.connection, blob, 1) for blob in blobs))
        assert stored == [[Held()]] * 12
        got = await asyncio.gather(*(fetch(node.connection, blob, 1) for blob in blobs))
        assert got == [blob.records[1] for blob in blobs]

    async def test_empty_batches_are_answered_empty(self, node: NodeUnderTest) -> None:
        connection = node.connection
        assert await connection.reserve([]) == []
        assert await connection.put([]) == []
        assert await connection.get_many([]) == []
        assert await connection.have([]) == {}
        assert await connection.prove([]) == []
        assert await connection.lease([], 60) == []
        assert await connection.trash([]) == []
        await connection.release([])

    async def test_a_batch_over_the_limit_is_refused(self, node: NodeUnderTest) -> None:
        blob = sample_blob(14)
        with pytest.raises(InvalidRequest):
            await node.connection.reserve([blob.claim(0)] * (BATCH_SHARES_MAX + 1))

    # --- space

    async def test_every_byte_is_promised_once(self, node: NodeUnderTest) -> None:
        blobs = [sample_blob(3000 + i, length=8 * MIB, k=1, n=1) for i in range(3)]
        outcomes = await node.connection.reserve([blob.claim(0) for blob in blobs[:2]])
        assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted]
        refused = refusal((await node.stranger.reserve([blobs[2].claim(0)]))[0])
        assert isinstance(refused, CapacityFull)
        assert refused.wanted_bytes == len(blobs[2].records[0])
        assert refused.free_bytes == CAPACITY_BYTES - sum(len(blob.records[0]) for blob in blobs[:2])

    async def test_released_space_can_be_reserved_again(self, node: NodeUnderTest) -> None:
        first, second = (sample_blob(3100 + i, length=12 * MIB, k=1, n=1) for i in range(2))
        await node.connection.reserve([first.claim(0)])
        assert isinstance(refusal((await node.connection.reserve([second.claim(0)]))[0]), CapacityFull)
        await node.connection.release([first.key(0), second.key(0)])
        assert isinstance((await node.connection.reserve([second.claim(0)]))[0], Accepted)

    async def test_nobody_releases_anothers_reservation(self, node: NodeUnderTest) -> None:
        blob = sample_blob(15)
        await node.connection.reserve([blob.claim(0)])
        await node.stranger.release([blob.key(0)])
        assert await node.connection.put([blob.upload(0)]) == [Held()]

    async def test_usage_counts_exactly(self, node: NodeUnderTest) -> None:
        blob = sample_blob(16)
        await store(node.connection, blob, 0)
        await node.connection.reserve([blob.claim(1)])
        usage = await node.connection.usage()
        assert usage.used_bytes == len(blob.records[0])
        assert usage.reserved_bytes == len(blob.records[1])
        assert usage.share_count == 1
        status = await node.connection.info()
        assert (status.used_bytes, status.reserved_bytes) == (usage.used_bytes, usage.reserved_bytes)
        other = await node.stranger.usage()
        assert (other.used_bytes, other.reserved_bytes, other.share_count) == (0, 0, 0)

    # --- reading

    async def test_a_share_that_is_not_there_is_unknown(self, node: NodeUnderTest) -> None:
        blob = sample_blob(17)
        with pytest.raises(ShareUnknown) as caught:
            await fetch(node.connection, blob, 2)
        assert (caught.value.blob, caught.value.share) == (blob.name.blob, 2)

    async def test_buffers_of_another_size_are_a_violation(self, node: NodeUnderTest) -> None:
        blob = sample_blob(18)
        await store(node.connection, blob, 0)
        head, data = bytearray(blob.name.shape.head_bytes), bytearray(blob.name.shape.share_bytes - 1)
        with pytest.raises(ProtocolViolation):
            await node.connection.get(blob.key(0), memoryview(head), memoryview(data))
        assert await fetch(node.connection, blob, 0) == blob.records[0]

    async def test_get_many_has_none_for_what_is_missing(self, node: NodeUnderTest) -> None:
        blob = sample_blob(19)
        await store(node.connection, blob, 0, 2)
        records = await node.connection.get_many([blob.key(number) for number in (2, 1, 0, 2)])
        assert records == [blob.records[2], None, blob.records[0], blob.records[2]]

    async def test_have_answers_for_every_blob_asked_for(self, node: NodeUnderTest) -> None:
        first, second = sample_blob(20), sample_blob(21)
        await store(node.connection, first, 0, 2)
        answer = await node.connection.have([second.name.blob, first.name.blob])
        assert answer == {first.name.blob: frozenset({0, 2}), second.name.blob: frozenset()}

    async def test_a_proof_verifies_against_the_name_alone(self, node: NodeUnderTest) -> None:
        blob = sample_blob(22, length=5 * LEAF_BYTES + 1, k=1, n=2)
        await store(node.connection, blob, 1)
        challenges = [(blob.key(1), leaf) for leaf in range(blob.name.shape.leaf_count)]
        proofs = await node.connection.prove([*challenges, (blob.key(0), 0)])
        assert proofs[-1] is None
        for leaf, proof in enumerate(proofs[:-1]):
            assert proof is not None
            assert proof.leaf == leaf
            check_proof(blob.name, 1, leaf, proof.header, proof.data, proof.path)

    async def test_any_number_of_the_largest_proofs_comes_in_order(self, node: NodeUnderTest) -> None:
        blob = sample_blob(29, length=2 * LEAF_BYTES, k=1, n=SHARES_MAX)
        await store(node.connection, blob, SHARES_MAX - 1)
        leaves = [challenge % 2 for challenge in range(2 * CHALLENGES_MAX + 3)]
        proofs = await node.connection.prove([(blob.key(SHARES_MAX - 1), leaf) for leaf in leaves])
        assert [proof and proof.leaf for proof in proofs] == leaves
        record = blob.records[SHARES_MAX - 1]
        datas = [record[-2 * LEAF_BYTES : -LEAF_BYTES], record[-LEAF_BYTES:]]
        assert [proof and proof.data for proof in proofs] == [datas[leaf] for leaf in leaves]
        assert await node.connection.prove([]) == []

    async def test_a_damaged_share_is_never_served(self, node: NodeUnderTest) -> None:
        blob = sample_blob(23)
        await store(node.connection, blob)
        node.damage(blob.key(1))
        with pytest.raises((ShareCorrupt, ShareUnknown)):
            await fetch(node.connection, blob, 1)
        assert await node.connection.get_many([blob.key(1)]) == [None]
        assert await node.connection.prove([(blob.key(1), 0)]) == [None]
        assert await fetch(node.connection, blob, 0) == blob.records[0]
        assert await node.connection.have([blob.name.blob]) == {blob.name.blob: frozenset({0, 2})}
        rows = await node.connection.quarantined(after=None, limit=10)
        damaged = [(row.blob, row.number) for row in rows]
        assert damaged == [(id_text(blob.name.blob), 1)]
        assert await store(node.connection, blob, 1) == [Held()]
        assert await fetch(node.connection, blob, 1) == blob.records[1]

    # --- an account's shares

    async def test_shares_are_listed_in_pages_in_order(self, node: NodeUnderTest) -> None:
        blobs = [sample_blob(4000 + i, length=50, k=1, n=2) for i in range(5)]
        for blob in blobs:
            await store(node.connection, blob)
        keys = sorted(blob.key(number) for blob in blobs for number in range(2))
        listed: list[ShareKey] = []
        while page := await node.connection.shares(after=listed[-1] if listed else None, limit=3):
            assert len(page) <= 3
            listed += [keys[len(listed) + at] for at in range(len(page))]
            expected = [(id_text(key.blob), int(key.number)) for key in listed[-len(page) :]]
            assert [(row.blob, row.number) for row in page] == expected
        assert listed == keys
        assert await node.stranger.shares(after=None, limit=10) == []

    async def test_what_is_damaged_is_listed_in_pages_in_order(self, node: NodeUnderTest) -> None:
        blobs = [sample_blob(5000 + i, length=50, k=1, n=2) for i in range(5)]
        for blob in blobs:
            await store(node.connection, blob)
        keys = sorted(blob.key(number) for blob in blobs for number in range(2))
        for key in keys[1:]:
            node.damage(key)
        assert await node.connection.get_many(keys[1:]) == [None] * 9
        listed: list[ShareKey] = []
        while page := await node.connection.quarantined(after=listed[-1] if listed else None, limit=4):
            expected = keys[1 + len(listed) :][:4]
            assert [(row.blob, row.number) for row in page] == [(id_text(k.blob), k.number) for k in expected]
            listed += expected
        assert listed == keys[1:]
        assert await node.stranger.quarantined(after=None, limit=10) == []

    async def test_leases_are_extended_and_never_shortened(self, node: NodeUnderTest) -> None:
        blob = sample_blob(24)
        await store(node.connection, blob, 0)
        (row,) = await node.connection.shares(after=None, limit=10)
        year_s = 366 * 86400
        assert await node.connection.lease([blob.key(0), blob.key(1)], year_s) == [True, False]
        (longer,) = await node.connection.shares(after=None, limit=10)
        assert longer.expires_s > row.expires_s
        await node.connection.lease([blob.key(0)], 1)
        assert (await node.connection.shares(after=None, limit=10)) == [longer]

    async def test_trash_can_be_taken_back_by_a_lease_or_a_reserve(self, node: NodeUnderTest) -> None:
        blob = sample_blob(25)
        await store(node.connection, blob, 0, 1)
        assert await node.connection.trash([blob.key(0), blob.key(1), blob.key(2)]) == [True, True, False]
        rows = await node.connection.shares(after=None, limit=10)
        assert [row.trashed for row in rows] == [True, True]
        await node.connection.lease([blob.key(0)], 60)
        assert await node.connection.reserve([blob.claim(1)]) == [Held()]
        rows = await node.connection.shares(after=None, limit=10)
        assert [row.trashed for row in rows] == [False, False]

    async def test_nobody_trashes_anothers_shares(self, node: NodeUnderTest) -> None:
        blob = sample_blob(26)
        await store(node.connection, blob, 0)
        assert await node.stranger.trash([blob.key(0)]) == [False]
        (row,) = await node.connection.shares(after=None, limit=10)
        assert not row.trashed

    # --- cancellation

    async def test_a_cancelled_put_leaves_no_reservation(self, node: NodeUnderTest) -> None:
        blob = sample_blob(27, length=6 * MIB, k=1, n=2)
        await node.connection.reserve([blob.claim(0), blob.claim(1)])
        put = asyncio.ensure_future(node.connection.put([blob.upload(0), blob.upload(1)]))
        await asyncio.sleep(0)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await node.connection.release([blob.key(0), blob.key(1)])
        for _ in range(_POLLS_MAX):  # the node may notice the broken connection a moment later
            if (await node.connection.usage()).reserved_bytes == 0:
                break
        assert (await node.connection.usage()).reserved_bytes == 0
        outcomes = await store(node.connection, blob)
        if outcomes != [Held(), Held()]:
            # The node came to the broken request only now, and that took the new reservation.  Who is told so
            # asks again, as an upload does, and nothing is left that could disturb him.
            refused = [outcome for outcome in outcomes if outcome != Held()]
            assert all(isinstance(refusal(outcome), ReservationMissing) for outcome in refused)
            outcomes = await store(node.connection, blob)
        assert outcomes == [Held(), Held()]

    async def test_a_cancelled_get_leaves_its_buffers_alone(self, node: NodeUnderTest) -> None:
        blob = sample_blob(28, length=6 * MIB, k=1, n=1)
        await store(node.connection, blob)
        head, data = bytearray(blob.name.shape.head_bytes), bytearray(blob.name.shape.share_bytes)
        get = asyncio.ensure_future(node.connection.get(blob.key(0), memoryview(head), memoryview(data)))
        await asyncio.sleep(0)
        get.cancel()
        with pytest.raises(asyncio.CancelledError):
            await get
        head[:], data[:] = bytes(len(head)), bytes(len(data))
        assert await fetch(node.connection, blob, 0) == blob.records[0]
        assert not any(head)
        assert not any(data)
