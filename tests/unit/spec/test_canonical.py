"""Canonical CBOR: one value, one byte string, and no bytes that cost more than they weigh."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.errors import MalformedRecord
from muniment.spec.canonical import ITEMS_MAX, dump, load

SCALARS = st.none() | st.integers(-(1 << 64), (1 << 64) - 1) | st.binary() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@given(VALUES)
def test_a_value_comes_back(value: object) -> None:
    assert load(dump(value), format="value") == value


@given(VALUES, st.data())
def test_other_bytes_are_another_value_or_refused(value: object, data: st.DataObject) -> None:
    encoded = bytearray(dump(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = load(bytes(encoded), format="value")
    except MalformedRecord:
        return
    assert other != value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        value = load(data, format="value")
    except MalformedRecord:
        return
    assert dump(value) == data


@given(VALUES, st.data())
def test_a_head_wider_than_it_need_be_is_refused_wherever_it_is(value: object, data: st.DataObject) -> None:
    widened = 0

    def head(major: int, argument: int) -> bytes:
        nonlocal widened
        widths = [width for width in (0, 1, 2, 4, 8) if argument < (1 << 8 * width if width else 24)]
        width = data.draw(st.sampled_from(widths))
        widened += width != widths[0]
        if not width:
            return bytes((major << 5 | argument,))
        return bytes((major << 5 | 24 + (1, 2, 4, 8).index(width),)) + argument.to_bytes(width, "big")

    def encoded(of: object) -> bytes:
        match of:
            case None:
                return b"\xf6"
            case int():
                return head(0, of) if of >= 0 else head(1, ~of)
            case bytes():
                return head(2, len(of)) + of
            case str():
                return head(3, len(of.encode())) + of.encode()
            case list():
                return head(4, len(of)) + b"".join(map(encoded, of))
        raise AssertionError(of)

    made = encoded(value)
    assert (made == dump(value)) == (widened == 0)
    if widened:
        with pytest.raises(MalformedRecord):
            load(made, format="value")
    else:
        assert load(made, format="value") == value


@given(VALUES)
def test_values_are_counted(value: object) -> None:
    def count(of: object) -> int:
        return 1 + sum(map(count, of)) if isinstance(of, list) else 1

    encoded = dump(value)
    assert load(encoded, format="value", items_max=count(value)) == value
    with pytest.raises(MalformedRecord):
        load(encoded, format="value", items_max=count(value) - 1)


@pytest.mark.parametrize(
    "item", [b"\x80", b"\x40", b"\x60", b"\x00"], ids=["list", "bytes", "text", "number"]
)
def test_many_small_values_are_refused_before_they_are_made(
    item: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An empty list is one byte there, and a hundred in memory.
    monkeypatch.setattr(cbor2, "loads", None)
    count = ITEMS_MAX
    with pytest.raises(MalformedRecord, match="more than"):
        load(b"\x9a" + count.to_bytes(4, "big") + item * count, format="value")


def _references(levels: int) -> bytes:
    """Lists of two, both the same: 2^levels values in a few bytes (RFC 8949's registry, tags 28 and 29)."""
    inner = b"\xd8\x1c\x82" * levels + b"\0\0"
    return inner + b"".join(b"\xd8\x1d" + cbor2.dumps(level) for level in reversed(range(1, levels)))


@pytest.mark.parametrize(
    "data",
    [
        _references(60),
        cbor2.dumps(cbor2.CBORTag(256, ["a" * 100, *[cbor2.CBORTag(25, 0)] * 5])),
        cbor2.dumps(1 << 64),
        cbor2.dumps(cbor2.CBORTag(4, [10**9, 3])),
        cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")),
        b"\xd9\xd9\xf7\x01",
        b"\xf5",
        b"\x81\xf4",
        b"\xf7",
        b"\xe0",
        b"\xf9\x00\x00",
        b"\xa0",
        b"\x9f\xff",
        b"\x81" * 100_000,
        b"\x9b" + b"\x7f" * 8,
        b"\x5b" + b"\x7f" * 8,
        b"\x61\xff",
        b"\x18\x01",
        b"\x01\x01",
        b"",
    ],
    ids=[
        "shared values",
        "shared text",
        "big integer",
        "decimal",
        "pattern",
        "self-described",
        "true",
        "false inside",
        "undefined",
        "simple",
        "float",
        "map",
        "no length",
        "deep",
        "huge list",
        "huge bytes",
        "no UTF-8",
        "long integer",
        "trailing byte",
        "nothing",
    ],
)
def test_what_no_format_needs_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(MalformedRecord):
        load(data, format="value")
