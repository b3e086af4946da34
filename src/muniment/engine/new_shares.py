"""What one upload has newly stored, so that it can be given up if the upload fails for good.

A share that nothing refers to would lie at its node until its lease ends, and the space would be missing for
what comes next.  Only shares that this client sent are here, and none of a blob that anything else of this
client has asked for since: another upload counts on these, or may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from muniment.core.placement import Slot
from muniment.ids import BlobId

BLOBS_MAX: Final = 32_768
"""128 GiB in chunks of 4 MiB, some 20 MB of memory; what was stored before these stays until leases end."""


class NewShares:
    """Of one operation."""

    def __init__(self) -> None:
        self._slots: dict[BlobId, list[Slot]] = {}

    def __iter__(self) -> Iterator[tuple[BlobId, tuple[Slot, ...]]]:
        return iter([(blob, tuple(slots)) for blob, slots in self._slots.items() if slots])

    def of(self, blob: BlobId) -> list[Slot]:
        """Where a blob's new shares are to be written down, as they land."""
        slots = self._slots.pop(blob, [])
        self._slots[blob] = slots
        if len(self._slots) > BLOBS_MAX:
            del self._slots[next(iter(self._slots))]
        return slots

    def keep(self, blobs: Iterable[BlobId]) -> None:
        """Something refers to these now, or may."""
        for blob in blobs:
            self._slots.pop(blob, None)
