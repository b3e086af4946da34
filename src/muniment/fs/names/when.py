"""A moment of the past, as people say it; a day means its end.

2026-11-20T14:30       a time; without an offset by this machine's clock
2026-11-20, yesterday  the end of that day
2h ago, 3 days ago     so long before now
now
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO: Final = re.compile(
    r"(\d{1,6})\s*(s|sec|secs|seconds?|m|min|mins|minutes?|h|hours?|d|days?|w|weeks?)\s+ago", re.IGNORECASE
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


def _end_ns(day: dt.date) -> int:
    """The last nanosecond of a day on this machine's calendar."""
    morning = dt.datetime.combine(day + dt.timedelta(days=1), dt.time()).astimezone()
    return int(morning.timestamp()) * 10**9 - 1
