"""Option and argument types: sizes, ranges, capabilities."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from muniment.errors import FileFailed, InvalidCap, MalformedRecord

if TYPE_CHECKING:
    from muniment.spec.cap import Cap

_UNITS: Final = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)

_KEEP: Final = re.compile(r"(\d{1,9})([smhdwy]?)", re.ASCII)
_KEEP_UNITS: Final = {
    "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400,
}  # fmt: skip

CAP_HELP: Final = "CAP is the capability, or - to read it from standard input, or @FILE from a file."


def parse_size(text: str) -> int:
    """`10GiB`, `500MB`, `1.5g` (binary, as `dd` and `truncate` have it) or plain bytes.

    Raises: ValueError: not such a text.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size such as 500MB or 10GiB")
    return int(Decimal(found[1]) * _UNITS[found[2].lower()])


class Size(click.ParamType[int]):
    """A number of bytes with a unit."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Keep(click.ParamType[int]):
    """How long, in seconds: `0`, `36h`, `30d`, `3y`; `forever`."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from muniment.spec.act import FOR_EVER_S, KEEP_S_MAX

        if isinstance(value, int):
            return value
        text = str(value).strip().lower()
        found = _KEEP.fullmatch(text)
        if text == "forever":
            return FOR_EVER_S
        if found is None or (seconds := int(found[1]) * _KEEP_UNITS[found[2]]) > KEEP_S_MAX:
            self.fail("give a time such as 0, 36h, 30d or 3y, or forever", param, ctx)
        return seconds


class ByteRange(click.ParamType[tuple[int, int | None]]):
    """`A-B`: bytes A to B, B not included; `A-` to the end."""

    name = "range"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        start, dash, stop = str(value).partition("-")
        try:
            if not dash:
                raise ValueError
            return parse_size(start), parse_size(stop) if stop else None
        except ValueError:
            self.fail("give START-STOP in bytes, for example 0-1MiB or 4096-", param, ctx)


class Line(click.ParamType[str]):
    """A text on one line, as entries of a log have them in clear."""

    name = "text"

    def __init__(self, chars_max: int, *, empty: bool = False) -> None:
        self._chars_max = chars_max
        self._empty = empty

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from muniment.spec.act import check_line

        text = str(value)
        try:
            check_line(text, self._chars_max)
        except MalformedRecord as error:
            self.fail(error.reason, param, ctx)
        if not text and not self._empty:
            self.fail("it is empty", param, ctx)
        return text


def read_cap(text: str) -> Cap:
    """A capability from an argument: its text, `-` for standard input, or `@FILE`.

    Raises: InvalidCap: not a capability; FileFailed: the file cannot be read.
    """
    from muniment.spec.cap import parse_cap

    return parse_cap(cap_argument(text))


def cap_argument(text: str) -> str:
    """The text of any capability, unverified, from an argument as `read_cap` takes it.

    Raises: InvalidCap: not a text; FileFailed: the file cannot be read.
    """
    from muniment.spec.volume_cap import CAP_CHARS_MAX  # the longer ones

    if text == "-":
        if sys.stdin.isatty():
            text = click.prompt("capability", hide_input=True, err=True)
        else:
            text = sys.stdin.read(CAP_CHARS_MAX + 2)
    elif text.startswith("@"):
        path = text[1:]
        try:
            with Path(path).open() as file:
                text = file.read(CAP_CHARS_MAX + 2)
        except OSError as error:
            raise FileFailed(path=path, reason=error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise InvalidCap(reason=f"{path} is not a text") from error
    return text
