"""Content encryption: AES-256-GCM into buffers the caller reuses.

The nonce is always zero.  That is safe for one reason only: every key is derived from exactly the bytes it
encrypts (`core.sealing`), so no key ever meets two different messages.  Never call this with a key that was
chosen any other way.  Source: docs/spec/share.md section 4.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)


class DoesNotOpen(ValueError):
    """The ciphertext was not made with this key; callers turn it into BlobCorrupt with the blob's name."""


def encrypt_into(key: bytes, plain: bytes | memoryview, out: bytearray | memoryview) -> None:
    """Encrypt `plain` into `out`, which is exactly TAG_BYTES longer and does not overlap it."""
    AESGCM(key).encrypt_into(_NONCE, plain, None, out)


def decrypt_into(key: bytes, sealed: bytes | memoryview, out: bytearray | memoryview) -> None:
    """Decrypt `sealed` into `out`, which is exactly TAG_BYTES shorter.

    Raises: DoesNotOpen: wrong key or changed bytes; `out` then holds nothing of meaning.
    """
    if len(sealed) < TAG_BYTES:
        raise DoesNotOpen("shorter than its tag")
    try:
        AESGCM(key).decrypt_into(_NONCE, sealed, None, out)
    except InvalidTag as error:
        raise DoesNotOpen("the tag does not match") from error
