"""`muni cp`: within a volume, from one into another, or between one and this machine."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click

from muniment.engine.volume_names import VolumeNames
from muniment.gateways.cli.carried import Done, owners_option, strict_option, tell, tell_would, would_option
from muniment.gateways.cli.changing import inode_at
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.copying import get_from, put_into
from muniment.gateways.cli.vol_paths import (
    METAVAR,
    VolPath,
    expanded,
    files_of,
    names_of,
    parse_vol_path,
    volume_of,
)
from muniment.gateways.cli.when import at_option, maybe_at
from muniment.spec.operation import Kind

if TYPE_CHECKING:
    from muniment.engine.volume_files import VolumeFiles


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar=f"PATH|{METAVAR}... PATH|{METAVAR}")
@click.option("-r", "--recursive", is_flag=True, help="Folders too, with all that is in them.")
@click.option("--replace", is_flag=True, help="Replace what is here; of a folder, with all that it holds.")
@owners_option
@strict_option
@would_option
@at_option
@json_option
@pass_context
def cp(
    context: Context,
    paths: tuple[str, ...],
    recursive: bool,
    replace: bool,
    owners: bool | None,
    strict: bool,
    dry_run: bool,
    when: str | None,
) -> int:
    """Copy within or between volumes, or to and from here.

    Within a volume no content moves: the copy refers to what is stored already.  From one volume into another
    it is read and stored again, under the other's keys.
    """
    if len(paths) < 2:
        raise Refusal("two paths are needed", "say what to copy and where to")
    *first, last = [parse_vol_path(path) for path in paths]
    sources = tuple(one for one in first if one is not None)
    if sources and len(sources) < len(first):
        raise Refusal("some of these are in a volume and some are not", "copy them one kind after the other")
    if not sources and last is None:
        raise Refusal("none of these is in a volume", "write VOL:/path for a path in a volume")
    if last is None:
        return get_from(
            context,
            sources,
            paths[-1],
            recursive=recursive,
            when=when,
            replace=replace,
            owners=owners,
            strict=strict,
            dry_run=dry_run,
        )
    if sources:
        return _copy(context, sources, last, recursive, when, dry_run)
    if when is not None:
        raise Refusal("--at is for what is in a volume", "leave --at out")
    return put_into(
        context, paths[:-1], last, recursive=recursive, strict=strict, dry_run=dry_run, replace=replace
    )


def _copy(
    context: Context,
    sources: tuple[VolPath, ...],
    target: VolPath,
    recursive: bool,
    when: str | None,
    dry_run: bool,
) -> int:
    """Within a volume by its names alone, from one into another with the grid that has their content."""
    across = target.volume != volume_of(sources)
    if across:
        context.interrupted = "nothing stays reserved; what has an entry in the log stays"
    done: list[Done] = []
    would: list[tuple[str, str, bool]] = []

    async def work() -> None:
        async with AsyncExitStack() as stack:
            if across:
                opened, theirs = await stack.enter_async_context(files_of(context, volume_of(sources)))
                _, files = await stack.enter_async_context(files_of(context, target.volume))
            else:
                opened, names = await stack.enter_async_context(names_of(context, target.volume))
            old, new = (theirs, files) if across else (names, names)
            at = await maybe_at(opened, when)
            wanted = await expanded(old, sources, at)
            inode = await inode_at(new, target.path)
            into = inode is not None and inode.kind is Kind.FOLDER
            if not into and len(wanted) > 1:
                raise Refusal(f"{target} is not a folder", f"make it first: muni mkdir {target}")
            for one in wanted:
                to = target.joined(one.name) if into and one.name else target
                if (await old.find(one.path, at=at, follow=False)).kind is Kind.FOLDER and not recursive:
                    raise Refusal(f"{one} is a folder", "copy it with all in it with -r")
                if dry_run:
                    would.append((str(one), str(to), await inode_at(new, to.path) is not None))
                elif across:
                    done.append(await _across(theirs, one, files, to, at))
                else:
                    done.append(await _within(names, one, target, to, at))

    context.run(work)
    if dry_run:
        return tell_would(context, would)
    return tell(context, "copied", done, "left out")


async def _within(names: VolumeNames, one: VolPath, target: VolPath, to: VolPath, at: int | None) -> Done:
    started = time.monotonic()
    what = await names.find(one.path, at=at, follow=False)
    below = await names.walk(one.path, at=at) if what.kind is Kind.FOLDER else []
    files = [found.inode for found in below if found.inode.kind is Kind.FILE] or [what]
    entry = (await names.copy(one.path, target.path, at=at)).index
    size, took_s = sum(file.size for file in files), time.monotonic() - started
    return Done(str(one), str(to), size, len(files), took_s, (), entry)


async def _across(theirs: VolumeFiles, one: VolPath, files: VolumeFiles, to: VolPath, at: int | None) -> Done:
    started = time.monotonic()
    stored = await files.copy_across(theirs, one.path, to.path, at=at)
    took_s, sizes = time.monotonic() - started, (stored.size_bytes, stored.files)
    return Done(str(one), str(to), *sizes, took_s, (), stored.committed.index, stored.new_bytes)
