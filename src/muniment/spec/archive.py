"""Tiles of an archived log: what the sealed bytes of such a blob are (docs/spec/archive.md).

    MUNTILES version salt(32)  head: start(8) stop(8)  body: log key(32) length(4) note  frame(entry) ...

Head and body are encrypted.  A tile describes itself: whoever restores a log has no reference to it.  Pure
layout: `core.keeping.tiles` seals and opens.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.spec.checkpoint import NOTE_BYTES_MAX
from muniment.spec.entry import ENTRY_BYTES_MAX
from muniment.spec.limits import LOG_SIZE_MAX, MIB
from muniment.spec.tags import TILE_MAGIC

FORMAT: Final = "log tile"
VERSION: Final = 1
SALT_BYTES: Final = 32
TILE_BYTES_MAX: Final = 4 * MIB
"""Entries of a tile with their lengths; one that is longer by itself is a tile of its own."""

_TAG_BYTES: Final = 16
_FRAME: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">QQ")
_KEY_BYTES: Final = 32
SALT_AT: Final = len(TILE_MAGIC) + 1
HEAD_AT: Final = SALT_AT + SALT_BYTES
BODY_AT: Final = HEAD_AT + _HEAD.size + _TAG_BYTES
"""Everything before it tells which entries a tile has; it lies in the first leaf of the first share."""

SEALED_TILE_BYTES_MAX: Final = (
    BODY_AT
    + _KEY_BYTES
    + 2 * _FRAME.size
    + NOTE_BYTES_MAX
    + max(TILE_BYTES_MAX, ENTRY_BYTES_MAX)
    + _TAG_BYTES
)


@dataclass(frozen=True, slots=True)
class TileRange:
    """Which entries a tile has: `start` to `stop` - 1, at least one."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= LOG_SIZE_MAX:
            raise MalformedRecord(format=FORMAT, reason=f"entries {self.start} to {self.stop}")


@dataclass(frozen=True, slots=True)
class Tile:
    """Consecutive entries of a log.

    Attributes:
        start: index of the first.
        log_key: Ed25519 key of the service that signed the note.
        note: a signed checkpoint of at least these entries.
        entries: in their signed form, in order, at least one.
    """

    start: int
    log_key: bytes = field(repr=False)
    note: bytes = field(repr=False)
    entries: tuple[bytes, ...] = field(repr=False)

    @property
    def range(self) -> TileRange:
        """Which entries."""
        return TileRange(self.start, self.start + len(self.entries))


def fitting(entries: Sequence[bytes]) -> int:
    """How many of these entries, from the first on, are one tile; one at least if there is one."""
    total = 0
    for count, entry in enumerate(entries):
        total += _FRAME.size + len(entry)
        if count and total > TILE_BYTES_MAX:
            return count
    return len(entries)


def sealed_bytes(entries: Sequence[bytes], note: bytes) -> int:
    """How long a sealed tile of these entries is."""
    framed = sum(map(len, entries)) + _FRAME.size * (len(entries) + 1)
    return BODY_AT + _KEY_BYTES + len(note) + framed + _TAG_BYTES


def encode_prefix(salt: bytes) -> bytes:
    """Magic, version and salt, which stand in clear."""
    return TILE_MAGIC + bytes((VERSION,)) + salt


def decode_prefix(sealed: bytes | memoryview) -> bytes:
    """The salt.  Raises: MalformedRecord: too short, or no tile; UnknownVersion."""
    if len(sealed) < BODY_AT or bytes(sealed[: len(TILE_MAGIC)]) != TILE_MAGIC:
        raise _malformed("too short, or it does not begin as one")
    version = sealed[SALT_AT - 1]
    if version != VERSION:
        raise UnknownVersion(format=FORMAT, version=version)
    return bytes(sealed[SALT_AT:HEAD_AT])


def encode_head(range_: TileRange) -> bytes:
    """The head before it is encrypted."""
    return _HEAD.pack(range_.start, range_.stop)


def decode_head(head: bytes) -> TileRange:
    """Raises: MalformedRecord."""
    if len(head) != _HEAD.size:
        raise _malformed(f"a head of {len(head)} bytes")
    return TileRange(*_HEAD.unpack(head))


def encode_body(tile: Tile) -> bytes:
    """The body before it is encrypted.  Raises: MalformedRecord: longer than a reader takes."""
    parts = [tile.log_key, _FRAME.pack(len(tile.note)), tile.note]
    for entry in tile.entries:
        parts += [_FRAME.pack(len(entry)), entry]
    if len(tile.log_key) != _KEY_BYTES or not tile.note or not all(tile.entries):
        raise _malformed("a key, note or entry that is none")
    if fitting(tile.entries) < len(tile.entries) or not tile.entries:
        raise _malformed(f"{len(tile.entries)} entries are not one tile")
    return b"".join(parts)


def decode_body(body: bytes, range_: TileRange) -> Tile:
    """Read the body; what entries and note say is not looked at.

    Args:
        range_: what the head says.
    Raises: MalformedRecord: for anything that `encode_body` did not make.
    """
    note, at = _framed(body, _KEY_BYTES, NOTE_BYTES_MAX)
    log_key = body[:_KEY_BYTES]
    entries: list[bytes] = []
    while at < len(body):
        if len(entries) == range_.stop - range_.start:
            raise _malformed("more entries than its head says")
        entry, at = _framed(body, at, ENTRY_BYTES_MAX)
        entries.append(entry)
    if len(entries) != range_.stop - range_.start or fitting(entries) < len(entries):
        raise _malformed("other entries than its head says, or too many for one")
    return Tile(range_.start, log_key, note, tuple(entries))


def _framed(body: bytes, at: int, bytes_max: int) -> tuple[bytes, int]:
    """A frame's content, and where the next one begins."""
    begin = at + _FRAME.size
    if begin > len(body):
        raise _malformed("it is cut off")
    (size,) = _FRAME.unpack_from(body, at)
    if size > bytes_max or begin + size > len(body) or not size:
        raise _malformed(f"a frame of {size} bytes")
    return body[begin : begin + size], begin + size


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=FORMAT, reason=reason)
