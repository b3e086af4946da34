"""Log entries: the signed envelope (docs/spec/entry.md section 1).

Pure layout.  Signing and checking are `crypto.entries`, what is inside is `spec.act` and `spec.transaction`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import ID_BYTES, EntryHash, MemberId, VolumeId
from muniment.spec.act import MEMBERS_MAX, Act, Found, pack_act, statement_bytes_max, unpack_act
from muniment.spec.canonical import bytes_head, dump, load
from muniment.spec.limits import MIB

VERSION: Final = 1
ENTRY_BYTES_MAX: Final = 4 * MIB
"""Signed form.  A larger change is several transactions."""

SIGNATURE_BYTES: Final = 64
NO_VOLUME: Final = VolumeId(bytes(ID_BYTES))
NO_ENTRY: Final = EntryHash(bytes(ID_BYTES))
COUNT_MAX: Final = 1 << 53
"""Sizes, sequences and epochs: exact in every program that may read them, JSON's too."""

SKEW_NS_MAX: Final = 120 * 10**9
"""How far an author's clock may be off the log service's."""

_FORMAT: Final = "log entry"
_ACT_AT: Final = 9
_FIELDS: Final = frozenset(
    (int, bytes, int, bytes, int, bytes, int, bytes, int, act, bytes, bytes) for act in (type(None), list)
)
_PAYLOAD_STARTS: Final = {b"\x58": 3, b"\x59": 4, b"\x5a": 6}
"""In the signed form, by the first byte of the payload's head; behind 2 bytes if it is another."""

_SIGNATURE_PART_BYTES: Final = 2 + SIGNATURE_BYTES
_SIGNED_ITEMS: Final = 3
_ITEMS_MAX: Final = 8 * MEMBERS_MAX
"""More than a rotation for all members has; log services decode what strangers send."""

_TIME_NS_MAX: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry's payload.

    Attributes:
        volume: which log it is for; NO_VOLUME in the first entry.
        epoch: which keys `sealed` and `blobs` are under.
        author: who signs.
        sequence: entries of this author before it.
        previous: the author's entry before it; NO_ENTRY at sequence 0.
        seen_size: of the largest checkpoint the author had verified.
        seen_root: of the same.
        time_ns: the author's clock, nanoseconds since the epoch.
        act: a membership act; None in a transaction.
        sealed: the encrypted transaction; empty in an act.
        blobs: the encrypted names of the blobs it adds; empty where it adds none.  In an act that has one,
            its statement, for the verify right too.
    """

    volume: VolumeId
    epoch: int
    author: MemberId
    sequence: int
    previous: EntryHash
    seen_size: int
    seen_root: bytes
    time_ns: int
    act: Act | None
    sealed: bytes = field(default=b"", repr=False)
    blobs: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not all(len(i) == ID_BYTES for i in (self.volume, self.author, self.previous, self.seen_root)):
            raise _malformed("an identifier of wrong length")
        if not all(0 <= n < COUNT_MAX for n in (self.epoch, self.sequence, self.seen_size)):
            raise _malformed("a number out of range")
        if not 0 <= self.time_ns < _TIME_NS_MAX:
            raise _malformed("time out of range")
        if (self.act is None) == (not self.sealed):
            raise _malformed("not exactly one of act and transaction")
        if self.act is not None:
            statement_max = statement_bytes_max(self.act)
            if len(self.blobs) > statement_max or bool(self.blobs) != bool(statement_max):
                raise _malformed("an act without its statement, with one it must not have, or one too long")
        if (self.volume == NO_VOLUME) != isinstance(self.act, Found):
            raise _malformed("only the first entry names no volume")
        if (self.sequence == 0) != (self.previous == NO_ENTRY):
            raise _malformed("sequence and previous entry do not fit")

    def bound(self) -> bytes:
        """Associated data of `sealed`: everything else."""
        return _encoded(self, b"\0", self.blobs)

    def bound_blobs(self) -> bytes:
        """Associated data of `blobs`: everything but both."""
        return _encoded(self, b"\0", b"")


def encode_payload(entry: Entry) -> bytes:
    """The bytes that are signed."""
    return _encoded(entry, entry.sealed, entry.blobs)


def _encoded(entry: Entry, sealed: bytes, blobs: bytes) -> bytes:
    return dump(
        [
            VERSION,
            entry.volume,
            entry.epoch,
            entry.author,
            entry.sequence,
            entry.previous,
            entry.seen_size,
            entry.seen_root,
            entry.time_ns,
            None if entry.act is None else pack_act(entry.act),
            sealed,
            blobs,
        ]
    )


def decode_payload(payload: bytes) -> Entry:
    """Read a payload; the signature is not checked here.

    Raises: MalformedRecord: not canonical, wrong types or out of limits; UnknownVersion.
    """
    value = load(payload, format=_FORMAT, items_max=_ITEMS_MAX)
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        raise _malformed("fields do not fit")
    if value[0] != VERSION:
        raise UnknownVersion(format=_FORMAT, version=value[0])
    if tuple(map(type, value)) not in _FIELDS:  # a pattern of twelve classes costs five times as much
        raise _malformed("fields do not fit")
    if value[_ACT_AT] is not None:
        value[_ACT_AT] = unpack_act(value[_ACT_AT])
    return Entry(*value[1:])


def join_signed(payload: bytes, signature: bytes) -> bytes:
    """The signed form: the canonical list of both."""
    return b"".join((b"\x82", bytes_head(len(payload)), payload, bytes_head(len(signature)), signature))


def split_signed(signed: bytes) -> tuple[bytes, bytes]:
    """Payload and signature, unverified.  Raises: MalformedRecord."""
    if len(signed) > ENTRY_BYTES_MAX:
        raise _malformed(f"{len(signed)} bytes")
    # Two byte strings have one canonical form, so what they are joined to says whether this is it.
    start = _PAYLOAD_STARTS.get(signed[1:2], 2)
    payload, signature = signed[start:-_SIGNATURE_PART_BYTES], signed[-SIGNATURE_BYTES:]
    if join_signed(payload, signature) != signed:
        load(signed, format=_FORMAT, items_max=_SIGNED_ITEMS)  # says why, if it is not even canonical
        raise _malformed("not a payload with a signature")
    return payload, signature


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
