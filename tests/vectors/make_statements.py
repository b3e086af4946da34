"""Writes statements_v1.json: acts that have a statement, and the verify key that opens them.

Run by hand, once for a new version (`python tests/vectors/make_statements.py`): released files never change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muniment.core.entries import Place, seal_statement
from muniment.core.keys import EpochKeys
from muniment.ids import BlobId, EntryHash, MemberId, VolumeId
from muniment.spec.act import Act, Hold, Prune, Report, Retain, pack_act
from muniment.spec.blob import BlobName
from muniment.spec.canonical import dump
from muniment.spec.entry import encode_payload
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.statement import KeepingRecord, encode_pruned, encode_reason, encode_record

FILE = Path(__file__).with_name("statements_v1.json")
PLACE = Place(VolumeId(b"v" * 32), 3, MemberId(b"m" * 32), 1, EntryHash(b"p" * 32), 5, b"r" * 32, 7)
KEYS = EpochKeys.of_read(3, b"k" * 32)
NAMES = (
    BlobName(BlobId(b"a" * 32), BlobShape(CodecId.RS, 4, 6, 1000)),
    BlobName(BlobId(b"b" * 32), BlobShape(CodecId.REP, 1, 2, 16)),
)
RECORD = KeepingRecord((BlobId(b"a" * 32),), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
STATEMENTS: dict[str, tuple[Act, bytes]] = {
    "report": (Report(urgent=True), encode_record(RECORD)),
    "hold": (Hold(9, on=True), encode_reason("case 7 / 2026")),
    "prune": (Prune(4, 1_700_000_000_000_000_000, 2), encode_pruned(NAMES)),
}
PLAIN: dict[str, Act] = {"retain": Retain(9, 94_608_000), "inherit": Retain(9, None)}


def make() -> dict[str, Any]:
    """The vectors; deterministic."""
    acts = {}
    for name, (act, statement) in STATEMENTS.items():
        entry = seal_statement(PLACE, act, statement, KEYS, lambda size: b"the one nonce"[:size])
        acts[name] = {"statement": statement.hex(), "payload": encode_payload(entry).hex()}
    return {
        "verify_key": KEYS.verify.hex(),
        "acts": acts,
        "plain": {name: dump(pack_act(act)).hex() for name, act in PLAIN.items()},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=1) + "\n")
