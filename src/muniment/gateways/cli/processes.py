"""`muni node` and `muni introducer`: the long-running processes."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from muniment.gateways.cli.composition import NewNode
from muniment.gateways.cli.context import Context, pass_context
from muniment.gateways.cli.show import bytes_text
from muniment.gateways.cli.values import Size, parse_size

_FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
_HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
_PORT = click.option("--port", default=0, help="Port to listen on.  [default: a free one, kept from then on]")
_ADVERTISE = click.option(
    "--advertise", default="", metavar="HOST:PORT", help="How others reach it, where that differs."
)


@click.group()
def node() -> None:
    """A process that keeps shares for accounts."""


@node.command("init")
@_FOLDER
@click.option("--capacity", type=Size(), default="10GiB", show_default=True, help="What the node gives.")
@_HOST
@_PORT
@_ADVERTISE
@click.option("--zone", default="", help="Failure zone: a rack, a house, a provider.")
@click.option("--store", default="posix", show_default=True, help="posix, or an object store's URL.")
@click.option("--introducer", "introducers", multiple=True, metavar="ADDRESS", help="Announce there.")
@click.option(
    "--invite",
    multiple=True,
    metavar="ACCOUNT[:QUOTA]",
    help="Serve these accounts only ('muni grid account' prints one's own).",
)
@pass_context
def node_init(
    context: Context,
    folder: Path,
    capacity: int,
    host: str,
    port: int,
    advertise: str,
    zone: str,
    store: str,
    introducers: tuple[str, ...],
    invite: tuple[str, ...],
) -> None:
    """Make the folder of a new node: its key, its configuration, room for shares."""
    invited = []
    for text in invite:
        account, colon, quota = text.partition(":")
        try:
            invited.append((account, parse_size(quota) if colon else -1))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--invite") from error
    new = NewNode(capacity, host, port, advertise, zone, store, introducers, invited)
    address = context.composition.init_node(folder, new)
    context.emit(
        {"address": address, "folder": str(folder), "capacity_bytes": capacity},
        f"{address}\nstart it with: muni node run {folder}",
    )


@node.command("run")
@_FOLDER
@pass_context
def node_run(context: Context, folder: Path) -> None:
    """Serve until stopped by Ctrl-C or SIGTERM."""
    context.composition.run_node(folder, lambda address: _serving(context, address))


@node.command("status")
@click.argument("target", metavar="FOLDER|ADDRESS")
@pass_context
def node_status(context: Context, target: str) -> None:
    """Ask a running node how it is."""
    address, status = context.run(lambda: context.composition.node_status(target))
    free = status.capacity_bytes - status.used_bytes - status.reserved_bytes
    context.emit(
        {"address": address, **msgspec.to_builtins(status)},
        f"{address}\n"
        f"version      {status.version}\n"
        f"capacity     {bytes_text(status.capacity_bytes)}\n"
        f"used         {bytes_text(status.used_bytes)} in {status.share_count} shares\n"
        f"reserved     {bytes_text(status.reserved_bytes)}\n"
        f"free         {bytes_text(max(0, free))}\n"
        f"quarantined  {status.quarantined_count} shares\n"
        f"reconciled   {'yes' if status.reconciled else 'still comparing store and ledger'}",
    )


@click.group()
def introducer() -> None:
    """A process by which clients find nodes."""


@introducer.command("init")
@_FOLDER
@_HOST
@_PORT
@_ADVERTISE
@pass_context
def introducer_init(context: Context, folder: Path, host: str, port: int, advertise: str) -> None:
    """Make the folder of a new introducer."""
    address = context.composition.init_introducer(folder, host=host, port=port, advertise=advertise)
    context.emit(
        {"address": address, "folder": str(folder)},
        f"{address}\nstart it with: muni introducer run {folder}",
    )


@introducer.command("run")
@_FOLDER
@pass_context
def introducer_run(context: Context, folder: Path) -> None:
    """Serve until stopped by Ctrl-C or SIGTERM."""
    context.composition.run_introducer(folder, lambda address: _serving(context, address))


def _serving(context: Context, address: str) -> None:
    """One line at once, so that whoever started the process can wait for it."""
    context.emit({"serving": address}, f"serving {address}")
    click.get_text_stream("stdout").flush()
