"""`muni stat`, `muni du` and `muni find`: what a volume knows of names; no node is asked."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from muniment.core.tree_state import TreeReading
from muniment.engine.volume_tree import Listed, find, walk
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.authors import author_name
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.looking import looking_at
from muniment.gateways.cli.show import bytes_text, count_text, table
from muniment.gateways.cli.vol_paths import (
    VolPath,
    expanded,
    path_text,
    paths_argument,
    shown,
    volume_of,
)
from muniment.gateways.cli.vol_rows import Row, facts, joined, mode_text, row_of
from muniment.gateways.cli.when import at_option, maybe_at, moment_text
from muniment.spec.lock_attributes import without_own
from muniment.spec.operation import Kind

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume
    from muniment.engine.volume_names import VolumeNames

_TYPES: Final = {"f": Kind.FILE, "d": Kind.FOLDER, "l": Kind.SYMLINK}


# --- stat


@click.command()
@paths_argument
@at_option
@json_option
@pass_context
def stat(context: Context, paths: tuple[VolPath, ...], when: str | None) -> int:
    """Tell all that a volume knows of a file or folder."""

    async def work() -> list[tuple[VolPath, dict[str, Any], list[tuple[str, str]]]]:
        async with looking_at(context, volume_of(paths)) as (opened, names):
            at = await maybe_at(opened, when)
            return [await _stat(opened, names, one, at) for one in await expanded(names, paths, at)]

    found = context.run(work)
    texts = [table([("path", str(path)), *lines]) for path, _, lines in found]
    context.emit({"entries": [document for _, document, _ in found]}, "\n\n".join(texts))
    return exit_codes.OK


async def _stat(
    opened: OpenVolume, names: VolumeNames, path: VolPath, at: int | None
) -> tuple[VolPath, dict[str, Any], list[tuple[str, str]]]:
    def look(state: TreeReading) -> tuple[Row, int, dict[bytes, bytes]]:
        inode = find(state, path.path, follow=False)
        extents = state.extents(inode.inode, 0, inode.size)
        blobs = {extent.source for extent in extents if not isinstance(extent.source, bytes)}
        return row_of(state, path.path, path.path, inode), len(blobs), without_own(state.xattrs(inode.inode))

    row, blobs, xattrs = await names.look(look, at=at)
    inode, volume = row.inode, opened.volume
    (entry,) = await volume.run(lambda: volume.view.entries(inode.version, inode.version + 1)) or (None,)
    author = author_name(opened, entry.meta.author) if entry is not None else ""
    document = facts(row) | {
        "inode": inode.inode,
        "links": inode.links,
        "uid": inode.uid,
        "gid": inode.gid,
        "ctime_s": inode.ctime_ns / 1e9,
        "author": author,
        "blobs": blobs,
        "xattrs": {os.fsdecode(name): value.hex() for name, value in xattrs.items()},
    }
    lines = [
        ("kind", inode.kind.name.lower().replace("_", " ")),
        ("mode", f"{inode.mode:04o} {mode_text(inode)}"),
        ("owner", f"{inode.uid}:{inode.gid}"),
        ("size", f"{inode.size} bytes" + (f" in {count_text(blobs, 'blob')}" if blobs else "")),
        ("links", str(inode.links)),
        ("modified", moment_text(inode.mtime_ns)),
        ("version", f"entry {inode.version}" + (f" by {author}" if author else "")),
        ("inode", str(inode.inode)),
    ]
    lines += [("target", path_text(row.target))] if row.target else []
    lines += [(f"attribute {path_text(name)}", value.hex()) for name, value in xattrs.items()]
    return path, document, lines


# --- du


@click.command()
@paths_argument
@click.option("-s", "--summarize", is_flag=True, help="One line for each path, none for the folders in it.")
@at_option
@json_option
@pass_context
def du(context: Context, paths: tuple[VolPath, ...], summarize: bool, when: str | None) -> int:
    """Sum up the sizes of folders in a volume.

    A file with several names counts once.
    """

    async def work() -> list[tuple[bytes, int, int]]:
        async with looking_at(context, volume_of(paths)) as (opened, names):
            at = await maybe_at(opened, when)
            wanted = await expanded(names, paths, at)
            looked = await names.look(
                lambda state: [_sums(state, one.path, summarize) for one in wanted], at=at
            )
            return [line for lines in looked for line in lines]

    found = context.run(work)
    volume = paths[0].volume
    document = [
        {"path": "/" + os.fsdecode(p), "size_bytes": size, "files": count} for p, size, count in found
    ]
    rows = [(bytes_text(size), count_text(count, "file"), shown(volume, path)) for path, size, count in found]
    context.emit({"folders": document}, table(rows, right=(0, 1)))
    return exit_codes.OK


def _sums(state: TreeReading, path: bytes, summarize: bool) -> list[tuple[bytes, int, int]]:
    """Path, bytes and files of every folder below, by their paths, and of the path itself at the end."""
    top = find(state, path)
    if top.kind is not Kind.FOLDER:
        return [(path, top.size, 1)]
    sums: dict[bytes, list[int]] = {b"": [0, 0]}
    seen: set[int] = set()
    for one in walk(state, top):
        if one.inode.kind is Kind.FOLDER:
            sums[one.path] = [0, 0]
        elif one.inode.inode not in seen:
            seen.add(one.inode.inode)
            above = one.path
            while above:
                above = above.rpartition(b"/")[0]
                sums[above][0] += one.inode.size
                sums[above][1] += 1
    chosen = [b""] if summarize else sorted(sums, key=lambda name: (name == b"", name))
    return [(joined(path, name), *sums[name]) for name in chosen]  # type: ignore[misc]


# --- find


@click.command("find")
@paths_argument
@click.option("--name", "pattern", metavar="GLOB", help="Only names that match, such as '*.pdf'.")
@click.option("--type", "kind", type=click.Choice(list(_TYPES)), help="Only files, folders (d) or links.")
@at_option
@json_option
@pass_context
def find_names(
    context: Context, paths: tuple[VolPath, ...], pattern: str | None, kind: str | None, when: str | None
) -> int:
    """Search a volume for names."""

    def wanted(one: Listed) -> bool:
        name = one.path.rpartition(b"/")[2]
        if kind is not None and one.inode.kind is not _TYPES[kind]:
            return False
        return pattern is None or fnmatch.fnmatchcase(name, os.fsencode(pattern))

    async def work() -> list[Row]:
        async with looking_at(context, volume_of(paths)) as (opened, names):
            at = await maybe_at(opened, when)
            tops = await expanded(names, paths, at)

            def look(state: TreeReading) -> list[Row]:
                return [row for top in tops for row in _found(state, top, wanted)]

            return await names.look(look, at=at)

    rows = context.run(work)
    text = "\n".join(shown(paths[0].volume, row.path) for row in rows)
    context.emit({"entries": [facts(row) for row in rows]}, text or None)
    return exit_codes.OK


def _found(state: TreeReading, top: VolPath, wanted: Callable[[Listed], bool]) -> Iterator[Row]:
    inode = find(state, top.path)
    if wanted(Listed(top.name, inode)):
        yield row_of(state, top.path, top.path, inode)
    for one in walk(state, inode) if inode.kind is Kind.FOLDER else ():
        if wanted(one):
            yield row_of(state, joined(top.path, one.path), one.path, one.inode)
