"""`muni keeper`: keeps the content of volumes alive, with the verify right only."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from muniment.core.keeping.repair import Condition
from muniment.engine.opened import KnownVolume
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, json_option, pass_context, printable
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import bytes_text, count_text
from muniment.gateways.cli.values import Size
from muniment.ids import id_text

if TYPE_CHECKING:
    from muniment.engine.keeping.keeper import Duties, Keeper

_HOUR_S = 3600.0


@click.group()
@json_option
def keeper() -> None:
    """Keep the content of volumes alive: check, repair, renew, move."""


def _duties_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `run` and `once` have in common."""
    for option in (
        click.option(
            "--below",
            type=click.IntRange(min=1),
            metavar="N",
            help="Rebuild only blobs with fewer than N shares; without it, as soon as one is missing.",
        ),
        click.option(
            "--sample",
            type=click.IntRange(min=1),
            metavar="N",
            default=1,
            show_default=True,
            help="Have one in N blobs proven, the others only asked for.",
        ),
        click.option(
            "--patience",
            type=click.FloatRange(min=0),
            metavar="HOURS",
            default=24.0,
            show_default=True,
            help="Count the shares of a node that is away for less as live.",
        ),
        click.option("--stay", is_flag=True, help="Leave shares where they are when nodes come or go."),
        click.option(
            "--rate", type=Size(), metavar="SIZE", help="Read and send at most so many bytes a second."
        ),
    ):
        command = option(command)
    return command


def _duties(
    below: int | None, sample: int, patience: float, stay: bool, rate: int | None, every: float = 24.0
) -> Duties:
    from muniment.engine.keeping.keeper import Duties

    return Duties(
        repair_below=below,
        sample=sample,
        offline_s=patience * _HOUR_S,
        scan_s=every * _HOUR_S,
        bytes_per_s=math.inf if rate is None else rate,
        move=not stay,
    )


@keeper.command("run")
@click.argument("volumes", metavar="VOL...", nargs=-1, required=True)
@click.option(
    "--every",
    type=click.FloatRange(min=0, min_open=True),
    metavar="HOURS",
    default=24.0,
    show_default=True,
    help="From the end of a scan to the next.",
)
@_duties_options
@json_option
@pass_context
def keeper_run(context: Context, /, volumes: tuple[str, ...], every: float, **options: Any) -> None:
    """Keep volumes until stopped by Ctrl-C or SIGTERM; prints a line after each scan.

    What is under way then goes on at the next start; 'muni queue' shows what there is to do.
    """

    def tell(known: KnownVolume, one: Keeper) -> None:
        if context.json:
            click.echo(json.dumps(_document(known, one)))
        else:
            moment = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            click.echo(printable(f"{moment}  {_line(known, one)}"))

    context.composition.run_keepers(
        context.home, volumes, context.grid, passphrase_of(context), _duties(every=every, **options), tell
    )


@keeper.command("once")
@click.argument("volumes", metavar="VOL...", nargs=-1, required=True)
@_duties_options
@json_option
@pass_context
def keeper_once(context: Context, /, volumes: tuple[str, ...], **options: Any) -> int:
    """Scan volumes once, do all that is due, and end: for cron.

    The exit code tells: 0 all shares are in place, 10 readable but something is still missing, 11 something
    is not readable at present.
    """

    async def work() -> list[tuple[KnownVolume, Keeper, Any]]:
        return await context.composition.keep_once(
            context.home, volumes, context.grid, passphrase_of(context), _duties(**options)
        )

    done = context.run(work)
    documents = [
        _document(known, one) | {"open_repairs": left.waiting + left.aside} for known, one, left in done
    ]
    lines = []
    for known, one, left in done:
        lines.append(_line(known, one))
        if left.waiting + left.aside:
            repairs = count_text(left.waiting + left.aside, "repair")
            lines.append(f"      {repairs} could not be done yet: see 'muni queue list', and run this again")
    context.emit({"kept": documents}, printable("\n".join(lines)))
    if any(_lost(one) for _, one, _ in done):
        return exit_codes.UNRECOVERABLE
    missing = any(
        left.waiting + left.aside or one.tally.conditions[Condition.DEGRADED] for _, one, left in done
    )
    return exit_codes.DEGRADED if missing else exit_codes.OK


@keeper.command("account")
@click.argument("volume", metavar="VOL")
@json_option
@pass_context
def keeper_account(context: Context, volume: str) -> None:
    """Print the account under which this home keeps a volume.

    Nodes that serve invited accounts only must admit it ('muni node init --invite').
    """
    account = context.composition.keeper_account(context.home, volume, passphrase_of(context))
    context.emit({"account": account}, account)


def _lost(one: Keeper) -> int:
    return one.tally.conditions[Condition.LOST] + one.tally.conditions[Condition.OUT_OF_REACH]


def _line(known: KnownVolume, one: Keeper) -> str:
    tally, repaired = one.tally, one.repaired
    blobs = count_text(tally.conditions.total(), "blob")
    parts = [f"{known.name}  {blobs}: {tally.conditions[Condition.WHOLE]} whole"]
    if due := tally.conditions[Condition.DUE]:
        parts.append(f"{due} due for repair")
    if degraded := tally.conditions[Condition.DEGRADED]:
        parts.append(f"{degraded} with shares missing")
    if lost := _lost(one):
        parts.append(f"{lost} NOT READABLE")
    parts.append(f"{count_text(tally.proofs, 'proof')}, {count_text(tally.leased, 'lease')} taken")
    if repaired.rebuilt:
        rebuilt = count_text(repaired.rebuilt, "share")
        parts.append(f"{rebuilt} rebuilt ({bytes_text(repaired.rebuilt_bytes)})")
    if repaired.moved:
        parts.append(f"{repaired.moved} moved")
    if tally.collected:
        parts.append(f"{tally.collected} given up")
    for reason, count in tally.unpaid.items():
        parts.append(f"{count} without a lease ({reason})")
    return ", ".join(parts)


def _document(known: KnownVolume, one: Keeper) -> dict[str, Any]:
    tally, repaired = one.tally, one.repaired
    return {
        "volume": id_text(known.volume),
        "name": known.name,
        "scans": tally.scans,
        "conditions": {condition.value: tally.conditions[condition] for condition in Condition},
        "proofs": tally.proofs,
        "leased": tally.leased,
        "unleased": dict(tally.unpaid),
        "collected": tally.collected,
        "rebuilt_shares": repaired.rebuilt,
        "rebuilt_bytes": repaired.rebuilt_bytes,
        "moved_shares": repaired.moved,
        "read_bytes": repaired.read_bytes,
    }
