"""`muni ls` and `muni tree`: a volume's names; no node is asked."""

from __future__ import annotations

from collections.abc import Iterator

import click

from muniment.core.tree_state import TreeReading
from muniment.engine.volume_plans import present
from muniment.engine.volume_tree import children, find, locate, walk
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.looking import looking_at
from muniment.gateways.cli.show import count_text, table
from muniment.gateways.cli.vol_paths import (
    METAVAR,
    VolPath,
    VolPathType,
    expanded,
    path_text,
    paths_argument,
    shown,
    volume_of,
)
from muniment.gateways.cli.vol_rows import Row, facts, joined, label_text, mode_text, row_of
from muniment.gateways.cli.when import at_option, maybe_at, moment_text
from muniment.spec.operation import Kind

# --- ls


@click.command()
@paths_argument
@click.option("-l", "--long", "long", is_flag=True, help="Permissions, links, size, time.")
@click.option("-R", "--recursive", is_flag=True, help="Folders in it too.")
@at_option
@json_option
@pass_context
def ls(context: Context, paths: tuple[VolPath, ...], long: bool, recursive: bool, when: str | None) -> int:
    """List folders of a volume."""
    volume = volume_of(paths)

    async def work() -> list[tuple[VolPath, list[Row]]]:
        async with looking_at(context, volume) as (opened, names):
            at = await maybe_at(opened, when)
            wanted = await expanded(names, paths, at)

            def look(state: TreeReading) -> list[tuple[VolPath, list[Row]]]:
                return [part for one in wanted for part in _listing(state, one, recursive)]

            return await names.look(look, at=at)

    parts = context.run(work)
    lone = [row for path, rows in parts for row in rows if row.path == path.path]
    folders = [(path, rows) for path, rows in parts if not (rows and rows[0].path == path.path)]
    texts = [_lines(lone, long)] if lone else []
    titled = len(folders) + bool(lone) > 1
    for path, rows in folders:
        title = f"{shown(path.volume, path.path)}:\n" if titled else ""
        texts.append(title + _lines(rows, long))
    context.emit(
        {"entries": [facts(row) for _, rows in parts for row in rows]},
        ("\n\n" if titled else "\n").join(texts).rstrip("\n")
        if any(rows for _, rows in parts) or titled
        else None,
    )
    return exit_codes.OK


def _listing(state: TreeReading, at: VolPath, recursive: bool) -> Iterator[tuple[VolPath, list[Row]]]:
    """A folder's rows, and those of the folders in it; of anything else its own."""
    place = present(locate(state, at.path), at.path)
    assert place.inode is not None
    if place.inode.kind is not Kind.FOLDER:
        itself = present(locate(state, at.path, follow=False), at.path)
        assert itself.inode is not None
        yield at, [row_of(state, at.path, at.path, itself.inode)]
        return
    pending = [(at.path, place.inode)]
    while pending:
        path, folder = pending.pop()
        listed = list(children(state, folder))
        yield VolPath(at.volume, path), [row_of(state, joined(path, o.path), o.path, o.inode) for o in listed]
        if recursive:
            inner = [(joined(path, o.path), o.inode) for o in listed if o.inode.kind is Kind.FOLDER]
            pending += inner[::-1]


def _lines(rows: list[Row], long: bool) -> str:
    if not rows:
        return ""
    if not long:
        return "\n".join(path_text(row.label) for row in rows)
    cells = []
    for row in rows:
        inode = row.inode
        name = label_text(row)
        cells.append((mode_text(inode), str(inode.links), str(inode.size), moment_text(inode.mtime_ns), name))
    return table(cells, right=(1, 2))


# --- tree


@click.command()
@click.argument("path", type=VolPathType(), metavar=METAVAR)
@at_option
@json_option
@pass_context
def tree(context: Context, path: VolPath, when: str | None) -> int:
    """Draw a folder of a volume with all below it."""

    async def work() -> list[Row]:
        async with looking_at(context, path.volume) as (opened, names):
            return await names.look(lambda state: _below(state, path.path), at=await maybe_at(opened, when))

    rows = context.run(work)
    folders = sum(row.inode.kind is Kind.FOLDER for row in rows)
    others = len(rows) - folders
    lines = [str(path), *_drawn(rows), f"{count_text(folders, 'folder')}, {count_text(others, 'file')}"]
    context.emit({"entries": [facts(row) for row in rows]}, "\n".join(lines))
    return exit_codes.OK


def _below(state: TreeReading, path: bytes) -> list[Row]:
    top = find(state, path)
    if top.kind is not Kind.FOLDER:
        raise Refusal(f"/{path_text(path)} is not a folder", "'muni stat' tells what it is")
    found = walk(state, top)
    return [row_of(state, joined(path, one.path), one.path, one.inode) for one in found]


def _drawn(rows: list[Row]) -> Iterator[str]:
    """A line for each row; which are the last of their folders is known from the end."""
    open_levels: set[int] = set()
    lines = []
    for row in reversed(rows):
        depth = row.label.count(b"/")
        branch = "├── " if depth in open_levels else "└── "
        open_levels = {level for level in open_levels if level <= depth} | {depth}
        stems = "".join("│   " if level in open_levels else "    " for level in range(depth))
        name = path_text(row.label.rpartition(b"/")[2]) + (
            f" -> {path_text(row.target)}" if row.target else ""
        )
        lines.append(stems + branch + name)
    yield from reversed(lines)
