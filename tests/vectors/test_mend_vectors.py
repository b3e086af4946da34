"""What once mended a key chain stays read, and is written the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from muniment.core.keys import EpochKeys, open_mended
from muniment.core.membership import Mended
from muniment.ids import MemberId, VolumeId
from muniment.spec.act import Mend, unpack_act
from muniment.spec.canonical import load

HERE = Path(__file__).parent
V1: dict[str, Any] = json.loads((HERE / "mend_v1.json").read_text())


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vectors_make_mend", HERE / "make_mend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_frozen_mended_keys_open() -> None:
    act = unpack_act(load(bytes.fromhex(V1["act"]), format="act"))
    assert isinstance(act, Mend)
    newer, older = V1["newer"], V1["older"]
    assert act.epoch == older["epoch"]
    mended = Mended(MemberId(bytes(32)), newer["epoch"], act.epoch, act.read, act.verify)
    volume, commitment = VolumeId(bytes.fromhex(V1["volume"])), bytes.fromhex(older["commitment"])
    both = EpochKeys.of_read(newer["epoch"], bytes.fromhex(newer["read"]))
    opened = open_mended(volume, both, mended, commitment)
    assert (opened.read, opened.verify) == (bytes.fromhex(older["read"]), bytes.fromhex(older["verify"]))
    verifying = EpochKeys(newer["epoch"], bytes.fromhex(newer["verify"]))
    assert open_mended(volume, verifying, mended, commitment) == EpochKeys(act.epoch, opened.verify)


def test_what_is_written_has_not_changed() -> None:
    assert _maker().make() == V1
