"""The clear part of a log kept beside it, so that opening it need not read every entry.

Of a whole log it is a cache: what is missing, damaged or of another tree is made anew from the entries.  Of a
replica that was begun later it is all that is known of the time before.  Blocking; one thread at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from muniment.core.clear_part import clear_part, dump_clear, frontier_of, load_clear, resumed
from muniment.core.membership import Membership
from muniment.crypto.entries import known_entry
from muniment.errors import DiskFull, MalformedRecord, StoreFailed, UnknownVersion
from muniment.ids import VolumeId
from muniment.merkle.log_tree import Frontier
from muniment.ports import ClearStore, LogStore
from muniment.spec.clear_part import CLEAR_BYTES_MAX, ClearPart

KEPT_ENTRIES: Final = 1024
"""What may be missing in it: replayed in some 20 ms."""

_log = logging.getLogger(__name__)


class KeptClear:
    """The clear part of one log.

    Args:
        volume: whose log it is.
        store: the log.
        kept: where it is kept; None: nowhere.
    """

    def __init__(self, volume: VolumeId, store: LogStore, kept: ClearStore | None) -> None:
        self._volume, self._store, self._kept = volume, store, kept
        self._size = 0  # of what is kept
        self._before: dict[int, bytes] = {}  # acts before the store's first entry

    def resume(self, follow: Callable[[Membership], None] = lambda membership: None) -> Membership:
        """The membership as it was kept; the one before all entries if it was not.

        Args:
            follow: called after each act.
        Raises: StoreFailed: it cannot be used, and the store does not have the entries before it either.
        Cost: O(acts).
        """
        data = self._kept.load() if self._kept is not None else b""
        try:
            if data:
                return self._resumed(load_clear(data), follow)
            reason = "it is missing"
        except (MalformedRecord, UnknownVersion) as error:
            reason = str(error)
            if not self._store.start:
                _log.warning("the clear part of a log is made anew: %s", reason)
        if self._store.start:
            raise StoreFailed(
                where="the replica",
                reason=f"what came before entry {self._store.start} is not known ({reason}); "
                "'muni volume fetch VOL' brings the whole log",
            )
        return Membership()

    def _resumed(self, part: ClearPart, follow: Callable[[Membership], None]) -> Membership:
        size = part.head.size
        if not self._store.start <= size <= self._store.size:
            raise MalformedRecord(format="clear part", reason=f"it is of {size} entries")
        if frontier_of(part.head) != Frontier.at(size, self._store.node):
            raise MalformedRecord(format="clear part", reason="it is of another tree")
        membership = resumed(part, self._volume, known_entry, follow)
        self.taken(part)
        return membership

    def taken(self, part: ClearPart) -> None:
        """This is what is kept now."""
        self._size = part.head.size
        self._before = {act.index: act.signed for act in part.acts if act.index < self._store.start}

    def part(self, membership: Membership, frontier: Frontier) -> bytes:
        """The clear part up to the end of the log.  Cost: O(acts)."""
        return dump_clear(clear_part(membership, frontier, self._store.node, self._signed))

    def keep(self, membership: Membership, frontier: Frontier, entries_min: int = KEPT_ENTRIES) -> None:
        """Keep it, if so many entries are new since it was kept.

        That it cannot be kept is no error: it is a cache, and an older one stays.
        """
        if self._kept is None or membership.size < self._size + entries_min:
            return
        try:
            data = self.part(membership, frontier)
            if len(data) <= CLEAR_BYTES_MAX:
                self._kept.keep(data)
        except (StoreFailed, DiskFull) as error:
            _log.warning("the clear part of a log could not be kept: %s", error)
            return
        self._size = membership.size

    def _signed(self, index: int) -> bytes:
        known = self._before.get(index)
        return self._store.read(index, index + 1, bytes_max=1)[0] if known is None else known
