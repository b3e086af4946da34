"""What a mount could not save, as a file on its machine (docs/spec/unsaved.md): frames, each sealed."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import ID_BYTES, BlobId
from muniment.spec import tags
from muniment.spec.blob import BlobRef
from muniment.spec.canonical import dump, load
from muniment.spec.limits import MIB
from muniment.spec.operation import INODE_MAX, SIZE_MAX, Operation
from muniment.spec.transaction import Transaction, decode_transaction, encode_transaction

VERSION: Final = 1
FRAME_BYTES_MAX: Final = 20 * MIB
"""More than the largest chunk or operation takes, sealed."""

_TIME_NS_MAX: Final = 1 << 63
_FORMAT: Final = "unsaved file"
_HEAD: Final = struct.Struct(">8sBQ")
_LENGTH: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size
LENGTH_BYTES: Final = _LENGTH.size


@dataclass(frozen=True, slots=True)
class UnsavedHead:
    """Frame 0.

    Attributes:
        time_ns: when it was written, by the member's clock.
        at: the entry on whose state everything was done.
        sent: hash of an entry that was sent and not answered; empty if there is none.
        made: numbers of what that entry makes, in its order.
    """

    time_ns: int
    at: int
    sent: bytes
    made: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnsavedFile:
    """A file on which changes and pieces are.

    Attributes:
        inode: its number.
        version: that of its content in the state `at`; 0 if it is not in it.
        mtime_ns: when its pieces were written; None: its time was set since.
    """

    inode: int
    version: int
    mtime_ns: int | None


@dataclass(frozen=True, slots=True)
class UnsavedChange:
    """An operation that is in no entry, or in the one that was sent.

    Attributes:
        operation: in numbers of the volume, and numbers from 2^52 on for what is made in this file.
        blobs: what its extents count.
        time_ns: when it was made.
        made: the number of what it makes; 0 for nothing.
        was_sent: it is in that entry.
    """

    operation: Operation
    blobs: tuple[BlobRef, ...] = field(repr=False)
    time_ns: int
    made: int
    was_sent: bool


@dataclass(frozen=True, slots=True)
class UnsavedPiece:
    """Bytes of a file, newer than all changes."""

    inode: int
    offset: int
    data: bytes = field(repr=False)


UnsavedRecord = UnsavedHead | UnsavedFile | UnsavedChange | UnsavedPiece | None
"""None: the end."""

_HEAD_KIND, _FILE_KIND, _CHANGE_KIND, _PIECE_KIND, _END_KIND = range(5)


def encode_head(epoch: int) -> bytes:
    """What stands before the frames: under which epoch's key they are sealed."""
    return _HEAD.pack(tags.UNSAVED_MAGIC, VERSION, epoch)


def decode_head(data: bytes) -> int:
    """The epoch.  Raises: MalformedRecord, UnknownVersion."""
    if len(data) != HEAD_BYTES or not data.startswith(tags.UNSAVED_MAGIC):
        raise MalformedRecord(format=_FORMAT, reason="it is none")
    _, version, epoch = _HEAD.unpack(data)
    if version != VERSION:
        raise UnknownVersion(format=_FORMAT, version=version)
    return int(epoch)


def encode_length(size: int) -> bytes:
    """What stands before each frame."""
    return _LENGTH.pack(size)


def decode_length(data: bytes) -> int:
    """Bytes in the frame behind it.  Raises: MalformedRecord."""
    size = int(_LENGTH.unpack(data)[0]) if len(data) == LENGTH_BYTES else 0
    if not 0 < size <= FRAME_BYTES_MAX:
        raise MalformedRecord(format=_FORMAT, reason="it ends too early, or a frame is too long")
    return size


def encode_record(record: UnsavedRecord) -> bytes:
    """One frame's plaintext."""
    match record:
        case UnsavedHead(time_ns, at, sent, made):
            return dump([_HEAD_KIND, time_ns, at, sent, list(made)])
        case UnsavedFile(inode, version, mtime_ns):
            return dump([_FILE_KIND, inode, version, mtime_ns])
        case UnsavedChange(operation, blobs, time_ns, made, was_sent):
            plain, names = encode_transaction(Transaction((operation,), blobs))
            return dump([_CHANGE_KIND, plain, names, time_ns, made, int(was_sent)])
        case UnsavedPiece(inode, offset, data):
            return dump([_PIECE_KIND, inode, offset, data])
        case None:
            return dump([_END_KIND])


def decode_record(plain: bytes) -> UnsavedRecord:
    """Read one.  Raises: MalformedRecord: for anything `encode_record` did not make."""
    value: Any = load(plain, format=_FORMAT)
    if not isinstance(value, list):
        raise MalformedRecord(format=_FORMAT, reason="no record")
    match value:
        case [0, int(time_ns), int(at), bytes(sent), list(made)]:
            if _is_time(time_ns) and at >= 0 and len(sent) in (0, ID_BYTES) and all(map(_is_inode, made)):
                return UnsavedHead(time_ns, at, sent, tuple(made))
        case [1, int(inode), int(version), int(mtime_ns) | (None as mtime_ns)]:
            if _is_inode(inode) and version >= 0 and (mtime_ns is None or _is_time(mtime_ns)):
                return UnsavedFile(inode, version, mtime_ns)
        case [2, bytes(content), bytes(names), int(time_ns), int(made), (0 | 1) as was_sent]:
            transaction = decode_transaction(content, names)
            if len(transaction.operations) == 1 and _is_time(time_ns) and (made == 0 or _is_inode(made)):
                (operation,) = transaction.operations
                return UnsavedChange(operation, transaction.blobs, time_ns, made, bool(was_sent))
        case [3, int(inode), int(offset), bytes(data)]:
            if _is_inode(inode) and 0 <= offset <= SIZE_MAX - len(data):
                return UnsavedPiece(inode, offset, data)
        case [4]:
            return None
    raise MalformedRecord(format=_FORMAT, reason="fields do not fit")


def split_sent(data: bytes) -> list[BlobId]:
    """The identifiers in a list of blobs that were sent (section 2), without the rest of a torn one."""
    return [BlobId(data[at : at + ID_BYTES]) for at in range(0, len(data) - ID_BYTES + 1, ID_BYTES)]


def _is_time(value: int) -> bool:
    return -_TIME_NS_MAX <= value < _TIME_NS_MAX


def _is_inode(value: object) -> bool:
    return isinstance(value, int) and 0 < value < INODE_MAX
