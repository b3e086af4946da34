"""The names that stores give to shares, and what becomes of names that nobody here gave.

    shares/<f>/<blob>.<number>        f: first character of the blob's text
    quarantine/<blob>.<number>.<i>    i: 0, 1, ... for what was condemned under one name one after the other
    quarantine/foreign.<name>.<i>     name: =XX for all but ASCII letters, digits and -_.~, at most 120

Names are built from identifiers alone, never from what a peer sent or a scan found.  One level of 32 folders:
a batch of 256 small records touches at most these instead of some 230 of 1024, and each costs a flush
(docs/drivers/posix.md); a million shares make 31,000 names in a folder, which file systems take lightly.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from muniment.errors import InternalError, InvalidRequest
from muniment.ids import BlobId, ShareKey, ShareNumber, id_from_text
from muniment.spec.limits import SHARES_MAX

FANS: Final = "abcdefghijklmnopqrstuvwxyz234567"
"""The folders under `shares`: each a character of an identifier's text, so they fill evenly."""

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)
_FOREIGN_CHARS_MAX: Final = 120


def fan_of(key: ShareKey) -> str:
    """The folder that holds this share."""
    return FANS[key.blob[0] >> 3]


def parse_key(name: str) -> ShareKey | None:
    """The share that a name stands for, None if it is not exactly what `str(key)` writes."""
    text, _, number = name.partition(".")
    if not _NUMBER.fullmatch(number) or int(number) >= SHARES_MAX:
        return None
    try:
        return ShareKey(BlobId(id_from_text(text)), ShareNumber(int(number)))
    except InvalidRequest:
        return None


def foreign_text(*parts: str) -> str:
    """A foreign name as ASCII that is safe to log and to send; `foreign_parts` reads it.

    Args:
        parts: folders and name below `shares`, as the file system gave them: surrogates for bytes that are
            not UTF-8.
    """
    return "/".join(quote_from_bytes(part.encode("utf-8", "surrogateescape"), safe="") for part in parts)


def foreign_parts(text: str) -> list[str]:
    """Folders and name of a foreign object.

    Raises: InternalError: no scan reported this; it could lead out of the store.
    """
    parts = [unquote_to_bytes(part).decode("utf-8", "surrogateescape") for part in text.split("/")]
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\0" in part:
            raise InternalError(reason=f"{text!r} is not the name of a foreign object")
    return parts


def quarantine_stem(text: str) -> str:
    """What a foreign object is called in quarantine, without its serial number.

    `=` instead of `%`, which some servers that speak S3 decode once too often in names.
    """
    return "foreign." + text.replace("/", "%2F").replace("%", "=")[:_FOREIGN_CHARS_MAX]
