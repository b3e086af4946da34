"""WHEN: a state of a volume's past, as people say it.

17                     after the log's entry 17
year-end               a snapshot of that name
2026-11-20T14:30       a time; without an offset by this machine's clock
2026-11-20, yesterday  the end of that day
2h ago, 3 days ago     so long before now
"""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Final

import click

from muniment.fs.names.when import time_ns
from muniment.gateways.cli.context import Refusal

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume

_HINT: Final = (
    "give an entry's number, a snapshot's name, a time as 2026-11-20T14:30, '2h ago' or 'yesterday'"
)

at_option = click.option(
    "--at", "when", metavar="WHEN", help="As it was: an entry, a snapshot, a time, '2h ago', 'yesterday'."
)


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
