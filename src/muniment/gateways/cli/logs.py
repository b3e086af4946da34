"""`muni log`: the service that orders the changes of volumes, its backup, its archive on the grid, and a new
one in its place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from muniment.gateways.cli.audit import EXIT
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.processes import ADVERTISE, FOLDER, HOST, PORT, require_folder, serving
from muniment.gateways.cli.show import bytes_text, count_text
from muniment.gateways.cli.values import CAP_HELP, Line, cap_argument
from muniment.ids import id_text
from muniment.spec.act import NAME_CHARS_MAX


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
    require_folder(folder, "log")
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


@log.command("audit")
@FOLDER
@json_option
@pass_context
def log_audit(context: Context, folder: Path) -> int:
    """Verify all logs of a service again; it may run meanwhile.

    Everything that needs no key of a volume: every signature, right, hash and checkpoint, the databases, the
    service's key.  Content is for members to audit ('muni audit').
    """
    report = context.run(lambda: context.composition.audit_logs(folder))
    context.emit(report.to_json(), report.text())
    return EXIT[report.verdict]


@log.command("rehost", epilog=CAP_HELP)
@click.argument("volume", metavar="VOL|CAP")
@FOLDER
@click.option("--from-grid", is_flag=True, help="Take the log from its archive at the nodes.")
@click.option(
    "--incomplete", is_flag=True, help="With --from-grid: be content with what comes before the first gap."
)
@click.option(
    "--name",
    type=Line(NAME_CHARS_MAX),
    metavar="NAME",
    help="What to call the volume of a CAP here.  [default: its own name]",
)
@json_option
@pass_context
def log_rehost(
    context: Context, volume: str, folder: Path, from_grid: bool, incomplete: bool, name: str | None
) -> None:
    """Put a volume's log into another log service.

    FOLDER is that of the new service (`muni log init`), which must not run at the moment.  Any member can do
    it with this home's replica; whoever has seen most entries should, and others who have more do it again.
    Then each member tells his home by 'muni volume move'.

    With --from-grid the log comes from the tiles that keepers have put on the grid, and a capability of the
    volume (CAP) is enough; what this home has besides is used too.  The home then knows the volume.
    """
    if not from_grid:
        if incomplete or name is not None:
            raise Refusal("--incomplete and --name go with --from-grid", "add it, or leave them away")
        entries = context.composition.rehost(context.home, volume, folder)
        known = next(one for one in context.composition.volumes(context.home) if one.name == volume)
        _hosted(context, known.volume, entries, folder, {})
        context.remark(f"start it with: muni log run {folder}\nthen: muni volume move {volume} ADDRESS")
        return
    text = cap_argument(volume).strip()
    with _counting(context) as told:
        done = context.run(
            lambda: context.composition.rehost_from_grid(
                context.home,
                context.grid,
                text,
                folder,
                passphrase_of(context),
                name=name,
                incomplete=incomplete,
                told=told,
            )
        )
    restored, missing = done.restored, done.restored.missing
    _hosted(
        context,
        done.volume,
        done.entries,
        folder,
        {
            "tiles": restored.tiles,
            "own_entries": restored.own,
            "missing_from": missing.start if missing else None,
            "troubles": restored.troubles,
            "name": done.kept.name if done.kept else None,
        },
    )
    for line in restored.troubles:
        context.remark(f"warning: {line}")
    if missing:
        context.remark(f"warning: {missing}")
    after = (
        f"this home knows the volume as: {done.kept.name}"
        if done.kept
        else "then: muni volume move VOL ADDRESS"
    )
    context.remark(f"start it with: muni log run {folder}\n{after}")


def _hosted(context: Context, volume: bytes, entries: int, folder: Path, more: dict[str, Any]) -> None:
    context.emit(
        {"volume": id_text(volume), "entries": entries, **more},
        f"{count_text(entries, 'entry', 'entries')} are in the log of {folder}",
    )


@contextlib.contextmanager
def _counting(context: Context) -> Iterator[Callable[[int], None]]:
    """Shows how many entries there are, to a person who looks."""
    if not context.shows_progress:
        yield lambda entries: None
        return
    try:
        yield lambda entries: click.echo(
            f"\r{count_text(entries, 'entry', 'entries')} restored", nl=False, err=True
        )
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


@log.command("archive")
@click.argument("volume", metavar="VOL")
@click.option("--look", is_flag=True, help="Write nothing; only tell how far the archive is.")
@json_option
@pass_context
def log_archive(context: Context, volume: str, look: bool) -> None:
    """Put a volume's log on the grid, and tell how far it is there.

    A keeper does it by itself, for all that is older than 5 minutes.  From the tiles whoever has a capability
    of yours makes the log of a new service, by 'muni log rehost --from-grid'.  They lie under an account of
    their own, which nodes that serve invited accounts only must admit.
    """
    done = context.run(
        lambda: context.composition.archive_log(
            context.home, volume, context.grid, passphrase_of(context), write=not look
        )
    )
    standing = done.standing
    missing = standing.size - standing.archived
    lines = [
        f"{standing.archived} of {count_text(standing.size, 'entry', 'entries')} are on the grid, "
        f"in {count_text(standing.tiles, 'tile')} ({bytes_text(standing.tiles_bytes)})"
        + (f"; {missing} ARE NOT" if missing else "")
    ]
    if standing.weak:
        lines.append(f"{count_text(standing.weak, 'tile')} with fewer shares than the volume asks for")
    if standing.written or standing.given_up:
        lines.append(f"{standing.written} written, {standing.given_up} given up")
    context.emit(
        {"volume": id_text(done.known.volume), "account": id_text(done.account), **standing.to_json()},
        "\n".join(lines),
    )
    for line in standing.troubles:
        context.remark(f"warning: {line}")
