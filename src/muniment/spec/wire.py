"""JSON messages between client, node and introducer, as strict msgspec structs (docs/spec/wire.md).

Unknown fields are refused, every list and text has a length limit, identifiers are their 52-character text.
The OpenAPI description is generated from these types, so schema and parser cannot drift apart.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from muniment.ids import ID_TEXT_CHARS
from muniment.spec.limits import (
    BATCH_SHARES_MAX,
    CHALLENGES_MAX,
    HAVE_BLOBS_MAX,
    LEAF_BYTES,
    PUT_BODY_BYTES_MAX,
    RECORD_BYTES_MAX,
    SEALED_BYTES_MAX,
    SHARES_MAX,
)

IdText = Annotated[
    # The last character carries one bit: any other than these two is not the canonical text of 32 bytes.
    str,
    msgspec.Meta(min_length=ID_TEXT_CHARS, max_length=ID_TEXT_CHARS, pattern="^[a-z2-7]{51}[aq]$"),
]
Number = Annotated[int, msgspec.Meta(ge=0, lt=SHARES_MAX)]
Size = Annotated[int, msgspec.Meta(ge=1, le=PUT_BODY_BYTES_MAX)]
Leaf = Annotated[int, msgspec.Meta(ge=0, le=SEALED_BYTES_MAX // LEAF_BYTES)]
EpochText = Annotated[str, msgspec.Meta(max_length=64, pattern="^[0-9A-Za-z._-]*$")]
"""One run of an introducer; a client sends it back in a query."""
RosterVersion = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
RecordText = Annotated[str, msgspec.Meta(max_length=RECORD_BYTES_MAX * 2)]
"""A signed node record in unpadded URL-safe base64."""


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all messages."""


class ShareName(Message):
    """A share key on the wire."""

    blob: IdText
    number: Number


class Problem(Message):
    """Every error answer: the leaf's code and its facts (RFC 9457 in spirit, one flat object)."""

    code: str
    message: str
    hint: str = ""
    retry: str = "never"
    facts: dict[str, str | int | float] = {}


class ScrubStatus(Message):
    """How far the node has read its shares again, and what it found (docs/node.md section 8).

    Attributes:
        round_started_s: when this round began; `done` is the part of it that is read, 0 to 1.
        share_count: read in this round, and `read_bytes` of them.
        damaged_count: of them, put into quarantine; `missing_count` were not there, `unreadable_count` could
            not be read, which is a failure of the medium.
        whole_since_s: everything the node has was read, or arrived, since then; 0 before the first whole
            round.
        found_count: damaged or missing, in all rounds.
    """

    round_started_s: float
    done: float
    share_count: int
    read_bytes: int
    damaged_count: int
    missing_count: int
    unreadable_count: int
    whole_since_s: float
    found_count: int


class NodeStatus(Message, forbid_unknown_fields=False):
    """Answer of `info`: the signed record and what changes too often to be signed into it.

    It grows from version to version: a reader ignores fields it does not know, and takes those that an older
    node does not send as their defaults.

    Attributes:
        leased_count: leases that are not in the trash, each account's own, and `leased_bytes` of them.
        scrub: None where the node has not come to it yet.
        draining: as the signed record says.
    """

    record: RecordText
    version: Annotated[str, msgspec.Meta(max_length=64)]
    time_s: float
    capacity_bytes: int
    used_bytes: int
    reserved_bytes: int
    share_count: int
    quarantined_count: int
    reconciled: bool
    leased_count: int = 0
    leased_bytes: int = 0
    scrub: ScrubStatus | None = None
    draining: bool = False


class Claim(Message):
    """Space asked for one share; `size_bytes` is the whole record's."""

    blob: IdText
    number: Number
    size_bytes: Size


class ReserveRequest(Message):
    """Body of `reserve`."""

    claims: Annotated[list[Claim], msgspec.Meta(max_length=BATCH_SHARES_MAX)]


class Outcome(Message):
    """One share's fate: `held` (put: was it `new`), `accepted` (till when) or `refused` (with a problem)."""

    result: str
    new: bool = False
    expires_s: float = 0.0
    problem: Problem | None = None


class Outcomes(Message):
    """One outcome for each share asked for or sent, in order."""

    outcomes: list[Outcome]


class ShareNames(Message):
    """Body of release, read and trash."""

    shares: Annotated[list[ShareName], msgspec.Meta(max_length=BATCH_SHARES_MAX)]


class Flags(Message):
    """One truth for each share named, in order."""

    done: list[bool]


class LeaseRequest(Message):
    """Body of `lease`."""

    shares: Annotated[list[ShareName], msgspec.Meta(max_length=BATCH_SHARES_MAX)]
    duration_s: Annotated[int, msgspec.Meta(ge=1, le=10 * 366 * 86400)]


class HaveRequest(Message):
    """Body of `have`."""

    blobs: Annotated[list[IdText], msgspec.Meta(max_length=HAVE_BLOBS_MAX)]


class HaveAnswer(Message):
    """Share numbers held for each blob asked for, in order."""

    numbers: list[list[Number]]


class Challenge(Message):
    """One leaf of one share, to be proven."""

    blob: IdText
    number: Number
    leaf: Leaf


class ProveRequest(Message):
    """Body of `prove`."""

    challenges: Annotated[list[Challenge], msgspec.Meta(max_length=CHALLENGES_MAX)]


class Proof(Message):
    """Header and roots, leaf data and path, each in unpadded URL-safe base64; all empty where not held."""

    header: str = ""
    data: str = ""
    path: list[str] = []


class ProveAnswer(Message):
    """One proof for each challenge, in order."""

    proofs: list[Proof]


class ShareLease(Message):
    """One row of an account's listing."""

    blob: IdText
    number: Number
    size_bytes: int
    expires_s: float
    trashed: bool = False


class ShareList(Message):
    """A page of the listing, in key order; shorter than asked for only at the end."""

    shares: list[ShareLease]


class AccountUsage(Message):
    """What the account holds on this node; `quota_bytes` -1 means no quota."""

    used_bytes: int
    reserved_bytes: int
    share_count: int
    quota_bytes: int = -1


class ShareQuarantined(Message):
    """One share found damaged."""

    blob: IdText
    number: Number
    reason: str
    found_s: float


class QuarantineList(Message):
    """A page of what was found damaged, in key order; shorter than asked for only at the end."""

    shares: list[ShareQuarantined]


class Announcement(Message):
    """Node to introducer: the node's newest record (a record that has expired withdraws the node)."""

    record: RecordText


class RosterAnswer(Message):
    """Introducer to client.

    `epoch` names one run of the introducer and `version` counts changes within it.  With `full` the records
    are the whole set; otherwise they are those added or renewed since the version asked for, and `removed`
    names the nodes gone.
    """

    epoch: EpochText
    version: RosterVersion
    full: bool
    records: list[RecordText]
    removed: list[IdText] = []
