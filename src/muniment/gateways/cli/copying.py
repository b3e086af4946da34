"""Content between this machine and a volume: `muni cp`, `cat`, and the volume's forms of `put` and `get`."""

from __future__ import annotations

import base64
import io
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.changing import inode_at
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.looking import reading
from muniment.gateways.cli.output import StandardOutput
from muniment.gateways.cli.replacing import allow, replaces
from muniment.gateways.cli.show import count_text, progress_bar, rate_text
from muniment.gateways.cli.vol_paths import (
    METAVAR,
    VolPath,
    expanded,
    files_of,
    names_of,
    parse_vol_path,
    paths_argument,
    volume_of,
)
from muniment.gateways.cli.when import at_option, maybe_at
from muniment.spec.operation import Kind

if TYPE_CHECKING:
    from muniment.engine.results import Skipped
    from muniment.engine.volume_files import Stored, VolumeFiles


@dataclass(frozen=True, slots=True)
class _Done:
    """One path that was brought somewhere.

    Attributes:
        entry: of the log; None where it was read.
        new_bytes: of shares that were sent.
    """

    source: str
    target: str
    size_bytes: int
    files: int
    took_s: float
    skipped: tuple[Skipped, ...] = ()
    entry: int | None = None
    new_bytes: int = 0

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "path": self.source,
            "target": self.target,
            "size_bytes": self.size_bytes,
            "files": self.files,
            "new_bytes": self.new_bytes,
            "entry": self.entry,
            "skipped": [{"path": s.path, "reason": s.reason} for s in self.skipped],
            "seconds": round(self.took_s, 3),
        }


def _tell(context: Context, key: str, done: list[_Done], left_out: str) -> int:
    """Remarks and the document; returns the exit code."""
    for one in done:
        rate = rate_text(one.size_bytes, one.took_s)
        entry = f", entry {one.entry}" if one.entry is not None else ""
        files = f"{count_text(one.files, 'file')}, " if one.files != 1 else ""
        context.remark(f"{one.source} -> {one.target}: {files}{rate}{entry}")
        for skipped in one.skipped:
            context.remark(f"  {left_out}: {skipped.path}: {skipped.reason}")
    context.emit({key: [one.document() for one in done]})
    return exit_codes.LOCAL if any(one.skipped for one in done) else exit_codes.OK


# --- to a volume


def put_into(
    context: Context,
    sources: tuple[str, ...],
    target: VolPath,
    *,
    recursive: bool,
    if_version: int | None = None,
    message: str = "",
) -> int:
    """Store files, folders and (`-`) standard input in a volume, and tell of it."""
    _check_sources(sources, target, recursive, if_version)
    context.interrupted = "nothing stays reserved; what has an entry in the log stays"
    folders = {source for source in sources if source != "-" and Path(source).is_dir()}
    own = {source: os.fsencode(Path(source).resolve().name) for source in sources if source != "-"}
    done: list[_Done] = []

    async def work() -> None:
        async with files_of(context, target.volume) as (_, files):
            inode = await inode_at(files, target.path)
            into = inode is not None and inode.kind is Kind.FOLDER
            if not into and (len(sources) > 1 or (target.folder and not folders)):
                raise Refusal(f"{target} is not a folder", f"make it first: muni mkdir {target}")
            for source in sources:
                if source == "-" and into:
                    raise Refusal("standard input has no name", f"give it one: {target.joined(b'NAME')}")
                to = target.joined(own[source]) if into and own[source] else target
                if source in folders:
                    done.append(await _put_tree(context, files, source, to, message))
                else:
                    done.append(await _put(context, files, source, to, if_version, message))

    context.run(work)
    return _tell(context, "stored", done, "left out")


async def _put_tree(context: Context, files: VolumeFiles, source: str, to: VolPath, message: str) -> _Done:
    started = time.monotonic()
    with progress_bar(context, source) as progress:
        stored = await files.put_tree(Path(source), to.path, message=message, progress=progress)
    return _stored(source, to, stored, started)


async def _put(
    context: Context, files: VolumeFiles, source: str, to: VolPath, if_version: int | None, message: str
) -> _Done:
    started = time.monotonic()
    what = sys.stdin.buffer if source == "-" else Path(source)
    with progress_bar(context, source) as progress:
        stored = await files.put(what, to.path, if_version=if_version, message=message, progress=progress)
    return _stored(source, to, stored, started)


def _stored(source: str, to: VolPath, stored: Stored, started_s: float) -> _Done:
    took_s, entry = time.monotonic() - started_s, stored.committed.index
    sizes = stored.size_bytes, stored.files
    return _Done(source, str(to), *sizes, took_s, stored.skipped, entry, stored.new_bytes)


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
    for path in allowed:
        allow(context, path, replace)
    context.interrupted = "nothing is left behind"
    done: list[_Done] = []

    async def work() -> None:
        async with reading(context, volume) as (opened, files):
            at = await maybe_at(opened, when)
            wanted = await expanded(files, sources, at)
            if len(wanted) > 1 and not into:
                raise Refusal(f"{local} is not a folder", f"make it first: mkdir {local}")
            for one in wanted:
                path = _local(base, one, into)
                if path not in allowed and replaces(path) and not replace:
                    raise Refusal(f"{path} exists", "choose another name, or replace it with --replace")
                done.append(await _get(context, files, one, path, at, recursive))

    context.run(work)
    return _tell(context, "got", done, "not restored")


def _local(base: Path, source: VolPath, into: bool) -> Path:
    return base / os.fsdecode(source.name) if into and source.name else base


async def _get(
    context: Context, files: VolumeFiles, source: VolPath, path: Path, at: int | None, recursive: bool
) -> _Done:
    started = time.monotonic()
    inode = await files.find(source.path, at=at)
    with progress_bar(context, str(source)) as progress:
        if inode.kind is not Kind.FOLDER:
            got = await files.get(source.path, path, at=at, progress=progress)
        elif recursive:
            got = await files.get_tree(source.path, path, at=at, replace=replaces(path), progress=progress)
        else:
            raise Refusal(f"{source} is a folder", "get it with all in it with -r")
    took_s = time.monotonic() - started
    return _Done(str(source), str(path), got.size_bytes, got.files, took_s, got.skipped)


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


# --- cp


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar=f"PATH|{METAVAR}... PATH|{METAVAR}")
@click.option("-r", "--recursive", is_flag=True, help="Folders too, with all that is in them.")
@click.option("--replace", is_flag=True, help="Replace what is here; of a folder, with all that it holds.")
@at_option
@json_option
@pass_context
def cp(context: Context, paths: tuple[str, ...], recursive: bool, replace: bool, when: str | None) -> int:
    """Copy within a volume, or between it and this machine.

    Within a volume no content moves: the copy refers to what is stored already.
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
        return get_from(context, sources, paths[-1], recursive=recursive, when=when, replace=replace)
    if sources:
        return _copy_within(context, sources, last, recursive, when)
    if when is not None:
        raise Refusal("--at is for what is in a volume", "leave --at out")
    return put_into(context, paths[:-1], last, recursive=recursive)


def _copy_within(
    context: Context, sources: tuple[VolPath, ...], target: VolPath, recursive: bool, when: str | None
) -> int:
    volume = volume_of([*sources, target])
    done: list[_Done] = []

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
                entry = (await names.copy(one.path, target.path, at=at)).index
                to = target.joined(one.name) if into else target
                size = sum(file.size for file in files)
                took_s = time.monotonic() - started
                done.append(_Done(str(one), str(to), size, len(files), took_s, (), entry))

    context.run(work)
    return _tell(context, "copied", done, "left out")
