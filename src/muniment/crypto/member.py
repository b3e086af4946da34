"""The secrets of a member on three levels, each derived from the one above (docs/spec/entry.md section 2).

    MemberSecret   signs entries, opens everything       the seed
    ReadSecret     opens read and verify keys            hash of the seed
    VerifySecret   opens verify keys only                hash of that hash

Each object lacks what its holder may not have; there are ways down and none up.  No `repr` shows a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Final

from muniment.crypto.hashing import derive
from muniment.crypto.identity import SEED_BYTES, Identity
from muniment.crypto.wrapping import WrapKey
from muniment.errors import MalformedRecord
from muniment.ids import ID_BYTES, MemberId, id_text
from muniment.spec import tags
from muniment.spec.act import Card

_SHOWN_CHARS: Final = 12


class _Holder:
    """What the levels have in common: whose secret it is, and 32 secret bytes."""

    def __init__(self, member: MemberId, seed: bytes) -> None:
        if len(member) != ID_BYTES or len(seed) != SEED_BYTES:
            raise MalformedRecord(format="member secret", reason="wrong length")
        self.member = member
        self._seed = bytes(seed)

    @property
    def seed(self) -> bytes:
        """The secret of this level; whoever has it has all levels below."""
        return self._seed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {id_text(self.member)[:_SHOWN_CHARS]}>"


class VerifySecret(_Holder):
    """What an auditor or a keeper holds: opens verify keys granted to the member.

    Args:
        member: whose.
        seed: the verify seed.
    """

    @cached_property
    def wrap_key(self) -> WrapKey:
        """Opens verify keys."""
        return WrapKey(self._seed)


class ReadSecret(_Holder):
    """What a reader holds: opens read keys granted to the member, and verify keys.

    Args:
        member: whose.
        seed: the read seed.
    """

    @cached_property
    def wrap_key(self) -> WrapKey:
        """Opens read keys."""
        return WrapKey(self._seed)

    @cached_property
    def verify(self) -> VerifySecret:
        """The level below."""
        return VerifySecret(self.member, derive(tags.MEMBER_VERIFY_SEED, self._seed))


class MemberSecret(_Holder):
    """What a member keeps: signs as the member, and has all levels below.

    Args:
        seed: 32 secret bytes, the Ed25519 key.
    """

    def __init__(self, seed: bytes) -> None:
        self.identity = Identity(seed)
        super().__init__(MemberId(self.identity.public_key), seed)

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> MemberSecret:
        """A new member from a source of unpredictable bytes."""
        return cls(entropy(SEED_BYTES))

    @cached_property
    def read(self) -> ReadSecret:
        """The level below."""
        return ReadSecret(self.member, derive(tags.MEMBER_READ_SEED, self._seed))

    @property
    def verify(self) -> VerifySecret:
        """The lowest level."""
        return self.read.verify

    def card(self, name: str) -> Card:
        """The public side, for everybody.  Raises: MalformedRecord: the name is not a proper one."""
        return Card(self.member, self.read.wrap_key.public_key, self.verify.wrap_key.public_key, name)
