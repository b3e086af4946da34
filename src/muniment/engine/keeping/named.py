"""What a volume's log says of blobs, read with the verify right alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from muniment.core.entries import open_names, open_pruned
from muniment.core.key_ring import KeyRing
from muniment.crypto.entries import known_entry
from muniment.engine.volume import Volume
from muniment.errors import MalformedRecord
from muniment.ids import VolumeId
from muniment.merkle.log_tree import Frontier
from muniment.ports import LogStore, NamedBlobs
from muniment.spec.act import Prune
from muniment.spec.limits import MIB

_READ_BYTES: Final = 4 * MIB


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far the log was followed, and the root of its tree there."""

    size: int
    root: bytes


class NamedByLog:
    """The blobs that a volume's entries name.

    Args:
        volume: followed by this object from now on; its member may verify.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    @property
    def volume(self) -> VolumeId:
        """Whose log it is."""
        return self._volume.id

    @property
    def head(self) -> LogHead:
        """How far it was followed, also by processes before this one."""
        frontier = self._volume.follower.frontier
        return LogHead(frontier.size, frontier.root())

    async def follow(self) -> LogHead:
        """Take what the log service has; verified as every member does.  Raises: as `Volume.sync`."""
        await self._volume.sync()
        return self.head

    def root(self, size: int) -> bytes:
        """Of the tree of the first entries that were followed.  Blocking.  Cost: O(log size)."""
        return Frontier.at(size, self._volume.follower.replica.node).root()

    def page(self, start: int) -> list[NamedBlobs]:
        """What some entries from `start` on name; none behind the last.  Blocking.

        Raises: NotCapable: this member was not granted the keys of an epoch; StoreFailed.
        """
        follower = self._volume.follower
        if start >= follower.replica.size:
            return []
        return _named(follower.replica, follower.ring, start)


def _named(replica: LogStore, ring: KeyRing, start: int) -> list[NamedBlobs]:
    found = []
    for signed in replica.read(start, replica.size, bytes_max=_READ_BYTES):
        entry = known_entry(signed).entry
        if isinstance(entry.act, Prune):
            found.append(NamedBlobs(pruned=open_pruned(entry, ring), pruned_size=entry.act.size))
            continue
        if entry.act is not None:
            found.append(NamedBlobs())
            continue
        try:
            found.append(NamedBlobs(added=open_names(entry, ring)))
        except MalformedRecord:  # the fold of every member rejects it, so nothing refers to its blobs
            found.append(NamedBlobs())
    return found
