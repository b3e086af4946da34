"""Secrets wrapped to one reader: HPKE, RFC 9180 (docs/spec/wrapping.md).

Base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, one message for each encapsulated key.
Anybody can wrap to a public key: who wrapped is shown by the signature on the record around it.  The
ephemeral key comes from the library's own source of randomness, so no two wrappings are alike.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from muniment.crypto.hashing import derive
from muniment.errors import MalformedRecord
from muniment.ids import id_text
from muniment.spec import tags

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
OVERHEAD_BYTES: Final = PUBLIC_KEY_BYTES + 16
"""What a wrapped secret is longer: the encapsulated key in front, the tag behind."""
SECRET_BYTES_MAX: Final = 1024
"""Keys are wrapped, not data."""

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class WrapKey:
    """An X25519 key pair that opens what was wrapped to it.  `repr` shows the public key only.

    Args:
        seed: 32 secret bytes, used for no other kind of key.
    Raises: MalformedRecord: not 32 bytes.
    """

    __slots__ = ("_private", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise MalformedRecord(format="wrapping key", reason=f"seed of {len(seed)} bytes")
        self._private = X25519PrivateKey.from_private_bytes(derive(tags.WRAP_KEY, seed))
        self.public_key = self._private.public_key().public_bytes_raw()

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The secret that was wrapped to this key in this context.

        Raises: MalformedRecord: anything else, by whomever it was made; why, is not told.
        """
        if not 0 < len(wrapped) - OVERHEAD_BYTES <= SECRET_BYTES_MAX:
            raise MalformedRecord(format="wrapped secret", reason=f"{len(wrapped)} bytes")
        try:
            return _SUITE.decrypt(wrapped, self._private, context)
        except (InvalidTag, ValueError) as error:
            raise MalformedRecord(
                format="wrapped secret", reason="it does not open with this key in this context"
            ) from error

    def __repr__(self) -> str:
        return f"<WrapKey {id_text(self.public_key)[:12]}>"


def wrap(public_key: bytes, secret: bytes, context: bytes) -> bytes:
    """Wrap a secret to the holder of a key.

    Args:
        public_key: of a `WrapKey`, 32 bytes; it may come from anybody.
        secret: 1 to SECRET_BYTES_MAX bytes.
        context: what the secret is and for whom, beginning with a tag of `spec.tags`; it is not sent, and the
            secret opens in no other.
    Returns: OVERHEAD_BYTES more than the secret.
    Raises: MalformedRecord: a key to which nothing can be wrapped safely, or a secret out of limits.
    """
    if not 0 < len(secret) <= SECRET_BYTES_MAX:
        raise MalformedRecord(format="wrapped secret", reason=f"secret of {len(secret)} bytes")
    try:
        return _SUITE.encrypt(secret, X25519PublicKey.from_public_bytes(public_key), context)
    except ValueError as error:  # wrong length, or a point of low order, whose shared secret everybody knows
        raise MalformedRecord(format="wrapping key", reason="no usable X25519 key") from error
