"""`muni shell`: the commands on one volume, with a working folder on both sides, history and completion.

A line is a command of `muni` whose paths are relative: those in the volume to its working folder, those on
this machine to the local one.  The shell makes full ones of them and runs the command as the command line
would, so it has no commands of its own but these for moving about.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from muniment.errors import MunimentError
from muniment.gateways.cli import app, exit_codes, failure
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.passphrases import VARIABLE, passphrase_of
from muniment.gateways.cli.show import table

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

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
    "lcd [FOLDER]": "go to a folder of this machine",
    "local [FOLDER]": "list a folder of this machine",
    "help [COMMAND]": "this list, or a command's help",
    "exit": "leave; so does Ctrl-D",
}
_WORDS: Final = [words.split()[0] for words in _BUILTINS]


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

    name = context.run(known)
    with _passphrase_kept(asked[-1] if asked else ""):
        return Shell(context, name).loop()


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
    """

    context: Context
    volume: str
    folder: list[str] = field(default_factory=list)
    status: int = exit_codes.OK

    def loop(self) -> int:
        """Read and run lines until there are no more; returns the last command's status."""
        for line in self._lines():
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
            builtin(self, words[1:])
        except (MunimentError, OSError) as error:
            told = failure.failure_of(error, self.context)
            click.echo(f"muni: {told.message}", err=True)
            return told.exit_code
        return exit_codes.OK

    # --- lines --------------------------------------------------------------------------------

    def _lines(self) -> Iterator[str]:
        if not sys.stdin.isatty():
            yield from sys.stdin
            return
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory

        history = self.context.home / _HISTORY_FILE
        history.touch(mode=0o600)
        session: PromptSession[str] = PromptSession(
            history=FileHistory(str(history)), completer=_completer(self), complete_while_typing=False
        )
        while True:
            try:
                yield session.prompt(f"{self.volume}:{self.path('')}> ")
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

    def places(self, command: str, arguments: list[str]) -> dict[int, str]:
        """Which of the arguments are paths, and whether in the volume or on this machine."""
        positions = _positionals(command, arguments)
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
        self.context.composition.names(self.context.home, self.volume, os.fsencode(path))
        self.folder = [part for part in path.split("/") if part]

    def _pwd(self, _: list[str]) -> None:
        click.echo(f"{self.volume}:{self.path('')}\n{Path.cwd()}")

    def _lcd(self, words: list[str]) -> None:
        os.chdir(Path(words[0]).expanduser() if words else Path.home())

    def _local(self, words: list[str]) -> None:
        folder = Path(words[0]).expanduser() if words else Path()
        for entry in sorted(folder.iterdir()):
            click.echo(entry.name + ("/" if entry.is_dir() else ""))

    def _help(self, words: list[str]) -> None:
        if words:
            app.run(self.context.composition, [words[0], "--help"])
            return
        commands = {name: summary for name, (_, summary) in app.COMMANDS.items() if name not in _PROCESSES}
        click.echo(table([*_BUILTINS.items(), *commands.items()]))


_COMMANDS: Final[dict[str, Callable[[Shell, list[str]], None]]] = {
    "cd": Shell._cd,  # noqa: SLF001 - of this module
    "pwd": Shell._pwd,  # noqa: SLF001
    "lcd": Shell._lcd,  # noqa: SLF001
    "local": Shell._local,  # noqa: SLF001
    "help": Shell._help,  # noqa: SLF001
    "?": Shell._help,  # noqa: SLF001
}
_PROCESSES: Final = frozenset({"demo", "node", "introducer", "log", "shell"})


def _positionals(command: str, arguments: list[str]) -> list[int]:
    """Which words are no options and no values of options."""
    found = app.muni.get_command(click.Context(app.muni), command)
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


def _completer(shell: Shell) -> Completer:
    from prompt_toolkit.completion import Completer, Completion

    class Names(Completer):
        """Commands, then names of the volume or of this machine, whichever the command takes there."""

        def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
            for text, begun in completions(shell, document.text_before_cursor):
                yield Completion(text, start_position=-begun)

    return Names()


def completions(shell: Shell, line: str) -> Iterator[tuple[str, int]]:
    """What may stand at the end of a line: the text, and how many typed characters it replaces."""
    start = _last_word(line)
    words, typed = _split(line[:start]), len(line) - start
    begun = next(iter(_split(line[start:])), "")
    if not words:
        names = [*_WORDS, *(name for name in app.COMMANDS if name not in _PROCESSES)]
        yield from ((f"{name} ", typed) for name in sorted(names) if name.startswith(begun))
        return
    above, slash, last = begun.rpartition("/")
    command, arguments = words[0], [*words[1:], begun]
    place = shell.places(command, arguments).get(len(arguments) - 1)
    is_local = command in ("lcd", "local") or place == "local"
    for name, is_folder in _local_names(above + slash) if is_local else _remote_names(shell, above + slash):
        if name.startswith(last):
            yield shlex.quote(above + slash + name) + ("/" if is_folder else " "), typed


def _last_word(line: str) -> int:
    """Where the last word begins, which may be quoted and need not be ended."""
    start, quote = 0, ""
    for at, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            start = at + 1
    return start


def _split(text: str) -> list[str]:
    for ending in ("", "'", '"'):
        try:
            return shlex.split(text + ending)
        except ValueError:
            continue
    return text.split()


def _remote_names(shell: Shell, folder: str) -> list[tuple[str, bool]]:
    path = os.fsencode(shell.path(folder))
    try:
        found = shell.context.composition.names(shell.context.home, shell.volume, path)
    except MunimentError:
        return []
    return [(os.fsdecode(name), is_folder) for name, is_folder in found]


def _local_names(folder: str) -> list[tuple[str, bool]]:
    try:
        return [(one.name, one.is_dir()) for one in sorted(Path(folder or ".").expanduser().iterdir())]
    except OSError:
        return []
