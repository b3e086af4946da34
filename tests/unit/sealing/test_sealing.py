"""Sealing and opening at every boundary, from any k shares, with any wrong key."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
import zstandard

from muniment.core.manifesting import content_row
from muniment.core.sealing import (
    BlobBuffers,
    OpenBuffers,
    SealedBlob,
    Sealer,
    open_apart,
    open_blob,
    open_manifest,
    open_verify_half,
    verify_key,
)
from muniment.erasure.codec import Coding
from muniment.errors import BlobCorrupt, BlobInconsistent, IntegrityError
from muniment.merkle.share_tree import blob_id, check_share
from muniment.merkle.tree import tree_root
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.limits import LEAF_BYTES, MIB
from muniment.spec.manifest import Manifest, ManifestKind

CHUNK = 64 * 1024
SIZES = sorted(
    {max(1, edge + step) for edge in (1, 4, LEAF_BYTES, 4 * LEAF_BYTES, CHUNK) for step in (-17, -1, 0, 1)}
)


def noise(size: int, seed: int = 0) -> memoryview:
    return memoryview(bytearray(random.Random(seed).randbytes(size)))


def received(blob: SealedBlob, numbers: Sequence[int], buffers: OpenBuffers) -> None:
    shape = blob.ref.name.shape
    buffers.begin(shape)
    for number in numbers:
        record = b"".join(blob.parts(number))
        assert len(record) == shape.record_bytes
        buffers.head(number)[:] = record[: shape.head_bytes]
        buffers.data(number)[:] = record[shape.head_bytes :]


@pytest.mark.parametrize("coding", ["4/6", "rep-3", "1/1", "3/10", "5/5"])
def test_a_blob_opens_from_any_k_shares_at_every_boundary(coding: str) -> None:
    code = Coding.from_text(coding)
    sealer, buffers, opened = Sealer(bytes(32), code), BlobBuffers(code, CHUNK), OpenBuffers()
    for seed, size in enumerate(SIZES):
        for plain in (noise(size, seed), memoryview(b"text " * size)[:size]):
            blob = sealer.seal(plain, buffers)
            numbers = random.Random(seed).sample(range(code.n), code.k)
            received(blob, numbers, opened)
            assert open_blob(blob.ref, numbers, opened) == plain


def test_equal_plaintext_gives_equal_blobs_under_one_secret_only() -> None:
    code = Coding.from_text("4/6")
    plain = noise(1000)
    first = Sealer(bytes(32), code).seal(plain, BlobBuffers(code, CHUNK)).ref
    assert Sealer(bytes(32), code).seal(plain, BlobBuffers(code, CHUNK)).ref == first
    others = [
        Sealer(b"\1" * 32, code).seal(plain, BlobBuffers(code, CHUNK)).ref,
        Sealer(bytes(32), Coding.from_text("4/7"))
        .seal(plain, BlobBuffers(Coding.from_text("4/7"), CHUNK))
        .ref,
        Sealer(bytes(32), code).seal(noise(1000, 1), BlobBuffers(code, CHUNK)).ref,
    ]
    for other in others:
        assert other.name.blob != first.name.blob
        assert other.key != first.key


def test_compression_is_kept_only_if_smaller() -> None:
    code = Coding.from_text("1/1")
    sealer, buffers = Sealer(bytes(32), code), BlobBuffers(code, CHUNK)
    assert sealer.seal(memoryview(b"a" * 5000), buffers).ref.compression is Compression.ZSTD
    assert sealer.seal(noise(5000), buffers).ref.compression is Compression.NONE
    plain = Sealer(bytes(32), code, compress=False).seal(memoryview(b"a" * 5000), buffers).ref
    assert plain.compression is Compression.NONE


def test_of_large_content_a_few_pieces_decide_whether_it_is_compressed() -> None:
    code = Coding.from_text("1/1")
    sealer, buffers = Sealer(bytes(32), code), BlobBuffers(code, 2 * MIB)

    def compression(content: bytes) -> Compression:
        return sealer.seal(memoryview(content), buffers).ref.compression

    half = bytes(noise(MIB // 2 - 1))
    assert compression(b"text " * (MIB // 2)) is Compression.ZSTD
    assert compression(half + bytes(MIB) + half) is Compression.ZSTD
    assert compression(half + bytes(MIB // 8) + half) is Compression.ZSTD, "one piece is enough"
    assert compression(bytes(noise(2 * MIB))) is Compression.NONE
    # What repeats itself and is noise in each piece is found where all of it is tried.
    assert compression(bytes(noise(8192)) * 127) is Compression.ZSTD
    assert compression(bytes(noise(8192)) * 129) is Compression.NONE


def changed(ref: BlobRef, **values: object) -> BlobRef:
    fields = {
        "name": ref.name,
        "key": ref.key,
        "plain_bytes": ref.plain_bytes,
        "compression": ref.compression,
    }
    return BlobRef(**{**fields, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [False, True], ids=["noise", "text"])
def test_a_reference_that_is_wrong_opens_nothing(text: bool) -> None:
    code = Coding.from_text("2/3")
    plain = memoryview(b"text " * 300) if text else noise(1500)
    blob = Sealer(bytes(32), code).seal(plain, BlobBuffers(code, CHUNK))
    opened = OpenBuffers()
    other = Compression.NONE if text else Compression.ZSTD
    for wrong in ({"key": bytes(32)}, {"plain_bytes": 1499}, {"plain_bytes": 1501}, {"compression": other}):
        received(blob, [0, 2], opened)
        with pytest.raises(BlobCorrupt):
            open_blob(changed(blob.ref, **wrong), [0, 2], opened)


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    code = Coding.from_text("1/1")
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 30))
    blob = Sealer(bytes(32), code, compress=False).seal(memoryview(bomb), BlobBuffers(code, len(bomb)))
    opened = OpenBuffers()
    received(blob, [0], opened)
    with pytest.raises(BlobCorrupt):
        open_blob(changed(blob.ref, plain_bytes=1000, compression=Compression.ZSTD), [0], opened)


def test_a_share_that_lost_its_race_spoils_neither_this_blob_nor_the_next() -> None:
    code = Coding.from_text("2/4")
    sealer, opened = Sealer(bytes(32), code, compress=False), OpenBuffers()
    first = sealer.seal(noise(1000, 1), BlobBuffers(code, CHUNK))
    received(first, [0, 2], opened)
    late = opened.data(1)  # asked for, overtaken by share 2, and still being received
    assert open_blob(first.ref, [0, 2], opened) == noise(1000, 1)
    late[:] = bytes(len(late))
    assert open_blob(first.ref, [0, 2], opened) == noise(1000, 1)
    second = sealer.seal(noise(900, 2), BlobBuffers(code, CHUNK))
    received(second, [0, 1], opened)
    late[:] = bytes(len(late))
    assert open_blob(second.ref, [0, 1], opened) == noise(900, 2)


@pytest.mark.parametrize("plain", [noise(1000, 1), memoryview(b"text " * 200)], ids=["noise", "text"])
def test_what_is_opened_apart_stays_when_its_buffers_are_used_again(plain: memoryview) -> None:
    code = Coding.from_text("2/4")
    sealer, opened = Sealer(bytes(32), code), OpenBuffers()
    blob = sealer.seal(plain, BlobBuffers(code, CHUNK))
    received(blob, [0, 3], opened)
    kept = open_apart(blob.ref, [0, 3], opened)
    other = sealer.seal(noise(1000, 2), BlobBuffers(code, CHUNK))
    received(other, [1, 2], opened)
    assert open_blob(other.ref, [1, 2], opened) == noise(1000, 2)
    assert kept == plain
    assert kept.readonly


def crossed(one: SealedBlob, other: SealedBlob, taken: Sequence[int]) -> SealedBlob:
    """A blob of which some shares are those of another: its name commits to them, and each verifies."""
    leaves, shares = list(one.leaves), [memoryview(bytes(share)) for share in one.shares]
    for number in taken:
        leaves[number], shares[number] = other.leaves[number], memoryview(bytes(other.shares[number]))
    roots = b"".join(map(tree_root, leaves))
    name = BlobName(blob_id(one.ref.name.shape, roots), one.ref.name.shape)
    return SealedBlob(changed(one.ref, name=name), roots, tuple(leaves), tuple(shares))


@pytest.mark.parametrize("coding", ["2/4", "rep-3"])
def test_shares_of_two_contents_under_one_name_give_one_of_them_at_most(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the key of a blob could else show each reader another content."""
    code = Coding.from_text(coding)
    # Both under one key, as no honest writer makes them.
    monkeypatch.setattr("muniment.core.sealing.derive", lambda *_: bytes(32))
    sealer = Sealer(bytes(32), code, compress=False)
    one = sealer.seal(noise(40_000, 1), BlobBuffers(code, CHUNK))
    other = sealer.seal(noise(40_000, 2), BlobBuffers(code, CHUNK))
    monkeypatch.undo()
    blob, opened, seen = crossed(one, other, range(code.k, code.n)), OpenBuffers(), set[bytes]()
    for numbers in itertools.combinations(range(code.n), code.k):
        received(blob, numbers, opened)
        for number in numbers:
            check_share(blob.ref.name, number, opened.head(number), opened.data(number))
        try:
            seen.add(bytes(open_blob(blob.ref, numbers, opened)))
        except BlobInconsistent:
            continue
    assert seen <= {bytes(noise(40_000, 1))}
    with pytest.raises(BlobInconsistent):
        open_blob(blob.ref, numbers, opened)


def test_a_verify_key_opens_the_names_and_not_the_keys() -> None:
    code = Coding.from_text("2/3")
    sealer = Sealer(bytes(32), code)
    rows = tuple(
        content_row(sealer.seal(noise(500, seed), BlobBuffers(code, CHUNK)).ref) for seed in range(20)
    )
    manifest = Manifest(ManifestKind.FILE, rows)
    sealed, opened = sealer.seal_manifest(manifest, BlobBuffers(code, 16)), OpenBuffers()
    received(sealed, [1, 2], opened)
    assert open_manifest(sealed.ref, [1, 2], opened) == manifest
    weak = verify_key(sealed.ref.key)
    half = open_verify_half(sealed.ref.name, weak, [1, 2], opened)
    assert [row.name for row in half.rows] == [row.ref.name for row in rows]
    with pytest.raises(IntegrityError):
        open_manifest(changed(sealed.ref, key=weak), [1, 2], opened)
    with pytest.raises(IntegrityError):
        open_verify_half(sealed.ref.name, sealed.ref.key, [1, 2], opened)


def test_secrets_do_not_show() -> None:
    secret = b"s3cret-convergence-secret-000000"
    blob = Sealer(secret, Coding.from_text("1/1")).seal(noise(10), BlobBuffers(Coding.from_text("1/1"), 64))
    assert "s3cret" not in repr(Sealer(secret, Coding.from_text("1/1")))
    assert repr(blob.ref.key)[2:-1] not in repr(blob.ref)
