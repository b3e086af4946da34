"""The log's formats: published examples of public transparency logs, and our own that never change."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from muniment.crypto.checkpoints import (
    cosign,
    key_id,
    open_checkpoint,
    open_cosignatures,
    open_note,
    sign_checkpoint,
)
from muniment.crypto.identity import Identity
from muniment.ids import MemberId, VolumeId, id_from_text
from muniment.merkle.log_tree import (
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
)
from muniment.spec.checkpoint import (
    ED25519,
    Checkpoint,
    cosigned_message,
    decode_cosignature,
    decode_note,
    encode_note,
    origin_of,
    witness_of,
)

V1: dict[str, Any] = json.loads(Path(__file__).with_name("log_v1.json").read_text())
CT = V1["certificate transparency"]
C2SP = V1["c2sp"]
SIGSUM = V1["sigsum"]
OWN = V1["checkpoints"]


def unhex(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(text) for text in texts)


ROOTS = unhex(CT["roots"])
LEAVES = [leaf_hash(entry) for entry in unhex(CT["entries"])]


def node(level: int, index: int) -> bytes:
    _, completed = Frontier().extend(LEAVES)
    return next(found.hash for found in completed if (found.level, found.index) == (level, index))


def test_the_roots_are_those_of_certificate_transparency() -> None:
    frontier = Frontier()
    for leaf, root in zip(LEAVES, ROOTS, strict=False):
        assert frontier.root() == root
        frontier, _ = frontier.append(leaf)
    assert frontier.root() == ROOTS[-1]


@pytest.mark.parametrize("vector", CT["inclusion"], ids=lambda v: f"{v['index']} of {v['size']}")
def test_inclusion_proofs_are_those_of_certificate_transparency(vector: dict[str, Any]) -> None:
    index, size, path = vector["index"], vector["size"], unhex(vector["path"])
    assert inclusion_path(index, size, node) == path
    check_inclusion(LEAVES[index], index, size, path, ROOTS[size])


@pytest.mark.parametrize("vector", CT["consistency"], ids=lambda v: f"{v['old']} to {v['new']}")
def test_consistency_proofs_are_those_of_certificate_transparency(vector: dict[str, Any]) -> None:
    old, new, path = vector["old"], vector["new"], unhex(vector["path"])
    assert consistency_path(old, new, node) == path
    check_consistency(old, ROOTS[old], new, ROOTS[new], path)


def test_the_example_of_a_signed_note_opens() -> None:
    name, identifier, key = C2SP["verifier key"].split("+", 2)
    kind, *public_key = base64.b64decode(key)
    assert kind == ED25519
    assert key_id(name, ED25519, bytes(public_key)).hex() == identifier
    assert open_note(C2SP["note"].encode(), name, bytes(public_key)) == b"This is an example message.\n"


def test_the_example_of_a_cosignature_is_read_and_written_alike() -> None:
    """Its keys are not published; the next test has what verifies."""
    note = decode_note(C2SP["cosigned"].encode())
    time_s, _ = decode_cosignature(note.signatures[1].signature)
    assert cosigned_message(note.text, time_s) == C2SP["cosigned message"].encode()
    assert encode_note(note) == C2SP["cosigned"].encode()


def test_a_public_log_and_its_witnesses_verify() -> None:
    """A real log's checkpoint, six cosignatures by other people's witnesses, and an entry's proof."""
    note = SIGSUM["note"].encode()
    checkpoint = open_checkpoint(note, bytes.fromhex(SIGSUM["key"]))
    witnesses = {name: bytes.fromhex(key) for name, key in SIGSUM["witnesses"].items()}
    assert len(witnesses) == 6
    assert open_cosignatures(note, witnesses) == dict.fromkeys(witnesses, SIGSUM["cosigned_s"])
    leaf = leaf_hash(bytes.fromhex(SIGSUM["entry"]))
    path = unhex(SIGSUM["path"])
    check_inclusion(leaf, SIGSUM["index"], checkpoint.size, path, checkpoint.root)


@pytest.mark.parametrize("vector", OWN["notes"], ids=lambda v: v["size"])
def test_frozen_checkpoints_open_and_are_still_written_the_same(vector: dict[str, Any]) -> None:
    log, witness = (Identity(bytes.fromhex(OWN[f"{who} seed"])) for who in ("log", "witness"))
    origin = origin_of(VolumeId(id_from_text(OWN["volume"])))
    checkpoint = Checkpoint(origin, vector["size"], bytes.fromhex(vector["root"]))
    signed, cosigned = vector["signed"].encode(), vector["cosigned"].encode()
    name = witness_of(MemberId(witness.public_key))
    assert open_checkpoint(cosigned, log.public_key) == checkpoint
    assert open_cosignatures(cosigned, {name: witness.public_key}) == {name: vector["time_s"]}
    assert sign_checkpoint(log, checkpoint) == signed
    assert cosign(witness, name, signed, time_s=vector["time_s"]) == cosigned
