"""The keys of a volume's epochs: made, granted and chained (docs/spec/entry.md section 2).

    read key R  ->  verify key V  ->  commitment, which stands in the log

Whoever is granted R or V checks it against the commitment, so all members of an epoch have the same keys or
know that they have none.  Each epoch's key opens those of the epoch before it, never those of the one after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from muniment.core.membership import EpochStart, Membership, Mended
from muniment.crypto.cipher import DoesNotOpen
from muniment.crypto.hashing import derive
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.crypto.messages import open_message, open_once, seal_message, seal_once
from muniment.crypto.wrapping import wrap
from muniment.errors import InternalError, MalformedRecord, NotCapable
from muniment.ids import MemberId, VolumeId
from muniment.spec import tags
from muniment.spec.act import (
    CHAIN_BYTES,
    NONCE_BYTES,
    WRAPPED_BYTES,
    Card,
    Found,
    Grant,
    Mend,
    Role,
    Rotation,
    VolumePolicy,
)
from muniment.spec.entry import NO_VOLUME

KEY_BYTES: Final = 32
_EPOCH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """The keys of one epoch, as far as the holder has them.

    Attributes:
        epoch: its number.
        verify: V; opens the names of blobs.
        read: R; opens everything.  None for one who only verifies.
    """

    epoch: int
    verify: bytes = field(repr=False)
    read: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if len(self.verify) != KEY_BYTES or (self.read is not None and len(self.read) != KEY_BYTES):
            raise MalformedRecord(format="epoch key", reason="wrong length")
        if self.read is not None and derive(tags.EPOCH_VERIFY_KEY, self.read) != self.verify:
            raise MalformedRecord(format="epoch key", reason="read and verify key do not belong together")

    @classmethod
    def of_read(cls, epoch: int, read: bytes) -> EpochKeys:
        """Both keys from the read key."""
        return cls(epoch, derive(tags.EPOCH_VERIFY_KEY, read), read)

    @classmethod
    def generate(cls, epoch: int, entropy: Callable[[int], bytes]) -> EpochKeys:
        """New keys from a source of unpredictable bytes."""
        return cls.of_read(epoch, entropy(KEY_BYTES))

    @property
    def commitment(self) -> bytes:
        """What the log says of these keys."""
        return derive(tags.EPOCH_COMMITMENT, self.verify)

    def convergence_secret(self) -> bytes:
        """Under which the epoch's blobs are sealed.  Raises: NotCapable: verify key only."""
        return derive(tags.EPOCH_CONVERGENCE, self.read_key())

    def transaction_key(self, author: MemberId) -> bytes:
        """Of an author's transactions.  Raises: NotCapable: verify key only."""
        return derive(tags.TRANSACTION_KEY, self.read_key(), author)

    def names_key(self, author: MemberId) -> bytes:
        """Of the names of the blobs in an author's transactions."""
        return derive(tags.TRANSACTION_VERIFY_KEY, self.verify, author)

    def unsaved_key(self) -> bytes:
        """Of what a mount could not save.  Raises: NotCapable: verify key only."""
        return derive(tags.UNSAVED_KEY, self.read_key())

    def read_key(self) -> bytes:
        """R.  Raises: NotCapable: verify key only."""
        if self.read is None:
            raise NotCapable(needed=f"read (epoch {self.epoch})", given="verify")
        return self.read


def grant(volume: VolumeId, keys: EpochKeys, card: Card, role: Role) -> Grant:
    """Wrap an epoch's keys to a member, as far as his role gets them.

    Args:
        volume: NO_VOLUME in a founding entry.
        keys: with the read key, unless the role is one that only verifies.
    Raises: NotCapable: no read key to grant; MalformedRecord: nothing can be wrapped to the card's keys.
    """
    context = _grant_context(volume, keys.epoch, card.member)
    read = wrap(card.read_key, keys.read_key(), context) if role.reads else b""
    verify = wrap(card.verify_key, keys.verify, context) if role.verifies else b""
    return Grant(card.member, read, verify)


def open_grant(
    volume: VolumeId, epoch: int, commitment: bytes, granted: Grant, secret: ReadSecret | VerifySecret
) -> EpochKeys:
    """The keys that were granted to the holder of `secret`, as far as he can open them.

    Args:
        volume: NO_VOLUME for what was granted in the founding entry.
        commitment: to the epoch's keys, from the log.

    Raises:
        NotCapable: nothing in it is for him.
        MalformedRecord: it does not open, or with other keys than the log commits to: whoever granted it
            did so wrongly, and its signature shows who that was.
    """
    context = _grant_context(volume, epoch, granted.member)
    if isinstance(secret, ReadSecret) and granted.read:
        keys = EpochKeys.of_read(epoch, secret.wrap_key.unwrap(granted.read, context))
    elif granted.verify:
        verify = secret.verify if isinstance(secret, ReadSecret) else secret
        keys = EpochKeys(epoch, verify.wrap_key.unwrap(granted.verify, context))
    else:
        raise NotCapable(needed=f"verify (epoch {epoch})", given="witness")
    _check_commitment(keys, commitment)
    return keys


def founding(
    name: str, policy: VolumePolicy, card: Card, entropy: Callable[[int], bytes]
) -> tuple[Found, EpochKeys]:
    """The act that makes a volume, by the member whose card it is, and its first keys.

    Raises: MalformedRecord: the name is not a proper one.
    """
    keys = EpochKeys.generate(0, entropy)
    granted = grant(NO_VOLUME, keys, card, Role.OWNER)
    return Found(name, entropy(NONCE_BYTES), policy, card, keys.commitment, (granted,)), keys


def rotation(
    membership: Membership,
    old: EpochKeys | None,
    entropy: Callable[[int], bytes],
    *,
    without: MemberId | None = None,
) -> tuple[Rotation, EpochKeys]:
    """New keys for the next epoch, granted to the present members but one, and to nobody else.

    A card to which nothing can be wrapped is its member's own fault and must not keep the others from new
    keys: he is given bytes that open nothing.

    Args:
        old: both keys of the present epoch; None if they were withheld from the one who rotates: the chain
            then leads nowhere, and whoever has them mends it (`mend`).
        without: the member who is to be removed.
    Returns: what to put into a rotate or kick, and the keys in it.
    Raises: NotCapable: `old` has no read key.
    Cost: one or two wrappings for each member.
    """
    if old is not None and old.epoch != membership.epoch:
        raise InternalError(reason=f"keys of epoch {old.epoch} chained in epoch {membership.epoch}")
    new = EpochKeys.generate(membership.epoch + 1, entropy)
    grants = []
    for member, held in sorted(membership.members.items()):
        if member == without:
            continue
        try:
            grants.append(grant(membership.volume, new, held.card, held.role))
        except MalformedRecord:
            read, verify = (entropy(WRAPPED_BYTES * gets) for gets in (held.role.reads, held.role.verifies))
            grants.append(Grant(member, read, verify))
    if old is None:
        return Rotation(tuple(grants), new.commitment, entropy(CHAIN_BYTES), entropy(CHAIN_BYTES)), new
    chain_read = seal_once(derive(tags.CHAIN_READ, new.read_key()), old.read_key())
    chain_verify = seal_once(derive(tags.CHAIN_VERIFY, new.verify), old.verify)
    return Rotation(tuple(grants), new.commitment, chain_read, chain_verify), new


def open_chain(newer: EpochKeys, start: EpochStart, commitment: bytes) -> EpochKeys:
    """The keys of the epoch before `newer`, as far as those of `newer` go.

    Args:
        start: of the epoch of `newer`.
        commitment: to the keys of the epoch before.
    Raises: MalformedRecord: whoever rotated the keys chained something else.
    """
    try:
        if newer.read is not None:
            read = open_once(derive(tags.CHAIN_READ, newer.read), start.chain_read)
            older = EpochKeys.of_read(newer.epoch - 1, read)
        else:
            verify = open_once(derive(tags.CHAIN_VERIFY, newer.verify), start.chain_verify)
            older = EpochKeys(newer.epoch - 1, verify)
    except DoesNotOpen as error:
        raise MalformedRecord(
            format="key chain", reason=f"it does not open in epoch {newer.epoch}"
        ) from error
    _check_commitment(older, commitment)
    return older


def mend(volume: VolumeId, newest: EpochKeys, older: EpochKeys, entropy: Callable[[int], bytes]) -> Mend:
    """The keys of an earlier epoch for all who have those of the present one.

    Args:
        newest: both keys of the present epoch.
        older: both of the earlier one.
    Raises: NotCapable: a read key is missing.
    """
    bound = _mend_bound(volume, newest.epoch, older.epoch)
    read = seal_message(derive(tags.MEND_READ, newest.read_key()), older.read_key(), bound, entropy)
    verify = seal_message(derive(tags.MEND_VERIFY, newest.verify), older.verify, bound, entropy)
    return Mend(older.epoch, read, verify)


def open_mended(volume: VolumeId, newer: EpochKeys, mended: Mended, commitment: bytes) -> EpochKeys:
    """The earlier keys that somebody gave besides the chain, as far as those of `newer` go.

    Args:
        newer: of the epoch `mended.under`.
        commitment: to the keys of the epoch `mended.epoch`.
    Raises: MalformedRecord: they are other keys, or none.
    """
    bound = _mend_bound(volume, newer.epoch, mended.epoch)
    try:
        if newer.read is not None:
            read = open_message(derive(tags.MEND_READ, newer.read), mended.read, bound)
            older = EpochKeys.of_read(mended.epoch, read)
        else:
            verify = open_message(derive(tags.MEND_VERIFY, newer.verify), mended.verify, bound)
            older = EpochKeys(mended.epoch, verify)
    except DoesNotOpen as error:
        raise MalformedRecord(
            format="mended key", reason=f"it does not open in epoch {newer.epoch}"
        ) from error
    _check_commitment(older, commitment)
    return older


def _mend_bound(volume: VolumeId, under: int, epoch: int) -> bytes:
    return volume + under.to_bytes(_EPOCH_BYTES, "big") + epoch.to_bytes(_EPOCH_BYTES, "big")


def _grant_context(volume: VolumeId, epoch: int, member: MemberId) -> bytes:
    return tags.GRANT + volume + epoch.to_bytes(_EPOCH_BYTES, "big") + member


def _check_commitment(keys: EpochKeys, commitment: bytes) -> None:
    if keys.commitment != commitment:
        raise MalformedRecord(format="epoch key", reason=f"not the key that epoch {keys.epoch} commits to")
