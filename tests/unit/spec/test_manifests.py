"""Manifests and tree entries: both halves survive, and hostile ones are refused."""

from __future__ import annotations

import random

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.manifesting import ManifestBuilder, content_row, nested_row
from muniment.errors import IntegrityError, MalformedRecord, UnknownVersion
from muniment.ids import BlobId
from muniment.spec import manifest as spec
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.manifest import Manifest, ManifestKind, Row
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.tree_entry import EntryType, Extent, TreeEntry


def ref(seed: int, plain_bytes: int = 1000) -> BlobRef:
    noise = random.Random(seed)
    shape = BlobShape(CodecId.RS, 4, 6, plain_bytes + 16)
    return BlobRef(
        BlobName(BlobId(noise.randbytes(32)), shape), noise.randbytes(32), plain_bytes, Compression.NONE
    )


def file(path: bytes, row: int = 0, length: int = 10) -> TreeEntry:
    return TreeEntry(path, EntryType.FILE, 0o644, 1, length, extents=(Extent(row, 0, length),))


TREE = Manifest(
    ManifestKind.TREE,
    (content_row(ref(1)), nested_row(ref(2), 10**9)),
    (
        TreeEntry(b"a", EntryType.DIRECTORY, 0o755, -5),
        file(b"a/b"),
        TreeEntry(b"a/c", EntryType.FILE, 0o600, 2, 3, inline=b"abc"),
        file(b"big", row=1, length=10**9),
        TreeEntry(b"link", EntryType.SYMLINK, 0o777, 0, inline=b"a/b"),
    ),
)
FILE = Manifest(ManifestKind.FILE, tuple(content_row(ref(i)) for i in range(5)))


def decoded(verify: bytes, read: bytes) -> Manifest:
    return spec.decode_read_half(read, spec.decode_verify_half(verify))


@pytest.mark.parametrize(
    "manifest", [TREE, FILE, Manifest(ManifestKind.TREE, ())], ids=["tree", "file", "empty"]
)
def test_a_manifest_survives_its_halves(manifest: Manifest) -> None:
    verify, read = spec.encode_verify_half(manifest), spec.encode_read_half(manifest)
    assert decoded(verify, read) == manifest
    for row in manifest.rows:
        assert row.ref.key not in verify


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    for decode in (
        spec.decode_verify_half,
        lambda d: spec.decode_read_half(d, spec.VerifyHalf(TREE.kind, ())),
    ):
        with pytest.raises(MalformedRecord):
            decode(data)
    with pytest.raises(IntegrityError):
        spec.split_sealed(memoryview(data))


@given(st.integers(0, 5000), st.integers(0, 7))
def test_a_flipped_bit_never_raises_anything_else(at: int, bit: int) -> None:
    verify, read = bytearray(spec.encode_verify_half(TREE)), bytearray(spec.encode_read_half(TREE))
    half = verify if at % 2 else read
    half[at % len(half)] ^= 1 << bit
    try:
        decoded(bytes(verify), bytes(read))
    except IntegrityError:
        pass  # refused, or (in ids, keys and paths, which carry no check of their own) read as another


def test_trailing_bytes_and_other_encodings_are_refused() -> None:
    verify = spec.encode_verify_half(FILE)
    with pytest.raises(MalformedRecord):
        spec.decode_verify_half(verify + b"\0")
    kind, *rest = cbor2.loads(verify)
    loose = cbor2.dumps([kind, *rest])[:1] + b"\x18\x01" + cbor2.dumps([kind, *rest])[2:]
    with pytest.raises(MalformedRecord, match="canonical"):
        spec.decode_verify_half(loose)


def test_a_sealed_head_is_checked_before_anything() -> None:
    head = spec.pack_sealed_head(4)
    assert [bytes(half) for half in spec.split_sealed(memoryview(head + b"verifyre"))] == [b"veri", b"fyre"]
    with pytest.raises(UnknownVersion):
        spec.split_sealed(memoryview(head[:8] + b"\2" + head[9:] + b"xxxx"))
    with pytest.raises(MalformedRecord):
        spec.split_sealed(memoryview(head + b"xxx"))


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"/etc/passwd",
        b"..",
        b"a/../b",
        b"a//b",
        b"a/",
        b"./a",
        b"a\0b",
        b"x" * 256,
        b"a/" * 3000 + b"b",
    ],
)
def test_a_path_that_could_leave_the_folder_is_refused(path: bytes) -> None:
    with pytest.raises(MalformedRecord):
        file(path)


@pytest.mark.parametrize(
    "entries",
    [
        (file(b"b"), file(b"a")),
        (file(b"a"), file(b"a")),
        (file(b"a"), file(b"a/b")),
        (TreeEntry(b"l", EntryType.SYMLINK, 0o777, 0, inline=b"/etc"), file(b"l/passwd")),
        (file(b"a", row=7),),
        (file(b"a", row=0, length=5000),),
    ],
    ids=["unsorted", "double", "below a file", "below a link", "no such row", "behind the row"],
)
def test_a_tree_that_does_not_hold_together_is_refused(entries: tuple[TreeEntry, ...]) -> None:
    wrong = Manifest(ManifestKind.TREE, TREE.rows, entries)
    with pytest.raises(MalformedRecord):
        decoded(spec.encode_verify_half(wrong), spec.encode_read_half(wrong))


@pytest.mark.parametrize(
    "values",
    [
        {"mode": 0o10000},
        {"size_bytes": 11},
        {"mtime_ns": 1 << 64},
        {"type": EntryType.DIRECTORY},
        {"type": EntryType.SYMLINK},
        {"inline": b"both"},
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(values: dict[str, object]) -> None:
    fields: dict[str, object] = {
        "path": b"a", "type": EntryType.FILE, "mode": 0o644, "mtime_ns": 0, "size_bytes": 10,
        "extents": (Extent(0, 0, 10),),
    }  # fmt: skip
    with pytest.raises(MalformedRecord):
        TreeEntry(**{**fields, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 9, 10, 27, 28, 100])
def test_a_builder_of_any_count_gives_every_row_once_and_in_order(count: int) -> None:
    builder = ManifestBuilder(rows_max=3)
    sealed: dict[bytes, Manifest] = {}

    def seal(level: int, manifest: Manifest) -> Row:
        """Stand in for sealing and storing: only the row matters here."""
        name = ref(10_000 * (level + 1) + len(sealed))
        sealed[name.name.blob] = manifest
        return nested_row(name, manifest.span_bytes)

    def add(row: Row, level: int) -> None:
        full = builder.add(row, level)
        if full is not None:
            assert len(full.rows) == 3
            add(seal(level, full), level + 1)

    for number in range(count):
        add(content_row(ref(number)), 0)
    while (sole := builder.sole_row()) is None:
        level, manifest, top = builder.finish()
        if top:
            sole = seal(level, manifest)
            break
        add(seal(level, manifest), level + 1)

    def walk(row: Row) -> list[bytes]:
        if not row.nested:
            return [row.ref.name.blob]
        manifest = sealed[row.ref.name.blob]
        assert manifest.span_bytes == row.span_bytes
        return [blob for child in manifest.rows for blob in walk(child)]

    assert walk(sole) == [ref(number).name.blob for number in range(count)]
