"""What a member stored for a volume is left to its keepers (docs/keeping.md section 3).

An upload takes a lease under the member's own account, of 31 days, so that nothing depends on a keeper before
one has it.  When a keeper's report says that all content up to some entry is whole and leased for days, the
member's client gives up its own leases on what that member's entries up to there named.  From then on the
keeper's leases alone decide: what it moves leaves a drained node, what was pruned leaves the disks.

Without such a report nothing is given up.  Blobs that a later entry names too are left alone: the report says
nothing of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

from muniment.core.entries import open_names
from muniment.crypto.entries import known_entry
from muniment.engine.follower import Follower
from muniment.engine.grid import Grid
from muniment.engine.keeping.giving_up import give_up
from muniment.engine.keeping.reports import ENDING_S, newest_reports
from muniment.engine.volume import Volume
from muniment.errors import MalformedRecord
from muniment.ids import BlobId, MemberId
from muniment.spec.limits import MIB
from muniment.spec.statement import KeepingRecord

FRESH_S: Final = 3 * 86400
"""A report that is older is none of a keeper that runs."""

_READ_BYTES: Final = 4 * MIB


async def hand_over(
    volume: Volume, grid: Grid, member: MemberId, start: int, done: Callable[[int], None]
) -> int:
    """Leave to the volume's keepers what this account stored for entries of this member from `start` on.

    Args:
        volume: followed; its member may verify.
        grid: a client under the account that stored it.
        done: told up to which entry nothing is left to do, now and then; the next `start`.
    Returns: shares on which leases were given up.

    A node that does not answer keeps its leases until they end; if none does, it is not told as done.
    Broken off, it is begun again.  Raises: NotCapable: of an epoch of which this
    member has no keys; StoreFailed, and what `done` raises.
    Cost: reads the entries behind `start`; at each node two requests for some hundred blobs.
    """
    now_s, follower, shares = volume.now_ns() / 1e9, volume.follower, 0
    stop = await volume.run(lambda: _kept_up_to(follower, now_s))
    if start >= stop:
        return 0
    later, at = set[BlobId](), stop
    while at < follower.replica.size:
        at, named = await volume.run(partial(_named, follower, at, follower.replica.size))
        later.update(named)
    at = max(start, follower.replica.start)
    while at < stop:
        at, named = await volume.run(partial(_named, follower, at, stop, member))
        if own := [blob for blob in dict.fromkeys(named) if blob not in later]:
            given = await give_up(grid.lanes(), own)
            if not given.answered:
                return shares
            shares += given.shares
        done(at)
    return shares


def _kept_up_to(follower: Follower, now_s: float) -> int:
    """Behind the last entry of which a keeper says that all content up to it is leased; 0: none says so."""
    members, sizes = follower.membership.members, [0]
    for report in newest_reports(follower):
        member = members.get(report.author)
        if member is not None and member.role.verifies and report.record is not None:
            sizes += [report.record.log_size] if _keeps_all(report.record, now_s) else []
    return min(max(sizes), follower.replica.size)


def _keeps_all(record: KeepingRecord, now_s: float) -> bool:
    """Whether every share was there and leased, lately and for days to come."""
    return (
        not record.lost
        and record.whole == record.blobs
        and record.unpaid == 0
        and record.leases_until_s >= now_s + ENDING_S
        and record.until_s >= now_s - FRESH_S
    )


def _named(
    follower: Follower, start: int, stop: int, author: MemberId | None = None
) -> tuple[int, list[BlobId]]:
    """Behind which entry it ends, and what entries from `start` on name, all or those of one author."""
    found = list[BlobId]()
    entries = follower.replica.read(start, stop, bytes_max=_READ_BYTES)
    for signed in entries:
        entry = known_entry(signed).entry
        if entry.act is None and author in (None, entry.author):
            with contextlib.suppress(MalformedRecord):  # the fold of every member rejects it
                found += [name.blob for name in open_names(entry, follower.ring)]
    return start + len(entries), found
