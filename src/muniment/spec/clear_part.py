"""The clear part of a log in short: what a reader needs to judge what follows (docs/spec/view_snapshot.md 2).

    MUNCLEAR version  head  act  act ...  hash

Membership acts stand here as they were signed, each with its path in the log's tree; of transactions only
what they leave in the clear state: how many each author has written, the hash of his last entry, the time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import ID_BYTES, EntryHash, MemberId, VolumeId
from muniment.spec.canonical import dump, load
from muniment.spec.entry import ENTRY_BYTES_MAX
from muniment.spec.limits import KIB, LOG_SIZE_MAX, MIB
from muniment.spec.tags import CLEAR_MAGIC

VERSION: Final = 1
CLEAR_BYTES_MAX: Final = 256 * MIB
HEAD_BYTES_MAX: Final = 16 * MIB
"""Some 200,000 authors."""

HASH_BYTES: Final = 32
PATH_MAX: Final = 64
_FRAME: Final = struct.Struct(">I")
_ACT_BYTES_MAX: Final = ENTRY_BYTES_MAX + 4 * KIB
_TIME_NS_MAX: Final = 1 << 63
_FORMAT: Final = "clear part"


@dataclass(frozen=True, slots=True)
class ClearTail:
    """How many entries an author has written, and the hash of the last."""

    author: MemberId
    sequence: int
    previous: EntryHash


@dataclass(frozen=True, slots=True)
class ClearHead:
    """What the first `size` entries leave besides their acts.

    Attributes:
        volume: whose log it is.
        size: entries.
        time_ns: of the log: the latest time of any of them.
        frontier: hashes of the largest complete subtrees of the log's tree, leftmost first.
        tails: of all who have written, by MemberId; their sequences add up to `size`.
        acts_count: acts among the entries.
        acts_hash: of their places, times and hashes.
    """

    volume: VolumeId
    size: int
    time_ns: int
    frontier: tuple[bytes, ...]
    tails: tuple[ClearTail, ...]
    acts_count: int
    acts_hash: bytes


@dataclass(frozen=True, slots=True)
class ClearAct:
    """An act in the log.

    Attributes:
        index: of its entry.
        time_ns: of the log before it.
        signed: the entry.
        path: from the entry up to the subtree of the frontier that it is in.
    """

    index: int
    time_ns: int
    signed: bytes = field(repr=False)
    path: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClearPart:
    """Head and acts, in order."""

    head: ClearHead
    acts: tuple[ClearAct, ...]


def pack_head(head: ClearHead) -> bytes:
    """The head alone."""
    return dump(
        [
            head.volume,
            head.size,
            head.time_ns,
            b"".join(head.frontier),
            [[tail.author, tail.sequence, tail.previous] for tail in head.tails],
            head.acts_count,
            head.acts_hash,
        ]
    )


def unpack_head(data: bytes) -> ClearHead:
    """Read what `pack_head` made; whether it is of a log is for `core.clear_part` to say.

    Raises: MalformedRecord: for any other bytes.
    """
    if len(data) > HEAD_BYTES_MAX:
        raise _malformed("a head too long")
    match load(data, format=_FORMAT):
        case [
            bytes(volume),
            int(size),
            int(time_ns),
            bytes(frontier),
            list(tails),
            int(acts_count),
            bytes(acts_hash),
        ]:
            pass
        case _:
            raise _malformed("fields do not fit")
    if len(volume) != ID_BYTES or not 0 < size <= LOG_SIZE_MAX or len(acts_hash) != HASH_BYTES:
        raise _malformed("a field out of range")
    if len(frontier) != HASH_BYTES * size.bit_count() or not 0 < acts_count <= size:
        raise _malformed("the frontier or the acts do not fit the size")
    _check_time(time_ns)
    hashes = tuple(frontier[at : at + HASH_BYTES] for at in range(0, len(frontier), HASH_BYTES))
    held = tuple(map(_tail, tails))
    authors = [tail.author for tail in held]
    if authors != sorted(set(authors)) or sum(tail.sequence for tail in held) != size:
        raise _malformed("the authors' entries do not add up")
    return ClearHead(VolumeId(volume), size, time_ns, hashes, held, acts_count, acts_hash)


def encode_clear(part: ClearPart) -> Iterator[bytes]:
    """The encoding in pieces, without the hash at its end."""
    yield CLEAR_MAGIC + bytes((VERSION,))
    yield from frame(pack_head(part.head))
    for act in part.acts:
        yield from frame(dump([act.index, act.time_ns, act.signed, b"".join(act.path)]))


def decode_clear(data: bytes) -> ClearPart:
    """Read what `encode_clear` made, the hash taken off.

    Raises: MalformedRecord: for any other bytes; UnknownVersion.
    Cost: O(bytes), memory too.
    """
    start = len(CLEAR_MAGIC) + 1
    if not start <= len(data) <= CLEAR_BYTES_MAX or data[: start - 1] != CLEAR_MAGIC:
        raise _malformed("it does not begin as one")
    if data[start - 1] != VERSION:
        raise UnknownVersion(format=_FORMAT, version=data[start - 1])
    frames = _frames(data, start)
    head = unpack_head(next(frames, b""))
    acts = tuple(map(_act, frames))
    if len(acts) != head.acts_count:
        raise _malformed(f"{len(acts)} of {head.acts_count} acts")
    return ClearPart(head, acts)


def frame(body: bytes) -> tuple[bytes, bytes]:
    """A length, and what is so long."""
    return _FRAME.pack(len(body)), body


def _frames(data: bytes, at: int) -> Iterator[bytes]:
    while at < len(data):
        if len(data) - at < _FRAME.size:
            raise _malformed("a frame without a length")
        (size,) = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        if size > len(data) - at:
            raise _malformed("it is cut off")
        yield data[at : at + size]
        at += size


def _act(data: bytes) -> ClearAct:
    if len(data) > _ACT_BYTES_MAX:
        raise _malformed("an act too long")
    match load(data, format=_FORMAT):
        case [int(index), int(time_ns), bytes(signed), bytes(path)]:
            pass
        case _:
            raise _malformed("fields of an act do not fit")
    if not 0 <= index < LOG_SIZE_MAX or len(path) % HASH_BYTES or len(path) > PATH_MAX * HASH_BYTES:
        raise _malformed("a field of an act out of range")
    _check_time(time_ns)
    return ClearAct(
        index,
        time_ns,
        signed,
        tuple(path[at : at + HASH_BYTES] for at in range(0, len(path), HASH_BYTES)),
    )


def _tail(value: object) -> ClearTail:
    match value:
        case [bytes(author), int(sequence), bytes(previous)]:
            if len(author) == ID_BYTES and 0 < sequence <= LOG_SIZE_MAX and len(previous) == HASH_BYTES:
                return ClearTail(MemberId(author), sequence, EntryHash(previous))
    raise _malformed("an author does not fit")


def _check_time(time_ns: int) -> None:
    if not 0 <= time_ns < _TIME_NS_MAX:
        raise _malformed("a time out of range")


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
