"""Changing names of a volume: `muni mkdir`, `rmdir`, `rm`, `mv`, `ln`, `chmod`, `touch`.

Each command is one entry of the log (`mkdir` one for each folder), and no node is asked.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click

from muniment.core.tree_state import Inode, TreeReading
from muniment.engine.volume_names import VolumeNames
from muniment.engine.volume_tree import find, walk
from muniment.errors import InvalidRequest, PathUnknown
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.show import bytes_text, count_text
from muniment.gateways.cli.vol_paths import (
    METAVAR,
    VolPath,
    VolPathType,
    expanded,
    names_of,
    parse_vol_path,
    paths_argument,
    volume_of,
)
from muniment.spec.operation import Kind

dry_run_option = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")

_SYMBOLIC: Final = re.compile(r"([ugoa]*)([+=-])([rwx]*)")
_WHO: Final = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}
_WHAT: Final = {"r": 0o444, "w": 0o222, "x": 0o111}


async def inode_at(names: VolumeNames, path: bytes, *, follow: bool = True) -> Inode | None:
    """What is there, if anything is."""
    try:
        return await names.find(path, follow=follow)
    except PathUnknown:
        return None


# --- folders


@click.command()
@paths_argument
@click.option("-p", "--parents", is_flag=True, help="Also those above it; no matter if it is there.")
@json_option
@pass_context
def mkdir(context: Context, paths: tuple[VolPath, ...], parents: bool) -> int:
    """Make folders in a volume."""

    async def work() -> int | None:
        entry = None
        async with names_of(context, volume_of(paths)) as (_, names):
            for one in paths:
                there = await inode_at(names, one.path) if parents else None
                if there is None:
                    entry = (await names.make_folder(one.path, parents=parents)).index
                elif there.kind is not Kind.FOLDER:
                    raise InvalidRequest(reason=f"{one} is not a folder")
        return entry

    context.emit({"entry": context.run(work)})
    return exit_codes.OK


@click.command()
@paths_argument
@dry_run_option
@json_option
@pass_context
def rmdir(context: Context, paths: tuple[VolPath, ...], dry_run: bool) -> int:
    """Remove empty folders of a volume."""

    async def work() -> tuple[list[VolPath], int | None]:
        async with names_of(context, volume_of(paths)) as (_, names):
            wanted = await expanded(names, paths)
            for one in wanted:
                inode = await names.find(one.path, follow=False)
                if inode.kind is not Kind.FOLDER:
                    raise Refusal(f"{one} is not a folder", "remove a file with 'muni rm'")
                if inode.entries and dry_run:
                    raise Refusal(f"{one} is not empty", "remove it with all in it with 'muni rm -r'")
            return wanted, None if dry_run else (await names.remove(*(one.path for one in wanted))).index

    _tell_removed(context, *context.run(work), dry_run)
    return exit_codes.OK


# --- rm


@dataclass(frozen=True, slots=True)
class _Sum:
    names: int = 0
    files: int = 0
    size_bytes: int = 0


@click.command()
@paths_argument
@click.option("-r", "--recursive", is_flag=True, help="Folders too, with all that is in them.")
@dry_run_option
@json_option
@pass_context
def rm(context: Context, paths: tuple[VolPath, ...], recursive: bool, dry_run: bool) -> int:
    """Remove files of a volume; its history keeps them."""

    async def work() -> tuple[list[VolPath], int | None, _Sum]:
        async with names_of(context, volume_of(paths)) as (_, names):
            wanted = _topmost(await expanded(names, paths))
            summed = await names.look(lambda state: _summed(state, wanted, recursive))
            if dry_run:
                return wanted, None, summed
            return wanted, (await names.remove(*(o.path for o in wanted), recursive=recursive)).index, summed

    wanted, entry, summed = context.run(work)
    _tell_removed(context, wanted, entry, dry_run, summed)
    return exit_codes.OK


def _topmost(paths: list[VolPath]) -> list[VolPath]:
    """Without those that are below others."""
    chosen = {one.path for one in paths}

    def covered(path: bytes) -> bool:
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            if path in chosen:
                return True
        return False

    return [one for one in paths if not covered(one.path)]


def _summed(state: TreeReading, paths: list[VolPath], recursive: bool) -> _Sum:
    """What would go.  Raises: Refusal: a folder without -r, or the root."""
    inodes: list[Inode] = []
    for one in paths:
        if not one.path:
            raise Refusal("the root of a volume cannot be removed", f"remove what is in it: '{one}*'")
        inode = find(state, one.path, follow=False)
        if inode.kind is Kind.FOLDER and not recursive:
            raise Refusal(f"{one} is a folder", "remove it with all in it with -r; -n shows what that is")
        inodes.append(inode)
        if inode.kind is Kind.FOLDER:
            inodes += [below.inode for below in walk(state, inode)]
    files = [inode for inode in inodes if inode.kind is not Kind.FOLDER]
    return _Sum(len(inodes), len(files), sum(inode.size for inode in files))


def _tell_removed(
    context: Context, paths: list[VolPath], entry: int | None, dry_run: bool, summed: _Sum | None = None
) -> None:
    summed = summed or _Sum(len(paths))
    would = "would remove" if dry_run else "removed"
    if dry_run and not context.json:
        context.emit({}, "\n".join(f"{would} {one}" for one in paths))
    what = f"{count_text(summed.names, 'name')}, {bytes_text(summed.size_bytes)}"
    undo = f" in entry {entry}; 'muni restore {paths[0]} --at {entry - 1}' brings it back" if entry else ""
    context.remark(f"{would} {what}{undo}")
    if context.json:
        context.emit(
            {
                "entry": entry,
                "removed": ["/" + os.fsdecode(one.path) for one in paths],
                "names": summed.names,
                "files": summed.files,
                "size_bytes": summed.size_bytes,
                "dry_run": dry_run,
            }
        )


# --- mv, ln


@click.command()
@click.argument("paths", nargs=-1, required=True, type=VolPathType(), metavar=f"{METAVAR}... {METAVAR}")
@dry_run_option
@json_option
@pass_context
def mv(context: Context, paths: tuple[VolPath, ...], dry_run: bool) -> int:
    """Rename or move files and folders within a volume.

    What had the new name is replaced, and stays in the history.
    """
    if len(paths) < 2:
        raise Refusal("two paths are needed", "say what to move and where to")
    volume, target = volume_of(paths), paths[-1]

    async def work() -> tuple[list[tuple[VolPath, VolPath]], int | None]:
        async with names_of(context, volume) as (_, names):
            wanted = await expanded(names, paths[:-1])
            inode = await inode_at(names, target.path)
            into = inode is not None and inode.kind is Kind.FOLDER
            if not into and (target.folder or len(wanted) > 1):
                raise Refusal(f"{target} is not a folder", f"make it first: muni mkdir {target}")
            for one in wanted:
                await names.find(one.path, follow=False)
            moves = [(one, target.joined(one.name) if into else target) for one in wanted]
            if dry_run:
                return moves, None
            return moves, (await names.move([one.path for one in wanted], target.path)).index

    moves, entry = context.run(work)
    document = {
        "entry": entry,
        "moved": [{"path": _document_path(old), "to": _document_path(new)} for old, new in moves],
        "dry_run": dry_run,
    }
    context.emit(document, "\n".join(f"{old} -> {new}" for old, new in moves) if dry_run else None)
    return exit_codes.OK


def _document_path(path: VolPath) -> str:
    return "/" + os.fsdecode(path.path)


@click.command()
@click.argument("target", metavar=f"{METAVAR}|TARGET")
@click.argument("path", type=VolPathType(), metavar=METAVAR)
@click.option("-s", "--symbolic", is_flag=True, help="A symbolic link; TARGET is its text.")
@json_option
@pass_context
def ln(context: Context, target: str, path: VolPath, symbolic: bool) -> int:
    """Give a file of a volume another name, or make a symbolic link."""
    named = parse_vol_path(target)
    if symbolic and named is not None:
        raise Refusal(
            f"{target}: a symbolic link does not lead out of its volume",
            "give the path as it stands in the volume: relative to the link, or from / for the root",
        )
    if not symbolic and named is None:
        raise Refusal(f"{target!r} is not of the form VOL:/path", "for a symbolic link use -s")
    if named is not None:
        volume_of([named, path])
    name = os.fsencode(target.rstrip("/")).rpartition(b"/")[2] if named is None else named.name

    async def work() -> int:
        async with names_of(context, path.volume) as (_, names):
            inode = await inode_at(names, path.path)
            new = path.joined(name) if inode is not None and inode.kind is Kind.FOLDER else path
            if named is None:
                return (await names.symlink(os.fsencode(target), new.path)).index
            return (await names.link(named.path, new.path)).index

    context.emit({"entry": context.run(work)})
    return exit_codes.OK


# --- attributes


@click.command()
@click.argument("mode", metavar="MODE")
@paths_argument
@click.option("-R", "--recursive", is_flag=True, help="All below folders too.")
@json_option
@pass_context
def chmod(context: Context, mode: str, paths: tuple[VolPath, ...], recursive: bool) -> int:
    """Change permissions in a volume.

    MODE is octal, such as 640, or symbolic, such as u+x,go-w.
    """
    mode_of = _mode_of(mode)

    async def work() -> int:
        async with names_of(context, volume_of(paths)) as (_, names):
            wanted = [one.path for one in await expanded(names, paths)]
            return (await names.set_modes(wanted, mode_of, recursive=recursive)).index

    context.emit({"entry": context.run(work)})
    return exit_codes.OK


def _mode_of(text: str) -> Callable[[Inode], int]:
    """What becomes of a mode.  Raises: Refusal: the text is none."""
    if re.fullmatch("0*[0-7]{1,4}", text):
        fixed = int(text, 8)
        return lambda _: fixed
    changes = []
    for part in text.split(","):
        found = _SYMBOLIC.fullmatch(part)
        if found is None:
            raise Refusal(f"{text!r} is not a mode", "give three octal digits, such as 640, or u+x,go-w")
        who = sum({_WHO[one] for one in found[1]} if "a" not in found[1] else [0o777]) or 0o777
        what = sum({_WHAT[one] for one in found[3]})
        changes.append((who, found[2], what & who))

    def changed(inode: Inode) -> int:
        mode = inode.mode
        for who, how, what in changes:
            mode = {"+": mode | what, "-": mode & ~what, "=": mode & ~who | what}[how]
        return mode

    return changed


@click.command()
@paths_argument
@click.option("-c", "--no-create", is_flag=True, help="Do not make files that are not there.")
@json_option
@pass_context
def touch(context: Context, paths: tuple[VolPath, ...], no_create: bool) -> int:
    """Set the time of a volume's files to now, or make empty ones."""

    async def work() -> int | None:
        async with names_of(context, volume_of(paths)) as (_, names):
            wanted = [one.path for one in await expanded(names, paths, may_be_new=True)]
            done = await names.touch(wanted, time.time_ns(), create=not no_create)
            return None if done is None else done.index

    context.emit({"entry": context.run(work)})
    return exit_codes.OK
