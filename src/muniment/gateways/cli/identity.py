"""`muni identity`: who a user is in volumes, a seed in his home folder, locked by a passphrase."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

import click

from muniment.crypto.key_file import is_locked, lock_seed, unlock_seed
from muniment.errors import FileFailed
from muniment.gateways.cli.asking import confirm
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.passphrases import (
    new_passphrase,
    passphrase_in,
    passphrase_of,
    typed_twice,
)
from muniment.ids import id_text
from muniment.private_file import read_private

_UNLOCKED: Final = "the key is not locked: whoever can read this home can act as you"
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
@json_option
def identity() -> None:
    """Make and keep your identity, by which volumes know you."""


@identity.command("new")
@click.option("--unlocked", is_flag=True, help="Ask for no passphrase; for scripts.")
@click.option("--seed-file", type=_FILE, metavar="FILE", help="Use the identity that 'export' wrote.")
@json_option
@pass_context
def new(context: Context, unlocked: bool, seed_file: Path | None) -> None:
    """Make an identity in this home; prints its member id.

    A passphrase locks it: it is asked twice, or read from the file that MUNIMENT_PASSPHRASE_FILE names.
    """
    home = context.home
    if context.composition.has_identity(home):
        raise Refusal("this home has an identity already", "'muni identity show' prints it; or use --home")
    seed = None if seed_file is None else _read_seed(context, seed_file)
    passphrase = "" if unlocked else new_passphrase(context)
    secret = context.composition.make_identity(home, passphrase, seed)
    member = id_text(secret.member)
    context.emit({"member": member, "locked": bool(passphrase)}, member)
    if not passphrase:
        context.remark(_UNLOCKED)
    context.remark("keep a copy: 'muni identity export'; a lost identity or passphrase cannot be recovered")


@identity.command("show")
@json_option
@pass_context
def show(context: Context) -> None:
    """Print your member id: who you are in volumes."""
    secret = context.composition.identity(context.home, passphrase_of(context))
    member = id_text(secret.member)
    context.emit({"member": member, "locked": context.composition.identity_locked(context.home)}, member)


@identity.command("passwd")
@click.option("--unlocked", is_flag=True, help="Take the passphrase away.")
@click.option("--new-file", type=_FILE, metavar="FILE", help="Its first line is the new passphrase.")
@json_option
@pass_context
def passwd(context: Context, unlocked: bool, new_file: Path | None) -> None:
    """Lock your identity by another passphrase.

    Copies that were made before open with the old one.
    """
    if unlocked and new_file is not None:
        raise click.UsageError("--unlocked and --new-file exclude each other")
    ask = passphrase_of(context)
    secret = context.composition.identity(context.home, ask)  # before anything new is asked
    if unlocked:
        passphrase = ""
    elif new_file is not None:
        passphrase = passphrase_in(str(new_file))
    else:
        passphrase = typed_twice(context, "new passphrase")
    context.composition.change_passphrase(context.home, ask, passphrase)
    context.emit({"member": id_text(secret.member), "locked": bool(passphrase)})
    context.remark("the passphrase is changed" if passphrase else _UNLOCKED)


@identity.command("export")
@click.option("--output", type=_FILE, metavar="FILE", help="A new file, which only you can read.")
@json_option
@pass_context
def export(context: Context, output: Path | None) -> None:
    """Write your identity without its lock, for safe keeping.

    Whoever reads it can act as you.  Without --output it is shown on the terminal, and nowhere else.
    """
    if output is None:
        if context.json or not sys.stdout.isatty():
            raise Refusal("the seed of an identity goes to a file or a terminal only", "give --output FILE")
        confirm(context, "Whoever sees the seed can act as you. Show it here?", yes=False)
    elif output.exists():
        raise Refusal(f"{output} exists", "choose another name")
    secret = context.composition.identity(context.home, passphrase_of(context))
    text = lock_seed(secret.seed, "", entropy=os.urandom)
    if output is None:
        click.echo(text.decode(), nl=False)
        return
    _write_secret(output, text)
    context.emit({"member": id_text(secret.member), "output": str(output)})
    context.remark(f"written to {output}; 'muni identity new --seed-file' takes it back")


def _read_seed(context: Context, path: Path) -> bytes:
    """Raises: ConfigInvalid: others can read it; MalformedRecord: no key file; PassphraseWrong."""
    try:
        data = read_private(path)
    except OSError as error:
        raise FileFailed(path=str(path), reason=error.strerror or str(error)) from error
    passphrase = passphrase_of(context)() if is_locked(data) else ""
    return unlock_seed(data, passphrase, file=str(path))


def _write_secret(path: Path, data: bytes) -> None:
    """A new file of mode 0600, durable.  Raises: FileFailed."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
    except OSError as error:
        raise FileFailed(path=str(path), reason=error.strerror or str(error)) from error
