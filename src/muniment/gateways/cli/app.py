"""The command tree, global options, and the one place where a command line runs and ends.

Modules of commands are imported when their command is called, so that help answers at once.
"""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path
from typing import Final

import click

from muniment.gateways.cli import exit_codes, failure, log_lines
from muniment.gateways.cli.composition import Composition
from muniment.gateways.cli.context import Context, Stopped, json_option
from muniment.gateways.cli.examples import with_example

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("demo:demo", "See it all: six nodes, real files, faults, a volume."),
    "put": ("put:put", "Store files or folders; prints a capability for each."),
    "get": ("get:get", "Read a file or folder back, to standard output or a new place."),
    "check": ("check:check", "Ask the nodes how safe a file or folder is."),
    "repair": ("repair:repair", "Rebuild what is missing of a file or folder."),
    "usage": ("usage:usage", "Show what your account uses on each node, and until when."),
    "keeper": ("keeper:keeper", "Keep the content of volumes alive: check, repair, renew, move."),
    "cap": ("caps:cap", "Weaken or describe a capability."),
    "grid": ("grid:grid", "Choose the grid you use, and see its nodes."),
    "identity": ("identity:identity", "Make and keep your identity, by which volumes know you."),
    "volume": ("volumes:volume", "Make, join and look at volumes."),
    "member": ("members:member", "See, invite, accept and remove the members of a volume."),
    "ls": ("listing:ls", "List folders of a volume."),
    "tree": ("listing:tree", "Draw a folder of a volume with all below it."),
    "cat": ("copying:cat", "Write files of a volume to standard output."),
    "stat": ("finding:stat", "Tell all that a volume knows of a file or folder."),
    "du": ("finding:du", "Sum up the sizes of folders in a volume."),
    "find": ("finding:find_names", "Search a volume for names."),
    "mkdir": ("changing:mkdir", "Make folders in a volume."),
    "rmdir": ("changing:rmdir", "Remove empty folders of a volume."),
    "cp": ("cp:cp", "Copy within or between volumes, or to and from here."),
    "mv": ("changing:mv", "Rename or move files and folders within a volume."),
    "rm": ("changing:rm", "Remove files of a volume; its history keeps them."),
    "ln": ("changing:ln", "Give a file of a volume another name, or make a symbolic link."),
    "chmod": ("changing:chmod", "Change permissions in a volume."),
    "touch": ("changing:touch", "Set the time of a volume's files to now, or make empty ones."),
    "history": ("history:history", "Show the entries of a volume, or the versions of a file."),
    "diff": ("history:diff", "Tell what differs between two states of a volume."),
    "restore": ("history:restore", "Bring a file, a folder or a whole volume back to what it was."),
    "snapshot": ("history:snapshot", "Name the present state of a volume, or list those that have names."),
    "retention": ("retention:retention", "Say how long versions are kept after others took their place."),
    "hold": ("retention:hold", "Keep all of the past of a file or folder, whatever rules say."),
    "prune": ("retention:prune", "Give up versions whose time to be kept is over."),
    "share": ("share:share", "Print a capability of a file or folder in a volume."),
    "mount": ("mount:mount", "Have a volume as a folder of this machine."),
    "umount": ("mount:umount", "Take a mounted volume away, when all of it is saved."),
    "node": ("processes:node", "Run a node: give space to others."),
    "introducer": ("processes:introducer", "Run an introducer: where nodes and clients meet."),
    "audit": ("audit:audit", "Verify a whole volume again: log, tree, content."),
    "evidence": ("evidence:evidence", "Check what proves that a log service lied."),
    "witness": ("witness:witness", "Watch over the logs of volumes, and cosign what is consistent."),
    "queue": ("queue:queue", "See and mend the work that a keeper has still to do."),
    "shell": ("shell:shell", "Work in a volume, with relative paths."),
    "log": ("logs:log", "Run a log service: orders the changes of volumes."),
    "version": ("version:version", "What is installed here."),
}
"""Where each command is, and its line in the help; in the order in which people meet them."""

_EPILOG = f"""\b
Environment:
  MUNIMENT_GRID  introducer's address or roster file, as --grid
  MUNIMENT_HOME  folder of your key and settings, as --home
  MUNIMENT_PASSPHRASE_FILE  file of mode 0600 with your identity's passphrase, for scripts
  NO_COLOR       no colours

\b
Exit codes:
{exit_codes.table()}

A capability is a password to one file or folder.  Other users of this machine can see the arguments of your
commands, so every command that takes CAP also takes - (standard input) or @FILE."""


class Commands(click.Group):
    """A group that imports a command's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"muniment.gateways.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return with_example(command, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:  # click knows only those that are imported
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=COMMANDS, ctx=ctx
            ) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # click would make an exit code 1 of it
            raise Stopped(signal.SIGPIPE) from error
        except KeyboardInterrupt as error:  # click would print an empty line, wherever that goes
            if sys.stderr.isatty():
                click.echo(err=True)  # after the terminal's own ^C
            raise Stopped(signal.SIGINT) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--grid", metavar="ADDRESS|FILE", envvar="MUNIMENT_GRID", help="Instead of the grid joined.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    envvar="MUNIMENT_HOME",
    help="Folder of your key and settings.  [default: ~/.local/share/muniment]",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, no remarks.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="What is logged to standard error; debug shows tracebacks.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How: a line for people, or an object a line for programs.",
)
@json_option
@click.pass_obj
def muni(
    context: Context, grid: str | None, home: Path | None, quiet: bool, log_level: str, log_format: str
) -> None:
    """Store files on machines nobody has to trust, and prove that they are still there.

    Files are encrypted here, cut into shares of which any few restore them, and spread over the nodes of a
    grid.  What you keep is a capability: a line of text that opens the file again.

    Start with 'muni demo'.
    """
    context.grid, context.quiet, context.debug = grid or None, quiet, log_level == "debug"
    context.home = home or context.composition.default_home()
    log_lines.begin(log_level, log_format)


def run(composition: Composition, arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code.

    Args:
        composition: makes the parts.
        arguments: without the program's name; None for those of the process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    context = Context(composition, json="--json" in words)
    try:
        code = muni.main(args=words, prog_name="muni", obj=context, standalone_mode=False)
    except SystemExit as done:
        return int(done.code or 0)
    except BaseException as error:  # noqa: BLE001 - every failure ends in one message and one code
        return failure.report(error, context)
    return code if isinstance(code, int) else exit_codes.OK
