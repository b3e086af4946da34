"""`muni shell`: the commands on one volume, with a working folder on both sides, history and completion.

A line is a command of `muni` whose paths are relative: those in the volume to its working folder, those on
this machine to the local one.  The shell makes full ones of them and runs the command as the command line
would, so it has no commands of its own but these for moving about.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from muniment.errors import InvalidRequest, MunimentError
from muniment.gateways.cli import app, exit_codes, failure
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context, printable
from muniment.gateways.cli.passphrases import VARIABLE, passphrase_of
from muniment.gateways.cli.show import table

if TYPE_CHECKING:
    from prompt_toolkit.history import History

_HISTORY_FILE: Final = "shell-history"

REMOTE: Final = frozenset(
    (
        *("ls", "tree", "mkdir", "rmdir", "rm", "mv", "cp", "cat", "stat", "du", "touch", "find"),
        *("history", "diff", "restore", "share"),
    )
)
"""Commands whose paths are all in the volume."""

_FIRST_IS_NO_PATH: Final = frozenset({"chmod"})
_BUILTINS: Final = {
    "cd [FOLDER]": "go to a folder of the volume; without one, to its root",
    "pwd": "where you are, here and there",
    "lcd [FOLDER]": "go to a folder of this machine; without one, to your home",
    "lpwd": "where you are here",
    "lls [FOLDER]": "list a folder of this machine; 'local' is the same",
    "local [FOLDER]": "list a folder of this machine",
    "!COMMAND": "run a command of this machine",
    "help [COMMAND]": "this list, or a command's help",
    "exit": "leave; so does Ctrl-D",
}
_SECRET: Final = re.compile(r"mun:\w+:(read|verify|write):")


@click.command()
@click.argument("volume", metavar="VOL")
@json_option
@pass_context
def shell(context: Context, volume: str) -> int:
    """Work in a volume, with relative paths.

    All commands on its files.  Reads lines from a terminal, with history and completion, or from standard
    input; the exit status is that of the last command.  With --json each command prints its document.
    """
    asked: list[str] = []
    ask = passphrase_of(context)

    def remembering() -> str:
        asked.append(ask())
        return asked[-1]

    async def known() -> str:
        async with context.composition.open_volume(context.home, volume, remembering) as opened:
            return opened.known.name

    session = Shell(context, context.run(known))
    with _passphrase_kept(asked[-1] if asked else ""):
        return session.loop()


class _passphrase_kept:  # noqa: N801 - reads as the statement it is
    """Hands the passphrase to the commands in a file that exists in this process's memory only."""

    def __init__(self, passphrase: str) -> None:
        self._passphrase = passphrase
        self._fd = -1

    def __enter__(self) -> None:
        if self._passphrase:
            self._fd = os.memfd_create("passphrase", os.MFD_CLOEXEC)
            os.fchmod(self._fd, 0o600)
            os.write(self._fd, self._passphrase.encode())
            os.environ[VARIABLE] = f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            del os.environ[VARIABLE]
            os.close(self._fd)


@dataclass
class Shell:
    """One session.

    Attributes:
        volume: the user's name of it.
        folder: of the volume, components from the root.
        status: of the last command.
        environment: of commands of this machine, as this one got it.
    """

    context: Context
    volume: str
    folder: list[str] = field(default_factory=list)
    status: int = exit_codes.OK
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    def loop(self) -> int:
        """Read and run lines until there are no more; returns the last command's status."""
        for line in self._lines():
            if line.lstrip().startswith("!"):
                self.status = self._on_this_machine(line.strip()[1:])
                continue
            try:
                words = shlex.split(line, comments=True)
            except ValueError as error:
                click.echo(f"muni: {str(error).lower()}; quote names with blanks", err=True)
                self.status = exit_codes.USAGE
                continue
            if words and words[0] in ("exit", "quit"):
                break
            if words:
                self.status = self.run(words)
        return self.status

    def run(self, words: list[str]) -> int:
        """One command; returns its exit status."""
        builtin = _COMMANDS.get(words[0])
        if builtin is None:
            return app.run(self.context.composition, [*self._globals(), *self.expanded(words)])
        try:
            if len(words) > 2 and builtin is not Shell._help:
                raise Refusal(f"'{words[0]}' takes one name", "quote a name with blanks")
            builtin(self, words[1:])
        except (MunimentError, OSError, click.UsageError, KeyboardInterrupt) as error:
            return failure.report(error, self.context)
        return exit_codes.OK

    def words(self) -> list[str]:
        """With which a line can begin."""
        own = [words.split()[0] for words in _BUILTINS if not words.startswith("!")]
        return sorted([*own, *(name for name in app.COMMANDS if name not in _PROCESSES)])

    def _on_this_machine(self, line: str) -> int:
        """Run a line in the user's own shell; a script keeps its standard input for itself."""
        program = self.environment.get("SHELL") or "/bin/sh"
        stdin = None if sys.stdin.isatty() else subprocess.DEVNULL
        try:
            done = subprocess.run(  # noqa: S603 - the user's own line in his own shell
                [program, "-c", line], env=self.environment, stdin=stdin, check=False
            )
        except (OSError, KeyboardInterrupt) as error:
            return failure.report(error, self.context)
        return done.returncode if done.returncode >= 0 else exit_codes.of_signal(-done.returncode)

    # --- lines --------------------------------------------------------------------------------

    def _lines(self) -> Iterator[str]:
        if not sys.stdin.isatty():
            yield from sys.stdin
            return
        from prompt_toolkit import PromptSession

        from muniment.gateways.cli.completing import completer

        session: PromptSession[str] = PromptSession(
            history=history_in(self.context.home / _HISTORY_FILE),
            completer=completer(self),
            complete_while_typing=False,
        )
        while True:
            try:
                yield session.prompt(printable(f"{self.volume}:{self.path('')}> "))
            except KeyboardInterrupt:
                continue  # this line is not meant
            except EOFError:
                return

    # --- paths --------------------------------------------------------------------------------

    def path(self, text: str) -> str:
        """A path of the volume from its root."""
        parts = [] if text.startswith("/") else list(self.folder)
        for part in text.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        return "/" + "/".join(parts)

    def remote(self, text: str) -> str:
        """As the command line names it; what names a volume itself stays."""
        head, colon, _ = text.partition(":")
        if colon and head and "/" not in head and " " not in head:
            return text
        end = "/" if text.endswith("/") and self.path(text) != "/" else ""
        return f"{self.volume}:{self.path(text)}{end}"

    def expanded(self, words: list[str]) -> list[str]:
        """A line's words with its paths made full."""
        words = self._with_volume(words)
        command, arguments = words[0], words[1:]
        places = self.places(command, arguments)
        out = [command]
        for at, word in enumerate(arguments):
            out.append(self.remote(word) if places.get(at) == "remote" else word)
        if command == "put" and "remote" not in places.values():
            out.append(self.remote("."))
        elif command == "get" and "local" not in places.values():
            out.append(".")
        elif command in ("ls", "tree", "du", "find", "history") and not places:
            out.append(self.remote("."))
        return out

    def _with_volume(self, words: list[str]) -> list[str]:
        """With this volume where a command takes VOL and none is named."""
        depth = 2 if words[0] in _GROUPS else 1
        found = _command(words[:depth])
        wanted = [one for one in found.params if isinstance(one, click.Argument)] if found is not None else []
        metavar = wanted[0].metavar if wanted else ""
        given = [words[depth:][at] for at in _positionals(found, words[depth:])]
        needed = sum(one.required for one in wanted)
        if metavar == "VOL" and len(given) < needed:
            return [*words[:depth], self.volume, *words[depth:]]
        if metavar == "VOL:" and not (given and ":" in given[0]):
            return [*words[:depth], f"{self.volume}:", *words[depth:]]
        return words

    def places(self, command: str, arguments: list[str]) -> dict[int, str]:
        """Which of the arguments are paths, and whether in the volume or on this machine."""
        positions = _positionals(_command([command]), arguments)
        if command in _FIRST_IS_NO_PATH or (command == "ln" and {"-s", "--symbolic"} & set(arguments)):
            positions = positions[1:]
        if command in REMOTE or command in _FIRST_IS_NO_PATH or command == "ln":
            count = {"diff": 1, "snapshot": 1}.get(command, len(positions))
            return dict.fromkeys(positions[:count], "remote")
        if command == "put" and len(positions) > 1:
            return dict.fromkeys(positions[:-1], "local") | {positions[-1]: "remote"}
        if command == "get" and len(positions) > 1:
            return dict.fromkeys(positions[:-1], "remote") | {positions[-1]: "local"}
        return dict.fromkeys(positions, {"put": "local", "get": "remote"}.get(command, ""))

    def _globals(self) -> list[str]:
        words = ["--home", str(self.context.home)]
        if self.context.grid:
            words += ["--grid", self.context.grid]
        return [
            *words,
            *(["--quiet"] if self.context.quiet else []),
            *(["--json"] if self.context.json else []),
        ]

    # --- moving about -------------------------------------------------------------------------

    def _cd(self, words: list[str]) -> None:
        path = self.path(words[0]) if words else "/"
        try:
            self.context.composition.names(self.context.home, self.volume, os.fsencode(path))
        except InvalidRequest as error:
            raise Refusal(f"{path} is not a folder", "'ls' shows what there is") from error
        self.folder = [part for part in path.split("/") if part]

    def _pwd(self, _: list[str]) -> None:
        click.echo(f"{self.volume}:{self.path('')}\n{Path.cwd()}")

    def _lcd(self, words: list[str]) -> None:
        os.chdir(Path(words[0]).expanduser() if words else Path.home())

    def _lpwd(self, _: list[str]) -> None:
        click.echo(Path.cwd())

    def _local(self, words: list[str]) -> None:
        folder = Path(words[0]).expanduser() if words else Path()
        for entry in sorted(folder.iterdir()):
            click.echo(entry.name + ("/" if entry.is_dir() else ""))

    def _help(self, words: list[str]) -> None:
        if words:
            app.run(self.context.composition, [*words, "--help"])
            return
        commands = {name: summary for name, (_, summary) in app.COMMANDS.items() if name not in _PROCESSES}
        click.echo(table([*_BUILTINS.items(), *commands.items()]))


_COMMANDS: Final[dict[str, Callable[[Shell, list[str]], None]]] = {
    "cd": Shell._cd,  # noqa: SLF001 - of this module
    "pwd": Shell._pwd,  # noqa: SLF001
    "lcd": Shell._lcd,  # noqa: SLF001
    "lpwd": Shell._lpwd,  # noqa: SLF001
    "lls": Shell._local,  # noqa: SLF001
    "local": Shell._local,  # noqa: SLF001
    "help": Shell._help,  # noqa: SLF001
    "?": Shell._help,  # noqa: SLF001
}
_PROCESSES: Final = frozenset({"demo", "node", "introducer", "log", "shell"})
_GROUPS: Final = frozenset({"member", "volume"})


def history_in(path: Path) -> History:
    """Lines typed before, which are nobody else's business; those with a capability are not kept at all."""
    from prompt_toolkit.history import FileHistory

    class Lines(FileHistory):
        def store_string(self, string: str) -> None:
            if not _SECRET.search(string):
                super().store_string(string)

    path.touch(mode=0o600)
    path.chmod(0o600)
    return Lines(path)


def _command(words: list[str]) -> click.Command | None:
    """The command that a line begins with."""
    found: click.Command | None = app.muni
    for word in words:
        found = found.get_command(click.Context(found), word) if isinstance(found, click.Group) else None
    return found


def _positionals(found: click.Command | None, arguments: list[str]) -> list[int]:
    """Which words are no options and no values of options."""
    valued = {
        name
        for param in (found.params if found is not None else ())
        if isinstance(param, click.Option) and not param.is_flag and not param.count
        for name in param.opts
    }
    positions, skip, ended = [], False, False
    for at, word in enumerate(arguments):
        if skip:
            skip = False
        elif ended or word == "-" or not word.startswith("-"):
            positions.append(at)
        elif word == "--":
            ended = True
        else:
            skip = word in valued
    return positions
