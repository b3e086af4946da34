"""A whole grid in memory: fake nodes, a roster that a test can change, and grid clients for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from muniment.crypto.identity import Identity
from muniment.engine.client import Alone
from muniment.engine.grid import Grid
from muniment.engine.policy import Limits, Policy
from muniment.errors import RosterEmpty
from muniment.ids import BlobId, NodeId, ShareKey, ShareNumber
from muniment.ports import BlobCache, Clock
from muniment.spec.record import NodeRecord
from muniment.testing.fake_node import FakeConnection, FakeNode
from muniment.testing.virtual_time import StepClock


class FakeRoster:
    """A roster that a test writes; implements `ports.Roster`."""

    def __init__(self, records: Sequence[NodeRecord]) -> None:
        self._records = {record.node: record for record in records}
        self._changed = asyncio.Event()

    @property
    def source(self) -> str:
        """For messages."""
        return "in memory"

    async def start(self) -> None:
        if not self._records:
            raise RosterEmpty(source=self.source)

    def nodes_nowait(self) -> Mapping[NodeId, NodeRecord]:
        return dict(self._records)

    async def wait_changed(self) -> None:
        await self._changed.wait()

    async def aclose(self) -> None:
        pass

    def add(self, record: NodeRecord) -> None:
        """A node comes, or renews its record."""
        self._records[record.node] = record
        self._notify()

    def remove(self, node: NodeId) -> None:
        """A node goes."""
        del self._records[node]
        self._notify()

    def _notify(self) -> None:
        """As strict as the drivers: who waits hears of it, who comes later waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()


class FakeGrid:
    """Several fake nodes.

    Args:
        count: how many, all alike; their order is that of `nodes`.
        clock: for records and reservations.
        zones: failure zones, dealt out in turn.
        capacity_bytes: of each.

    Attributes:
        nodes: the nodes, in the order of their NodeIds.
        clients: every connection any client made.
    """

    def __init__(
        self,
        count: int = 6,
        *,
        clock: Clock | None = None,
        zones: Sequence[str] = ("",),
        capacity_bytes: int = 1 << 40,
    ) -> None:
        self.clock = clock or StepClock()
        identities = [Identity.from_seed(number.to_bytes(32, "big")) for number in range(1, count + 1)]
        identities.sort(key=lambda identity: identity.node)
        self.nodes = [
            FakeNode(identity, self.clock, capacity_bytes=capacity_bytes, zone=zones[at % len(zones)])
            for at, identity in enumerate(identities)
        ]
        self.clients: list[FakeConnection] = []

    def roster(self) -> FakeRoster:
        """A roster of all nodes."""
        return FakeRoster([node.record for node in self.nodes])

    def connector(self, account: Identity) -> Callable[[NodeRecord], FakeConnection]:
        """Connects an account to the nodes."""
        servers = {node.node: node for node in self.nodes}

        def connect(record: NodeRecord) -> FakeConnection:
            connection = servers[record.node].connect(account.account)
            self.clients.append(connection)
            return connection

        return connect

    def client(
        self,
        policy: Policy | None = None,
        *,
        account: bytes = b"a",
        limits: Limits | None = None,
        roster: FakeRoster | None = None,
        alone: Alone | None = None,
        cache: BlobCache | None = None,
    ) -> Grid:
        """A grid client, to be entered with `async with`; accounts differ by any bytes."""
        identity = Identity.from_seed(account.ljust(32, b"\0"))
        return Grid(
            roster or self.roster(),
            self.connector(identity),
            self.clock,
            account.ljust(32, b"s"),
            policy,
            limits=limits,
            cache=cache,
            **({} if alone is None else {"alone": alone}),
        )

    def node(self, node: NodeId) -> FakeNode:
        """The node of this id."""
        return next(one for one in self.nodes if one.node == node)

    @property
    def reserved_bytes(self) -> int:
        """Space set aside on all nodes."""
        return sum(node.reserved_bytes for node in self.nodes)

    @property
    def used_bytes(self) -> int:
        """Share records stored on all nodes."""
        return sum(node.used_bytes for node in self.nodes)

    def calls(self) -> Counter[str]:
        """Calls made to all nodes together."""
        return sum((node.calls for node in self.nodes), Counter())

    def holders(self) -> dict[BlobId, dict[ShareNumber, list[FakeNode]]]:
        """Who holds which share of which blob."""
        found: dict[BlobId, dict[ShareNumber, list[FakeNode]]] = {}
        for node in self.nodes:
            for key in node.shares:
                found.setdefault(key.blob, {}).setdefault(key.number, []).append(node)
        return found

    def damage(self, choose: Callable[[ShareKey], bool]) -> int:
        """Flip a byte in every stored share that is chosen, behind its node's back; returns how many."""
        count = 0
        for node in self.nodes:
            for key in filter(choose, list(node.shares)):
                record = bytearray(node.shares[key])
                record[-1] ^= 1
                node.shares[key] = bytes(record)
                count += 1
        return count
