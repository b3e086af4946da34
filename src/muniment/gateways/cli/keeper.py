"""`muni keeper`: keeps the content of volumes alive, with the verify right only."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from muniment.core.keeping.repair import Condition
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context, printable
from muniment.gateways.cli.kept import keeper_log
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import bytes_text, count_text, table
from muniment.gateways.cli.values import Size
from muniment.ids import id_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muniment.core.keeping.job import KindCount
    from muniment.engine.keeping.archive import Standing
    from muniment.engine.keeping.duties import Duties
    from muniment.engine.keeping.keeper import Keeper
    from muniment.gateways.cli.composition import KeeperPost

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
    from muniment.engine.keeping.duties import Duties

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
@click.option("--metrics", metavar="HOST:PORT", default="", help="Serve metrics for Prometheus there.")
@_duties_options
@json_option
@pass_context
def keeper_run(
    context: Context, /, volumes: tuple[str, ...], every: float, metrics: str, **options: Any
) -> None:
    """Keep volumes until stopped by Ctrl-C or SIGTERM; prints a line after each scan.

    What is under way then goes on at the next start; 'muni queue' shows what there is to do.
    """

    def tell(post: KeeperPost) -> None:
        if context.json:
            click.echo(json.dumps(_document(post)))
        else:
            moment = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            click.echo(printable(f"{moment}  {_line(post)}"))

    host, _, port = metrics.rpartition(":")
    if metrics and not (host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise Refusal(f"{metrics} is no address", "give it as HOST:PORT, such as 127.0.0.1:9421")
    duties = _duties(every=every, **options)
    context.composition.run_keepers(
        context.home, volumes, context.grid, passphrase_of(context), duties, tell, metrics
    )


@keeper.command("once")
@click.argument("volumes", metavar="VOL...", nargs=-1, required=True)
@_duties_options
@json_option
@pass_context
def keeper_once(context: Context, /, volumes: tuple[str, ...], **options: Any) -> int:
    """Scan volumes once, do all that is due, archive their logs, and end: for cron.

    The exit code tells: 0 all shares are in place and leased, 10 readable but something is still missing, 11
    something is not readable at present.
    """

    async def work() -> Sequence[tuple[KeeperPost, KindCount]]:
        return await context.composition.keep_once(
            context.home, volumes, context.grid, passphrase_of(context), _duties(**options)
        )

    done = context.run(work)
    documents = [_document(post) | {"open_repairs": left.waiting + left.aside} for post, left in done]
    lines = []
    for post, left in done:
        lines.append(_line(post))
        if left.waiting + left.aside:
            repairs = count_text(left.waiting + left.aside, "repair")
            lines.append(f"      {repairs} could not be done yet: see 'muni queue list', and run this again")
        if not post.keeper.tally.scans:
            lines.append("      the scan is not finished: see 'muni queue list', and run this again")
        if not _archived(post.archiver.standing):
            lines.append("      the log is not whole on the grid: see 'muni queue list', and run this again")
    context.emit({"kept": documents}, printable("\n".join(lines)))
    if any(_lost(post.keeper) for post, _ in done):
        return exit_codes.UNRECOVERABLE
    missing = any(
        left.waiting + left.aside
        or not post.keeper.tally.scans
        or post.keeper.tally.unpaid
        or post.keeper.tally.conditions[Condition.DEGRADED]
        or not _archived(post.archiver.standing)
        for post, left in done
    )
    return exit_codes.DEGRADED if missing else exit_codes.OK


keeper.add_command(keeper_log)


@keeper.command("account")
@click.argument("volume", metavar="VOL")
@json_option
@pass_context
def keeper_account(context: Context, volume: str) -> None:
    """Print the accounts under which this home keeps a volume.

    One is for its content, one for the archive of its log.  Nodes that serve invited accounts only must admit
    both ('muni node init --invite').
    """
    accounts = context.composition.keeper_accounts(context.home, volume, passphrase_of(context))
    context.emit(accounts, table(list(accounts.items())))


def _lost(one: Keeper) -> int:
    return one.tally.conditions[Condition.LOST] + one.tally.conditions[Condition.OUT_OF_REACH]


def _archived(standing: Standing | None) -> bool:
    """Whether all of a log is on the grid, with shares on enough nodes."""
    return standing is not None and standing.archived == standing.size and not standing.weak


def _line(post: KeeperPost) -> str:
    known, one = post.known, post.keeper
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
    if (standing := post.archiver.standing) is not None:
        entries = count_text(standing.size, "entry", "entries")
        weak = f" ({count_text(standing.weak, 'tile')} weak)" if standing.weak else ""
        parts.append(f"log: {standing.archived} of {entries} archived{weak}")
    return ", ".join(parts)


def _document(post: KeeperPost) -> dict[str, Any]:
    known, one, standing = post.known, post.keeper, post.archiver.standing
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
        "archive": standing
        and {
            "entries": standing.size,
            "archived": standing.archived,
            "tiles": standing.tiles,
            "tiles_bytes": standing.tiles_bytes,
            "weak_tiles": standing.weak,
            "silent_nodes": standing.silent,
            "troubles": list(standing.troubles),
        },
    }
