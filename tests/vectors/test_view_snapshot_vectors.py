"""View snapshots of version 1 stay readable, and are still written like this."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from muniment.core.clear_part import head_of, load_clear, resumed
from muniment.core.membership import Membership
from muniment.core.state_rows import CounterRow, opened_rows
from muniment.crypto.entries import open_entry
from muniment.merkle.log_tree import Frontier
from muniment.spec.operation import ViewSnapshot
from muniment.spec.transaction import decode_transaction
from muniment.spec.view_snapshot import decode_view
from muniment.views.memory import MemoryView

HERE = Path(__file__).parent
V1: dict[str, Any] = json.loads((HERE / "view_snapshot_v1.json").read_text())
LOG = [bytes.fromhex(entry["signed"]) for entry in json.loads((HERE / "entry_v1.json").read_text())["log"]]
STREAM = bytes.fromhex(V1["stream"])


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vectors_make_view", HERE / "make_view_snapshot.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_made_the_same() -> None:
    assert _maker().make(LOG) == V1


def test_the_clear_part_leads_to_the_members_of_the_log() -> None:
    full, frontier = Membership(), Frontier()
    for at, signed in enumerate(LOG):
        entry = open_entry(signed)
        full.admit(entry, at)
        frontier, _ = frontier.append(entry.hash)
    part = load_clear(bytes.fromhex(V1["clear"]))
    short = resumed(part, full.volume, open_entry)
    assert head_of(short, frontier) == head_of(full, frontier) == part.head
    assert short.members == full.members


def test_the_stream_is_a_state_that_a_view_begins_with() -> None:
    head, rows = decode_view(io.BytesIO(STREAM))
    assert head == load_clear(bytes.fromhex(V1["clear"])).head
    opened = [row for _, row in opened_rows(rows, head.size)]
    assert len(opened) == 10
    assert opened[-1] == CounterRow(4)
    view = MemoryView()
    view.begin(head.size, head.time_ns, decode_view(io.BytesIO(STREAM))[1], bytes.fromhex(V1["state_hash"]))
    assert view.lookup([b"folder", b"\xff"]) is not None


def test_the_operation_is_read() -> None:
    transaction = decode_transaction(bytes.fromhex(V1["transaction"]), bytes.fromhex(V1["names"]))
    (operation,) = transaction.operations
    assert isinstance(operation, ViewSnapshot)
    assert (operation.size, operation.state_hash.hex()) == (len(LOG), V1["state_hash"])
    assert operation.size_bytes == len(STREAM)
    assert transaction.message == "for newcomers"
