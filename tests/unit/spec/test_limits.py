"""Limits that follow from each other: what one side may send, the other takes."""

from __future__ import annotations

import base64

import msgspec

from muniment.spec import wire
from muniment.spec.limits import (
    ANSWER_BYTES_MAX,
    BATCH_SHARES_MAX,
    CHALLENGES_MAX,
    LEAF_BYTES,
    LEAVES_MAX,
    PROOF_BYTES_MAX,
    READ_ANSWER_BYTES_MAX,
    SEALED_BYTES_MAX,
    SHARES_MAX,
)
from muniment.spec.share import FIXED_BYTES, HASH_BYTES


def test_the_longest_answers_are_within_the_limit() -> None:
    def text(size_bytes: int) -> str:
        return base64.urlsafe_b64encode(bytes(size_bytes)).decode().rstrip("=")

    leaves = -(-SEALED_BYTES_MAX // LEAF_BYTES)
    path = [text(HASH_BYTES)] * (leaves - 1).bit_length()
    proof = wire.Proof(text(FIXED_BYTES + HASH_BYTES * SHARES_MAX), text(LEAF_BYTES), path)
    assert len(msgspec.json.encode(proof)) < PROOF_BYTES_MAX
    assert len(msgspec.json.encode(wire.ProveAnswer([proof] * CHALLENGES_MAX))) <= ANSWER_BYTES_MAX
    assert len(msgspec.json.encode(wire.ProveAnswer([proof] * LEAVES_MAX))) <= ANSWER_BYTES_MAX
    assert READ_ANSWER_BYTES_MAX + 4 * BATCH_SHARES_MAX <= ANSWER_BYTES_MAX
