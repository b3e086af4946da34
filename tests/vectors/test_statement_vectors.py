"""What acts once stated stays read, and is written the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from muniment.core.entries import open_pruned, open_statement
from muniment.core.key_ring import KeyRing
from muniment.core.keys import EpochKeys
from muniment.crypto.member import MemberSecret
from muniment.spec.act import Hold, Prune, Report, unpack_act
from muniment.spec.canonical import load
from muniment.spec.entry import Entry, decode_payload
from muniment.spec.statement import decode_pruned, decode_reason, decode_record

HERE = Path(__file__).parent
V1: dict[str, Any] = json.loads((HERE / "statements_v1.json").read_text())


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vectors_make_statements", HERE / "make_statements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Ring(KeyRing):
    """Of one who was given the verify key only."""

    def __init__(self) -> None:
        super().__init__(MemberSecret(b"s" * 32).read.verify)

    def keys(self, epoch: int) -> EpochKeys:
        return EpochKeys(epoch, bytes.fromhex(V1["verify_key"]))


def _entry(name: str) -> tuple[Entry, bytes]:
    entry = decode_payload(bytes.fromhex(V1["acts"][name]["payload"]))
    statement = open_statement(entry, _Ring())
    assert statement.hex() == V1["acts"][name]["statement"]
    return entry, statement


def test_frozen_statements_open_with_the_verify_key() -> None:
    maker = _maker()
    entry, statement = _entry("report")
    assert entry.act == Report(urgent=True)
    assert decode_record(statement) == maker.RECORD
    entry, statement = _entry("hold")
    assert entry.act == Hold(9, on=True)
    assert decode_reason(statement) == "case 7 / 2026"
    entry, statement = _entry("prune")
    assert isinstance(entry.act, Prune)
    assert decode_pruned(statement) == open_pruned(entry, _Ring()) == maker.NAMES


def test_frozen_acts_without_a_statement_are_read() -> None:
    for name, act in _maker().PLAIN.items():
        assert unpack_act(load(bytes.fromhex(V1["plain"][name]), format="act")) == act


def test_what_is_written_has_not_changed() -> None:
    assert _maker().make() == V1
