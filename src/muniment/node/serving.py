"""Shares read from the store and verified against their BlobId before a byte of them leaves the node.

A whole record is hashed whole.  A range or a leaf is not: the head of the record carries the leaf hashes, so
only the head and the leaves touched are read and checked.

Blocking; any thread.  Every method raises ShareUnknown (not there), ShareCorrupt (does not verify; the caller
puts it into quarantine) or StoreFailed (the medium failed, which says nothing about the share).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from muniment.errors import MalformedRecord, RangeOutOfBounds, ShareCorrupt, UnknownVersion
from muniment.ids import ShareKey
from muniment.merkle.share_tree import ShareReceiver, check_header, check_leaf_list, leaf_hash
from muniment.merkle.tree import tree_path
from muniment.ports import ShareProof, ShareReader, ShareStore
from muniment.spec.limits import KIB, LEAF_BYTES, PUT_BODY_BYTES_MAX
from muniment.spec.share import FIXED_BYTES, HASH_BYTES, ShareHeader, decode_fixed, decode_header
from muniment.stores.pages import Pages

_T = TypeVar("_T")

_HEAD_GUESS_BYTES: Final = 4 * KIB
"""Read at once; holds the head of every share of up to 1 MiB of a 4-of-6 blob."""


@dataclass(frozen=True, slots=True)
class _Head:
    """A verified head: the header and the leaf hashes."""

    header: ShareHeader
    leaves: bytes


class VerifiedShares:
    """Reads of one store."""

    def __init__(self, store: ShareStore) -> None:
        self._store = store
        self._pages = Pages()

    def size_bytes(self, key: ShareKey) -> int:
        """The record's size, unverified."""
        reader = self._store.open(key)
        try:
            return reader.size_bytes
        finally:
            reader.close()

    def check(self, key: ShareKey) -> int:
        """Read and verify the whole record; returns its size.  Cost: O(size)."""
        return self.read(key, len)

    def read(self, key: ShareKey, use: Callable[[memoryview], _T]) -> _T:
        """Verify the whole record and return what `use` makes of it before the buffer is reused."""
        reader = self._store.open(key)
        try:
            size_bytes = reader.size_bytes
            if not FIXED_BYTES < size_bytes <= PUT_BODY_BYTES_MAX:
                raise _corrupt(key, f"record of {size_bytes} bytes")
            with self._pages.borrow(size_bytes) as pages:
                if reader.read_into(0, pages) != size_bytes:
                    raise _corrupt(key, "the record is not as long as its file")
                buffer = pages[:size_bytes]
                receiver = ShareReceiver(key, size_bytes)
                receiver.feed(buffer)
                receiver.finish()
                return use(buffer)
        finally:
            reader.close()

    def record(self, key: ShareKey) -> bytes:
        """The whole record."""
        return self.read(key, bytes)

    def span(self, key: ShareKey, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of the record; reads and checks the head and the leaves touched.

        Raises: RangeOutOfBounds: not 0 <= start < stop <= size.
        """
        reader = self._store.open(key)
        try:
            size_bytes = reader.size_bytes
            if not 0 <= start < stop <= size_bytes:
                raise RangeOutOfBounds(start=start, stop=stop, size_bytes=size_bytes)
            head = _head(reader, key)
            shape = head.header.shape
            parts = [(head.header.encode() + head.leaves)[start:stop]]
            data_start, data_stop = max(0, start - shape.head_bytes), stop - shape.head_bytes
            if data_stop > 0:
                first, last = data_start // LEAF_BYTES, -(-data_stop // LEAF_BYTES)
                data = _leaves(reader, key, head, first, last)
                parts.append(bytes(data[data_start - first * LEAF_BYTES : data_stop - first * LEAF_BYTES]))
            return b"".join(parts)
        finally:
            reader.close()

    def proofs(self, key: ShareKey, leaves: Sequence[int]) -> list[ShareProof]:
        """Leaf and path for each of these leaves of one share; the head is checked once.

        Raises: RangeOutOfBounds: no such leaf.
        """
        reader = self._store.open(key)
        try:
            head = _head(reader, key)
            count = head.header.shape.leaf_count
            proofs = []
            for leaf in leaves:
                if not 0 <= leaf < count:
                    raise RangeOutOfBounds(start=leaf, stop=leaf + 1, size_bytes=count)
                data = bytes(_leaves(reader, key, head, leaf, leaf + 1))
                proofs.append(ShareProof(head.header, leaf, data, tree_path(head.leaves, leaf)))
            return proofs
        finally:
            reader.close()


def _head(reader: ShareReader, key: ShareKey) -> _Head:
    """Read and verify header, roots and leaf list."""
    size_bytes = reader.size_bytes
    try:
        start = bytes(_exactly(reader, key, 0, min(_HEAD_GUESS_BYTES, size_bytes)))
        shape, number = decode_fixed(start[:FIXED_BYTES])
        if number != key.number or shape.record_bytes != size_bytes:
            raise _corrupt(key, f"a record of share {number} with {size_bytes} bytes")
        if len(start) < shape.head_bytes:
            start += _exactly(reader, key, len(start), shape.head_bytes - len(start))
        header = check_header(decode_header(start), key.blob)
    except (MalformedRecord, UnknownVersion) as error:
        raise _corrupt(key, str(error)) from error
    leaves = start[FIXED_BYTES + shape.roots_bytes : shape.head_bytes]
    check_leaf_list(header, key.blob, leaves)
    return _Head(header, leaves)


def _leaves(reader: ShareReader, key: ShareKey, head: _Head, first: int, last: int) -> memoryview:
    """Read and verify leaves `first` to `last` (half-open): their data."""
    shape = head.header.shape
    start, stop = first * LEAF_BYTES, min(last * LEAF_BYTES, shape.share_bytes)
    data = memoryview(_exactly(reader, key, shape.head_bytes + start, stop - start))
    for leaf in range(first, last):
        at = (leaf - first) * LEAF_BYTES
        if leaf_hash(data[at : at + LEAF_BYTES]) != head.leaves[leaf * HASH_BYTES : (leaf + 1) * HASH_BYTES]:
            raise _corrupt(key, f"leaf {leaf} is damaged")
    return data


def _exactly(reader: ShareReader, key: ShareKey, offset: int, count: int) -> bytearray:
    buffer = bytearray(count)
    if reader.read_into(offset, buffer) != count:
        raise _corrupt(key, "the record is not as long as its file")
    return buffer


def _corrupt(key: ShareKey, reason: str) -> ShareCorrupt:
    return ShareCorrupt(blob=key.blob, share=key.number, reason=reason)
