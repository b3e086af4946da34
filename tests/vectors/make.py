"""Writes v1.json, the frozen examples of every format of version 1.

Run by hand, once for a new version of a format (`python tests/vectors/make.py`): the files of released
versions never change, since data written by them must stay readable for ever.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from muniment.core.capabilities import weaken
from muniment.core.manifesting import content_row, nested_row
from muniment.core.sealing import BlobBuffers, SealedBlob, Sealer
from muniment.crypto.identity import Identity
from muniment.crypto.records import sign_record
from muniment.erasure.codec import Coding
from muniment.ids import id_text
from muniment.spec.cap import BlobFile, Cap, LiteralFile, ManifestFile, TreeReadCap, cap_text
from muniment.spec.manifest import Manifest, ManifestKind
from muniment.spec.record import NodeRecord
from muniment.spec.tree_entry import EntryType, Extent, TreeEntry

FILE = Path(__file__).with_name("v1.json")
SECRET = bytes(range(32))
CODINGS = ("1/1", "2/3", "4/6", "3/10", "rep-3")
CHUNK = 64 * 1024


def _blob(blob: SealedBlob) -> dict[str, Any]:
    shape = blob.ref.name.shape
    return {
        "blob": id_text(blob.ref.name.blob),
        "key": blob.ref.key.hex(),
        "length": shape.length,
        "plain_bytes": blob.ref.plain_bytes,
        "compression": int(blob.ref.compression),
        "shares": [b"".join(blob.parts(number)).hex() for number in range(shape.n)],
    }


def make() -> dict[str, Any]:
    """All vectors; deterministic, and without compression, whose bytes the library may change."""
    vectors: dict[str, Any] = {"secret": SECRET.hex(), "blobs": []}
    for coding in CODINGS:
        code = Coding.from_text(coding)
        sealer = Sealer(SECRET, code, compress=False)
        for size in (1, 100, 20_000) if code.n <= 3 else (1, 100):
            plain = random.Random(size).randbytes(size)
            blob = sealer.seal(memoryview(plain), BlobBuffers(code, CHUNK))
            vectors["blobs"].append({"coding": coding, "plain": plain.hex(), **_blob(blob)})
    code = Coding.from_text("2/3")
    sealer = Sealer(SECRET, code, compress=False)
    ref = sealer.seal(memoryview(b"books"), BlobBuffers(code, CHUNK)).ref
    entries = (
        TreeEntry(b"a", EntryType.DIRECTORY, 0o755, -1),
        TreeEntry(b"a/books", EntryType.FILE, 0o640, 10**18, 5, extents=(Extent(0, 0, 5),)),
        TreeEntry(b"a/tiny", EntryType.FILE, 0o600, 0, 3, inline=b"abc"),
        TreeEntry(b"link", EntryType.SYMLINK, 0o777, 0, inline=b"a/books"),
    )
    for name, manifest in {
        "file": Manifest(ManifestKind.FILE, (content_row(ref), nested_row(ref, 10**12))),
        "tree": Manifest(ManifestKind.TREE, (content_row(ref),), entries),
        "tree index": Manifest(ManifestKind.TREE_INDEX, (nested_row(ref, 0),)),
    }.items():
        vectors.setdefault("manifests", {})[name] = _blob(
            sealer.seal_manifest(manifest, BlobBuffers(code, CHUNK))
        )
    caps: list[Cap] = [LiteralFile(b"tiny"), BlobFile(ref), ManifestFile(ref, 10**12), TreeReadCap(ref)]
    vectors["caps"] = [[cap_text(cap), cap_text(weaken(cap))] for cap in caps]
    node = Identity(SECRET)
    record = NodeRecord(
        node.node, node.public_key, ("192.0.2.1:3490", "[2001:db8::1]:3490"), "house", 10**13, 7, (1,),
        1_800_000_000, 1_800_003_600,
    )  # fmt: skip
    vectors["record"] = {"node": id_text(node.node), "signed": sign_record(node, record).hex()}
    return vectors


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=1) + "\n")
