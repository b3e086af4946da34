"""Statements of acts: what acts say to who holds the verify right (docs/spec/entry.md section 3).

In clear an act says only what a log service needs to judge it; the rest stands encrypted in the entry's
`blobs`.  A statement that does not open or decode is void for every member alike, and its act says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from muniment.errors import MalformedRecord
from muniment.ids import ID_BYTES, BlobId
from muniment.spec.act import NOTE_CHARS_MAX, PRUNED_MAX, check_line
from muniment.spec.blob import BlobName
from muniment.spec.canonical import dump, load
from muniment.spec.share import BlobShape

LOST_MAX: Final = 64
"""Lost blobs that a report names."""

_ROW_BYTES: Final = ID_BYTES + 13
"""A BlobId and `BlobShape.pack`."""

_REPORT_VERSION: Final = 1
_NUMBER_MAX: Final = 1 << 63
_FORMAT: Final = "statement"


@dataclass(frozen=True, slots=True)
class KeepingRecord:
    """What one keeper did since its last report; times in seconds since the epoch.

    Attributes:
        lost: blobs of which fewer than k shares are left, whoever comes back; at most LOST_MAX, in order.
        since_s: when that was; 0: there was none.
        until_s: when this was written.
        log_size: entries of the log that it had followed.
        blobs: that the log refers to, when they were last looked at.
        whole: of them with all shares live.
        due: of them that wait for repair.
        unreadable: of them of which fewer than k shares are live.
        proofs: shares that were proven.
        leased: leases taken or renewed.
        unpaid: shares that a node holds and gave no lease on.
        leases_until_s: so long this keeper has leases on k shares or more of every blob that is not lost.
        rebuilt: shares.
        rebuilt_bytes: of them.
        moved: shares brought to where placement wants them.
        collected: leases given up.
        archived: entries of the log that are on the grid; 0: it does not archive.
    """

    lost: tuple[BlobId, ...]
    since_s: int
    until_s: int
    log_size: int
    blobs: int
    whole: int
    due: int
    unreadable: int
    proofs: int
    leased: int
    unpaid: int
    leases_until_s: int
    rebuilt: int
    rebuilt_bytes: int
    moved: int
    collected: int
    archived: int

    def __post_init__(self) -> None:
        if not all(0 <= number < _NUMBER_MAX for number in self.numbers()):
            raise _malformed("a number out of range")
        if len(self.lost) > LOST_MAX or list(self.lost) != sorted(set(self.lost)):
            raise _malformed("lost blobs out of order, or too many")
        if not all(len(blob) == ID_BYTES for blob in self.lost):
            raise _malformed("not the name of a blob")

    def numbers(self) -> list[int]:
        """All but the lost blobs, in order."""
        return [getattr(self, one.name) for one in fields(self)[1:]]


def encode_record(record: KeepingRecord) -> bytes:
    """The statement of a report."""
    return dump([_REPORT_VERSION, record.numbers(), list(record.lost)])


def decode_record(plain: bytes) -> KeepingRecord:
    """Read what `encode_record` made.  Raises: MalformedRecord: anything else, a later version too."""
    match load(plain, format=_FORMAT):
        case [int(version), list(numbers), list(lost)] if (
            version == _REPORT_VERSION
            and len(numbers) == len(fields(KeepingRecord)) - 1
            and all(isinstance(number, int) for number in numbers)
            and all(isinstance(blob, bytes) for blob in lost)
        ):
            return KeepingRecord(tuple(map(BlobId, lost)), *numbers)
    raise _malformed("it is no report that is known here")


def encode_pruned(names: tuple[BlobName, ...]) -> bytes:
    """The statement of a prune: up to PRUNED_MAX blobs, each once, in the order of their BlobIds."""
    return b"".join(name.blob + name.shape.pack() for name in names)


def decode_pruned(plain: bytes) -> tuple[BlobName, ...]:
    """Read what `encode_pruned` made.  Raises: MalformedRecord."""
    if not plain or len(plain) % _ROW_BYTES or len(plain) > PRUNED_MAX * _ROW_BYTES:
        raise _malformed("not names of blobs")
    names = []
    for at in range(0, len(plain), _ROW_BYTES):
        blob, shape = plain[at : at + ID_BYTES], plain[at + ID_BYTES : at + _ROW_BYTES]
        names.append(BlobName(BlobId(blob), BlobShape.unpack(shape)))
        if at and names[-2].blob >= names[-1].blob:
            raise _malformed("names of blobs out of order")
    return tuple(names)


def encode_reason(reason: str) -> bytes:
    """The statement of a hold: why, one line of 1 to 256 characters.  Raises: MalformedRecord."""
    check_line(reason, NOTE_CHARS_MAX)
    if not reason:
        raise _malformed("a hold without a reason")
    return reason.encode()


def decode_reason(plain: bytes) -> str:
    """Read what `encode_reason` made.  Raises: MalformedRecord."""
    try:
        reason = plain.decode()
    except UnicodeDecodeError as error:
        raise _malformed("not UTF-8") from error
    encode_reason(reason)
    return reason


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
