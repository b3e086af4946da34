"""How a command that failed ends: what happened, what to do next, one exit code, no traceback unasked."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Any

import click

from muniment.errors import FileFailed, InternalError, MunimentError
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, Refusal, Stopped, printable


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed command.

    Attributes:
        exit_code: of the process.
        code: stable, for programs.
        message: what happened, one line.
        hint: what to do next; may be empty.
        facts: the error's fields.
    """

    exit_code: int
    code: str
    message: str
    hint: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """For --json."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "facts": self.facts}


def failure_of(error: BaseException, context: Context) -> Failure:
    """What to tell of any exception that ends a command."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case KeyboardInterrupt() | click.Abort() | Stopped(number=signal.SIGINT):
            return Failure(exit_codes.INTERRUPTED, "interrupted", "interrupted", context.interrupted)
        case Stopped(number=number):
            name = signal.Signals(number).name
            return Failure(
                exit_codes.of_signal(number), "interrupted", f"stopped by {name}", context.interrupted
            )
        case Refusal(hint=hint) if hint:
            return Failure(exit_codes.USAGE, "usage", error.message, hint)
        case click.UsageError(ctx=ctx):
            command = ctx.command_path if ctx else "muni"
            return Failure(exit_codes.USAGE, "usage", _said(error), f"see '{command} --help'")
        case click.ClickException():
            return Failure(exit_codes.USAGE, "usage", _said(error), "see 'muni --help'")
        case OSError():
            path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "input/output"
            return _of_leaf(FileFailed(path=path, reason=error.strerror or str(error)))
        case MunimentError():
            return _of_leaf(error)
    return _of_leaf(InternalError(reason=f"{type(error).__name__}: {error}"))


def _said(error: click.ClickException) -> str:
    """In one line."""
    return " ".join(error.format_message().split())


def _of_leaf(error: MunimentError) -> Failure:
    hint = error.hint
    if isinstance(error, InternalError):
        hint += "; '--log-level debug' before the command shows it"
    facts = {name: _plain(value) for name, value in error.facts().items()}
    return Failure(exit_codes.exit_code(error), error.code, str(error), hint, facts)


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float) else str(value)


def report(error: BaseException, context: Context) -> int:
    """Tell of it, as text on standard error or as a JSON document; returns the exit code."""
    if context.debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Stopped) and error.number == signal.SIGPIPE:
        _pacify()
        return exit_codes.of_signal(error.number)
    failure = failure_of(error, context)
    try:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            click.echo(error.format_message(), err=True)
        elif context.json:
            context.emit({"error": failure.document})
        else:
            label = "muni:" if os.environ.get("NO_COLOR") else click.style("muni:", fg="red")
            click.echo(f"{label} {printable(failure.message)}", err=True)
            if failure.hint:
                click.echo(f"      {printable(failure.hint)}", err=True)
    except BrokenPipeError:
        _pacify()
    return failure.exit_code


def _pacify() -> None:
    """Whoever read our output went away: what is still buffered goes nowhere.

    Else the interpreter would complain of it at its end.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(null, stream.fileno())
