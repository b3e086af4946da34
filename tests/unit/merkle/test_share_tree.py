"""Share trees, proofs and the incremental receiver: true shares pass, nothing else does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.sealing import BlobBuffers, SealedBlob, Sealer
from muniment.erasure.codec import Coding
from muniment.errors import MalformedRecord, ShareCorrupt
from muniment.ids import ShareNumber
from muniment.merkle.share_tree import (
    ShareReceiver,
    check_proof,
    check_share,
    check_whole,
    leaf_hash,
    leaf_hashes,
)
from muniment.merkle.tree import root_from_path, tree_path, tree_root
from muniment.spec.limits import LEAF_BYTES
from muniment.spec.share import ShareHeader, decode_header

SIZES = [1, 100, 4 * LEAF_BYTES - 17, 4 * LEAF_BYTES - 16, 4 * LEAF_BYTES - 15, 300_000]


def sealed(size: int = 300_000, coding: str = "4/6") -> SealedBlob:
    code = Coding.from_text(coding)
    plain = memoryview(bytearray(random.Random(size).randbytes(size)))
    return Sealer(bytes(32), code, compress=False).seal(plain, BlobBuffers(code, size))


BLOB = sealed()
NAME = BLOB.ref.name
RECORD = b"".join(BLOB.parts(2))
HEAD = NAME.shape.head_bytes


def check(record: bytes, number: int = 2) -> ShareHeader:
    view = memoryview(bytearray(record))
    return check_share(NAME, number, view[:HEAD], view[HEAD:])


def receive(record: bytes, pieces: list[int], *, size: int | None = None) -> ShareHeader:
    receiver = ShareReceiver(NAME.share(2), len(RECORD) if size is None else size)
    at = 0
    for piece in pieces:
        receiver.feed(memoryview(record)[at : at + piece])
        at += piece
    receiver.feed(memoryview(record)[at:])
    return receiver.finish()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coding", ["4/6", "1/1", "rep-3"])
def test_every_share_of_a_blob_passes(size: int, coding: str) -> None:
    blob = sealed(size, coding)
    for number in range(blob.ref.name.shape.n):
        record = memoryview(bytearray(b"".join(blob.parts(number))))
        head = blob.ref.name.shape.head_bytes
        assert check_share(blob.ref.name, number, record[:head], record[head:]).number == number
        receiver = ShareReceiver(blob.ref.name.share(number), len(record))
        receiver.feed(record)
        assert receiver.finish() == decode_header(bytes(record))


def whole(blob: SealedBlob) -> tuple[bytes, bytes]:
    """Head and data of a whole blob."""
    shape = blob.name.shape
    head = ShareHeader(shape, ShareNumber(0), blob.roots).encode()
    return head, b"".join(bytes(share) for share in blob.shares[: shape.k])


def check_parts(head: bytes, data: bytes) -> ShareHeader:
    return check_whole(NAME, memoryview(bytearray(head)), memoryview(bytearray(data)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coding", ["4/6", "1/1", "rep-3"])
def test_a_whole_blob_passes(size: int, coding: str) -> None:
    blob = sealed(size, coding)
    head, data = whole(blob)
    assert check_whole(blob.name, memoryview(head), memoryview(data)).roots == blob.roots


@given(st.integers(0, 8 * sum(map(len, whole(BLOB))) - 1))
def test_one_flipped_bit_anywhere_in_a_whole_blob_is_refused(bit: int) -> None:
    head, data = whole(BLOB)
    wrong = bytearray(head + data)
    wrong[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ShareCorrupt):
        check_parts(bytes(wrong[: len(head)]), bytes(wrong[len(head) :]))


def test_a_whole_blob_that_is_shorter_longer_or_another_is_refused() -> None:
    head, data = whole(BLOB)
    other = whole(sealed(300_001))
    for wrong in (
        (head, data[:-1]),
        (head, data + b"\0"),
        (head, b""),
        (head[:-1], data),
        (head + b"\0", data),
        (b"", b""),
        other,
    ):
        with pytest.raises(ShareCorrupt):
            check_parts(*wrong)


@given(st.binary(max_size=400), st.binary(max_size=100))
def test_any_bytes_for_a_whole_blob_are_refused_in_one_way(head: bytes, data: bytes) -> None:
    with pytest.raises(ShareCorrupt):
        check_parts(head, data)
    with pytest.raises(ShareCorrupt):
        check_parts(whole(BLOB)[0], data)


@given(st.lists(st.integers(0, 40_000), max_size=12))
def test_a_record_is_received_in_pieces_of_any_size(pieces: list[int]) -> None:
    assert receive(RECORD, pieces) == check(RECORD)


@given(st.integers(0, 8 * len(RECORD) - 1), st.integers(1, 50_000))
def test_one_flipped_bit_anywhere_is_refused(bit: int, piece: int) -> None:
    wrong = bytearray(RECORD)
    wrong[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ShareCorrupt):
        check(bytes(wrong))
    with pytest.raises(ShareCorrupt):
        receive(bytes(wrong), [piece])


def test_a_false_leaf_is_refused_as_soon_as_it_is_complete() -> None:
    wrong = bytearray(RECORD)
    wrong[HEAD + LEAF_BYTES + 5] ^= 1
    receiver = ShareReceiver(NAME.share(2), len(wrong))
    receiver.feed(memoryview(wrong)[: HEAD + 2 * LEAF_BYTES - 1])
    with pytest.raises(ShareCorrupt, match="leaf 1"):
        receiver.feed(memoryview(wrong)[HEAD + 2 * LEAF_BYTES - 1 : HEAD + 2 * LEAF_BYTES])


@pytest.mark.parametrize("cut", [0, 1, 23, 24, 100, HEAD, HEAD + 1, len(RECORD) - 1])
def test_a_truncated_record_is_refused(cut: int) -> None:
    with pytest.raises(ShareCorrupt):
        receive(RECORD[:cut], [])
    with pytest.raises(ShareCorrupt):
        check(RECORD[:cut])


def test_bytes_behind_a_record_are_refused() -> None:
    with pytest.raises(ShareCorrupt):
        receive(RECORD + b"x", [])
    with pytest.raises(ShareCorrupt):
        check(RECORD + b"x")


def test_a_record_of_another_size_than_announced_is_refused_at_its_header() -> None:
    with pytest.raises(ShareCorrupt, match="another share or size"):
        receive(RECORD, [], size=len(RECORD) + 1)


def test_swapped_shares_are_refused() -> None:
    other = b"".join(BLOB.parts(3))
    with pytest.raises(ShareCorrupt, match="another share"):
        check(other, number=2)
    with pytest.raises(ShareCorrupt):
        receive(other, [])


def test_a_share_of_a_foreign_version_is_refused() -> None:
    with pytest.raises(ShareCorrupt, match="version 2"):
        check(RECORD[:8] + b"\2" + RECORD[9:])


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(ShareCorrupt):
        check(data)
    with pytest.raises(ShareCorrupt):
        receive(data, [7])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65])
def test_every_leafs_path_leads_to_the_root_and_no_other_does(count: int) -> None:
    leaves = b"".join(leaf_hash(bytes((i,))) for i in range(count))
    root = tree_root(leaves)
    for index in range(count):
        leaf, path = leaves[32 * index :][:32], tree_path(leaves, index)
        assert root_from_path(leaf, index, count, path) == root
        assert root_from_path(leaf_hash(b"no"), index, count, path) != root
        for wrong in (path[1:], (*path, root)) if path else ((root,),):
            with pytest.raises(MalformedRecord):
                root_from_path(leaf, index, count, wrong)
    for index in (-1, count):
        with pytest.raises(MalformedRecord):
            root_from_path(leaves[:32], index, count, ())


def test_a_proof_proves_its_leaf_and_nothing_else() -> None:
    data = BLOB.shares[2]
    leaves = leaf_hashes(data)
    header = check(RECORD)
    last = NAME.shape.leaf_count - 1
    for leaf in (0, 1, last):
        body = bytes(data[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES])
        path = tree_path(leaves, leaf)
        check_proof(NAME, 2, leaf, header, body, path)
        wrongs = [
            (2, leaf, header, body[:-1], path),
            (2, leaf, header, bytes(len(body)), path),
            (2, leaf, header, body, path[:-1]),
            (1, leaf, header, body, path),
            (2, leaf, ShareHeader(NAME.shape, header.number, bytes(len(header.roots))), body, path),
            (2, -1, header, body, path),
            (2, last + 1, header, b"", path),
        ]
        for number, at, head, content, steps in wrongs:
            with pytest.raises(ShareCorrupt):
                check_proof(NAME, number, at, head, content, steps)
