"""A clock that stands still, small real blobs, and a node without HTTP around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from muniment.crypto.identity import Identity
from muniment.errors import ShareUnknown
from muniment.ids import AccountId, NodeId, ShareKey
from muniment.node.admission import Admission
from muniment.node.books import Books
from muniment.node.config import NodeConfig, Policy, Times
from muniment.node.ledger import Ledger
from muniment.node.service import NodeService
from muniment.ports import (
    Accepted,
    Held,
    PutOutcome,
    Refused,
    ReserveOutcome,
    ShareClaim,
    ShareStore,
    StoredShare,
)
from muniment.spec.record import NodeRecord
from muniment.stores.memory import MemoryStore
from muniment.testing.sample_blob import SampleBlob, sample_blob

START_S = 1_000_000.0
ALICE, BOB = AccountId(b"a" * 32), AccountId(b"b" * 32)


@dataclass
class VirtualClock:
    """Both clocks, moved by hand."""

    now: float = START_S
    monotonic: float = 50.0

    def now_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.monotonic

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.monotonic += seconds


def make_blob(length: int = 3000, k: int = 2, n: int = 3, seed: int = 0) -> SampleBlob:
    return sample_blob(seed, length=length, k=k, n=n)


def on_disk(blob: SampleBlob, number: int) -> StoredShare:
    """A share as a scan of the store shows it."""
    return StoredShare(blob.key(number), len(blob.records[number]))


def identity(number: int) -> Identity:
    return Identity.from_seed(bytes([number]) * 32)


def node_record(who: Identity, *, issued_s: float, life_s: float = 3600, port: int = 1) -> NodeRecord:
    return NodeRecord(
        node=NodeId(who.node),
        public_key=who.public_key,
        addresses=(f"127.0.0.1:{port}",),
        zone="",
        capacity_bytes=1000,
        price=0,
        protocols=(1,),
        issued_s=int(issued_s),
        expires_s=int(issued_s + life_s),
    )


@dataclass
class Bench:
    """A node's parts, wired as the composition root does it, on a memory store."""

    config: NodeConfig
    admission: Admission
    clock: VirtualClock
    store: ShareStore
    ledger: Ledger
    books: Books
    service: NodeService

    def reserve(self, account: AccountId, blob: SampleBlob, *numbers: int) -> list[ReserveOutcome]:
        claims = [ShareClaim(blob.key(n), len(blob.records[n])) for n in numbers]
        return self.service.reserve(account, claims)

    def put(self, account: AccountId, blob: SampleBlob, *numbers: int) -> list[PutOutcome]:
        receiver = self.service.begin_put(account, len(numbers))
        receiver.feed([framed(blob, *numbers)])
        return receiver.finish()

    def stored(self, account: AccountId, blob: SampleBlob, *numbers: int) -> SampleBlob:
        """Reserve and put; all must succeed."""
        assert all(isinstance(outcome, Accepted) for outcome in self.reserve(account, blob, *numbers))
        assert self.put(account, blob, *numbers) == [Held()] * len(numbers)
        return blob

    def write(self, key: ShareKey, content: bytes) -> None:
        """Put bytes into the store behind the node's back."""
        writer = self.store.create(key, len(content))
        writer.write(content)
        self.store.commit([writer])

    def read(self, key: ShareKey) -> bytes | None:
        """What the store has, as it is."""
        try:
            reader = self.store.open(key)
        except ShareUnknown:
            return None
        buffer = bytearray(reader.size_bytes)
        reader.read_into(0, buffer)
        reader.close()
        return bytes(buffer)

    def sums(self) -> tuple[int, int, int]:
        """Used and reserved bytes and the number of shares, as `info` tells them."""
        status = self.service.info()
        return status.used_bytes, status.reserved_bytes, status.share_count


def make_bench(
    folder: Path,
    *,
    capacity_bytes: int = 1_000_000,
    policy: Policy | None = None,
    times: Times | None = None,
    store: ShareStore | None = None,
    clock: VirtualClock | None = None,
) -> Bench:
    config = NodeConfig(
        capacity_bytes=capacity_bytes, policy=policy or Policy(), times=times or Times(lease_s=1000)
    )
    clock = clock or VirtualClock()
    store = store or MemoryStore()
    ledger = Ledger(folder / "ledger.sqlite")
    admission = Admission(config.policy)
    books = Books(config, admission, ledger, clock)
    service = NodeService("0", capacity_bytes, books, store, clock, lambda: "record")
    return Bench(config, admission, clock, store, ledger, books, service)


def framed(blob: SampleBlob, *numbers: int) -> bytes:
    """The body of a put."""
    return b"".join(blob.name.blob + blob.records[number] for number in numbers)


def reasons(outcomes: Sequence[object]) -> list[str]:
    """What became of each share: `held`, `accepted`, or the code of the error."""
    return [
        outcome.error.code if isinstance(outcome, Refused) else type(outcome).__name__.lower()
        for outcome in outcomes
    ]
