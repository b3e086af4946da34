"""The head of an HTTP/1.1 answer (RFC 9112), as far as this program's calls need it.

The peer may be hostile: the head has a limit, and what does not fit is `NotHttp`.  Header lines are not kept,
but for the four that say how to go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD_BYTES_MAX: Final = 8 * 1024
_START: Final = b"HTTP/1."
_END: Final = b"\r\n\r\n"
_LENGTH_DIGITS_MAX: Final = 15
_STATUS_MIN, _STATUS_MAX = 200, 599
_NO_CONTENT: Final = 204


class NotHttp(Exception):
    """The peer sent something else."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What a head says.

    Attributes:
        status: 200 to 599; our requests allow no interim answers.
        length_bytes: of the body; None if the head does not say.
        date: the peer's clock as it told it, or None.
        last: the peer closes the connection after the body.
        size_bytes: of the head itself.
    """

    status: int
    length_bytes: int | None
    date: str | None
    last: bool
    size_bytes: int


def read_head(got: bytes | bytearray) -> AnswerHead | None:
    """The head at the start of what was received; None while it is incomplete.

    Raises: NotHttp: it cannot become one.
    """
    if not got.startswith(_START[: len(got)]):
        raise NotHttp("it begins with something else")
    end = got.find(_END, 0, HEAD_BYTES_MAX)
    if end < 0:
        if len(got) >= HEAD_BYTES_MAX:
            raise NotHttp(f"a head of more than {HEAD_BYTES_MAX} bytes")
        return None
    first, *lines = got[:end].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    if not (len(code) == 3 and code.isascii() and code.isdecimal() and rest[3:4] in {"", " "}):
        raise NotHttp("no status")
    status = int(code)
    if not _STATUS_MIN <= status <= _STATUS_MAX:
        raise NotHttp(f"status {status}")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise NotHttp("a header line without a colon")
        name, value = name.lower(), value.strip()
        if name == "content-length" and fields.get(name, value) != value:
            raise NotHttp("two lengths")
        fields[name] = value
    length_bytes = 0 if status == _NO_CONTENT else _length(fields)
    last = length_bytes is None or version != "HTTP/1.1" or "close" in fields.get("connection", "").lower()
    return AnswerHead(status, length_bytes, fields.get("date"), last, end + len(_END))


def _length(fields: dict[str, str]) -> int | None:
    text = fields.get("content-length", "")
    known = "transfer-encoding" not in fields and text.isascii() and text.isdecimal()
    return int(text) if known and len(text) <= _LENGTH_DIGITS_MAX else None
