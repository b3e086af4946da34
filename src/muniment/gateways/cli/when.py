"""WHEN: a state of a volume's past, as people say it.

17                     after the log's entry 17
year-end               a snapshot of that name
2026-11-20T14:30       a time; without an offset by this machine's clock
2026-11-20, yesterday  the end of that day
2h ago, 3 days ago     so long before now
"""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import TYPE_CHECKING, Final

import click

from muniment.gateways.cli.context import Refusal

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO: Final = re.compile(
    r"(\d{1,6})\s*(s|sec|secs|seconds?|m|min|mins|minutes?|h|hours?|d|days?|w|weeks?)\s+ago", re.IGNORECASE
)
_HINT: Final = (
    "give an entry's number, a snapshot's name, a time as 2026-11-20T14:30, '2h ago' or 'yesterday'"
)

at_option = click.option(
    "--at", "when", metavar="WHEN", help="As it was: an entry, a snapshot, a time, '2h ago', 'yesterday'."
)


def time_ns(text: str, now_s: float) -> int | None:
    """The moment that a text means, in nanoseconds since the epoch; None if it means none.

    A day means its end: everything that happened on it counts.
    """
    text = text.strip()
    if text.lower() == "now":
        return int(now_s * 1e9)
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return int((now_s - int(ago[1]) * _UNITS_S[ago[2][0].lower()]) * 1e9)
    try:
        if text.lower() == "yesterday":
            return _end_ns(
                dt.datetime.fromtimestamp(now_s, dt.UTC).astimezone().date() - dt.timedelta(days=1)
            )
        if len(text) == len("2026-11-20"):
            return _end_ns(dt.date.fromisoformat(text))
        moment = dt.datetime.fromisoformat(text).astimezone()
        return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
    except (ValueError, OverflowError, OSError):
        return None


def _local(seconds: float) -> dt.datetime:
    """A moment on this machine's calendar."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).astimezone()


def _end_ns(day: dt.date) -> int:
    """The last nanosecond of a day on this machine's calendar."""
    morning = dt.datetime.combine(day + dt.timedelta(days=1), dt.time()).astimezone()
    return int(morning.timestamp()) * 10**9 - 1


async def entry_at(opened: OpenVolume, when: str) -> int:
    """The entry after which the volume was as it was then.

    Raises: Refusal: the text means nothing, or the volume was not there yet.
    """
    volume = opened.volume
    size = volume.view.size
    snapshots = dict(await volume.run(volume.view.snapshots))
    if when.encode("utf-8", "surrogateescape") in snapshots:
        return snapshots[when.encode("utf-8", "surrogateescape")]
    if when.isascii() and when.isdigit():
        if int(when) >= size:
            raise Refusal(f"there is no entry {when}: the last is {size - 1}", _HINT)
        return int(when)
    moment = time_ns(when, time.time())
    if moment is None:
        raise Refusal(f"{when!r} is neither a snapshot of this volume nor a time", _HINT)
    at = await volume.run(lambda: volume.view.index_at(moment))
    if at < 0:
        raise Refusal(f"{when}: the volume was not there yet", "see 'muni history VOL:' for what there is")
    return at


async def maybe_at(opened: OpenVolume, when: str | None) -> int | None:
    """The same for an option; None for the present."""
    return None if when is None else await entry_at(opened, when)


def moment_text(nanoseconds: int) -> str:
    """A time for people, by this machine's clock."""
    try:
        return (
            dt.datetime.fromtimestamp(nanoseconds // 10**9, dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        )
    except (ValueError, OverflowError, OSError):
        return str(nanoseconds)
