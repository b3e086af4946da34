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

_DEPTH_MAX: Final = 16
_PLAIN: Final = frozenset({int, bytes, str, type(None)})


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


def load(data: bytes, *, format: str) -> object:  # noqa: A002 - the errors' own word
    """Decode, and insist on the one canonical encoding, so that no two byte strings mean the same.

    The caller has checked the length.  Raises: MalformedRecord: for anything `dump` did not make.
    Cost: O(bytes), memory too.
    """
    try:
        value: object = cbor2.loads(
            data, semantic_decoders=_NO_TAGS, max_depth=_DEPTH_MAX, allow_indefinite=False
        )
    # Hostile bytes make the decoder raise many things; all mean the same here.
    except Exception as error:
        raise MalformedRecord(format=format, reason="not CBOR") from error
    if not _plain(value):
        raise MalformedRecord(format=format, reason="a value of a kind that has no place in it")
    if dump(value) != data:
        raise MalformedRecord(format=format, reason="not canonical CBOR")
    return value


def _plain(value: object) -> bool:
    lists = [[value]]
    while lists:
        for item in lists.pop():
            if type(item) is list:
                lists.append(item)
            elif type(item) not in _PLAIN:
                return False
    return True
