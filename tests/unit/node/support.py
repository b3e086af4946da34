"""A clock that stands still, small real blobs, and a node without HTTP around them."""

from __future__ import annotations

from dataclasses import dataclass, field

from muniment.crypto.identity import Identity
from muniment.ids import NodeId, ShareNumber
from muniment.merkle.share_tree import blob_id, leaf_hashes
from muniment.merkle.tree import tree_root
from muniment.ports import StoredShare
from muniment.spec.blob import BlobName
from muniment.spec.record import NodeRecord
from muniment.spec.share import BlobShape, CodecId, ShareHeader

START_S = 1_000_000.0


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


@dataclass
class MadeBlob:
    """A blob whose shares are arbitrary bytes with true hashes: all a node ever looks at."""

    name: BlobName
    records: list[bytes] = field(repr=False)

    def stored(self, number: int) -> StoredShare:
        return StoredShare(self.name.share(number), len(self.records[number]))


def make_blob(length: int = 3000, k: int = 2, n: int = 3, seed: int = 0) -> MadeBlob:
    shape = BlobShape(CodecId.RS, k, n, length)
    shares = [bytes((seed + 7 * number + at) % 251 for at in range(251)) for number in range(n)]
    shares = [(share * (shape.share_bytes // 251 + 1))[: shape.share_bytes] for share in shares]
    leaves = [leaf_hashes(memoryview(share)) for share in shares]
    roots = b"".join(tree_root(leaf) for leaf in leaves)
    heads = [ShareHeader(shape, ShareNumber(number), roots).encode() + leaves[number] for number in range(n)]
    return MadeBlob(
        BlobName(blob_id(shape, roots), shape),
        [head + share for head, share in zip(heads, shares, strict=True)],
    )


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
