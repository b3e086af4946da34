"""Bytes inside JSON and in addresses: URL-safe base64 without padding (docs/spec/wire.md section 1)."""

from __future__ import annotations

import base64


def base64url(data: bytes) -> str:
    """The text of bytes."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def from_base64url(text: str) -> bytes:
    """The bytes of a text; several texts may have the same.  Raises: ValueError: it is none."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
