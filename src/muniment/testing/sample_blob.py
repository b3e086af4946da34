"""Blobs with true BlobIds made from arbitrary bytes, for tests that need shares and nothing sealed.

A node cannot see whether shares decode to anything, so any bytes make a valid blob in its eyes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from muniment.ids import ShareKey, ShareNumber
from muniment.merkle.share_tree import blob_id, leaf_hashes
from muniment.merkle.tree import tree_root
from muniment.ports import ShareClaim, ShareUpload
from muniment.spec.blob import BlobName
from muniment.spec.share import BlobShape, CodecId, ShareHeader


@dataclass(frozen=True, slots=True)
class SampleBlob:
    """A blob and its n share records as stored.

    Attributes:
        name: as a checker knows it.
        records: whole share records in share order, each `name.shape.record_bytes` long.
    """

    name: BlobName
    records: tuple[bytes, ...]

    def key(self, number: int) -> ShareKey:
        """Names one share."""
        return self.name.share(number)

    def claim(self, number: int) -> ShareClaim:
        """Asks for the space of one share."""
        return ShareClaim(self.key(number), len(self.records[number]))

    def upload(self, number: int) -> ShareUpload:
        """One share as the engine sends it: head and data apart."""
        record, cut = self.records[number], self.name.shape.head_bytes
        return ShareUpload(self.key(number), (record[:cut], memoryview(record)[cut:]))


def sample_blob(seed: int, *, length: int = 40_000, k: int = 2, n: int = 3) -> SampleBlob:
    """A blob of n shares of ceil(length / k) random bytes each; the same for the same arguments."""
    chance = random.Random(f"{seed} {length} {k} {n}")
    shape = BlobShape(CodecId.RS, k, n, length)
    datas = [chance.randbytes(shape.share_bytes) for _ in range(n)]
    leaves = [leaf_hashes(memoryview(data)) for data in datas]
    roots = b"".join(tree_root(hashes) for hashes in leaves)
    name = BlobName(blob_id(shape, roots), shape)
    records = tuple(
        ShareHeader(shape, ShareNumber(number), roots).encode() + leaves[number] + datas[number]
        for number in range(n)
    )
    return SampleBlob(name, records)
