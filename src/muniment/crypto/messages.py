"""AES-256-GCM for messages under keys that were not made from what they encrypt.

Two kinds of key, two pairs of functions.  A key that serves for many messages takes a random nonce for each:
`seal_message`.  A key that is derived for one message and never encrypts another needs none: `seal_once`.
(`crypto.cipher` is for keys that are derived from the very bytes they encrypt.)  Source: docs/spec/entry.md
sections 2 and 4, NIST SP 800-38D section 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from muniment.crypto.cipher import TAG_BYTES, DoesNotOpen

NONCE_BYTES: Final = 12
OVERHEAD_BYTES: Final = NONCE_BYTES + TAG_BYTES
"""What a message sealed by `seal_message` is longer."""

_NO_NONCE: Final = bytes(NONCE_BYTES)


def seal_message(key: bytes, plain: bytes, bound: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """Encrypt one of up to 2^32 messages of a key (SP 800-38D section 8.3: so many random nonces are safe).

    Args:
        bound: is not sent, but must be the same when the message is opened.
        entropy: gives so many unpredictable bytes; the same nonce twice would betray both messages.
    Returns: OVERHEAD_BYTES more than `plain`, the nonce in front.
    """
    nonce = entropy(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def open_message(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    """What `seal_message` sealed.  Raises: DoesNotOpen: another key, another `bound` or changed bytes."""
    if len(sealed) < OVERHEAD_BYTES:
        raise DoesNotOpen("shorter than its nonce and tag")
    return _opened(key, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)


def seal_once(key: bytes, plain: bytes) -> bytes:
    """Encrypt the one message this key is ever used for: TAG_BYTES more than `plain`."""
    return AESGCM(key).encrypt(_NO_NONCE, plain, None)


def open_once(key: bytes, sealed: bytes) -> bytes:
    """What `seal_once` sealed.  Raises: DoesNotOpen: another key or changed bytes."""
    if len(sealed) < TAG_BYTES:
        raise DoesNotOpen("shorter than its tag")
    return _opened(key, _NO_NONCE, sealed, None)


def _opened(key: bytes, nonce: bytes, sealed: bytes, bound: bytes | None) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, sealed, bound)
    except InvalidTag as error:
        raise DoesNotOpen("the tag does not match") from error
