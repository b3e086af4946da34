"""Restoring a folder of a volume: entries are made by `TreeWriter`, content is fetched blob by blob."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

from muniment.core.tree_state import TreeReading
from muniment.engine.download import Part
from muniment.engine.results import Skipped
from muniment.engine.spans import Span
from muniment.engine.tree_writer import RestoredFile, TreeWriter
from muniment.engine.volume_tree import Listed, find, link_target, walk
from muniment.spec.blob import BlobRef
from muniment.spec.operation import Kind
from muniment.spec.tree_entry import EntryType, TreeEntry
from muniment.spec.tree_entry import Extent as TreeExtent


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
    for listed in walk(state, top):
        inode = listed.inode
        match inode.kind:
            case Kind.FOLDER:
                writer.add(TreeEntry(listed.path, EntryType.DIRECTORY, inode.mode, inode.mtime_ns))
            case Kind.SYMLINK:
                target = link_target(state, inode)
                link = TreeEntry(listed.path, EntryType.SYMLINK, 0o777, inode.mtime_ns, inline=target)
                writer.add(link)
            case Kind.FILE:
                total += inode.size
                _restore_file(state, listed, writer, uses)
            case _:
                kind = inode.kind.name.lower().replace("_", " ")
                writer.skipped.append(Skipped(os.fsdecode(listed.path), f"a {kind} is not restored"))
    return uses, total


def _restore_file(state: TreeReading, listed: Listed, writer: TreeWriter, uses: Uses) -> None:
    inode = listed.inode
    extents = (TreeExtent(0, 0, inode.size),) if inode.size else ()
    file = writer.add(
        TreeEntry(listed.path, EntryType.FILE, inode.mode, inode.mtime_ns, inode.size, b"", extents)
    )
    at = 0
    for one in state.extents(inode.inode, 0, inode.size) if file is not None else ():
        assert file is not None
        if at < one.offset:
            writer.hole(file, at, one.offset - at)
        if isinstance(one.source, bytes):
            writer.write(file, one.offset, memoryview(one.source))
        else:
            use = Use(file, one.offset, one.length, one.source_offset)
            uses.setdefault(one.source, []).append(use)
        at = one.stop
    if file is not None and at < inode.size:
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
