"""What mounts tell each other of their locks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.errors import MalformedRecord
from muniment.spec.canonical import dump
from muniment.spec.lock_attributes import (
    STOP_MAX,
    Claim,
    lease_name,
    lease_of,
    pack_claims,
    unpack_claims,
    without_own,
)

MOUNT = bytes(range(16))
claims = st.builds(
    lambda whole, exclusive, start, length: Claim(whole, exclusive, start, start + length),
    st.booleans(),
    st.booleans(),
    st.integers(0, STOP_MAX - 1000),
    st.integers(1, 1000),
)


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.lists(claims, max_size=4).map(tuple)))
def test_claims_come_back_as_they_were(held: dict[bytes, tuple[Claim, ...]]) -> None:
    assert unpack_claims(pack_claims(held)) == held


@given(st.binary(max_size=60))
def test_other_bytes_are_none(value: bytes) -> None:
    try:
        assert pack_claims(unpack_claims(value)) == value
    except MalformedRecord:
        pass


@pytest.mark.parametrize(
    "value",
    [
        [2, []],
        [1, [[MOUNT[:-1], []]]],
        [1, [[MOUNT, []], [MOUNT, []]]],
        [1, [[MOUNT, [[2, 0, 0, 1]]]]],
        [1, [[MOUNT, [[0, 0, 5, 5]]]]],
        [1, [[MOUNT, [[0, 0, 0, STOP_MAX + 1]]]]],
        [1, [[MOUNT, [[0, 0, 0]]]]],
        [1, [MOUNT]],
    ],
)
def test_claims_that_nobody_can_have_are_refused(value: object) -> None:
    with pytest.raises(MalformedRecord):
        unpack_claims(dump(value))


def test_a_lease_tells_its_mount_and_how_often_it_was_renewed() -> None:
    assert lease_of(lease_name(MOUNT, 10)) == (MOUNT, 10)
    for name in (b"user.a", b"muniment.lease.00.1", lease_name(MOUNT, 1) + b"x", lease_name(MOUNT, 1)[:-1]):
        assert lease_of(name) is None
    assert without_own({b"user.a": b"1", lease_name(MOUNT, 0): b""}) == {b"user.a": b"1"}
