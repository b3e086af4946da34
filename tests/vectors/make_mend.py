"""Writes mend_v1.json: keys of two epochs, and the act that gives those of the earlier one under the later.

Run by hand, once for a new version (`python tests/vectors/make_mend.py`): released files never change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muniment.core.keys import EpochKeys, mend
from muniment.ids import VolumeId
from muniment.spec.act import pack_act
from muniment.spec.canonical import dump

FILE = Path(__file__).with_name("mend_v1.json")
VOLUME = VolumeId(b"v" * 32)
OLDER, NEWER = EpochKeys.of_read(2, b"o" * 32), EpochKeys.of_read(7, b"n" * 32)


def make() -> dict[str, Any]:
    """The vectors; deterministic."""
    nonces = iter((b"first nonce.", b"other nonce."))
    act = mend(VOLUME, NEWER, OLDER, lambda size: next(nonces)[:size])
    return {
        "volume": VOLUME.hex(),
        "newer": {"epoch": NEWER.epoch, "read": NEWER.read_key().hex(), "verify": NEWER.verify.hex()},
        "older": {
            "epoch": OLDER.epoch,
            "read": OLDER.read_key().hex(),
            "verify": OLDER.verify.hex(),
            "commitment": OLDER.commitment.hex(),
        },
        "act": dump(pack_act(act)).hex(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=1) + "\n")
