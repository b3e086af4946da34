"""How long the past is kept: `muni retention`, `muni hold`, `muni prune`.  No node is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from muniment.engine.pruning import plan_prune
from muniment.engine.pruning import prune as write_prune
from muniment.engine.retention import Ruled, ruled_above, ruled_below
from muniment.engine.retention import hold as write_hold
from muniment.engine.retention import retain as write_rule
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.asking import confirm
from muniment.gateways.cli.authors import author_name
from muniment.gateways.cli.changing import dry_run_option
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.looking import looking_at
from muniment.gateways.cli.show import bytes_text, count_text, keep_text, table
from muniment.gateways.cli.values import Keep, Line
from muniment.gateways.cli.vol_paths import METAVAR, VolPath, VolPathType, names_of, shown
from muniment.gateways.cli.when import moment_text
from muniment.spec.act import NOTE_CHARS_MAX

if TYPE_CHECKING:
    from muniment.core.keeping.pruning import PrunePlan
    from muniment.engine.opened import OpenVolume

_SHOWN = 20
_path_argument = click.argument("path", type=VolPathType(), metavar=METAVAR)
_reason_option = click.option(
    "--reason",
    type=Line(NOTE_CHARS_MAX),
    metavar="TEXT",
    required=True,
    help="Why; members and auditors see it, the log service does not.",
)


# --- retention


@click.group()
@json_option
def retention() -> None:
    """Say how long versions are kept after others took their place."""


@retention.command("set")
@_path_argument
@click.option("--keep", type=Keep(), metavar="TIME", help="0, 36h, 30d, 3y, or forever.")
@click.option("--inherit", is_flag=True, help="As what is above says; the other way than --keep.")
@json_option
@pass_context
def set_retention(context: Context, path: VolPath, keep: int | None, inherit: bool) -> None:
    """Say how long versions of a file, or of all in a folder, are kept.

    The nearest rule above a file counts; without any its versions are kept for ever.  For owners; nothing
    goes before 'muni prune'.
    """
    if (keep is None) != inherit:
        raise click.UsageError("give either --keep or --inherit")

    async def work() -> int:
        async with names_of(context, path.volume) as (opened, _):
            return (await write_rule(opened.volume, path.path, keep)).index

    entry = context.run(work)
    context.emit({"entry": entry, "keep_s": keep})
    context.remark(f"versions at {path} are kept {keep_text(keep)}, by entry {entry}")


@retention.command("show")
@_path_argument
@json_option
@pass_context
def show_retention(context: Context, path: VolPath) -> None:
    """Show the rules and holds that count for a path, and those below it."""

    async def work() -> tuple[dict[str, Any], str]:
        async with looking_at(context, path.volume) as (opened, _):
            volume = opened.volume
            above = await volume.run(lambda: ruled_above(volume, path.path))
            below = await volume.run(lambda: ruled_below(volume, path.path))
            rules = [one.rule for one in above if one.rule is not None]
            document = {
                "keep_s": rules[-1].keep_s if rules else None,
                "held": any(one.hold is not None for one in above),
                "rules": [_ruled_document(opened, one) for one in above + below],
            }
            rows = [_ruled_row(opened, path.volume, one) for one in above + below]
            kept = keep_text(rules[-1].keep_s) if rules else "for ever: no rule says else"
            held = "; a hold keeps them whatever rules say" if document["held"] else ""
            return document, f"versions at {path} are kept {kept}{held}" + (
                f"\n{table(rows)}" if rows else ""
            )

    context.emit(*context.run(work))


def _ruled_document(opened: OpenVolume, one: Ruled) -> dict[str, Any]:
    return {
        "path": "/" + os.fsdecode(one.path),
        "keep_s": None if one.rule is None else one.rule.keep_s,
        "rule_entry": None if one.rule is None else one.rule.index,
        "hold_entry": None if one.hold is None else one.hold.index,
        "hold_by": None if one.hold is None else author_name(opened, one.hold.author),
        "reason": one.reason,
    }


def _ruled_row(opened: OpenVolume, volume: str, one: Ruled) -> tuple[str, str, str]:
    rule = "" if one.rule is None else f"kept {keep_text(one.rule.keep_s)} (entry {one.rule.index})"
    hold = ""
    if one.hold is not None:
        hold = f"HOLD by {author_name(opened, one.hold.author)} (entry {one.hold.index}): {one.reason}"
    return shown(volume, one.path), rule, hold.removesuffix(": ")


# --- hold


@click.group()
@json_option
def hold() -> None:
    """Keep all of the past of a file or folder, whatever rules say."""


@hold.command("on")
@_path_argument
@_reason_option
@json_option
@pass_context
def hold_on(context: Context, path: VolPath, reason: str) -> None:
    """Lay a hold: nothing that is or ever was below the path is pruned.

    For owners.  What was pruned before is gone.
    """
    _hold(context, path, reason, on=True)


@hold.command("off")
@_path_argument
@_reason_option
@json_option
@pass_context
def hold_off(context: Context, path: VolPath, reason: str) -> None:
    """Lift the hold that was laid on this very path."""
    _hold(context, path, reason, on=False)


def _hold(context: Context, path: VolPath, reason: str, *, on: bool) -> None:
    async def work() -> int:
        async with names_of(context, path.volume) as (opened, _):
            return (await write_hold(opened.volume, path.path, reason, on=on)).index

    entry = context.run(work)
    context.emit({"entry": entry, "held": on})
    context.remark(f"{path} is {'held' if on else 'not held any more'}, by entry {entry}")


# --- prune


@click.command()
@click.argument("volume", metavar="VOL")
@dry_run_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_context
def prune(context: Context, volume: str, dry_run: bool, yes: bool) -> int:
    """Give up versions whose time to be kept is over.

    Names, times and small contents stay in the log; what is kept, held, or referred to by anything else
    stays whole.  Keepers then give the space back, and nodes delete after their grace.  For owners.
    """

    async def work() -> tuple[PrunePlan, list[int], str]:
        async with names_of(context, volume) as (opened, _):
            one = opened.volume
            now_ns = one.now_ns()
            plan = await one.run(lambda: plan_prune(one, now_ns))
            lines, done = _text(opened, plan), list[int]()
            if plan.blobs and not dry_run:
                context.remark(lines)
                confirm(context, f"Give this up for ever in {volume}?", yes=yes)
                done = [made.index for made in await write_prune(one, plan)]
            return plan, done, lines

    plan, done, lines = context.run(work)
    document = {
        "dry_run": dry_run,
        "entries": done,
        "until_s": plan.until_ns / 1e9,
        "files": [
            {
                "path": "/" + os.fsdecode(one.path),
                "versions": len(one.ends),
                "rule_entry": one.rule.index,
                "keep_s": one.rule.keep_s,
            }
            for one in plan.files
        ],
        "blobs": len(plan.blobs),
        "held_blobs": plan.held,
        "size_bytes": plan.stored_bytes,
    }
    context.emit(document, lines if dry_run and plan.blobs else None)
    held = f"; holds keep {count_text(plan.held, 'blob')}" if plan.held else ""
    if not plan.blobs:
        context.remark(f"nothing is to go{held}")
    else:
        said = f"in entry {', '.join(map(str, done))}" if done else "would go"
        blobs = f"{count_text(len(plan.blobs), 'blob')} ({bytes_text(plan.stored_bytes)} on nodes)"
        context.remark(f"{'pruned ' if done else ''}{blobs} {said}{held}")
    return exit_codes.OK


def _text(opened: OpenVolume, plan: PrunePlan) -> str:
    rows = []
    for one in plan.files[:_SHOWN]:
        versions = count_text(len(one.ends), "version")
        rule = f"kept {keep_text(one.rule.keep_s)} (entry {one.rule.index})"
        rows.append((shown(opened.known.name, one.path), versions, rule))
    more = len(plan.files) - _SHOWN
    until = f"what was to be kept until {moment_text(plan.until_ns)} goes:\n" if rows else ""
    return (
        until + table(rows) + (f"\nand {count_text(more, 'file')} more" if more > 0 else "") if rows else ""
    )
