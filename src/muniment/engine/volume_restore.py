"""Restoring a folder of a volume: entries are made by `TreeWriter`, content is fetched blob by blob."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

from muniment.core.tree_state import Inode, TreeReading
from muniment.engine.download import Part
from muniment.engine.spans import Span
from muniment.engine.tree_item import TreeItem
from muniment.engine.tree_writer import RestoredFile, TreeWriter
from muniment.engine.volume_tree import Listed, find, link_target, walk
from muniment.spec.blob import BlobRef
from muniment.spec.lock_attributes import without_own
from muniment.spec.operation import ROOT, Kind


@dataclass(frozen=True, slots=True)
class Use:
    """Part of a blob that belongs into a file."""

    file: RestoredFile
    offset: int
    length: int
    source_offset: int


Uses = dict[BlobRef, list[Use]]
"""Which blob has parts of which files."""


def restored_entries(state: TreeReading, path: bytes, writer: TreeWriter) -> tuple[Uses, int]:
    """Make all entries below a folder, inline content and holes with them; returns what is to be fetched."""
    top = find(state, path)
    uses: Uses = {}
    total = 0
    shared: dict[int, bytes] = {}
    writer.settle_top(item_of(state, Listed(b"top", top)))
    for listed in walk(state, top):
        inode = listed.inode
        first = shared.get(inode.inode)
        item = item_of(state, listed, first or b"")
        if inode.kind is not Kind.FOLDER and inode.links > 1 and first is None:
            shared[inode.inode] = listed.path
        file = writer.add(item)
        if inode.kind is Kind.FILE and first is None:
            total += inode.size
        if file is not None:
            _restore_file(state, inode, file, writer, uses)
    return uses, total


def item_of(state: TreeReading, listed: Listed, same_as: bytes = b"") -> TreeItem:
    """All that a volume knows of it but its content."""
    inode = listed.inode
    return TreeItem(
        listed.path,
        inode.kind,
        inode.mode,
        inode.mtime_ns,
        inode.size if inode.kind is Kind.FILE else 0,
        link_target(state, inode) if inode.kind is Kind.SYMLINK else b"",
        owner=(inode.uid, inode.gid) if inode.inode != ROOT else None,
        rdev=inode.rdev,
        xattrs=tuple(without_own(state.xattrs(inode.inode)).items()),
        same_as=same_as,
    )


def _restore_file(
    state: TreeReading, inode: Inode, file: RestoredFile, writer: TreeWriter, uses: Uses
) -> None:
    at = 0
    for one in state.extents(inode.inode, 0, inode.size):
        if at < one.offset:
            writer.hole(file, at, one.offset - at)
        if isinstance(one.source, bytes):
            writer.write(file, one.offset, memoryview(one.source))
        else:
            use = Use(file, one.offset, one.length, one.source_offset)
            uses.setdefault(one.source, []).append(use)
        at = one.stop
    if at < inode.size:
        writer.hole(file, at, inode.size - at)


async def tree_parts(uses: Uses, writer: TreeWriter) -> AsyncGenerator[Part, None]:
    """Each blob once, whatever number of files has a part in it."""
    for ref, parts in uses.items():
        start = min(use.source_offset for use in parts)
        stop = max(use.source_offset + use.length for use in parts)
        yield Part(Span(ref, start, stop), partial(_write_uses, parts, start, writer))


def _write_uses(uses: list[Use], start: int, writer: TreeWriter, data: memoryview) -> None:
    for use in uses:
        first = use.source_offset - start
        writer.write(use.file, use.offset, data[first : first + use.length])
