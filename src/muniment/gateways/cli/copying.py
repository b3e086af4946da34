"""Content between this machine and a volume: `muni cat`, and the volume's forms of `put` and `get`."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muniment.engine.room import content_bytes
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.asking import confirm
from muniment.gateways.cli.carried import Done, tell, tell_would
from muniment.gateways.cli.changing import inode_at
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.kept import warn_of_keeping
from muniment.gateways.cli.looking import looking_at, reading
from muniment.gateways.cli.output import StandardOutput
from muniment.gateways.cli.replacing import allow, replaces
from muniment.gateways.cli.show import count_text, progress_bar
from muniment.gateways.cli.vol_paths import (
    VolPath,
    expanded,
    files_of,
    parse_vol_path,
    paths_argument,
    volume_of,
)
from muniment.gateways.cli.when import at_option, maybe_at
from muniment.spec.operation import Kind

if TYPE_CHECKING:
    from muniment.engine.volume_files import Stored, VolumeFiles


# --- to a volume


def put_into(
    context: Context,
    sources: tuple[str, ...],
    target: VolPath,
    *,
    recursive: bool,
    if_version: int | None = None,
    message: str = "",
    strict: bool = False,
    dry_run: bool = False,
    force: bool = True,
    replace: bool = False,
) -> int:
    """Store files, folders and (`-`) standard input in a volume, and tell of it.

    Several files become one entry.  A person at a terminal is asked before a file gets a new version;
    elsewhere it gets one: the earlier stays in its history.
    """
    _check_sources(sources, target, recursive, if_version)
    if context.can_ask and not (replace or dry_run or if_version is not None):
        _allow_versions(context, sources, target)
    context.interrupted = "nothing stays reserved; what has an entry in the log stays"
    folders = {source for source in sources if source != "-" and Path(source).is_dir()}
    own = [source for source in sources if source != "-"]
    together = [source for source in own if Path(source).is_file()]
    done: list[Done] = []
    would: list[tuple[str, str, bool]] = []

    async def work() -> None:
        async with files_of(context, target.volume) as (opened, files):
            await warn_of_keeping(context, opened)
            inode = await inode_at(files, target.path)
            into = inode is not None and inode.kind is Kind.FOLDER
            if not into and (len(sources) > 1 or (target.folder and not folders)):
                raise Refusal(f"{target} is not a folder", f"make it first: muni mkdir {target}")
            if "-" in sources and into:
                raise Refusal("standard input has no name", f"give it one: {target.joined(b'NAME')}")
            places = {source: _place(target, source, into) for source in own}
            if len(set(places.values())) < len(places):
                raise Refusal("two of these have the same name", "store them one after the other")
            if dry_run:
                for source in sources:
                    there = await inode_at(files, places.get(source, target).path)
                    would.append((source, str(places.get(source, target)), there is not None))
                return
            if not force:
                await files.require_room(await asyncio.to_thread(content_bytes, map(Path, own)))
            if len(together) > 1:
                done.extend(await _put_files(context, files, {one: places[one] for one in together}, message))
            for source in sources:
                to = places.get(source, target)
                if source in folders:
                    done.append(await _put_tree(context, files, source, to, message))
                elif len(together) < 2 or source not in together:
                    done.append(await _put(context, files, source, to, if_version, message))

    context.run(work)
    if dry_run:
        return tell_would(context, would)
    return tell(context, "stored", done, "left out", strict=strict)


def _place(target: VolPath, source: str, into: bool) -> VolPath:
    """Where a source comes to."""
    name = os.fsencode(Path(source).resolve().name)
    return target.joined(name) if into and name else target


def _allow_versions(context: Context, sources: tuple[str, ...], target: VolPath) -> None:
    """Ask whether the files there may get new versions, before anything is open that waits for the answer.

    Raises: Refusal: they may not.
    """
    files_here = [source for source in sources if source == "-" or not Path(source).is_dir()]
    there: list[VolPath] = []

    async def look() -> None:
        async with looking_at(context, target.volume) as (_, names):
            found = await inode_at(names, target.path)
            into = found is not None and found.kind is Kind.FOLDER
            for source in files_here:
                place = target if source == "-" else _place(target, source, into)
                inode = found if place == target else await inode_at(names, place.path)
                if inode is not None and inode.kind is not Kind.FOLDER:
                    there.append(place)

    context.run(look)
    if there:
        what = f"{there[0]} exists" if len(there) == 1 else f"{len(there)} of these exist, {there[0]} first"
        confirm(context, f"{what}. Store a new version?", yes=False)


async def _put_files(
    context: Context, files: VolumeFiles, places: dict[str, VolPath], message: str
) -> list[Done]:
    started = time.monotonic()
    named = {to.name: Path(source) for source, to in places.items()}
    folder = next(iter(places.values())).path.rpartition(b"/")[0]
    with progress_bar(context, count_text(len(named), "file")) as progress:
        stored = await files.put_files(named, folder, message=message, progress=progress)
    took_s, skipped = time.monotonic() - started, {os.fsencode(one.path): one for one in stored.skipped}
    done = []
    for at, (source, to) in enumerate(places.items()):
        held = to.name not in skipped
        size = (await files.find(to.path)).size if held else 0
        left_out = stored.left_out if at == 0 else stored.left_out - stored.left_out
        missing = () if held else (skipped[to.name],)
        entry = stored.committed.index if held else None
        done.append(Done(source, str(to), size, int(held), took_s, missing, entry, None, left_out))
    return done


async def _put_tree(context: Context, files: VolumeFiles, source: str, to: VolPath, message: str) -> Done:
    started = time.monotonic()
    with progress_bar(context, source) as progress:
        stored = await files.put_tree(Path(source), to.path, message=message, progress=progress)
    return _stored(source, to, stored, started)


async def _put(
    context: Context, files: VolumeFiles, source: str, to: VolPath, if_version: int | None, message: str
) -> Done:
    started = time.monotonic()
    what = sys.stdin.buffer if source == "-" else Path(source)
    with progress_bar(context, source) as progress:
        stored = await files.put(what, to.path, if_version=if_version, message=message, progress=progress)
    return _stored(source, to, stored, started)


def _stored(source: str, to: VolPath, stored: Stored, started_s: float) -> Done:
    took_s, entry = time.monotonic() - started_s, stored.committed.index
    sizes = stored.size_bytes, stored.files
    return Done(source, str(to), *sizes, took_s, stored.skipped, entry, stored.new_bytes, stored.left_out)


def _check_sources(
    sources: tuple[str, ...], target: VolPath, recursive: bool, if_version: int | None
) -> None:
    """What cannot be meant, before anything is stored."""
    if not sources:
        raise Refusal("two paths are needed", f"say what to store in {target}")
    if sources.count("-") > 1:
        raise Refusal("standard input can be stored once", "give - once")
    for source in sources:
        if not source:
            raise Refusal("a path is empty", "nothing was stored; give . for the folder you stand in")
        if parse_vol_path(source) is not None and not Path(source).exists():
            raise Refusal(f"{source} is in a volume", "'muni get' brings it here, 'muni cp' copies it within")
        if source != "-" and not Path(source).exists():
            raise Refusal(f"{source} does not exist", "nothing was stored; correct the path")
        if source != "-" and Path(source).is_dir() and not recursive:
            raise Refusal(f"{source} is a folder", "nothing was stored; store it with all in it with -r")
    if if_version is not None and (len(sources) > 1 or Path(sources[0]).is_dir()):
        raise Refusal("--if-version is for one file", "see its version with 'muni stat'")
    if "-" in sources and sys.stdin.isatty():
        click.echo("reading from the terminal; end with Ctrl-D", err=True)


# --- from a volume


def get_from(
    context: Context,
    sources: tuple[VolPath, ...],
    local: str,
    *,
    recursive: bool,
    when: str | None,
    replace: bool,
    owners: bool | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> int:
    """Read files and folders of a volume to this machine, and tell of it."""
    volume, base = volume_of(sources), Path(local)
    if not local:
        raise Refusal("the name of the target is empty", "name a file or folder, or - for standard output")
    into = base.is_dir()
    if len(sources) > 1 and not into:
        raise Refusal(f"{local} is not a folder", f"make it first: mkdir {local}")
    # Asked before the volume is opened: nothing else may wait for the answer.
    allowed = {path for path in (_local(base, one, into) for one in sources) if replaces(path)}
    for path in allowed if not dry_run else ():
        allow(context, path, replace)
    context.interrupted = "nothing is left behind"
    done: list[Done] = []
    would: list[tuple[str, str, bool]] = []

    async def work() -> None:
        async with reading(context, volume) as (opened, files):
            at = await maybe_at(opened, when)
            wanted = await expanded(files, sources, at)
            if len(wanted) > 1 and not into:
                raise Refusal(f"{local} is not a folder", f"make it first: mkdir {local}")
            for one in wanted:
                path = _local(base, one, into)
                if dry_run:
                    would.append((str(one), str(path), replaces(path)))
                    continue
                if path not in allowed and replaces(path) and not replace:
                    raise Refusal(f"{path} exists", "choose another name, or replace it with --replace")
                done.append(await _get(context, files, one, path, at, recursive, owners))

    context.run(work)
    if dry_run:
        return tell_would(context, would)
    return tell(context, "got", done, "not restored", strict=strict)


def _local(base: Path, source: VolPath, into: bool) -> Path:
    return base / os.fsdecode(source.name) if into and source.name else base


async def _get(
    context: Context,
    files: VolumeFiles,
    source: VolPath,
    path: Path,
    at: int | None,
    recursive: bool,
    owners: bool | None,
) -> Done:
    started = time.monotonic()
    inode = await files.find(source.path, at=at)
    with progress_bar(context, str(source)) as progress:
        if inode.kind is not Kind.FOLDER:
            got = await files.get(source.path, path, at=at, owners=owners, progress=progress)
        elif recursive:
            got = await files.get_tree(
                source.path, path, at=at, replace=replaces(path), owners=owners, progress=progress
            )
        else:
            raise Refusal(f"{source} is a folder", "get it with all in it with -r")
    took_s = time.monotonic() - started
    return Done(str(source), str(path), got.size_bytes, got.files, took_s, got.skipped, left_out=got.left_out)


@click.command()
@paths_argument
@at_option
@json_option
@pass_context
def cat(context: Context, paths: tuple[VolPath, ...], when: str | None) -> int:
    """Write files of a volume to standard output."""
    return write_out(context, paths, when)


def write_out(
    context: Context, paths: tuple[VolPath, ...], when: str | None, span: tuple[int, int | None] = (0, None)
) -> int:
    """Content of files, one after the other, on standard output; in base64 as part of a document."""
    volume, (start, stop) = volume_of(paths), span
    context.interrupted = "the output is not complete"
    documents: list[dict[str, Any]] = []

    async def work() -> None:
        async with reading(context, volume) as (opened, files):
            at = await maybe_at(opened, when)
            for one in await expanded(files, paths, at):
                if context.json:
                    buffer = io.BytesIO()
                    await files.get(one.path, buffer, at=at, start=start, stop=stop)
                    content = base64.b64encode(buffer.getvalue()).decode()
                    documents.append({"path": "/" + os.fsdecode(one.path), "base64": content})
                    continue
                with StandardOutput() as out:
                    await out.interruptible(files.get(one.path, out, at=at, start=start, stop=stop))

    context.run(work)
    context.emit({"files": documents})
    return exit_codes.OK
