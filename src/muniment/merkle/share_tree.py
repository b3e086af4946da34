"""Share trees and the BlobId over them: every check that decides whether a share is true.

BlobId = hash(shape, roots of all n shares); a root covers the share's 16 KiB leaves.  All checks need the
BlobId only, no key.  Whatever bytes come in, they raise ShareCorrupt and nothing else.
Source: docs/spec/share.md sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

from muniment.crypto.hashing import derive, hasher
from muniment.errors import MalformedRecord, ShareCorrupt, UnknownVersion
from muniment.ids import BlobId, ShareKey, ShareNumber
from muniment.merkle.tree import root_from_path, tree_root
from muniment.spec.blob import BlobName
from muniment.spec.limits import LEAF_BYTES
from muniment.spec.share import FIXED_BYTES, HASH_BYTES, BlobShape, ShareHeader, decode_fixed, decode_header
from muniment.spec.tags import BLOB_ID, SHARE_LEAF


def leaf_hash(data: bytes | memoryview) -> bytes:
    """The hash of one leaf, at most LEAF_BYTES bytes."""
    return blake3(data, derive_key_context=SHARE_LEAF).digest()


def leaf_hashes(data: memoryview) -> bytes:
    """The hashes of a share's leaves, one for every LEAF_BYTES begun.  Cost: O(bytes), several GB/s."""
    hash_of = hasher(SHARE_LEAF)
    return b"".join([hash_of(data[at : at + LEAF_BYTES]) for at in range(0, len(data), LEAF_BYTES)])


def blob_id(shape: BlobShape, roots: bytes) -> BlobId:
    """The name of a blob: commits to its shape and to all n shares."""
    return BlobId(derive(BLOB_ID, shape.pack(), roots))


def _corrupt(key: ShareKey, reason: str) -> ShareCorrupt:
    return ShareCorrupt(blob=key.blob, share=key.number, reason=reason)


def check_header(header: ShareHeader, blob: BlobId) -> ShareHeader:
    """Return `header` if it is of this blob.  Raises: ShareCorrupt."""
    if blob_id(header.shape, header.roots) != blob:
        raise _corrupt(ShareKey(blob, header.number), "its header is not that of the blob")
    return header


def check_leaf_list(header: ShareHeader, blob: BlobId, leaves: bytes) -> None:
    """Check a list of leaf hashes against the root in a checked header.  Raises: ShareCorrupt."""
    if len(leaves) != HASH_BYTES * header.shape.leaf_count or tree_root(leaves) != header.root:
        raise _corrupt(ShareKey(blob, header.number), "its leaf list does not lead to its root")


def check_share(name: BlobName, number: int, head: memoryview, data: memoryview) -> ShareHeader:
    """Check a whole share as received: header of this blob and number, every byte of data.

    Args:
        name: the blob asked for.
        number: the share asked for.
        head: header, roots and leaf hashes, `shape.head_bytes` long.
        data: `shape.share_bytes` long.
    Raises: ShareCorrupt: anything else than that share, for any bytes.
    Cost: one pass of BLAKE3 over the data.
    """
    key = name.share(number)
    try:
        header = decode_header(head)
    except (MalformedRecord, UnknownVersion) as error:
        raise _corrupt(key, str(error)) from error
    if header.shape != name.shape or header.number != number:
        raise _corrupt(key, "it is another share")
    check_header(header, name.blob)
    if len(head) != name.shape.head_bytes or len(data) != name.shape.share_bytes:
        raise _corrupt(key, "wrong length")
    # The leaf list in the head is not needed: the data leads to the root or does not.  A list that differs
    # would still spoil later range reads from a copy of this record, so it must be right as well.
    leaves = leaf_hashes(data)
    if tree_root(leaves) != header.root:
        raise _corrupt(key, "its data does not lead to its root")
    if bytes(head[FIXED_BYTES + name.shape.roots_bytes :]) != leaves:
        raise _corrupt(key, "its leaf list is not that of its data")
    return header


def check_whole(name: BlobName, head: memoryview, data: memoryview) -> ShareHeader:
    """Check a whole blob: the header and roots of its first share, and all k data shares.

    Args:
        name: the blob asked for.
        head: `FIXED_BYTES + shape.roots_bytes` long.
        data: the data shares one after the other, `k * shape.share_bytes` long.
    Raises: ShareCorrupt: anything else than that blob, for any bytes; names the first share that is wrong.
    Cost: one pass of BLAKE3 over the data.
    """
    shape = name.shape
    try:
        header = decode_header(head)
    except (MalformedRecord, UnknownVersion) as error:
        raise _corrupt(name.share(0), str(error)) from error
    if header.shape != shape or header.number != 0:
        raise _corrupt(name.share(0), "it is another blob")
    check_header(header, name.blob)
    size = shape.share_bytes
    if len(head) != FIXED_BYTES + shape.roots_bytes or len(data) != shape.k * size:
        raise _corrupt(name.share(0), "wrong length")
    for number in range(shape.k):
        share = data[number * size : (number + 1) * size]
        if tree_root(leaf_hashes(share)) != ShareHeader(shape, ShareNumber(number), header.roots).root:
            raise _corrupt(name.share(number), "its data does not lead to its root")
    return header


def check_proof(
    name: BlobName, number: int, leaf: int, header: ShareHeader, data: bytes, path: Sequence[bytes]
) -> None:
    """Check the answer to a challenge: leaf `leaf` of share `number` and its path.

    Raises: ShareCorrupt: it does not prove possession of that leaf.
    Cost: one leaf and log2(leaves) hashes.
    """
    key = name.share(number)
    if header.shape != name.shape or header.number != number:
        raise _corrupt(key, "the proof is of another share")
    check_header(header, name.blob)
    size = min(LEAF_BYTES, name.shape.share_bytes - leaf * LEAF_BYTES)
    if leaf < 0 or len(data) != size:
        raise _corrupt(key, "the leaf has the wrong length")
    try:
        root = root_from_path(leaf_hash(data), leaf, name.shape.leaf_count, path)
    except MalformedRecord as error:
        raise _corrupt(key, str(error)) from error
    if root != header.root:
        raise _corrupt(key, "the proof does not lead to the root")


class ShareReceiver:
    """Verifies one share record while it arrives in pieces of any size.

    The header is checked against the BlobId as soon as it is whole, then the leaf list against the root,
    then each leaf as it completes, so that false data is refused within one leaf of the first wrong byte.
    Keeps at most the head and one leaf.

    Args:
        key: the share that was announced.
        size_bytes: the size that was announced; a head that says otherwise is refused.
    """

    def __init__(self, key: ShareKey, size_bytes: int) -> None:
        self._key = key
        self._size = size_bytes
        self._seen = 0
        self._pending = bytearray()
        self._need = FIXED_BYTES
        self._header: ShareHeader | None = None
        self._leaves: bytes | None = None
        self._leaf = 0
        self._leaf_hash = hasher(SHARE_LEAF)

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the record.  Raises: ShareCorrupt: at the first piece that is wrong."""
        self._seen += len(data)
        if self._seen > self._size:
            raise _corrupt(self._key, "it is longer than announced")
        if self._leaves is None:
            data = self._feed_head(data)
        if self._leaves is not None and data:
            self._feed_leaves(data)

    def finish(self) -> ShareHeader:
        """The header of the record, all of which has been verified.  Raises: ShareCorrupt: incomplete."""
        if self._header is None or self._leaves is None or self._seen != self._size:
            raise _corrupt(self._key, f"it ended after {self._seen} of {self._size} bytes")
        if self._pending:
            self._check_leaf(memoryview(bytes(self._pending)))
            self._pending.clear()
        return self._header

    def _feed_head(self, data: memoryview) -> memoryview:
        """Collect the head; returns what of `data` lies behind it."""
        while self._leaves is None:
            take = self._need - len(self._pending)
            self._pending += data[:take]
            data = data[take:]
            if len(self._pending) < self._need:
                return data
            self._parse_head()
        self._pending.clear()
        return data

    def _parse_head(self) -> None:
        """Act on as much of the head as is complete, and say how much more is needed."""
        head = bytes(self._pending)
        try:
            if len(head) == FIXED_BYTES:
                shape, number = decode_fixed(head)
                if number != self._key.number or shape.record_bytes != self._size:
                    raise _corrupt(self._key, "its header says another share or size")
                self._need = FIXED_BYTES + shape.roots_bytes
            elif self._header is None:
                self._header = check_header(decode_header(head), self._key.blob)
                self._need = self._header.shape.head_bytes
            else:
                leaves = head[FIXED_BYTES + self._header.shape.roots_bytes :]
                check_leaf_list(self._header, self._key.blob, leaves)
                self._leaves = leaves
        except (MalformedRecord, UnknownVersion) as error:
            raise _corrupt(self._key, str(error)) from error

    def _feed_leaves(self, data: memoryview) -> None:
        if self._pending:
            take = LEAF_BYTES - len(self._pending)
            self._pending += data[:take]
            data = data[take:]
            if len(self._pending) < LEAF_BYTES:
                return
            self._check_leaf(memoryview(bytes(self._pending)))
            self._pending.clear()
        whole = len(data) - len(data) % LEAF_BYTES
        for at in range(0, whole, LEAF_BYTES):
            self._check_leaf(data[at : at + LEAF_BYTES])
        self._pending += data[whole:]

    def _check_leaf(self, data: memoryview) -> None:
        assert self._leaves is not None
        at = self._leaf * HASH_BYTES
        if self._leaf_hash(data) != self._leaves[at : at + HASH_BYTES]:
            raise _corrupt(self._key, f"leaf {self._leaf} is wrong")
        self._leaf += 1
