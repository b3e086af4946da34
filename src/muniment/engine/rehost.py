"""A volume's log under a new service: made of any member's replica, accepted by those who lose nothing by it.

The new service signs with its own key a log that begins with all that the replica holds.  Members who have
seen more refuse it (`Follower.accept_host`) until somebody sends the missing entries again: `rehost` once
more where the files are, or `resend` over the network.  Nothing acknowledged is lost that any member has; but
an entry that the new service orders in the place of a missing one is a second history, so the missing ones
come first.
"""

from __future__ import annotations

from typing import Final

from muniment.core.membership import Membership
from muniment.crypto.entries import SignedEntry
from muniment.crypto.identity import Identity
from muniment.engine.opening import open_entries
from muniment.engine.sequencer import replay, signed_tree
from muniment.errors import (
    EntryRefused,
    HistoryMissing,
    InvalidRequest,
    LogForked,
    MalformedRecord,
    StoreFailed,
)
from muniment.ids import VolumeId
from muniment.merkle.log_tree import Frontier
from muniment.ports import LogClient, LoggedEntry, LogStore
from muniment.spec.limits import MIB

_BATCH_BYTES: Final = 2 * MIB


def rehost(replica: LogStore, target: LogStore, identity: Identity) -> VolumeId:
    """Put a replica's entries into the log of a new service, and sign for them.

    Broken off, it goes on where it was when it is called again; so it also adds what another member's replica
    has beyond the target.  Everything is verified on the way.

    Args:
        replica: of any member.
        target: empty, or begun from a replica of the same log, and used by nothing else meanwhile.
        identity: of the new service.
    Returns: the volume; the target holds all entries durably, under a checkpoint signed by `identity`.

    Raises: InvalidRequest: the target holds another history, or the replica is empty; HistoryMissing: the
        replica began with a view snapshot, and the target lacks what came before; StoreFailed: the
        replica does not verify, or a medium failed; DiskFull.
    Cost: O(entries), one signature check for each that is new.
    """
    if replica.size == 0:
        raise InvalidRequest(reason="the replica is empty: there is nothing to host")
    if replica.start > target.size:
        raise HistoryMissing(start=replica.start)
    common = min(replica.size, target.size)
    if Frontier.at(common, replica.node).root() != Frontier.at(common, target.node).root():
        raise InvalidRequest(reason=f"the target holds another history of {common} entries")
    membership, frontier = replay(target) if target.size else (Membership(), Frontier())
    at = frontier.size
    while at < replica.size:
        fresh: list[LoggedEntry] = []
        try:
            for entry in open_entries(replica.read(at, replica.size, bytes_max=_BATCH_BYTES)):
                if not isinstance(entry, SignedEntry):
                    raise entry
                membership.admit(entry, at)
                fresh.append(LoggedEntry(entry.hash, entry.signed))
                at += 1
        except (EntryRefused, MalformedRecord) as error:
            raise StoreFailed(where="the replica", reason=f"entry {at} does not verify: {error}") from error
        frontier, nodes = frontier.extend(entry.hash for entry in fresh)
        if at == replica.size and frontier.root() != Frontier.at(at, replica.node).root():
            raise StoreFailed(where="the replica", reason="its entries are not those of its tree")
        target.append(fresh, nodes, signed_tree(identity, membership.volume, frontier))
    return membership.volume


async def resend(volume: VolumeId, replica: LogStore, log: LogClient, start: int) -> int:
    """Send entries that a new service lacks, in their places.

    The service must be restoring (`Sequencer.restoring`): else it refuses entries of long ago for their time.

    Args:
        volume: whose log it is.
        replica: of a member who has more than the service.
        log: the new service.
        start: how many entries the service has.
    Returns: how many entries it has then, at least.
    Raises: LogForked: the service has other entries in these places; EntryRefused, ClockSkewed; as
        `LogClient`.
    """
    while start < replica.size:
        signed = replica.read(start, replica.size, bytes_max=_BATCH_BYTES)
        for place in await log.append(signed):
            if place.index != start:
                reason = f"the new service has an entry in place {place.index} that belongs in {start}"
                raise LogForked(volume=volume, reason=reason)
            start += 1
    return start
