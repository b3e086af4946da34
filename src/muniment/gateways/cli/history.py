"""A volume's past: `muni history`, `diff`, `restore`, `snapshot`.  No node is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click

from muniment.engine.volume_history import Differs, Event, PathDifference, events, path_differences
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.authors import author_name
from muniment.gateways.cli.changing import dry_run_option
from muniment.gateways.cli.context import Context, Refusal, json_option, limit_option, pass_context
from muniment.gateways.cli.looking import looking_at
from muniment.gateways.cli.show import bytes_text, count_text, keep_text, table
from muniment.gateways.cli.vol_paths import METAVAR, VolPath, VolPathType, names_of, path_text
from muniment.gateways.cli.when import entry_at, maybe_at, moment_text
from muniment.spec.act import (
    Accept,
    ChangePolicy,
    Found,
    Hold,
    Join,
    Kick,
    Leave,
    Mend,
    Prune,
    Report,
    Retain,
    Rotate,
)
from muniment.spec.operation import Kind

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume
    from muniment.engine.volume_names import VolumeNames

_SIGNS: Final = {
    Differs.ADDED: "+",
    Differs.REMOVED: "-",
    Differs.MOVED: ">",
    Differs.CHANGED: "*",
    Differs.ATTRIBUTES: ".",
}

_Rows = list[tuple[str, str, str, str]]

_path_argument = click.argument("path", type=VolPathType(), metavar=METAVAR)


# --- history


@click.command()
@_path_argument
@limit_option
@json_option
@pass_context
def history(context: Context, path: VolPath, limit: int) -> int:
    """Show the entries of a volume, or the versions of a file.

    The newest come first.
    """
    start = 0

    async def work() -> tuple[dict[str, Any], _Rows]:
        nonlocal start
        async with looking_at(context, path.volume) as (opened, names):
            start = opened.volume.view.start
            if not path.path:
                return await _entries(opened, limit)
            return await _versions(opened, names, path, limit)

    document, rows = context.run(work)
    context.emit(document, table(rows, right=(0,)))
    if start and len(rows) < limit:
        brings = f"'muni volume fetch {path.volume}' brings it"
        context.remark(f"what came before entry {start} is not on this machine; {brings}")
    return exit_codes.OK


async def _entries(opened: OpenVolume, limit: int) -> tuple[dict[str, Any], _Rows]:
    size = opened.volume.view.size
    found = await opened.volume.run(lambda: list(events(opened.volume, max(size - limit, 0), size)))
    documents, rows = [], []
    for event in reversed(found):
        meta, rejection = event.folded.meta, event.folded.rejection
        author, what = author_name(opened, meta.author), _what(opened, event)
        documents.append(
            {
                "entry": event.folded.index,
                "time_s": meta.time_ns / 1e9,
                "author": author,
                "what": what,
                "message": meta.message,
                "added": event.added,
                "removed": event.removed,
                "moved": event.moved,
                "changed": event.changed,
                "rejected": rejection.reason if rejection is not None else None,
            }
        )
        said = f"{what}: {meta.message}" if meta.message else what
        rows.append((str(event.folded.index), moment_text(meta.time_ns), author, said.replace("\n", " ")))
    return {"entries": documents}, rows


def _what(opened: OpenVolume, event: Event) -> str:
    if event.folded.rejection is not None:
        return f"rejected: {event.folded.rejection.reason}"
    match event.act:
        case Found(name=name):
            return f"founded {name}"
        case Join(card=card, role=role):
            return f"{card.name} asks to join as {role.name.lower()}"
        case Accept(member=member, role=role):
            return f"accepts {author_name(opened, member)} as {role.name.lower()}"
        case Kick(member=member):
            return f"votes to remove {author_name(opened, member)}"
        case Leave():
            return "leaves"
        case Rotate():
            return "new keys"
        case ChangePolicy():
            return "votes for a policy"
        case Mend(epoch):
            return f"mends the way to the keys of epoch {epoch}"
        case Report(urgent):
            return "reports a loss" if urgent else "reports"
        case Retain(inode, keep_s):
            return f"lets versions of inode {inode} be kept {keep_text(keep_s)}"
        case Hold(inode, on):
            return f"{'lays' if on else 'lifts'} a hold on inode {inode}"
        case Prune(count=count):
            return f"prunes {count_text(count, 'blob')}"
    counts = {"added": event.added, "removed": event.removed, "moved": event.moved, "changed": event.changed}
    return (
        ", ".join(f"{count} {how}" for how, count in counts.items() if count) or "attributes, or a snapshot"
    )


async def _versions(
    opened: OpenVolume, names: VolumeNames, path: VolPath, limit: int
) -> tuple[dict[str, Any], _Rows]:
    if (await names.find(path.path)).kind is not Kind.FILE:
        hint = f"see all entries with 'muni history {path.volume}:', what changed in it with 'muni diff'"
        raise Refusal(f"{path} is not a file", hint)
    found = (await names.history(path.path))[-limit:][::-1]
    documents = [
        {
            "entry": one.index,
            "time_s": one.time_ns / 1e9,
            "author": author_name(opened, one.author),
            "size_bytes": one.size,
        }
        for one in found
    ]
    rows = [
        (str(one.index), moment_text(one.time_ns), author_name(opened, one.author), bytes_text(one.size))
        for one in found
    ]
    return {"versions": documents}, rows


# --- diff


@click.command()
@_path_argument
@click.argument("before", metavar="WHEN")
@click.argument("after", metavar="[WHEN]", default="now")
@json_option
@pass_context
def diff(context: Context, path: VolPath, before: str, after: str) -> int:
    """Tell what differs between two states of a volume."""

    async def work() -> tuple[int, int | None, list[PathDifference]]:
        async with looking_at(context, path.volume) as (opened, _):
            was = await entry_at(opened, before)
            now = await maybe_at(opened, None if after == "now" else after)
            return was, now, await _differences(opened, path, was, now)

    was, now, found = context.run(work)
    document = {"before": was, "after": now, "differences": [_difference_document(one) for one in found]}
    context.emit(document, _differences_text(found) or None)
    context.remark(_counts(found))
    return exit_codes.OK


async def _differences(
    opened: OpenVolume, path: VolPath, before: int | None, after: int | None
) -> list[PathDifference]:
    view = opened.volume.view
    return await opened.volume.run(
        lambda: path_differences(view.reading(before), view.reading(after), path.path)
    )


def _difference_document(one: PathDifference) -> dict[str, Any]:
    return {
        "path": "/" + os.fsdecode(one.path),
        "how": one.how.value,
        "old_path": "/" + os.fsdecode(one.old_path) if one.old_path else None,
        "size_bytes": one.after.size if one.after is not None else None,
        "old_size_bytes": one.before.size if one.before is not None else None,
    }


def _differences_text(found: list[PathDifference]) -> str:
    return "\n".join(f"{_SIGNS[one.how]} {_named(one)}" for one in found)


def _named(one: PathDifference) -> str:
    inode = one.after or one.before
    name = "/" + path_text(one.path) + ("/" if inode is not None and inode.kind is Kind.FOLDER else "")
    return f"/{path_text(one.old_path)} -> {name}" if one.how is Differs.MOVED else name


def _counts(found: list[PathDifference]) -> str:
    counts = [(sum(one.how is how for one in found), how.value) for how in Differs]
    return ", ".join(f"{count} {how}" for count, how in counts if count) or "no difference"


# --- restore


@click.command()
@_path_argument
@click.option("--at", "when", required=True, metavar="WHEN", help="Which state to bring back.")
@dry_run_option
@click.option("-m", "--message", metavar="TEXT", default="", help="Why, for the history.")
@json_option
@pass_context
def restore(context: Context, path: VolPath, when: str, dry_run: bool, message: str) -> int:
    """Bring a file, a folder or a whole volume back to what it was.

    One entry of the log; what is replaced stays in the history.
    """

    async def work() -> tuple[int, int | None, list[PathDifference]]:
        async with names_of(context, path.volume) as (opened, names):
            at = await entry_at(opened, when)
            await names.find(path.path, at=at, follow=False)
            found = await _differences(opened, path, None, at)
            if dry_run or not found:
                return at, None, found
            return at, (await names.restore(path.path, at, message=message)).index, found

    at, entry, found = context.run(work)
    document = {
        "at": at,
        "entry": entry,
        "differences": [_difference_document(one) for one in found],
        "dry_run": dry_run,
    }
    context.emit(document, _differences_text(found) or None if dry_run else None)
    done = "would be restored" if dry_run else f"restored in entry {entry}"
    context.remark(
        f"{path} as after entry {at} {done}: {_counts(found)}" if found else f"{path} is as it was"
    )
    return exit_codes.OK


# --- snapshot


@click.command()
@click.argument("path", type=VolPathType(), metavar="VOL:")
@click.argument("name", metavar="[NAME]", required=False)
@json_option
@pass_context
def snapshot(context: Context, path: VolPath, name: str | None) -> int:
    """Name the present state of a volume, or list those that have names."""
    if path.path:
        raise Refusal("a snapshot is of a whole volume", f"write {path.volume}: without a path")
    if name is not None and name.isascii() and name.isdigit():
        raise Refusal(f"{name} would be taken for an entry's number", "choose a name with a letter")

    async def work() -> tuple[list[tuple[bytes, int]], dict[int, int]]:
        async with names_of(context, path.volume) as (opened, names):
            if name is not None:
                await names.snapshot(os.fsencode(name))
            view = opened.volume.view
            found = list(await opened.volume.run(view.snapshots))
            if name is not None:
                found = [one for one in found if one[0] == os.fsencode(name)]
            times = {at: await opened.volume.run(lambda at=at: view.entries(at, at + 1)) for _, at in found}  # type: ignore[misc]
            return found, {at: entries[0].meta.time_ns for at, entries in times.items() if entries}

    found, times = context.run(work)
    document = [
        {"name": os.fsdecode(one), "entry": at, "time_s": times.get(at, 0) / 1e9} for one, at in found
    ]
    rows = [(path_text(one), f"entry {at}", moment_text(times.get(at, 0))) for one, at in found]
    if name is None:
        context.emit({"snapshots": document}, table(rows) if rows else None)
    else:
        context.emit({"snapshots": document})
        context.remark(f"{name} is {path.volume} as after entry {found[0][1]}")
    return exit_codes.OK
