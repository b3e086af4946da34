"""View snapshots: the state of a volume after some of its entries, as a stream (docs/spec/view_snapshot.md).

    MUNVIEWS version  frame(head)  frame(row) frame(row) ...

Written and read piece by piece: no more than one frame is in memory.  The last row is the counter's, so a
stream that was cut off is never taken for a whole one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.spec.clear_part import HEAD_BYTES_MAX, ClearHead, frame, pack_head, unpack_head
from muniment.spec.operation import NAME_BYTES_MAX, XATTR_BYTES_MAX
from muniment.spec.tags import VIEW_MAGIC

VERSION: Final = 1
ROW_BYTES_MAX: Final = 16 + NAME_BYTES_MAX + XATTR_BYTES_MAX
"""The longest row is that of an attribute."""

_FRAME: Final = struct.Struct(">I")
_FORMAT: Final = "view snapshot"


class Stream(Protocol):
    """Where a snapshot is read from; short only at its end."""

    def read(self, size: int, /) -> bytes: ...


def encode_view(head: ClearHead, rows: Iterable[bytes]) -> Iterator[bytes]:
    """The stream in pieces.

    Args:
        head: of the log at the state's size.
        rows: of the state, as `spec.view_row` has them, in the order of docs/spec/view_snapshot.md section 3.
    """
    yield VIEW_MAGIC + bytes((VERSION,))
    yield from frame(pack_head(head))
    for row in rows:
        yield from frame(row)


def decode_view(stream: Stream) -> tuple[ClearHead, Iterator[bytes]]:
    """The head, and the rows as they are read; their order and values are not checked here.

    Raises: MalformedRecord: it does not begin as one, a frame is too long or cut off (also while the rows are
        read); UnknownVersion.
    """
    start = stream.read(len(VIEW_MAGIC) + 1)
    if start[: len(VIEW_MAGIC)] != VIEW_MAGIC or len(start) <= len(VIEW_MAGIC):
        raise _malformed("it does not begin as one")
    if start[-1] != VERSION:
        raise UnknownVersion(format=_FORMAT, version=start[-1])
    body = _next_frame(stream, HEAD_BYTES_MAX)
    if body is None:
        raise _malformed("it has no head")
    return unpack_head(body), _rows(stream)


def _rows(stream: Stream) -> Iterator[bytes]:
    while (row := _next_frame(stream, ROW_BYTES_MAX)) is not None:
        yield row


def _next_frame(stream: Stream, bytes_max: int) -> bytes | None:
    length = stream.read(_FRAME.size)
    if not length:
        return None
    if len(length) < _FRAME.size:
        raise _malformed("a frame without a length")
    (size,) = _FRAME.unpack(length)
    if size > bytes_max:
        raise _malformed(f"a frame of {size} bytes")
    body = stream.read(size)
    if len(body) < size:
        raise _malformed("it is cut off")
    return body


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)
