"""`muni witness`: watches over the logs of volumes, and cosigns what is consistent."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

import click

from muniment.engine.opened import KnownVolume
from muniment.engine.witness import Cosigned, Trouble
from muniment.errors import LogForked
from muniment.gateways.cli import exit_codes, failure
from muniment.gateways.cli.context import Context, json_option, pass_context, printable
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import count_text
from muniment.ids import id_text


@click.group()
@json_option
def witness() -> None:
    """Watch over the logs of volumes, and cosign what is consistent."""


@witness.command("run")
@click.argument("volumes", metavar="VOL...", nargs=-1, required=True)
@click.option("--once", is_flag=True, help="Cosign what is newest now, and end: for cron.")
@json_option
@pass_context
def witness_run(context: Context, volumes: tuple[str, ...], once: bool) -> int:
    """Cosign the checkpoints of volumes as they come, until stopped by Ctrl-C or SIGTERM.

    Prints a line for each.  A log that contradicts what was seen of it before is never cosigned again; the
    others go on.
    """
    if once:
        return _once(context, volumes)

    def tell(known: KnownVolume, what: Cosigned | Trouble) -> None:
        if context.json:
            click.echo(json.dumps(_document(known, what, context)))
        elif isinstance(what, Cosigned):
            click.echo(_line(known, what))
        else:
            _complain(context, known, what)

    refused = context.composition.run_witness(context.home, volumes, passphrase_of(context), tell)
    return exit_codes.of_family(LogForked) if refused else exit_codes.OK


def _once(context: Context, volumes: tuple[str, ...]) -> int:
    told: list[tuple[KnownVolume, Cosigned | Trouble]] = []
    context.run(
        lambda: context.composition.cosign_once(
            context.home, volumes, passphrase_of(context), lambda known, what: told.append((known, what))
        )
    )
    told.sort(key=lambda one: one[0].name)
    good = [(known, what) for known, what in told if isinstance(what, Cosigned)]
    bad = [(known, what) for known, what in told if isinstance(what, Trouble)]
    context.emit(
        {
            "cosigned": [_document(known, what, context) for known, what in good],
            "failed": [_document(known, what, context) for known, what in bad],
        },
        "\n".join(_line(known, what) for known, what in good) or None,
    )
    for known, what in bad:
        if not context.json:
            _complain(context, known, what)
    codes = [exit_codes.exit_code(what.error) for _, what in bad]
    forked = exit_codes.of_family(LogForked)
    return forked if forked in codes else max(codes, default=exit_codes.OK)


def _line(known: KnownVolume, done: Cosigned) -> str:
    moment = dt.datetime.fromtimestamp(done.time_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = count_text(done.size, "entry", "entries")
    return printable(f"{moment}  {known.name}  {entries}  {base64.b64encode(done.root).decode()}")


def _complain(context: Context, known: KnownVolume, trouble: Trouble) -> None:
    """A failure that ends nothing yet looks as one that does."""
    told = failure.failure_of(trouble.error, context)
    again = "" if trouble.again_s is None else f" (again in {trouble.again_s:g} s)"
    click.echo(printable(f"muni: {known.name}: {told.message}{again}\n      {told.hint}"), err=True)


def _document(known: KnownVolume, what: Cosigned | Trouble, context: Context) -> dict[str, Any]:
    document: dict[str, Any] = {"volume": id_text(known.volume), "name": known.name}
    if isinstance(what, Cosigned):
        root = base64.b64encode(what.root).decode()
        return document | {"entries": what.size, "root": root, "time_s": what.time_s}
    return document | {"error": failure.failure_of(what.error, context).document, "again_s": what.again_s}
