"""A node in memory: real shares, reservations, capacity and leases, and every way a node can fail on demand.

`FakeNode` is the node; `FakeConnection` is one account's connection to it and implements
`ports.NodeConnection`.  It passes the same contract suite as the HTTP node
(`testing/contracts/node_connection`), so what tests learn with it holds.

Faults are attributes, changed by a test at any time.  Delays go through the running loop's clock, so that a
`VirtualTimeLoop` makes them free.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from muniment.crypto.identity import Identity
from muniment.crypto.records import record_text, sign_record
from muniment.errors import (
    AccountRefused,
    CapacityFull,
    DeadlineExceeded,
    InvalidRequest,
    MunimentError,
    NodeDraining,
    NodeUnreachable,
    ProtocolViolation,
    QuotaFull,
    ReservationMissing,
    ShareCorrupt,
    ShareUnknown,
)
from muniment.ids import AccountId, BlobId, NodeId, ShareKey, ShareNumber, id_text
from muniment.merkle.share_tree import ShareReceiver
from muniment.merkle.tree import tree_path
from muniment.ports import (
    Accepted,
    Clock,
    Held,
    PutOutcome,
    Refused,
    ReserveOutcome,
    ShareClaim,
    ShareProof,
    ShareUpload,
)
from muniment.spec.limits import BATCH_SHARES_MAX, HAVE_BLOBS_MAX, LEAF_BYTES
from muniment.spec.record import PROTOCOL_VERSION, NodeRecord
from muniment.spec.share import FIXED_BYTES, HASH_BYTES, decode_header
from muniment.spec.wire import AccountUsage, NodeStatus, ShareLease, ShareQuarantined

RESERVATION_S = 600.0
LEASE_S = 90 * 86400.0


@dataclass(slots=True)
class _Lease:
    expires_s: float
    trashed: bool = False


@dataclass
class Faults:
    """What goes wrong at a node, for tests to set.

    Attributes:
        down: why every call fails with NodeUnreachable; None if the node runs.
        delay_s: seconds before each call is answered, by call name; "" is the default for all.
        hang_s: every call misses its deadline, which is so many seconds (a process that is stopped).
        gate: while it is not set, no call is answered (a node that hangs); None if there is no gate.
        refuse: every reserve claim is refused with this.
        refuse_account: every call but `info` fails, as for an account that is not invited.
        fail: the next calls of this name fail with these errors, first one first.
        break_put_after: a put stops with a broken connection after this many shares were taken.
        tamper: changes a share record on its way out (the store keeps the true one); None drops it.
        lose_reservations: the next put finds no reservation (the node was restarted in between).
        store: keep what is put; without it a put costs nothing, to measure what is around it.
        claims: says that it has these shares of every blob, and takes leases on them.
        relay: proves what it has not by asking these nodes.
        silent_on_missing: instead of saying that it has not what it should prove, it does not answer.
        endless_list: lists shares of blobs that nobody has ever heard of, without end.
    """

    down: str | None = None
    hang_s: float | None = None
    delay_s: dict[str, float] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    refuse: MunimentError | None = None
    refuse_account: bool = False
    fail: dict[str, list[MunimentError]] = field(default_factory=dict)
    break_put_after: int | None = None
    tamper: Callable[[ShareKey, bytearray], bytes | bytearray | None] | None = None
    lose_reservations: bool = False
    store: bool = True
    claims: frozenset[int] = frozenset()
    relay: Sequence[FakeNode] = ()
    silent_on_missing: bool = False
    endless_list: bool = False


class FakeNode:
    """One node.

    Args:
        identity: its key.
        clock: wall time for records and leases.
        capacity_bytes: whole share records count against it, reservations included.
        zone: in its record.
        quota_bytes: for each account; None is without.

    Attributes:
        shares: every stored record; tests may damage them here.
        faults: what goes wrong.
        calls: how often each call was made, e.g. {"reserve": 3}.
        items: how many shares or blobs those calls named, e.g. {"reserve": 180}.
        put_bytes: share bytes received.
        draining: new shares are refused, and the record says so.
        capacity_bytes: as given; may be changed.
    """

    def __init__(
        self,
        identity: Identity,
        clock: Clock,
        *,
        capacity_bytes: int = 1 << 40,
        zone: str = "",
        quota_bytes: int | None = None,
    ) -> None:
        self.identity = identity
        self.node: NodeId = identity.node
        self.faults = Faults()
        self.shares: dict[ShareKey, bytes] = {}
        self.leases: dict[AccountId, dict[ShareKey, _Lease]] = {}
        self.quarantine: dict[ShareKey, ShareQuarantined] = {}
        self.calls: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.put_bytes = 0
        self.draining = False
        self._clock = clock
        self.capacity_bytes = capacity_bytes
        self._zone = zone
        self._quota_bytes = quota_bytes
        self._reservations: dict[tuple[AccountId, ShareKey], tuple[int, float]] = {}
        self._used_bytes = 0

    def connect(self, account: AccountId) -> FakeConnection:
        """A connection as this account."""
        return FakeConnection(self, account)

    @property
    def record(self) -> NodeRecord:
        """The node's record, valid for an hour from now."""
        now_s = int(self._clock.now_s())
        return NodeRecord(
            node=self.node,
            public_key=self.identity.public_key,
            addresses=(f"{id_text(self.node)[:8]}.test:1",),
            zone=self._zone,
            capacity_bytes=self.capacity_bytes,
            price=0,
            protocols=(PROTOCOL_VERSION,),
            issued_s=now_s,
            expires_s=now_s + 3600,
            draining=self.draining,
        )

    @property
    def reserved(self) -> dict[tuple[AccountId, ShareKey], int]:
        """What is set aside and has not arrived, in bytes."""
        self._expire()
        return {owner: size for owner, (size, _) in self._reservations.items()}

    @property
    def reserved_bytes(self) -> int:
        """Sum of `reserved`."""
        return sum(self.reserved.values())

    @property
    def used_bytes(self) -> int:
        """Whole records stored."""
        return self._used_bytes

    def numbers(self, blob: BlobId) -> frozenset[ShareNumber]:
        """Which shares of a blob are stored."""
        return frozenset(key.number for key in self.shares if key.blob == blob)

    def _expire(self) -> None:
        now_s = self._clock.now_s()
        for owner, (_, expires_s) in list(self._reservations.items()):
            if expires_s <= now_s:
                del self._reservations[owner]

    # --- the calls, for one share each; `FakeConnection` makes them

    def status(self) -> NodeStatus:
        """Answer of `info`."""
        return NodeStatus(
            record=record_text(sign_record(self.identity, self.record)),
            version="fake",
            time_s=self._clock.now_s(),
            capacity_bytes=self.capacity_bytes,
            used_bytes=self._used_bytes,
            reserved_bytes=self.reserved_bytes,
            share_count=len(self.shares),
            quarantined_count=len(self.quarantine),
            reconciled=True,
            draining=self.draining,
        )

    def reserve_share(self, account: AccountId, claim: ShareClaim) -> ReserveOutcome:
        """Held, accepted or refused, capacity and quota counted exactly."""
        if self.faults.refuse is not None:
            return Refused(self.faults.refuse)
        if self.draining and claim.key not in self.leases.get(account, {}):
            return Refused(NodeDraining())
        held = self.shares.get(claim.key)
        if held is not None and len(held) != claim.size_bytes:
            return Refused(InvalidRequest(reason=f"the share has {len(held)} bytes"))
        if held is not None:
            self.lease_share(account, claim.key, LEASE_S)
            return Held()
        self._reservations.pop((account, claim.key), None)
        free = self.capacity_bytes - self._used_bytes - self.reserved_bytes
        if claim.size_bytes > free:
            return Refused(CapacityFull(wanted_bytes=claim.size_bytes, free_bytes=free))
        if self._quota_bytes is not None:
            usage = self.account_usage(account)
            left = self._quota_bytes - usage.used_bytes - usage.reserved_bytes
            if claim.size_bytes > left:
                return Refused(QuotaFull(wanted_bytes=claim.size_bytes, free_bytes=max(0, left)))
        expires_s = self._clock.now_s() + RESERVATION_S
        self._reservations[account, claim.key] = (claim.size_bytes, expires_s)
        return Accepted(expires_s)

    def unreserve(self, account: AccountId, key: ShareKey) -> None:
        """Give space back that was set aside."""
        self._reservations.pop((account, key), None)

    def put_share(self, account: AccountId, upload: ShareUpload, *, reserving: bool = False) -> PutOutcome:
        """Verify and store what was reserved, or is now."""
        owner = (account, upload.key)
        if reserving and owner not in self._reservations:
            reserved = self.reserve_share(account, ShareClaim(upload.key, upload.size_bytes))
            if not isinstance(reserved, Accepted):
                return reserved
        size, _ = self._reservations.get(owner, (-1, 0.0))
        if self.faults.lose_reservations or size != upload.size_bytes:
            self._reservations.pop(owner, None)
            if upload.key in self.leases.get(account, {}) and upload.key in self.shares:
                return Held()
            return Refused(ReservationMissing(blob=upload.key.blob, share=upload.key.number))
        del self._reservations[owner]
        self.put_bytes += size
        if not self.faults.store:
            return Held(new=True)
        receiver = ShareReceiver(upload.key, size)
        try:
            for part in upload.parts:
                receiver.feed(memoryview(part))
            receiver.finish()
        except ShareCorrupt as error:
            return Refused(error)
        is_new = upload.key not in self.shares
        if is_new:
            self.shares[upload.key] = b"".join(upload.parts)
            self._used_bytes += size
        self.lease_share(account, upload.key, LEASE_S)
        return Held(is_new)

    def lease_share(self, account: AccountId, key: ShareKey, duration_s: float) -> bool:
        """Extend or make a lease on a share that is held."""
        if key not in self.shares and key.number not in self.faults.claims:
            return False
        expires_s = self._clock.now_s() + duration_s
        lease = self.leases.setdefault(account, {}).setdefault(key, _Lease(expires_s))
        lease.expires_s = max(lease.expires_s, expires_s)
        lease.trashed = False
        return True

    def serve(self, key: ShareKey) -> bytes | None:
        """The record as this node would send it; a damaged one goes to quarantine as on a real node."""
        record = self.shares.get(key)
        if record is None:
            return None
        try:
            receiver = ShareReceiver(key, len(record))
            receiver.feed(memoryview(record))
            receiver.finish()
        except ShareCorrupt as error:
            self._used_bytes -= len(self.shares.pop(key))
            self.quarantine[key] = ShareQuarantined(
                id_text(key.blob), key.number, error.reason, self._clock.now_s()
            )
            raise
        if self.faults.tamper is None:
            return record
        tampered = self.faults.tamper(key, bytearray(record))
        return None if tampered is None else bytes(tampered)

    def prove_leaf(self, key: ShareKey, leaf: int) -> ShareProof | None:
        """Leaf and path, or None where the share is not held or damaged."""
        try:
            record = self.serve(key)
        except ShareCorrupt:
            return None
        if record is None:
            others = (other.prove_leaf(key, leaf) for other in self.faults.relay)
            return next((proof for proof in others if proof is not None), None)
        header = decode_header(record)
        shape = header.shape
        if not 0 <= leaf < shape.leaf_count:
            return None
        hashes = record[FIXED_BYTES + shape.roots_bytes : shape.head_bytes]
        assert len(hashes) == HASH_BYTES * shape.leaf_count
        data = record[shape.head_bytes :][leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES]
        return ShareProof(header, leaf, data, tree_path(hashes, leaf))

    def account_usage(self, account: AccountId) -> AccountUsage:
        """What the account holds and has reserved."""
        keys = self.leases.get(account, {})
        return AccountUsage(
            used_bytes=sum(len(self.shares[key]) for key in keys if key in self.shares),
            reserved_bytes=sum(size for (owner, _), size in self.reserved.items() if owner == account),
            share_count=sum(key in self.shares for key in keys),
            quota_bytes=-1 if self._quota_bytes is None else self._quota_bytes,
        )


class FakeConnection:
    """One account's connection to a `FakeNode`; implements `ports.NodeConnection`."""

    def __init__(self, server: FakeNode, account: AccountId) -> None:
        self._server = server
        self._account = account
        self.closed = False
        self.active = 0

    @property
    def node(self) -> NodeId:
        """Who is at the other end."""
        return self._server.node

    async def _enter(self, call: str, items: int, limit: int = BATCH_SHARES_MAX) -> None:
        """Count the call, and fail or wait as the node's faults say."""
        server, faults = self._server, self._server.faults
        assert not self.closed, "a call on a closed connection"
        server.calls[call] += 1
        server.items[call] += items
        if faults.down is not None:
            raise NodeUnreachable(node=server.node, reason=faults.down)
        if faults.hang_s is not None:
            await asyncio.sleep(faults.hang_s)
            raise DeadlineExceeded(node=server.node, call=call, deadline_s=faults.hang_s)
        if faults.gate is not None:
            await faults.gate.wait()
        await asyncio.sleep(faults.delay_s.get(call, faults.delay_s.get("", 0)))
        if faults.down is not None:  # it may have died in between
            raise NodeUnreachable(node=server.node, reason=faults.down)
        if faults.fail.get(call):
            raise faults.fail[call].pop(0)
        if faults.refuse_account and call != "info":
            raise AccountRefused(account=self._account, reason="not invited")
        if items > limit:
            raise InvalidRequest(reason=f"{items} items in one {call}, at most {limit}")

    async def info(self) -> NodeStatus:
        await self._enter("info", 0)
        return self._server.status()

    async def reserve(self, claims: Sequence[ShareClaim]) -> list[ReserveOutcome]:
        await self._enter("reserve", len(claims))
        return [self._server.reserve_share(self._account, claim) for claim in claims]

    async def release(self, keys: Sequence[ShareKey]) -> None:
        await self._enter("release", len(keys))
        for key in keys:
            self._server.unreserve(self._account, key)

    async def put(self, uploads: Sequence[ShareUpload], *, reserving: bool = False) -> list[PutOutcome]:
        server = self._server
        try:
            await self._enter("put", len(uploads))
            outcomes: list[PutOutcome] = []
            for taken, upload in enumerate(uploads):
                if taken == server.faults.break_put_after:
                    raise NodeUnreachable(node=server.node, reason="connection reset")
                outcomes.append(server.put_share(self._account, upload, reserving=reserving))
        except BaseException:
            for upload in uploads:  # the transfer died: a node gives its space back
                server.unreserve(self._account, upload.key)
            raise
        server.faults.lose_reservations = False
        return outcomes

    async def get(self, key: ShareKey, header: memoryview, data: memoryview) -> None:
        await self._enter("get", 1)
        record = self._server.serve(key)
        if record is None:
            raise ShareUnknown(blob=key.blob, share=key.number)
        if len(record) != len(header) + len(data):
            raise ProtocolViolation(node=self.node, reason=f"a share of {len(record)} bytes")
        header[:] = record[: len(header)]
        data[:] = record[len(header) :]

    async def get_many(self, keys: Sequence[ShareKey]) -> list[bytes | None]:
        await self._enter("get_many", len(keys))
        records: list[bytes | None] = []
        for key in keys:
            try:
                records.append(self._server.serve(key))
            except ShareCorrupt:
                records.append(None)
        return records

    async def have(self, blobs: Sequence[BlobId]) -> Mapping[BlobId, frozenset[ShareNumber]]:
        await self._enter("have", len(blobs), HAVE_BLOBS_MAX)
        found: dict[BlobId, set[ShareNumber]] = {blob: set() for blob in blobs}
        for key in self._server.shares:
            if key.blob in found:
                found[key.blob].add(key.number)
        for numbers in found.values():
            numbers.update(map(ShareNumber, self._server.faults.claims))
        return {blob: frozenset(numbers) for blob, numbers in found.items()}

    async def prove(self, challenges: Sequence[tuple[ShareKey, int]]) -> list[ShareProof | None]:
        await self._enter("prove", len(challenges), limit=len(challenges))
        if self._server.faults.silent_on_missing and any(
            key not in self._server.shares for key, _ in challenges
        ):
            raise NodeUnreachable(node=self.node, reason="timed out")
        return [self._server.prove_leaf(key, leaf) for key, leaf in challenges]

    async def lease(self, keys: Sequence[ShareKey], duration_s: int) -> list[bool]:
        await self._enter("lease", len(keys))
        return [self._server.lease_share(self._account, key, duration_s) for key in keys]

    async def trash(self, keys: Sequence[ShareKey]) -> list[bool]:
        await self._enter("trash", len(keys))
        leases = self._server.leases.get(self._account, {})
        for key in keys:
            if key in leases:
                leases[key].trashed = True
        return [key in leases for key in keys]

    async def shares(self, *, after: ShareKey | None, limit: int) -> list[ShareLease]:
        await self._enter("shares", 0)
        if self._server.faults.endless_list:
            first = int.from_bytes(after.blob, "big") if after is not None else 0
            invented = [BlobId((first + at).to_bytes(32, "big")) for at in range(1, limit + 1)]
            return [ShareLease(id_text(blob), 0, 1, 2.0**32, trashed=False) for blob in invented]
        leases = self._server.leases.get(self._account, {})
        held = self._server.shares
        keys = sorted(key for key in leases if key in held and (after is None or key > after))
        return [
            ShareLease(
                blob=id_text(key.blob),
                number=key.number,
                size_bytes=len(held[key]),
                expires_s=leases[key].expires_s,
                trashed=leases[key].trashed,
            )
            for key in keys[:limit]
        ]

    async def usage(self) -> AccountUsage:
        await self._enter("usage", 0)
        return self._server.account_usage(self._account)

    async def quarantined(self, *, after: ShareKey | None, limit: int) -> list[ShareQuarantined]:
        await self._enter("quarantine", 0)
        own, found = self._server.leases.get(self._account, {}), self._server.quarantine
        keys = sorted(key for key in found if key in own and (after is None or key > after))
        return [found[key] for key in keys[:limit]]

    async def aclose(self) -> None:
        self.closed = True
