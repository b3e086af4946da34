"""Completion in `muni shell`: commands, then names of the volume or of this machine, with blanks or without.

Names of the volume are those that this machine has seen: nobody is asked while a person types.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from muniment.errors import MunimentError

LOCAL = frozenset({"lcd", "lls", "local"})
"""Words of the shell that take a path of this machine."""

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    from muniment.gateways.cli.shell import Shell


def completer(shell: Shell) -> Completer:
    """What the prompt asks when a person presses Tab."""
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
        yield from ((f"{name} ", typed) for name in shell.words() if name.startswith(begun))
        return
    above, slash, last = begun.rpartition("/")
    command, arguments = words[0], [*words[1:], begun]
    place = shell.places(command, arguments).get(len(arguments) - 1)
    is_local = command in LOCAL or place == "local"
    for name, is_folder in _local_names(above + slash) if is_local else _remote_names(shell, above + slash):
        if name.startswith(last):
            yield shlex.quote(above + slash + name) + ("/" if is_folder else " "), typed


def _last_word(line: str) -> int:
    """Where the last word begins, which may be quoted and need not be ended."""
    start, quote, escaped = 0, "", False
    for at, letter in enumerate(line):
        if escaped:
            escaped = False
        elif letter == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            start = at + 1
    return start


def _split(text: str) -> list[str]:
    for ending in ("", "'", '"', "\\"):
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
