"""The log of version 1 stays admitted, its keys stay derived, its transactions stay readable."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muniment.core.entries import open_names, open_transaction
from muniment.core.key_ring import KeyRing
from muniment.core.keys import EpochKeys
from muniment.core.membership import Membership
from muniment.crypto.entries import open_entry, volume_id
from muniment.crypto.member import MemberSecret
from muniment.errors import NotCapable
from muniment.ids import id_from_text, id_text
from muniment.spec.act import Role
from muniment.spec.transaction import decode_names, decode_transaction, encode_transaction

HERE = Path(__file__).parent
V1: dict[str, Any] = json.loads((HERE / "entry_v1.json").read_text())
LOG = [open_entry(bytes.fromhex(entry["signed"])) for entry in V1["log"]]


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vectors_make_entry", HERE / "make_entry.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()


def _member(name: str) -> MemberSecret:
    return MemberSecret(bytes.fromhex(V1["members"][name]["seed"]))


def _replayed(*rings: KeyRing) -> Membership:
    state = Membership()
    for index, signed in enumerate(LOG):
        state.admit(signed, index)
        for ring in rings:
            ring.follow(state)
    return state


@pytest.mark.parametrize("name", V1["members"])
def test_frozen_secrets_derive_the_same(name: str) -> None:
    member, frozen = _member(name), V1["members"][name]
    card = member.card(name)
    assert [member.read.seed.hex(), member.verify.seed.hex()] == [frozen["read_seed"], frozen["verify_seed"]]
    assert [id_text(card.member), card.read_key.hex(), card.verify_key.hex()] == frozen["card"]


@pytest.mark.parametrize("epoch", range(4))
def test_frozen_epochs_derive_the_same(epoch: int) -> None:
    frozen = V1["epochs"][epoch]
    keys, anna = EpochKeys.of_read(epoch, bytes.fromhex(frozen["read"])), _member("Anna").member
    assert {
        "read": keys.read_key().hex(),
        "verify": keys.verify.hex(),
        "commitment": keys.commitment.hex(),
        "convergence": keys.convergence_secret().hex(),
        "anna_transactions": keys.transaction_key(anna).hex(),
        "anna_names": keys.names_key(anna).hex(),
    } == frozen


def test_the_frozen_log_is_admitted() -> None:
    state = _replayed()
    assert [signed.hash.hex() for signed in LOG] == [entry["hash"] for entry in V1["log"]]
    assert state.volume == volume_id(LOG[0].signed) == id_from_text(V1["volume"])
    assert (state.size, state.epoch, state.name) == (12, 3, "books")
    assert {member.card.name: member.role for member in state.members.values()} == {"Anna": Role.OWNER}
    assert state.policy.vote_lifetime_s == 7200
    assert [start.index for start in state.epochs] == [0, 8, 10, 11]


def test_frozen_grants_and_chains_open_for_whom_they_are() -> None:
    frozen = [bytes.fromhex(epoch["read"]) for epoch in V1["epochs"]]
    anna, ben, otto = (KeyRing(_member(name).read) for name in ("Anna", "Ben", "Otto"))
    state = _replayed(anna, ben, otto)
    fresh = KeyRing(_member("Anna").read)
    fresh.follow(state)
    for ring, epochs in ((anna, 4), (fresh, 4), (ben, 2)):
        assert [ring.keys(epoch).read for epoch in range(epochs)] == frozen[:epochs]
    assert otto.keys(0) == EpochKeys(0, bytes.fromhex(V1["epochs"][0]["verify"]))
    for ring, epoch in ((ben, 2), (ben, 3), (otto, 1)):
        with pytest.raises(NotCapable):
            ring.keys(epoch)


def test_frozen_transactions_open() -> None:
    anna, otto = KeyRing(_member("Anna").read), KeyRing(_member("Otto").verify)
    _replayed(anna, otto)
    sealed = [signed.entry for signed in LOG if signed.entry.act is None]
    assert [open_transaction(entry, anna) for entry in sealed] == [MAKER.EVERYTHING, MAKER.SMALL]
    assert open_names(sealed[0], otto) == tuple(ref.name for ref in MAKER.EVERYTHING.blobs)


def test_frozen_operations_are_read_and_written_the_same() -> None:
    plain, names = (bytes.fromhex(V1["transaction"][half]) for half in ("plain", "names"))
    assert decode_transaction(plain, names) == MAKER.EVERYTHING
    assert decode_names(names) == tuple(ref.name for ref in MAKER.EVERYTHING.blobs)
    assert encode_transaction(MAKER.EVERYTHING) == (plain, names)


def test_what_is_written_has_not_changed() -> None:
    made = json.loads(json.dumps(MAKER.make(V1["grants"])))
    # From the first transaction on, which is compressed, another zstd release may write other bytes.
    compressed = next(at for at, signed in enumerate(LOG) if signed.entry.act is None)
    assert made["log"][:compressed] == V1["log"][:compressed]
    acts = [open_entry(bytes.fromhex(entry["signed"])).entry.act for entry in made["log"]]
    assert acts == [signed.entry.act for signed in LOG]
    assert {key: made[key] for key in made if key != "log"} == {key: V1[key] for key in V1 if key != "log"}
