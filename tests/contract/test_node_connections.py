"""Every NodeConnection under the one suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from muniment.crypto.identity import Identity
from muniment.ids import ShareKey
from muniment.testing.contracts.node_connection import (
    CAPACITY_BYTES,
    NodeConnectionContract,
    NodeUnderTest,
)
from muniment.testing.fake_node import FakeNode
from muniment.testing.virtual_time import StepClock


class TestFakeNode(NodeConnectionContract):
    @pytest.fixture
    async def node(self) -> AsyncIterator[NodeUnderTest]:
        fake = FakeNode(Identity.from_seed(b"n" * 32), StepClock(), capacity_bytes=CAPACITY_BYTES)

        def damage(key: ShareKey) -> None:
            record = bytearray(fake.shares[key])
            record[-1] ^= 1
            fake.shares[key] = bytes(record)

        connection = fake.connect(Identity.from_seed(b"a" * 32).account)
        stranger = fake.connect(Identity.from_seed(b"s" * 32).account)
        yield NodeUnderTest(connection, stranger, damage)
        await connection.aclose()
        await stranger.aclose()
