"""Canonical CBOR (RFC 8949 section 4.2.1): one value, one byte string."""

from __future__ import annotations

import cbor2

from muniment.errors import MalformedRecord


def dump(value: object) -> bytes:
    """The canonical encoding."""
    return cbor2.dumps(value, canonical=True)


def load(data: bytes, *, format: str) -> object:  # noqa: A002 - the errors' own word
    """Decode, and insist on the one canonical encoding, so that no two byte strings mean the same.

    The caller has checked the length.  Raises: MalformedRecord: for anything `dump` did not make.
    """
    try:
        value: object = cbor2.loads(data)
        same = dump(value) == data
    # A hostile tag or nesting makes the decoder raise many things; all mean the same here.
    except Exception as error:
        raise MalformedRecord(format=format, reason="not CBOR") from error
    if not same:
        raise MalformedRecord(format=format, reason="not canonical CBOR")
    return value
