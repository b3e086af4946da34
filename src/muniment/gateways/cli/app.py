"""The command tree and the one place where errors become messages and exit codes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
import platformdirs

from muniment.gateways.cli import exit_codes, processes, transfer
from muniment.gateways.cli.composition import Composition
from muniment.gateways.cli.context import Context, fail
from muniment.gateways.cli.demo import demo
from muniment.gateways.cli.version import version

_EPILOG = f"""\b
Environment:
  MUNIMENT_GRID   introducer address or roster file, as --grid
  MUNIMENT_HOME   folder of your account key and settings, as --home

\b
{exit_codes.TABLE}"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--grid", metavar="ADDRESS|FILE", envvar="MUNIMENT_GRID", help="Where the nodes are.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MUNIMENT_HOME",
    default=lambda: Path(platformdirs.user_config_dir("muniment")),
    help="Folder of your account key and settings.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, no remarks.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    help="What goes to standard error besides; debug shows tracebacks.",
)
@click.pass_context
def muni(ctx: click.Context, grid: str | None, home: Path, quiet: bool, log_level: str) -> None:
    """Store files on machines nobody has to trust, and prove that they are still there.

    Files are encrypted here, cut into shares of which any k restore them, and spread over the nodes of a
    grid.  What you keep is a capability: a line of text that opens the file again.
    """
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    ctx.obj = Context(
        composition=ctx.obj, home=home, grid=grid, json=False, quiet=quiet, debug=log_level == "debug"
    )


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.obj, Context):
        ctx.obj.json = True


def _with_json(command: click.Command) -> click.Command:
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _with_json(child)
    else:
        option = click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            help="Print one JSON document.",
            callback=_set_json,
        )
        command.params.append(option)
    return command


for _command in (
    demo,
    processes.node,
    processes.introducer,
    transfer.grid,
    transfer.put,
    transfer.get,
    transfer.check,
    transfer.cap,
    version,
):
    muni.add_command(_with_json(_command))


def run(composition: Composition, arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code.

    Args:
        composition: makes the parts.
        arguments: without the program's name; None for those of the process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    as_json, debug = "--json" in words, "--log-level=debug" in words or "debug" in words
    try:
        muni.main(args=words, prog_name="muni", obj=composition, standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return _failed(KeyboardInterrupt(), as_json, debug)
    except click.ClickException as error:
        error.show()
        return 2
    except SystemExit as done:
        return int(done.code or 0)
    except BaseException as error:  # noqa: BLE001 - every failure ends in one message and one code
        return _failed(error, as_json, debug)
    return exit_codes.OK


def _failed(error: BaseException, as_json: bool, debug: bool) -> int:
    try:
        fail(error, as_json=as_json, debug=debug)
    except SystemExit as done:
        return int(done.code or 0)
