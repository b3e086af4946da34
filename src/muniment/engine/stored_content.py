"""What of a volume's files is stored already, as transactions are told it: extents that count their blobs.

Values only; `volume_content` and `volume_upload` make them, `volume_plans` turns them into operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muniment.core.tree_state import StoredExtent
from muniment.engine.tree_item import TreeItem
from muniment.spec.blob import BlobRef
from muniment.spec.operation import Extent


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A file's content whose blobs are durable.

    Attributes:
        extents: count `blobs`.
        blobs: in order.
        size: bytes.
    """

    extents: tuple[Extent, ...]
    blobs: tuple[BlobRef, ...]
    size: int


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """Entries in the order of their paths, and the blobs that their extents count; all durable."""

    entries: tuple[TreeItem, ...]
    blobs: tuple[BlobRef, ...]


def content_of(extents: Sequence[StoredExtent], blobs: dict[BlobRef, int]) -> tuple[Extent, ...]:
    """Stored extents as those of a new transaction; `blobs` collects what they count."""
    return tuple(
        Extent(
            one.offset,
            one.length,
            one.source if isinstance(one.source, bytes) else blobs.setdefault(one.source, len(blobs)),
            one.source_offset,
        )
        for one in extents
    )
