"""`muni node` and `muni introducer`: the long-running processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muniment.errors import ConfigInvalid
from muniment.gateways.cli.composition import NewNode
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.drain import drain
from muniment.gateways.cli.show import bytes_text, table
from muniment.gateways.cli.values import Size, parse_size
from muniment.gateways.cli.when import moment_text

if TYPE_CHECKING:
    from muniment.spec.wire import ScrubStatus

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
HOST = click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Where to listen.")
PORT = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Where to listen.  [default: a free one, kept from then on]",
)
ADVERTISE = click.option(
    "--advertise", default="", metavar="HOST:PORT", help="How others reach it, where that differs."
)


@click.group()
@json_option
def node() -> None:
    """Run a node: give space to others."""


@node.command("init")
@FOLDER
@click.option("--capacity", type=Size(), default="10GiB", show_default=True, help="What the node gives.")
@HOST
@PORT
@ADVERTISE
@click.option("--zone", metavar="ZONE", default="", help="What fails together: a rack, a house, a provider.")
@click.option(
    "--store",
    metavar="posix|URL",
    default="posix",
    show_default=True,
    help="A folder, or the URL of an object store.",
)
@click.option(
    "--introducer", "introducers", multiple=True, metavar="ADDRESS", help="Announce the node there."
)
@click.option(
    "--invite",
    multiple=True,
    metavar="ACCOUNT[:QUOTA]",
    help="Serve these accounts only ('muni grid account' prints one's own).",
)
@json_option
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
    """Make the folder of a new node: its key and configuration.

    node.toml in the folder may be edited before the start and between runs.
    """
    invited = []
    for text in invite:
        account, colon, quota = text.partition(":")
        try:
            invited.append((account, parse_size(quota) if colon else -1))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--invite") from error
    new = NewNode(capacity, host, port, advertise, zone, store, introducers, tuple(invited))
    address = context.composition.init_node(folder, new)
    context.emit({"address": address, "folder": str(folder), "capacity_bytes": capacity}, address)
    context.remark(f"start it with: muni node run {folder}")


@node.command("run")
@FOLDER
@json_option
@pass_context
def node_run(context: Context, folder: Path) -> None:
    """Serve until stopped by Ctrl-C or SIGTERM.

    Prints its address as soon as it serves.
    """
    require_folder(folder, "node")
    context.composition.run_node(folder, lambda address: serving(context, address))


@node.command("status")
@click.argument("target", metavar="FOLDER|ADDRESS")
@click.option("--record", is_flag=True, help="Print the signed record only, as a roster file takes it.")
@json_option
@pass_context
def node_status(context: Context, target: str, record: bool) -> None:
    """Ask a running node how it is."""
    if not target.startswith("mun:"):
        require_folder(Path(target), "node")
    address, status = context.run(lambda: context.composition.node_status(target))
    free_bytes = max(0, status.capacity_bytes - status.used_bytes - status.reserved_bytes)
    document = {
        "address": address,
        "version": status.version,
        "time_s": status.time_s,
        "capacity_bytes": status.capacity_bytes,
        "used_bytes": status.used_bytes,
        "reserved_bytes": status.reserved_bytes,
        "free_bytes": free_bytes,
        "share_count": status.share_count,
        "quarantined_count": status.quarantined_count,
        "reconciled": status.reconciled,
        "draining": status.draining,
        "leased_count": status.leased_count,
        "leased_bytes": status.leased_bytes,
        "scrub": _scrub_document(status.scrub),
        "record": status.record,
    }
    if record:
        context.emit(document, status.record)
        return
    rows = [
        ("address", address),
        ("version", status.version),
        ("capacity", bytes_text(status.capacity_bytes)),
        ("used", f"{bytes_text(status.used_bytes)} in {status.share_count} shares"),
        ("reserved", bytes_text(status.reserved_bytes)),
        ("free", bytes_text(free_bytes)),
        ("quarantined", f"{status.quarantined_count} shares"),
        ("reconciled", "yes" if status.reconciled else "not yet: still comparing its store with its ledger"),
        ("leases", f"{status.leased_count} ({bytes_text(status.leased_bytes)}), without those in the trash"),
        *_scrub_rows(status.scrub),
        *([("draining", "yes: takes no new shares")] if status.draining else []),
    ]
    context.emit(document, table(rows))


def _scrub_document(scrub: ScrubStatus | None) -> dict[str, Any] | None:
    return {name: getattr(scrub, name) for name in scrub.__struct_fields__} if scrub else None


def _scrub_rows(scrub: ScrubStatus | None) -> list[tuple[str, str]]:
    """What is known of the node's reading its shares again."""
    if scrub is None:
        return [("scrub", "not begun")]
    whole = f"since {moment_text(int(scrub.whole_since_s * 1e9))}" if scrub.whole_since_s else "not yet"
    now = f"{scrub.done:.0%} of this round: {scrub.share_count} shares ({bytes_text(scrub.read_bytes)})"
    found = f"{scrub.found_count} shares damaged or missing"
    if scrub.unreadable_count:
        found += f"; {scrub.unreadable_count} cannot be read in this round: look at the disk"
    return [("all read", whole), ("scrub", now), ("scrub found", found)]


node.add_command(drain)


@click.group()
@json_option
def introducer() -> None:
    """Run an introducer: where nodes and clients meet."""


@introducer.command("init")
@FOLDER
@HOST
@PORT
@ADVERTISE
@json_option
@pass_context
def introducer_init(context: Context, folder: Path, host: str, port: int, advertise: str) -> None:
    """Make the folder of a new introducer: its key and configuration."""
    address = context.composition.init_introducer(folder, host=host, port=port, advertise=advertise)
    context.emit({"address": address, "folder": str(folder)}, address)
    context.remark(f"start it with: muni introducer run {folder}")


@introducer.command("run")
@FOLDER
@json_option
@pass_context
def introducer_run(context: Context, folder: Path) -> None:
    """Serve until stopped by Ctrl-C or SIGTERM.

    Prints its address as soon as it serves.
    """
    require_folder(folder, "introducer")
    context.composition.run_introducer(folder, lambda address: serving(context, address))


def require_folder(folder: Path, kind: str) -> None:
    """Raises: ConfigInvalid: there is no such folder."""
    if not folder.is_dir():
        raise ConfigInvalid(
            where=str(folder), reason=f"there is no such folder; 'muni {kind} init {folder}' makes one"
        )


def serving(context: Context, address: str) -> None:
    """One line at once, so that whoever started the process can wait for it."""
    context.emit({"serving": address}, f"serving {address}")
    sys.stdout.flush()
