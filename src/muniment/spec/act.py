"""Membership acts: what entries say in clear (docs/spec/entry.md sections 2 and 3)."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Final

from muniment.errors import MalformedRecord
from muniment.ids import ID_BYTES, MemberId
from muniment.spec.limits import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, KIB, LOG_SIZE_MAX, MIB, SHARES_MAX
from muniment.spec.operation import INODE_MAX

NAME_CHARS_MAX: Final = 64
NOTE_CHARS_MAX: Final = 256
NONCE_BYTES: Final = 16
COMMITMENT_BYTES: Final = 32
WRAPPED_BYTES: Final = 80
"""HPKE: 32 bytes of encapsulated key, 32 of secret, 16 of tag."""

CHAIN_BYTES: Final = 48
MENDED_BYTES: Final = 60
"""A nonce of 12 bytes, 32 of key, a tag of 16."""

CODING_CHARS_MAX: Final = 32
MEMBERS_MAX: Final = 1024
"""Also of joins that wait for votes."""

LIFETIME_S_MAX: Final = 366 * 24 * 3600
FOR_EVER_S: Final = -1
"""Instead of a time: versions are kept for ever."""

KEEP_S_MAX: Final = 1000 * LIFETIME_S_MAX
RULES_MAX: Final = 4096
"""Files and folders of a volume with a time of their own; as many with a hold."""

PRUNED_MAX: Final = 1 << 16
"""Blobs that one prune names."""

_TIME_NS_MAX: Final = 1 << 63
_FORMAT: Final = "membership act"
_UNSHOWABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Controls, line ends, and what changes the direction of writing.  Not `str.isprintable`: that depends on the
Unicode version of the interpreter, and all members must agree on what an entry is."""


class Role(enum.IntEnum):
    """What a member may do; each may do what the later ones may, but only witnesses cosign for others."""

    OWNER = 1
    """Votes and rotates, besides what a writer may."""
    WRITER = 2
    READER = 3
    AUDITOR = 4
    """Checks everything, reads no content and no names."""
    WITNESS = 5
    """Cosigns checkpoints; has no keys."""

    @property
    def writes(self) -> bool:
        """Whether transactions are accepted of him."""
        return self <= Role.WRITER

    @property
    def reads(self) -> bool:
        """Whether he gets the read keys."""
        return self <= Role.READER

    @property
    def verifies(self) -> bool:
        """Whether he gets the verify keys."""
        return self <= Role.AUDITOR


class Quorum(enum.IntEnum):
    """How many of the owners must agree."""

    ONE = 1
    MAJORITY = 2
    TWO_THIRDS = 3
    ALL = 4

    def votes(self, owners: int) -> int:
        """Votes needed of so many owners, at least 1."""
        match self:
            case Quorum.ONE:
                return 1
            case Quorum.MAJORITY:
                return owners // 2 + 1
            case Quorum.TWO_THIRDS:
                return -(-2 * owners // 3) or 1
            case Quorum.ALL:
                return owners or 1


@dataclass(frozen=True, slots=True)
class Card:
    """The public side of a member.

    Attributes:
        member: Ed25519 key; who it is.
        read_key: X25519; epoch read keys are wrapped to it.
        verify_key: X25519; epoch verify keys are wrapped to it.
        name: for people; not unique, proves nothing.
    """

    member: MemberId
    read_key: bytes
    verify_key: bytes
    name: str

    def __post_init__(self) -> None:
        if not all(len(key) == ID_BYTES for key in (self.member, self.read_key, self.verify_key)):
            raise _malformed("a key of wrong length")
        _check_name(self.name)


@dataclass(frozen=True, slots=True)
class Grant:
    """An epoch's keys wrapped to one member; empty where his role does not get them."""

    member: MemberId
    read: bytes = field(repr=False)
    verify: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.member) != ID_BYTES or not {len(self.read), len(self.verify)} <= {0, WRAPPED_BYTES}:
            raise _malformed("a grant of wrong length")

    def fits(self, role: Role) -> bool:
        """Whether it has exactly the keys that a member of this role gets."""
        return bool(self.read) == role.reads and bool(self.verify) == role.verifies


@dataclass(frozen=True, slots=True)
class Rotation:
    """The keys of the next epoch.

    Attributes:
        grants: in the order of their members.
        commitment: what the granted keys must hash to, so that nobody is granted other keys than the others.
        chain_read: the read key of the epoch before under this one's.
        chain_verify: likewise the verify key.
    """

    grants: tuple[Grant, ...]
    commitment: bytes
    chain_read: bytes = field(repr=False)
    chain_verify: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_grants(self.grants)
        _check_commitment(self.commitment)
        if not len(self.chain_read) == len(self.chain_verify) == CHAIN_BYTES:
            raise _malformed("a key chain of wrong length")


@dataclass(frozen=True, slots=True)
class VolumePolicy:
    """What the owners agreed on.

    Attributes:
        quorum: of owners, for membership and policy.
        vote_lifetime_s: votes and joins older than this count no more.
        coding: as text, e.g. "4/6"; how blobs are coded.
        happy: distinct nodes that must hold shares before a blob counts as stored.
        chunk_bytes: of plaintext in a blob.
    """

    quorum: Quorum
    vote_lifetime_s: int
    coding: str
    happy: int
    chunk_bytes: int

    def __post_init__(self) -> None:
        if not 0 < self.vote_lifetime_s <= LIFETIME_S_MAX:
            raise _malformed("lifetime of votes out of range")
        if not self.coding:
            raise _malformed("no coding")
        check_line(self.coding, CODING_CHARS_MAX)
        if not 1 <= self.happy <= SHARES_MAX or not CHUNK_BYTES_MIN <= self.chunk_bytes <= CHUNK_BYTES_MAX:
            raise _malformed("coding out of range")


@dataclass(frozen=True, slots=True)
class Found:
    """Makes the volume; its author is the first owner."""

    name: str
    nonce: bytes
    policy: VolumePolicy
    card: Card
    commitment: bytes
    grants: tuple[Grant, ...]

    def __post_init__(self) -> None:
        _check_grants(self.grants)
        _check_commitment(self.commitment)
        _check_name(self.name)
        if len(self.nonce) != NONCE_BYTES or [g.member for g in self.grants] != [self.card.member]:
            raise _malformed("nonce or grants do not fit")


@dataclass(frozen=True, slots=True)
class Join:
    """Asks to become a member."""

    card: Card
    role: Role
    note: str

    def __post_init__(self) -> None:
        check_line(self.note, NOTE_CHARS_MAX)


@dataclass(frozen=True, slots=True)
class Accept:
    """A vote for a join, for exactly this role, with the joiner's keys of the present epoch."""

    member: MemberId
    role: Role
    grant: Grant

    def __post_init__(self) -> None:
        if self.grant.member != self.member:
            raise _malformed("a grant for somebody else")


@dataclass(frozen=True, slots=True)
class Kick:
    """A vote for a removal, with the epoch that follows it."""

    member: MemberId
    rotation: Rotation


@dataclass(frozen=True, slots=True)
class Leave:
    """The author's own removal."""


@dataclass(frozen=True, slots=True)
class Rotate:
    """A new epoch."""

    rotation: Rotation


@dataclass(frozen=True, slots=True)
class ChangePolicy:
    """A vote for exactly this policy."""

    policy: VolumePolicy


@dataclass(frozen=True, slots=True)
class Mend:
    """The keys of an earlier epoch once more, for those who cannot reach them by the chain.

    Attributes:
        epoch: whose keys they are.
        read: its read key under that of the present epoch; nothing that does not hash to what the log
            commits to counts, so nobody needs to trust the author.
        verify: likewise the verify key.
    """

    epoch: int
    read: bytes = field(repr=False)
    verify: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.epoch < 0 or not len(self.read) == len(self.verify) == MENDED_BYTES:
            raise _malformed("a mended key of wrong length")


@dataclass(frozen=True, slots=True)
class Report:
    """What a keeper did; the record is the entry's statement (`spec.statement`).

    Attributes:
        urgent: something is lost, so it does not wait until an hour has gone by.
    """

    urgent: bool


@dataclass(frozen=True, slots=True)
class Retain:
    """How long versions of a file, or of all below a folder, are kept after others took their place.

    Attributes:
        inode: of the file or folder.
        keep_s: seconds; FOR_EVER_S; None: as what is above says.
    """

    inode: int
    keep_s: int | None

    def __post_init__(self) -> None:
        _check_inode(self.inode)
        if self.keep_s is not None and not FOR_EVER_S <= self.keep_s <= KEEP_S_MAX:
            raise _malformed("a time to keep out of range")


@dataclass(frozen=True, slots=True)
class Hold:
    """Lays a hold on a file or folder, or lifts it: nothing that is or ever was below it is pruned.

    The reason is the entry's statement.
    """

    inode: int
    on: bool

    def __post_init__(self) -> None:
        _check_inode(self.inode)


@dataclass(frozen=True, slots=True)
class Prune:
    """Gives up blobs, which the entry's statement names, that nothing which is kept refers to.

    Attributes:
        size: entries of the log that were looked at; what names a blob later keeps it.
        until_ns: versions go whose time to be kept had ended then.
        count: of the blobs.
    """

    size: int
    until_ns: int
    count: int

    def __post_init__(self) -> None:
        if not 0 < self.size <= LOG_SIZE_MAX or not 0 <= self.until_ns < _TIME_NS_MAX:
            raise _malformed("a prune out of range")
        if not 0 < self.count <= PRUNED_MAX:
            raise _malformed("a prune of no blobs, or of too many")


Act = Found | Join | Accept | Kick | Leave | Rotate | ChangePolicy | Mend | Report | Retain | Hold | Prune


def statement_bytes_max(act: Act | None) -> int:
    """How long the encrypted statement of an act is at most; 0: it has none, else it must have one."""
    match act:
        case Report():
            return 8 * KIB
        case Hold():
            return 2 * KIB
        case Prune():
            return 3 * MIB
    return 0


def pack_act(act: Act) -> list[object]:
    """The act as plain CBOR values."""
    match act:
        case Found(name, nonce, policy, card, commitment, grants):
            return [1, name, nonce, pack_policy(policy), _pack_card(card), commitment, _pack_grants(grants)]
        case Join(card, role, note):
            return [2, _pack_card(card), int(role), note]
        case Accept(member, role, grant):
            return [3, member, int(role), *_pack_grants((grant,))]
        case Kick(member, rotation):
            return [4, member, _pack_rotation(rotation)]
        case Leave():
            return [5]
        case Rotate(rotation):
            return [6, _pack_rotation(rotation)]
        case ChangePolicy(policy):
            return [7, pack_policy(policy)]
        case Mend(epoch, read, verify):
            return [8, epoch, read, verify]
        case Report(urgent):
            return [9, int(urgent)]
        case Retain(inode, keep_s):
            return [10, inode, keep_s]
        case Hold(inode, on):
            return [11, inode, int(on)]
        case Prune(size, until_ns, count):
            return [12, size, until_ns, count]


def unpack_act(value: object) -> Act:
    """Read what `pack_act` made.  Raises: MalformedRecord: for any other value."""
    match value:
        case [1, str(name), bytes(nonce), policy, card, bytes(commitment), list(grants)]:
            return Found(
                name, nonce, unpack_policy(policy), _unpack_card(card), commitment, _unpack_grants(grants)
            )
        case [2, card, role, str(note)]:
            return Join(_unpack_card(card), _role(role), note)
        case [3, bytes(member), role, grant]:
            return Accept(MemberId(member), _role(role), _unpack_grants([grant])[0])
        case [4, bytes(member), rotation] if len(member) == ID_BYTES:
            return Kick(MemberId(member), _unpack_rotation(rotation))
        case [5]:
            return Leave()
        case [6, rotation]:
            return Rotate(_unpack_rotation(rotation))
        case [7, policy]:
            return ChangePolicy(unpack_policy(policy))
        case [8, int(epoch), bytes(read), bytes(verify)]:
            return Mend(epoch, read, verify)
        case [9, 0 | 1 as urgent]:
            return Report(urgent == 1)
        case [10, int(inode), int() | None as keep_s]:
            return Retain(inode, keep_s)
        case [11, int(inode), 0 | 1 as on]:
            return Hold(inode, on == 1)
        case [12, int(size), int(until_ns), int(count)]:
            return Prune(size, until_ns, count)
    raise _malformed("fields do not fit")


def pack_policy(policy: VolumePolicy) -> list[object]:
    """The policy as plain CBOR values."""
    return [int(policy.quorum), policy.vote_lifetime_s, policy.coding, policy.happy, policy.chunk_bytes]


def unpack_policy(value: object) -> VolumePolicy:
    """Read what `pack_policy` made.  Raises: MalformedRecord."""
    match value:
        case [int(quorum), int(lifetime_s), str(coding), int(happy), int(chunk_bytes)] if (
            quorum in Quorum.__members__.values()
        ):
            return VolumePolicy(Quorum(quorum), lifetime_s, coding, happy, chunk_bytes)
    raise _malformed("the policy does not fit")


def _pack_card(card: Card) -> list[object]:
    return [card.member, card.read_key, card.verify_key, card.name]


def _unpack_card(value: object) -> Card:
    match value:
        case [bytes(member), bytes(read_key), bytes(verify_key), str(name)]:
            return Card(MemberId(member), read_key, verify_key, name)
    raise _malformed("the card does not fit")


def _pack_grants(grants: tuple[Grant, ...]) -> list[object]:
    return [[grant.member, grant.read, grant.verify] for grant in grants]


def _unpack_grants(values: list[object]) -> tuple[Grant, ...]:
    grants = []
    for value in values:
        match value:
            case [bytes(member), bytes(read), bytes(verify)]:
                grants.append(Grant(MemberId(member), read, verify))
            case _:
                raise _malformed("a grant does not fit")
    return tuple(grants)


def _pack_rotation(rotation: Rotation) -> list[object]:
    return [_pack_grants(rotation.grants), rotation.commitment, rotation.chain_read, rotation.chain_verify]


def _unpack_rotation(value: object) -> Rotation:
    match value:
        case [list(grants), bytes(commitment), bytes(chain_read), bytes(chain_verify)]:
            return Rotation(_unpack_grants(grants), commitment, chain_read, chain_verify)
    raise _malformed("the rotation does not fit")


def _role(value: object) -> Role:
    if type(value) is int and value in Role.__members__.values():
        return Role(value)
    raise _malformed("there is no such role")


def _check_grants(grants: tuple[Grant, ...]) -> None:
    members = [grant.member for grant in grants]
    if not 0 < len(members) <= MEMBERS_MAX or members != sorted(set(members)):
        raise _malformed("grants out of order")


def _check_commitment(commitment: bytes) -> None:
    if len(commitment) != COMMITMENT_BYTES:
        raise _malformed("a commitment of wrong length")


def _check_inode(inode: int) -> None:
    if not 0 < inode < INODE_MAX:
        raise _malformed("there is no such inode")


def _check_name(name: str) -> None:
    if not name:
        raise _malformed("an empty name")
    check_line(name, NAME_CHARS_MAX)


def check_line(text: str, chars_max: int) -> None:
    """Raise MalformedRecord unless this is one line of text that can be shown."""
    if len(text) > chars_max or _UNSHOWABLE.search(text):
        raise _malformed(f"a text is up to {chars_max} characters on one line")


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
