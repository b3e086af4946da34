"""Pruning: what may go of a volume's past, giving it up, and telling that it is gone (docs/keeping.md 7).

Blocking parts run in the volume's thread.  Needs the whole history: a replica that began with a view snapshot
does not know what was ever below a hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from muniment.core.entries import open_pruned
from muniment.core.keeping.pruning import PrunePlan, TreePast
from muniment.core.membership import Pruned
from muniment.core.tree_state import Inode, Name, StoredExtent, TreeReading
from muniment.crypto.entries import known_entry
from muniment.engine.follower import Follower
from muniment.engine.volume import Committed, Volume
from muniment.errors import ContentPruned, HistoryMissing, NotCapable
from muniment.ids import BlobId
from muniment.spec.act import FOR_EVER_S, PRUNED_MAX, Prune
from muniment.spec.statement import encode_pruned

_PAGE = 4096


def plan_prune(volume: Volume, until_ns: int) -> PrunePlan:
    """What goes at present, if its author's clock says `until_ns`.

    Raises: HistoryMissing: this machine does not have all of the past; NotCapable: nor all of the keys.
    Cost: O(rows of the view's history), memory too.
    """
    view, membership = volume.view, volume.membership
    if start := max(view.start, volume.follower.replica.start):
        raise HistoryMissing(start=start)
    if view.size < membership.size:
        raise NotCapable(needed=f"read (entry {view.size})", given="read (later entries)")
    past = TreePast(view.row_versions(), view.size)
    reached = _times(volume)
    gone = {blob: prune.act.size for blob, prune in pruned_blobs(volume.follower).items()}
    until_ns = max(until_ns, membership.time_ns)
    return past.plan(membership.rules, membership.holds, until_ns, reached.__getitem__, gone)


def _times(volume: Volume) -> array[int]:
    """The time of the log after each entry."""
    times, reached = array("q"), 0
    for start in range(0, volume.view.size, _PAGE):
        for folded in volume.view.entries(start, start + _PAGE):
            reached = max(reached, folded.meta.time_ns)
            times.append(reached)
    return times


async def prune(volume: Volume, plan: PrunePlan) -> list[Committed]:
    """Write a plan down; from then on keepers give its blobs up.

    Broken off, what is written counts, and the next plan has the rest.
    Raises: EntryRefused: no owner, or rules and holds were changed since; as `Volume.act`.
    """
    done, names = [], iter(plan.blobs)
    while some := tuple(islice(names, PRUNED_MAX)):
        act = Prune(plan.size, plan.until_ns, len(some))
        done.append(await volume.declare(lambda _, act=act, some=some: (act, encode_pruned(some))))  # type: ignore[misc]
    return done


def pruned_blobs(follower: Follower) -> Mapping[BlobId, Pruned]:
    """All blobs that a prune ever named, with the last one that did.

    Those before the replica's first entry are not known; nothing that is known refers to their blobs.
    """
    found: dict[BlobId, Pruned] = {}
    for prune in follower.membership.prunes:
        if prune.index >= follower.replica.start:
            (signed,) = follower.replica.read(prune.index, prune.index + 1, bytes_max=1)
            names = open_pruned(known_entry(signed).entry, follower.ring)
            found.update((name.blob, prune) for name in names)
    return found


def past_reading(volume: Volume, at: int) -> TreeReading:
    """The state after an entry, whose content is refused where it was pruned; in the volume's thread."""
    reading = volume.view.reading(at)
    if not any(at < prune.act.size - 1 for prune in volume.membership.prunes):
        return reading
    gone = pruned_blobs(volume.follower)

    def refuse(ino: int, prune: Pruned, blob: BlobId) -> None:
        past = TreePast(volume.view.row_versions(), volume.view.size)
        if past.names_again(blob, prune.act.size):
            return
        rule = past.rule_of(ino, prune.rules)
        # A prune that no rule allows is forged; the audit says so, and the content is gone all the same.
        keep_s = FOR_EVER_S if rule is None else rule.keep_s
        raise ContentPruned(entry=prune.index, rule=-1 if rule is None else rule.index, keep_s=keep_s)

    return _PrunedReading(reading, at, gone, refuse)


class _PrunedReading:
    """See `TreeReading`; extents whose blobs are gone raise ContentPruned."""

    def __init__(
        self,
        reading: TreeReading,
        at: int,
        gone: Mapping[BlobId, Pruned],
        refuse: Callable[[int, Pruned, BlobId], None],
    ) -> None:
        self._reading, self._at, self._gone, self._refuse = reading, at, gone, refuse

    @property
    def next_inode(self) -> int:
        return self._reading.next_inode

    def inode(self, ino: int) -> Inode | None:
        return self._reading.inode(ino)

    def child(self, parent: int, name: bytes) -> Name | None:
        return self._reading.child(parent, name)

    def children(self, parent: int, after: bytes, limit: int) -> Sequence[Name]:
        return self._reading.children(parent, after, limit)

    def listing(self, parent: int, after: bytes, limit: int) -> Sequence[tuple[bytes, Inode]]:
        return self._reading.listing(parent, after, limit)

    def extents(self, ino: int, start: int, stop: int) -> Sequence[StoredExtent]:
        found = self._reading.extents(ino, start, stop)
        for extent in found:
            if not isinstance(extent.source, bytes):
                prune = self._gone.get(extent.source.name.blob)
                if prune is not None and self._at < prune.act.size - 1:
                    self._refuse(ino, prune, extent.source.name.blob)
        return found

    def xattrs(self, ino: int) -> Mapping[bytes, bytes]:
        return self._reading.xattrs(ino)

    def has_snapshot(self, name: bytes) -> bool:
        return self._reading.has_snapshot(name)
