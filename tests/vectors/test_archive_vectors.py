"""Frozen tiles of an archived log open forever, and would be written the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muniment.core.keeping.tiles import open_head, open_tile, seal_tile
from muniment.crypto.keeping import archive_account, archive_secret
from muniment.crypto.member import VerifySecret
from muniment.ids import MemberId, VolumeId
from muniment.spec.archive import BODY_AT, Tile

VECTORS = json.loads((Path(__file__).parent / "archive_v1.json").read_text())
SECRET = bytes.fromhex(VECTORS["secret"])


def test_account_and_secret_follow_from_the_verify_seed() -> None:
    verify = VerifySecret(MemberId(bytes.fromhex(VECTORS["member"])), bytes.fromhex(VECTORS["verify_seed"]))
    volume = VolumeId(bytes.fromhex(VECTORS["volume"]))
    assert archive_account(verify, volume).account.hex() == VECTORS["account"]
    assert archive_secret(verify, volume) == SECRET


@pytest.mark.parametrize("row", VECTORS["tiles"], ids=lambda row: f"{row['start']}-{row['stop']}")
def test_frozen_tile(row: dict[str, Any]) -> None:
    sealed = bytes.fromhex(row["sealed"])
    entries = tuple(map(bytes.fromhex, row["entries"]))
    tile = Tile(row["start"], bytes.fromhex(VECTORS["log_key"]), row["note"].encode(), entries)
    assert open_tile(sealed, SECRET) == tile
    range_ = open_head(sealed[:BODY_AT], SECRET)
    assert (range_.start, range_.stop) == (row["start"], row["stop"])
    assert seal_tile(tile, SECRET, lambda _: bytes.fromhex(row["salt"])) == sealed
