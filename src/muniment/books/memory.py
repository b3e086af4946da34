"""`BlobBook` in memory, for tests and for keepers that live shorter than a round."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from muniment.core.placement import Slot
from muniment.errors import InternalError
from muniment.ids import BlobId, NodeId, ShareKey
from muniment.ports import NamedBlobs, Sighting
from muniment.spec.blob import BlobName


class MemoryBlobBook:
    """One volume's book, gone with its object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._size, self._bound = 0, b""
        self._blobs: dict[BlobId, tuple[BlobName, int, int]] = {}  # the last entries that name and prune it
        self._sightings: dict[BlobId, dict[Slot, Sighting]] = {}
        self._answers: dict[NodeId, float] = {}

    @property
    def size(self) -> int:
        return self._size

    @property
    def bound(self) -> bytes:
        return self._bound

    def clear(self) -> None:
        with self._lock:
            self._size, self._bound = 0, b""
            for known in (self._blobs, self._sightings, self._answers):
                known.clear()

    def take_in(self, start: int, entries: Sequence[NamedBlobs], *, bound: bytes = b"") -> None:
        with self._lock:
            if start != self._size:
                raise InternalError(reason=f"entries from {start} on do not follow in the blob book")
            for at, entry in enumerate(entries, start):
                for name in entry.added:
                    pruned = self._blobs[name.blob][2] if name.blob in self._blobs else -1
                    self._blobs[name.blob] = name, at, pruned
                last = at if entry.pruned_size is None else entry.pruned_size - 1
                for name in entry.pruned:
                    if name.blob in self._blobs:
                        known, named, pruned = self._blobs[name.blob]
                        self._blobs[name.blob] = known, named, max(last, pruned)
            self._size, self._bound = self._size + len(entries), bound

    def kept(self, after: BlobId | None, limit: int) -> list[BlobName]:
        with self._lock:
            order = sorted(self._blobs)
            behind = order[bisect_right(order, after) :] if after else order
            return [self._blobs[blob][0] for blob in behind if self._kept(blob)][:limit]

    def is_kept(self, blobs: Iterable[BlobId]) -> list[bool]:
        with self._lock:
            return [blob in self._blobs and self._kept(blob) for blob in blobs]

    def is_pruned(self, blobs: Iterable[BlobId]) -> list[bool]:
        with self._lock:
            return [blob in self._blobs and not self._kept(blob) for blob in blobs]

    def count(self) -> tuple[int, int]:
        with self._lock:
            return len(self._blobs), sum(map(self._kept, self._blobs))

    def _kept(self, blob: BlobId) -> bool:
        _, named, pruned = self._blobs[blob]
        return pruned < named

    def note(
        self,
        held: Iterable[tuple[BlobId, Slot]],
        gone: Iterable[tuple[BlobId, Slot]],
        *,
        now_s: float,
        proven: bool,
    ) -> None:
        with self._lock:
            for blob, slot in held:
                seen = self._sightings.setdefault(blob, {})
                before = seen.get(slot) or Sighting(slot, now_s, 0.0, 0.0)
                proven_s = now_s if proven else before.proven_s
                seen[slot] = replace(before, held_s=now_s, proven_s=proven_s)
            for blob, slot in gone:
                self._sightings.get(blob, {}).pop(slot, None)

    def leased(self, slots: Iterable[tuple[BlobId, Slot]], until_s: float) -> None:
        with self._lock:
            for blob, slot in slots:
                seen = self._sightings.get(blob, {})
                if slot in seen:
                    seen[slot] = replace(seen[slot], leased_s=until_s)

    def listed(
        self, node: NodeId, after: ShareKey | None, last: ShareKey | None, ends: Mapping[ShareKey, float]
    ) -> None:
        with self._lock:
            for blob, seen in self._sightings.items():
                for slot, one in seen.items():
                    key = ShareKey(blob, slot.share)
                    if slot.node == node and (not after or key > after) and (not last or key <= last):
                        end_s = ends.get(key, 0.0)
                        seen[slot] = replace(one, leased_s=min(one.leased_s or end_s, end_s))

    def sightings(self, blobs: Iterable[BlobId]) -> list[list[Sighting]]:
        with self._lock:
            return [
                [seen for _, seen in sorted(self._sightings.get(blob, {}).items(), key=lambda item: item[0])]
                for blob in blobs
            ]

    def answered(self, nodes: Iterable[NodeId], now_s: float) -> None:
        with self._lock:
            self._answers.update(dict.fromkeys(nodes, now_s))

    def last_answers(self) -> Mapping[NodeId, float]:
        with self._lock:
            return dict(self._answers)

    def close(self) -> None:
        pass
