"""`muni cp`: within a volume, from one into another, or between one and this machine."""

from __future__ import annotations

import time

import click

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
        return _copy_within(context, sources, last, recursive, when, dry_run)
    if when is not None:
        raise Refusal("--at is for what is in a volume", "leave --at out")
    return put_into(context, paths[:-1], last, recursive=recursive, strict=strict, dry_run=dry_run)


def _copy_within(
    context: Context,
    sources: tuple[VolPath, ...],
    target: VolPath,
    recursive: bool,
    when: str | None,
    dry_run: bool,
) -> int:
    volume = volume_of(sources)
    if volume != target.volume:
        return _copy_across(context, sources, target, recursive, when, dry_run)
    done: list[Done] = []
    would: list[tuple[str, str, bool]] = []

    async def work() -> None:
        async with names_of(context, volume) as (opened, names):
            at = await maybe_at(opened, when)
            wanted = await expanded(names, sources, at)
            inode = await inode_at(names, target.path)
            into = inode is not None and inode.kind is Kind.FOLDER
            if not into and len(wanted) > 1:
                raise Refusal(f"{target} is not a folder", f"make it first: muni mkdir {target}")
            for one in wanted:
                started = time.monotonic()
                tree = await names.walk(one.path, at=at) if recursive else []
                what = await names.find(one.path, at=at, follow=False)
                if what.kind is Kind.FOLDER and not recursive:
                    raise Refusal(f"{one} is a folder", "copy it with all in it with -r")
                files = [below.inode for below in tree if below.inode.kind is Kind.FILE] or [what]
                to = target.joined(one.name) if into else target
                if dry_run:
                    would.append((str(one), str(to), await inode_at(names, to.path) is not None))
                    continue
                entry = (await names.copy(one.path, target.path, at=at)).index
                size = sum(file.size for file in files)
                took_s = time.monotonic() - started
                done.append(Done(str(one), str(to), size, len(files), took_s, (), entry))

    context.run(work)
    if dry_run:
        return tell_would(context, would)
    return tell(context, "copied", done, "left out")


def _copy_across(
    context: Context,
    sources: tuple[VolPath, ...],
    target: VolPath,
    recursive: bool,
    when: str | None,
    dry_run: bool,
) -> int:
    """From one volume into another."""
    context.interrupted = "nothing stays reserved; what has an entry in the log stays"
    done: list[Done] = []
    would: list[tuple[str, str, bool]] = []

    async def work() -> None:
        async with (
            files_of(context, volume_of(sources)) as (opened, theirs),
            files_of(context, target.volume) as (_, files),
        ):
            at = await maybe_at(opened, when)
            wanted = await expanded(theirs, sources, at)
            inode = await inode_at(files, target.path)
            into = inode is not None and inode.kind is Kind.FOLDER
            if not into and len(wanted) > 1:
                raise Refusal(f"{target} is not a folder", f"make it first: muni mkdir {target}")
            for one in wanted:
                started = time.monotonic()
                to = target.joined(one.name) if into and one.name else target
                if (await theirs.find(one.path, at=at, follow=False)).kind is Kind.FOLDER and not recursive:
                    raise Refusal(f"{one} is a folder", "copy it with all in it with -r")
                if dry_run:
                    would.append((str(one), str(to), await inode_at(files, to.path) is not None))
                    continue
                stored = await files.copy_across(theirs, one.path, to.path, at=at)
                took_s, entry = time.monotonic() - started, stored.committed.index
                sizes = stored.size_bytes, stored.files
                done.append(Done(str(one), str(to), *sizes, took_s, (), entry, stored.new_bytes))

    context.run(work)
    if dry_run:
        return tell_would(context, would)
    return tell(context, "copied", done, "left out")
