"""The keys of a volume's epochs: made, granted, chained and held (docs/spec/entry.md section 2).

    read key R  ->  verify key V  ->  commitment, which stands in the log

Whoever is granted R or V checks it against the commitment, so all members of an epoch have the same keys or
know that they have none.  Each epoch's key opens those of the epoch before it, never those of the one after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from muniment.core.membership import EpochStart, Membership
from muniment.crypto.cipher import DoesNotOpen
from muniment.crypto.hashing import derive
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.crypto.messages import open_once, seal_once
from muniment.crypto.wrapping import wrap
from muniment.errors import InternalError, MalformedRecord, NotCapable
from muniment.ids import MemberId, VolumeId
from muniment.spec import tags
from muniment.spec.act import NONCE_BYTES, WRAPPED_BYTES, Card, Found, Grant, Role, Rotation, VolumePolicy
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
    old: EpochKeys,
    entropy: Callable[[int], bytes],
    *,
    without: MemberId | None = None,
) -> tuple[Rotation, EpochKeys]:
    """New keys for the next epoch, granted to the present members but one, and to nobody else.

    A card to which nothing can be wrapped is its member's own fault and must not keep the others from new
    keys: he is given bytes that open nothing.

    Args:
        old: both keys of the present epoch.
        without: the member who is to be removed.
    Returns: what to put into a rotate or kick, and the keys in it.
    Raises: NotCapable: `old` has no read key.
    Cost: one or two wrappings for each member.
    """
    if old.epoch != membership.epoch:
        raise InternalError(reason=f"keys of epoch {old.epoch} chained in epoch {membership.epoch}")
    new = EpochKeys.generate(old.epoch + 1, entropy)
    grants = []
    for member, held in sorted(membership.members.items()):
        if member == without:
            continue
        try:
            grants.append(grant(membership.volume, new, held.card, held.role))
        except MalformedRecord:
            read, verify = (entropy(WRAPPED_BYTES * gets) for gets in (held.role.reads, held.role.verifies))
            grants.append(Grant(member, read, verify))
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


class KeyRing:
    """The keys of all epochs that a member can open: those granted to him and, by the chain, all before.

    Follows a `Membership`: call `follow` after acts were admitted (it is cheap when nothing is new).  What
    was opened stays, so a member who is removed keeps what he had, and gets nothing more.

    Args:
        secret: of the member; with a VerifySecret the ring has verify keys only.
    """

    def __init__(self, secret: ReadSecret | VerifySecret) -> None:
        self._secret = secret
        self._keys: dict[int, EpochKeys] = {}
        self._starts: tuple[EpochStart, ...] = ()
        self._granted: tuple[Grant, ...] = ()
        self._refusal: MalformedRecord | None = None

    def __repr__(self) -> str:
        return f"<KeyRing of {self._secret!r}, epochs {sorted(self._keys)}>"

    def copy(self) -> KeyRing:
        """An independent copy: to follow entries of which some may be refused."""
        other = KeyRing(self._secret)
        other.__dict__.update(self.__dict__)
        other._keys = dict(self._keys)
        return other

    @property
    def newest(self) -> EpochKeys | None:
        """Of the latest epoch that was granted and opened; None if none was."""
        return self._keys[max(self._keys)] if self._keys else None

    @property
    def refusal(self) -> MalformedRecord | None:
        """Why keys of the present epoch are missing that were granted: they were granted wrongly."""
        return self._refusal

    def follow(self, membership: Membership) -> None:
        """Take what the present state grants to the member.  Never raises: see `refusal`."""
        granted = membership.grants_of(self._secret.member)
        if len(self._starts) == membership.epoch + 1 and granted is self._granted:
            return
        self._starts, self._granted, self._refusal = membership.epochs, granted, None
        if not granted:
            return
        epoch, member = membership.epoch, membership.members[self._secret.member]
        reads = isinstance(self._secret, ReadSecret) and member.role.reads
        # What was granted in the founding entry, before the volume had a name, says so.
        volume = NO_VOLUME if epoch == member.since == 0 else membership.volume
        for one in granted:
            try:
                keys = open_grant(volume, epoch, self._starts[epoch].commitment, one, self._secret)
            except NotCapable:
                continue
            except MalformedRecord as error:
                self._refusal = error
                continue
            self._hold(keys)
            if keys.read is not None or not reads:
                self._refusal = None
                return

    def keys(self, epoch: int) -> EpochKeys:
        """Of this epoch.

        Raises: NotCapable: neither it nor a later one was granted to the member, or somebody who rotated the
            keys broke the chain in between.
        Cost: one step for each epoch in between, the first time.
        """
        if epoch not in self._keys:
            later = [held for held in self._keys if held > epoch]
            if not later:
                raise self._not_capable(epoch)
            for newer in range(min(later), epoch, -1):
                start, before = self._starts[newer], self._starts[newer - 1]
                try:
                    self._keys[newer - 1] = open_chain(self._keys[newer], start, before.commitment)
                except MalformedRecord as error:
                    raise self._not_capable(epoch) from error
        return self._keys[epoch]

    def _not_capable(self, epoch: int) -> NotCapable:
        given = f"epoch {max(self._keys)}" if self._keys else "non-member"
        return NotCapable(needed=f"epoch {epoch}", given=given)

    def _hold(self, keys: EpochKeys) -> None:
        held = self._keys.get(keys.epoch)
        if held is not None and held.read is not None:
            return
        if keys.read is not None:
            # An auditor has become a reader: the chain has the read keys of what he could only verify.
            self._keys = {epoch: old for epoch, old in self._keys.items() if old.read is not None}
        self._keys[keys.epoch] = keys


def _grant_context(volume: VolumeId, epoch: int, member: MemberId) -> bytes:
    return tags.GRANT + volume + epoch.to_bytes(_EPOCH_BYTES, "big") + member


def _check_commitment(keys: EpochKeys, commitment: bytes) -> None:
    if keys.commitment != commitment:
        raise MalformedRecord(format="epoch key", reason=f"not the key that epoch {keys.epoch} commits to")
