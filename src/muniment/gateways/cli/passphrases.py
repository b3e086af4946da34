"""How the passphrase of an identity reaches a command: typed unseen, or from a file; never as an argument.

Other users of a machine see the arguments of a command and, on some systems, its environment, so the variable
MUNIMENT_PASSPHRASE_FILE names a file and does not hold the passphrase.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from muniment.errors import ConfigInvalid
from muniment.gateways.cli.asking import has_terminal, signals_at_once
from muniment.gateways.cli.context import Context, Refusal
from muniment.private_file import read_private

VARIABLE: Final = "MUNIMENT_PASSPHRASE_FILE"
_HINT: Final = f"run it on a terminal, or set {VARIABLE} to a file of mode 0600 that holds it"


def passphrase_of(context: Context) -> Callable[[], str]:
    """What asks for the present passphrase of the identity, once for a command.

    The file that MUNIMENT_PASSPHRASE_FILE names is read where it is set; else the person at the terminal is
    asked, even if standard input is a file, as long as standard error is that terminal.
    Raises, when it is called: Refusal: nobody can be asked; ConfigInvalid: the file cannot be used.
    """

    def ask() -> str:
        if context.passphrase is None:
            stored = _from_file()
            context.passphrase = _typed(context, "passphrase") if stored is None else stored
        return context.passphrase

    return ask


def new_passphrase(context: Context) -> str:
    """A passphrase for a new identity, from the file if there is one; empty to leave it unlocked.

    Raises: as `passphrase_of`.
    """
    stored = _from_file()
    return typed_twice(context, "passphrase for the new identity") if stored is None else stored


def typed_twice(context: Context, prompt: str) -> str:
    """A new passphrase from the person at the terminal.  Raises: Refusal: there is none."""
    while True:
        first = _typed(context, f"{prompt} (empty: no lock)")
        if first == _typed(context, "once more"):
            return first
        click.echo("these were not the same", err=True)


def passphrase_in(path: str, where: str = "") -> str:
    """The first line of a file that only its owner can read.

    Args:
        where: what to call it in an error.
    Raises: ConfigInvalid: others can read it, or it holds no such line.
    """
    where = where or path
    try:
        line = read_private(Path(path), where=where).decode().partition("\n")[0].removesuffix("\r")
    except OSError as error:
        raise ConfigInvalid(where=where, reason=error.strerror or str(error)) from error
    except UnicodeDecodeError:
        raise ConfigInvalid(where=where, reason="it is not a text") from None  # its cause shows the bytes
    if not line:
        raise ConfigInvalid(where=where, reason="its first line is empty")
    return line


def _from_file() -> str | None:
    """What the file that the environment names holds; None where it names none."""
    path = os.environ.get(VARIABLE)
    return passphrase_in(path, f"{VARIABLE}={path}") if path else None


def _typed(context: Context, prompt: str) -> str:
    if context.json or not sys.stderr.isatty() or not has_terminal():
        raise Refusal("the identity's passphrase is needed, and nobody can be asked for it", _HINT)
    with signals_at_once():
        typed: str = click.prompt(prompt, default="", show_default=False, hide_input=True, err=True)
    return typed
