"""How safe each file of a volume is: what the nodes have of its blobs, and how likely it is lost.

    found = await check_files(files, grid, hazard, known)

Blobs are asked for once, whatever number of files share them, page by page; of each a few numbers are kept.
The model of loss is stated in `core.keeping.survival`; a file of several blobs is lost with one of them, so
its probability is at most their sum, and that is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from muniment.core.keeping.survival import Hazard, loss_probability
from muniment.core.tree_state import TreeReading
from muniment.engine.check import Depth
from muniment.engine.grid import Grid
from muniment.engine.health import BlobHealth, ShareState
from muniment.engine.volume_tree import Listed, find, walk
from muniment.ids import BlobId, NodeId
from muniment.ports import Sighting
from muniment.spec.blob import BlobName
from muniment.spec.operation import Kind

_PAGE: Final = 1024

Seen = Callable[[Sequence[BlobId]], Awaitable[Sequence[Sequence[Sighting]]]]
"""What a keeper of this home remembers of each blob's shares; nothing where there is none."""


@dataclass(frozen=True, slots=True)
class FileBlobs:
    """A file and the blobs that its content lies in, each once."""

    path: bytes
    size: int
    blobs: tuple[BlobName, ...]


@dataclass(frozen=True, slots=True)
class BlobSafety:
    """One blob.

    Attributes:
        k, n: of its coding.
        live: distinct shares of which a node says, or has shown, that it has them.
        nodes: on which these are.
        zones: how many these nodes are in; a node that names no zone is one by itself.
        proven_s: since when k shares of it are known to have been there, by proof; 0: never.
        loss: probability that it is lost within the time of one repair.
    """

    k: int
    n: int
    live: int
    nodes: tuple[NodeId, ...]
    zones: int
    proven_s: float
    loss: float


@dataclass(frozen=True, slots=True)
class FileSafety:
    """One file: of its blobs the worst one in each respect.

    Attributes:
        blobs: how many; 0: its content lies in the log itself.
        worst: the blob with the fewest shares to spare; None: there is none.
        nodes: that hold anything of it.
        zones: the fewest of any blob.
        proven_s: the longest ago of any; 0: one never was, or no keeper of this home knows.
        loss: at most so likely.
    """

    path: bytes
    size: int
    blobs: int
    worst: BlobSafety | None
    nodes: tuple[NodeId, ...]
    zones: int
    proven_s: float
    loss: float

    @property
    def readable(self) -> bool:
        """Whether all of it can be read now."""
        return self.worst is None or self.worst.live >= self.worst.k

    @property
    def whole(self) -> bool:
        """Whether every share of its blobs is there."""
        return self.worst is None or self.worst.live >= self.worst.n


def files_at(state: TreeReading, path: bytes) -> list[FileBlobs]:
    """The file at a path, or all below a folder; blocking.  Raises: PathUnknown."""
    top = find(state, path)
    listed = walk(state, top) if top.kind is Kind.FOLDER else iter((Listed(b"", top),))
    found = []
    for one in listed:
        if one.inode.kind is Kind.FILE:
            names = {
                extent.source.name: None
                for extent in state.extents(one.inode.inode, 0, one.inode.size)
                if not isinstance(extent.source, bytes)
            }
            below = b"/".join(part for part in (path, one.path) if part)
            found.append(FileBlobs(below, one.inode.size, tuple(names)))
    return found


async def check_files(
    files: Sequence[FileBlobs], grid: Grid, hazard: Hazard, seen: Seen, *, verify: bool = False
) -> list[FileSafety]:
    """Ask the nodes; those that are worst off come first.

    Args:
        hazard: what happens to nodes and zones.
        verify: read every share instead of believing the nodes.
    Raises: RosterEmpty.
    Cost: a question for each blob and node; memory, some 400 bytes for each blob.
    """
    names = list(dict.fromkeys(name for file in files for name in file.blobs))
    check = grid.checker(Depth.READ if verify else Depth.ASKED)
    zones, known = grid.zones(), dict[BlobName, BlobSafety]()
    for at in range(0, len(names), _PAGE):
        page = names[at : at + _PAGE]
        sightings = await seen([name.blob for name in page])
        for health, told in zip(await check.blobs(page), sightings, strict=True):
            known[health.name] = _safety(health, zones, told, hazard)
    found = [_file(file, [known[name] for name in file.blobs]) for file in files]
    return sorted(found, key=lambda one: (-one.loss, _spare(one.worst), one.path))


def _safety(
    health: BlobHealth, zones: Mapping[NodeId, str], told: Sequence[Sighting], hazard: Hazard
) -> BlobSafety:
    places = []
    for share in health.shares:
        holder = next((node for node, state in share.nodes if state is ShareState.HELD), None)
        if holder is not None:
            places.append((holder, zones.get(holder, "")))
    shape = health.name.shape
    proven: dict[int, float] = {}
    for one in told:
        proven[one.slot.share] = max(one.proven_s, proven.get(one.slot.share, 0.0))
    times = sorted(proven.values(), reverse=True)
    return BlobSafety(
        shape.k,
        shape.n,
        len(places),
        tuple({node for node, _ in places}),
        len({zone or node for node, zone in places}),
        times[shape.k - 1] if len(times) >= shape.k else 0.0,
        loss_probability(shape.k, places, hazard),
    )


def _file(file: FileBlobs, blobs: Sequence[BlobSafety]) -> FileSafety:
    return FileSafety(
        file.path,
        file.size,
        len(blobs),
        min(blobs, key=_spare, default=None),
        tuple(sorted({node for blob in blobs for node in blob.nodes})),
        min((blob.zones for blob in blobs), default=0),
        min((blob.proven_s for blob in blobs), default=0.0),
        min(1.0, sum(blob.loss for blob in blobs)),
    )


def _spare(blob: BlobSafety | None) -> tuple[int, int]:
    """Shares to spare, then shares that are there of those that should be."""
    return (1 << 30, 0) if blob is None else (blob.live - blob.k, blob.live - blob.n)
