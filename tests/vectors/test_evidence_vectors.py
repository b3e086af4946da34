"""Frozen evidence files prove forever what they proved when they were made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muniment.engine.evidence import verify_evidence
from muniment.errors import MalformedRecord, UnknownVersion
from muniment.spec.canonical import dump, load
from muniment.spec.evidence import EVIDENCE_BYTES_MAX, decode_evidence, encode_evidence
from muniment.spec.tags import EVIDENCE_MAGIC

VECTORS = json.loads((Path(__file__).parent / "evidence_v1.json").read_text())


@pytest.mark.parametrize("row", VECTORS["evidence"], ids=lambda row: row["says"][:40])
def test_frozen_evidence(row: dict[str, str]) -> None:
    file = bytes.fromhex(row["file"])
    verdict = verify_evidence(file)
    assert verdict.says == row["says"]
    assert (verdict.volume.hex(), verdict.log_key.hex()) == (VECTORS["volume"], VECTORS["log_key"])
    assert encode_evidence(decode_evidence(file)) == file


@pytest.mark.parametrize("row", VECTORS["evidence"], ids=lambda row: row["says"][:40])
def test_each_byte_counts(row: dict[str, str]) -> None:
    file = bytes.fromhex(row["file"])
    for at in range(0, len(file), 3):
        damaged = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
        with pytest.raises((MalformedRecord, UnknownVersion)):
            verify_evidence(damaged)


def test_other_files_are_none() -> None:
    file = bytes.fromhex(VECTORS["evidence"][1]["file"])
    fields = load(file[len(EVIDENCE_MAGIC) :], format="test")
    assert isinstance(fields, list)
    with pytest.raises(UnknownVersion):
        decode_evidence(EVIDENCE_MAGIC + dump([2, *fields[1:]]))
    for wrong in ([0, *fields[1:]], fields[:-1], [*fields, b""], [*fields[:3], 9, *fields[4:]], [], 7):
        with pytest.raises(MalformedRecord):
            decode_evidence(EVIDENCE_MAGIC + dump(wrong))
    for note in (fields[4], fields[5]):
        with pytest.raises(MalformedRecord, match="say the same"):
            verify_evidence(EVIDENCE_MAGIC + dump([*fields[:4], note, note, []]))
    with pytest.raises(MalformedRecord):
        decode_evidence(EVIDENCE_MAGIC + bytes(EVIDENCE_BYTES_MAX))
