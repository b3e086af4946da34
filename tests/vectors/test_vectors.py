"""Data of every released format stays readable, and is still written the same."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muniment.core.sealing import OpenBuffers, open_blob, open_manifest
from muniment.crypto.identity import Identity
from muniment.crypto.records import open_record, sign_record
from muniment.ids import BlobId, id_from_text
from muniment.merkle.share_tree import check_share
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.cap import cap_text, parse_cap
from muniment.spec.share import decode_header

HERE = Path(__file__).parent
V1: dict[str, Any] = json.loads((HERE / "v1.json").read_text())
RECORD_V2: dict[str, Any] = json.loads((HERE / "record_v2.json").read_text())


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vectors_make", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _received(vector: dict[str, Any]) -> tuple[BlobRef, list[int], OpenBuffers]:
    """The last k shares of a frozen blob, checked."""
    records = [bytes.fromhex(text) for text in vector["shares"]]
    shape = decode_header(records[0]).shape
    name = BlobName(BlobId(id_from_text(vector["blob"])), shape)
    ref = BlobRef(
        name, bytes.fromhex(vector["key"]), vector["plain_bytes"], Compression(vector["compression"])
    )
    numbers, buffers = list(range(shape.n - shape.k, shape.n)), OpenBuffers()
    buffers.begin(shape)
    for number in numbers:
        buffers.head(number)[:] = records[number][: shape.head_bytes]
        buffers.data(number)[:] = records[number][shape.head_bytes :]
        check_share(name, number, buffers.head(number), buffers.data(number))
    return ref, numbers, buffers


@pytest.mark.parametrize("vector", V1["blobs"], ids=lambda v: f"{v['coding']} {v['plain_bytes']}")
def test_a_frozen_blob_opens(vector: dict[str, Any]) -> None:
    assert bytes(open_blob(*_received(vector))).hex() == vector["plain"]


@pytest.mark.parametrize("name", V1["manifests"])
def test_a_frozen_manifest_opens(name: str) -> None:
    manifest = open_manifest(*_received(V1["manifests"][name]))
    assert manifest.kind.name == name.upper().replace(" ", "_")
    assert manifest.rows
    assert len(manifest.entries) == (4 if name == "tree" else 0)


@pytest.mark.parametrize("pair", V1["caps"], ids=lambda pair: ":".join(pair[0].split(":")[:3]))
def test_frozen_capabilities_are_read(pair: list[str]) -> None:
    for text in pair:
        assert cap_text(parse_cap(text)) == text


def test_a_frozen_record_opens() -> None:
    record = open_record(bytes.fromhex(V1["record"]["signed"]), now_s=1_800_000_000)
    assert record.node == id_from_text(V1["record"]["node"])
    assert record.addresses == ("192.0.2.1:3490", "[2001:db8::1]:3490")


def test_a_frozen_record_of_version_2_opens_and_is_written_the_same() -> None:
    """The record of version 1 with the flag that the node is drained."""
    signed = bytes.fromhex(RECORD_V2["signed"])
    record = open_record(signed, now_s=1_800_000_000)
    first = open_record(bytes.fromhex(V1["record"]["signed"]), now_s=1_800_000_000)
    assert record == dataclasses.replace(first, draining=True)
    assert sign_record(Identity(bytes.fromhex(V1["secret"])), record) == signed


def test_what_is_written_has_not_changed() -> None:
    made = json.loads(json.dumps(_maker().make()))
    # The read half of a manifest is compressed, and another zstd release may compress otherwise.
    assert {key: made[key] for key in made if key != "manifests"} == {
        key: V1[key] for key in V1 if key != "manifests"
    }
