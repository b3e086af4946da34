"""`muni log`: the service that orders the changes of volumes, its backup, and a new one in its place."""

from __future__ import annotations

from pathlib import Path

import click

from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.processes import ADVERTISE, FOLDER, HOST, PORT, serving
from muniment.gateways.cli.show import count_text
from muniment.ids import id_text


@click.group()
def log() -> None:
    """Run a log service: orders the changes of volumes."""


@log.command("init")
@FOLDER
@HOST
@PORT
@ADVERTISE
@click.option(
    "--founder",
    "founders",
    multiple=True,
    metavar="MEMBER",
    help="Only these may make volumes here ('muni identity show' prints one's own).",
)
@json_option
@pass_context
def log_init(
    context: Context, folder: Path, host: str, port: int, advertise: str, founders: tuple[str, ...]
) -> None:
    """Make the folder of a new log service: its key and configuration."""
    address = context.composition.init_log(
        folder, host=host, port=port, advertise=advertise, founders=list(founders)
    )
    context.emit({"address": address, "folder": str(folder)}, address)
    context.remark(f"start it with: muni log run {folder}")


@log.command("run")
@FOLDER
@json_option
@pass_context
def log_run(context: Context, folder: Path) -> None:
    """Serve until stopped by Ctrl-C or SIGTERM.

    Prints its address as soon as it serves.
    """
    context.composition.run_log(folder, lambda address: serving(context, address))


@log.command("backup")
@FOLDER
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@json_option
@pass_context
def log_backup(context: Context, folder: Path, target: Path) -> None:
    """Copy all logs of a service to another folder; it may run meanwhile.

    To restore, copy the files back into FOLDER/logs while the service is stopped.
    """
    copies = context.composition.backup_logs(folder, target)
    context.emit({"copies": [str(copy) for copy in copies]}, "\n".join(map(str, copies)))
    context.remark(f"{count_text(len(copies), 'log')} copied")


@log.command("rehost")
@click.argument("volume", metavar="VOL")
@FOLDER
@json_option
@pass_context
def log_rehost(context: Context, volume: str, folder: Path) -> None:
    """Put this home's replica of a volume's log into another log service.

    FOLDER is that of the new service (`muni log init`), which must not run at the moment.  Any member can do
    it; whoever has seen most entries should, and others who have more do it again.  Then each member tells
    his home by 'muni volume move'.
    """
    entries = context.composition.rehost(context.home, volume, folder)
    known = next(one for one in context.composition.volumes(context.home) if one.name == volume)
    context.emit(
        {"volume": id_text(known.volume), "entries": entries},
        f"{count_text(entries, 'entry', 'entries')} are in the log of {folder}",
    )
    context.remark(f"start it with: muni log run {folder}\nthen: muni volume move {volume} ADDRESS")
