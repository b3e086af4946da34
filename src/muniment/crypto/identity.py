"""Ed25519 identities of nodes and accounts (RFC 8032)."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from muniment.crypto.hashing import derive
from muniment.errors import MalformedRecord
from muniment.ids import AccountId, NodeId, id_text
from muniment.spec import tags

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


def node_id(public_key: bytes) -> NodeId:
    """The NodeId of a node's Ed25519 public key."""
    return NodeId(derive(tags.NODE_ID, public_key))


class Identity:
    """An Ed25519 key pair.  `repr` shows the public key only; the seed is the whole secret.

    Args:
        seed: 32 secret bytes.
    """

    __slots__ = ("_private", "_seed", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise MalformedRecord(format="identity", reason=f"seed of {len(seed)} bytes")
        self._seed = bytes(seed)
        self._private = Ed25519PrivateKey.from_private_bytes(self._seed)
        self.public_key = self._private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> Identity:
        """A new identity from a source of unpredictable bytes."""
        return cls(entropy(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a stored seed.  Raises: MalformedRecord: not 32 bytes."""
        return cls(seed)

    @property
    def seed(self) -> bytes:
        """The secret; write it to a file of mode 0600 and nowhere else."""
        return self._seed

    @property
    def node(self) -> NodeId:
        """This identity as a node."""
        return node_id(self.public_key)

    @property
    def account(self) -> AccountId:
        """This identity as an account."""
        return AccountId(self.public_key)

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """For signers that need the library's own type (certificates, tokens)."""
        return self._private

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`; the caller prefixes its purpose."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"<Identity {id_text(self.public_key)[:12]}>"


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature.  Raises: MalformedRecord: it is not one of `public_key` on `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise MalformedRecord(format="signature", reason="it does not verify") from error
