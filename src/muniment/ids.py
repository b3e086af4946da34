"""Identifiers and the small value types that must not be mixed up.

All identifiers are 32 bytes and print as 52 characters of lower-case, unpadded base32 (RFC 4648
section 6), which is safe in URLs, file names and a double click.  This module imports nothing of ours
but the error tree.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

from muniment.errors import InvalidRequest

ID_BYTES = 32
ID_TEXT_CHARS = 52

NodeId = NewType("NodeId", bytes)
"""BLAKE3 of a node's Ed25519 public key; what TLS connections are pinned to."""

AccountId = NewType("AccountId", bytes)
"""The account's Ed25519 public key itself: a token can be checked against it without a look-up."""

BlobId = NewType("BlobId", bytes)
"""Commits to codec, k, n, length and every share of one blob (docs/spec/share.md)."""

VolumeId = NewType("VolumeId", bytes)
"""Hash of a volume's first entry (docs/spec/entry.md section 1)."""

MemberId = NewType("MemberId", bytes)
"""A member's Ed25519 public key."""

EntryHash = NewType("EntryHash", bytes)
"""RFC 6962 leaf hash (SHA-256) of an entry's signed form."""

ShareNumber = NewType("ShareNumber", int)
"""0 to n - 1; shares below k are the blob's own bytes (systematic code)."""

JobId = NewType("JobId", int)
"""From 1; a job's place in the order of all that were ever added to one queue."""


@dataclass(frozen=True, slots=True, order=True)
class ShareKey:
    """Names one share of one blob, anywhere."""

    blob: BlobId
    number: ShareNumber

    def __str__(self) -> str:
        return f"{id_text(self.blob)}.{self.number}"


def secret_text(secret: bytes) -> str:
    """The 52-character text of 32 bytes, of which nothing is remembered."""
    return base64.b32encode(secret).decode("ascii").rstrip("=").lower()


@lru_cache(4096)  # a batch has the same few hundred at every node, and each takes 20 us
def id_text(identifier: bytes) -> str:
    """The 52-character text of a 32-byte identifier."""
    return secret_text(identifier)


def id_from_text(text: str) -> bytes:
    """Read what `id_text` or `secret_text` wrote.

    Raises: InvalidRequest: wrong length or alphabet, or not the one canonical text of its bytes.
    """
    if len(text) != ID_TEXT_CHARS:
        raise InvalidRequest(reason=f"an identifier has {ID_TEXT_CHARS} characters, not {len(text)}")
    try:
        identifier = base64.b32decode(text.upper() + "====")
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(reason="an identifier has characters a-z and 2-7 only") from error
    if secret_text(identifier) != text:
        raise InvalidRequest(reason="this is not the canonical text of an identifier")
    return identifier
