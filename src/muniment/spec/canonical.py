"""Canonical CBOR (RFC 8949 section 4.2.1): one value, one byte string.

Our formats are made of integers of up to 64 bits, byte strings, text, null and lists, and nothing else is
read: no tags, whose references would let a few bytes stand for gigabytes; no booleans, which pass for 0 and
1 in every comparison; no floats and no maps, which nothing needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import cbor2

from muniment.errors import MalformedRecord

ITEMS_MAX: Final = 1 << 21
"""Values in one record, lists counted with what is in them: what large transactions need.  An empty list
is one byte there and a hundred here, and a few hundred compressed bytes make millions of them."""

_DEPTH_MAX: Final = 16
_ARGUMENTS: Final = 24
"""From here on a head's low bits say how wide its argument is (RFC 8949 section 3)."""
_STRINGS: Final = (2, 3)


class _NoTags(Mapping[int, Any]):
    """Decoders of semantic tags: asked for the one of any tag, it makes the decoder fail."""

    def __getitem__(self, tag: int) -> Any:
        raise ValueError(f"tag {tag}")

    get = __getitem__  # type: ignore[assignment]  # Mapping's own would turn the refusal into a default

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


_NO_TAGS: Final = _NoTags()


def dump(value: object) -> bytes:
    """The canonical encoding."""
    return cbor2.dumps(value, canonical=True)


def bytes_head(size: int) -> bytes:
    """What stands before a byte string of `size` bytes, less than 2^32."""
    if size < _ARGUMENTS:
        return bytes((0x40 | size,))
    for first, width in ((0x58, 1), (0x59, 2)):
        if size < 1 << 8 * width:
            return bytes((first,)) + size.to_bytes(width, "big")
    return b"\x5a" + size.to_bytes(4, "big")


def load(data: bytes, *, format: str, items_max: int = ITEMS_MAX) -> object:  # noqa: A002 - the errors' own word
    """Decode, and insist on the one canonical encoding, so that no two byte strings mean the same.

    The caller has checked the length.

    Args:
        items_max: values that it may have.
    Raises: MalformedRecord: for anything `dump` did not make.
    Cost: O(bytes); memory, those and some 100 bytes for each value.
    """
    if _has_more_items(data, items_max):
        raise MalformedRecord(format=format, reason=f"more than {items_max} values, or no CBOR")
    try:
        value: object = cbor2.loads(
            data, semantic_decoders=_NO_TAGS, max_depth=_DEPTH_MAX, allow_indefinite=False
        )
    # Hostile bytes make the decoder raise many things; all mean the same here.
    except Exception as error:
        raise MalformedRecord(format=format, reason="not CBOR") from error
    size_bytes = _canonical_bytes(value)
    if size_bytes is None:
        raise MalformedRecord(format=format, reason="a value of a kind that has no place in it")
    if size_bytes != len(data):
        raise MalformedRecord(format=format, reason="not canonical CBOR")
    return value


def _has_more_items(data: bytes, most: int) -> bool:
    """Whether more values begin in these bytes, found by their heads alone.  Cost: 0.2 us for each value."""
    if len(data) <= most:
        return False
    at, size = 0, len(data)
    while at < size:
        most -= 1
        if most < 0:
            return True
        major, low = data[at] >> 5, data[at] & 31
        at += 1
        if low >= _ARGUMENTS:
            width = 1 << (low - _ARGUMENTS)
            low = int.from_bytes(data[at : at + width], "big")
            at += width
        if major in _STRINGS:
            at += low
    return False


def _canonical_bytes(value: object) -> int | None:
    """The length of `dump(value)`; None if it is made of other values than ours.

    Enough to know whether bytes that say `value` are canonical.  Of such values only the heads can be written
    in several ways, each in its own number of bytes, and the canonical one is the shortest: so whatever else
    says the same is longer.  To encode the value again and compare costs three times as much.
    """
    size_bytes = 0
    lists: list[list[Any]] = [[value]]
    while lists:
        for item in lists.pop():
            kind = type(item)
            if kind is int:
                argument = item if item >= 0 else ~item
            elif kind is bytes:
                argument = len(item)
                size_bytes += argument
            elif kind is list:
                argument = len(item)
                lists.append(item)
            elif item is None:
                argument = 0
            elif kind is str:
                argument = len(item) if item.isascii() else len(item.encode())
                size_bytes += argument
            else:
                return None
            if argument < _ARGUMENTS:
                size_bytes += 1
            elif argument < 1 << 16:
                size_bytes += 2 if argument < 1 << 8 else 3
            else:
                size_bytes += 5 if argument < 1 << 32 else 9
    return size_bytes
