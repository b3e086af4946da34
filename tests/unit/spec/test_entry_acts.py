"""Membership acts: packed and unpacked, bounded, and refused in one way."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from tests.thoroughness import times
from tests.unit.spec.entry_strategies import ACTS, JUNK, damaged

from muniment.errors import MalformedRecord
from muniment.ids import MemberId
from muniment.spec import act as spec
from muniment.spec.act import Accept, Act, Card, Found, Grant, Join, Quorum, Role, Rotation, VolumePolicy
from muniment.spec.canonical import dump, load

ANNA, BEN = MemberId(b"a" * 32), MemberId(b"b" * 32)
CARD = Card(ANNA, b"r" * 32, b"v" * 32, "Anna")
POLICY = VolumePolicy(Quorum.MAJORITY, 3600, "4/6", 5, 1 << 22)
GRANT = Grant(ANNA, bytes(80), bytes(80))
FOUND = Found("books", bytes(16), POLICY, CARD, b"c" * 32, (GRANT,))
ROTATION = Rotation((GRANT, Grant(BEN, b"", bytes(80))), b"c" * 32, bytes(48), bytes(48))


@given(ACTS)
def test_an_act_survives_its_encoding(act: Act) -> None:
    packed = load(dump(spec.pack_act(act)), format="act")
    assert spec.unpack_act(packed) == act


@given(JUNK)
def test_any_value_is_refused_in_one_way(value: object) -> None:
    for read in (spec.unpack_act, spec.unpack_policy):
        with pytest.raises(MalformedRecord):
            read(value)


@settings(max_examples=times(100))
@given(damaged(ACTS.map(spec.pack_act)))
def test_a_damaged_act_is_an_act_or_refused(value: object) -> None:
    try:
        act = spec.unpack_act(value)
    except MalformedRecord:
        return
    assert spec.pack_act(act) == value


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (spec.Retain(1, 0), {"inode": 0}),
        (spec.Retain(1, 0), {"inode": 1 << 53}),
        (spec.Retain(1, 0), {"keep_s": -2}),
        (spec.Retain(1, 0), {"keep_s": spec.KEEP_S_MAX + 1}),
        (spec.Hold(1, on=True), {"inode": -1}),
        (spec.Prune(1, 0, 1), {"size": 0}),
        (spec.Prune(1, 0, 1), {"until_ns": -1}),
        (spec.Prune(1, 0, 1), {"until_ns": 1 << 63}),
        (spec.Prune(1, 0, 1), {"count": 0}),
        (spec.Prune(1, 0, 1), {"count": spec.PRUNED_MAX + 1}),
        (CARD, {"member": MemberId(b"short")}),
        (CARD, {"read_key": b""}),
        (CARD, {"verify_key": bytes(33)}),
        (CARD, {"name": ""}),
        (CARD, {"name": "x" * 65}),
        (CARD, {"name": "two\nlines"}),
        (CARD, {"name": "red\x1b[31m"}),
        (CARD, {"name": "\x9b31m"}),
        (CARD, {"name": "anna\u202egpj.exe"}),
        (CARD, {"name": "line\u2028line"}),
        (CARD, {"name": "\ud800"}),
        (Join(CARD, Role.READER, ""), {"note": "x" * 257}),
        (Join(CARD, Role.READER, ""), {"note": "two\nlines"}),
        (GRANT, {"read": bytes(79)}),
        (GRANT, {"verify": bytes(81)}),
        (GRANT, {"member": MemberId(b"")}),
        (POLICY, {"vote_lifetime_s": 0}),
        (POLICY, {"vote_lifetime_s": 366 * 86400 + 1}),
        (POLICY, {"coding": ""}),
        (POLICY, {"coding": "x" * 33}),
        (POLICY, {"coding": "4/6\n"}),
        (POLICY, {"happy": 0}),
        (POLICY, {"happy": 257}),
        (POLICY, {"chunk_bytes": (64 << 10) - 1}),
        (POLICY, {"chunk_bytes": (16 << 20) + 1}),
        (FOUND, {"name": ""}),
        (FOUND, {"nonce": bytes(15)}),
        (FOUND, {"commitment": bytes(31)}),
        (FOUND, {"grants": ()}),
        (FOUND, {"grants": (dataclasses.replace(GRANT, member=BEN),)}),
        (FOUND, {"grants": ROTATION.grants}),
        (ROTATION, {"grants": ()}),
        (ROTATION, {"grants": ROTATION.grants[::-1]}),
        (ROTATION, {"grants": (GRANT, GRANT)}),
        (ROTATION, {"commitment": bytes(33)}),
        (ROTATION, {"chain_read": bytes(47)}),
        (ROTATION, {"chain_verify": b""}),
        (Accept(ANNA, Role.READER, GRANT), {"member": BEN}),
    ],
    ids=repr,
)
def test_what_is_out_of_limits_is_refused(value: Card, changes: dict[str, object]) -> None:
    with pytest.raises(MalformedRecord):
        dataclasses.replace(value, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Anna", "Ανна", "安娜", "a b", "\U0001f600", "e\u0301", "\U000e0fff"])
def test_names_are_the_same_in_every_unicode_version(name: str) -> None:
    """The last one is not assigned yet: a newer interpreter must not think otherwise of it."""
    assert dataclasses.replace(CARD, name=name).name == name


@pytest.mark.parametrize("role", Role)
def test_roles_and_their_keys(role: Role) -> None:
    assert (role.writes, role.reads, role.verifies) == (role <= 2, role <= 3, role <= 4)
    wrapped = {False: b"", True: bytes(80)}
    for read in (False, True):
        for verify in (False, True):
            fits = Grant(ANNA, wrapped[read], wrapped[verify]).fits(role)
            assert fits == ((read, verify) == (role.reads, role.verifies))


def test_no_wrapped_key_is_printed() -> None:
    shown = repr(Rotation((Grant(ANNA, b"R" * 80, b"V" * 80),), bytes(32), b"C" * 48, b"D" * 48))
    assert not {"RRRR", "VVVV", "CCCC", "DDDD"} & {shown[at : at + 4] for at in range(len(shown))}
