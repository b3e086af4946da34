"""What all commands share: global options, output, errors and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from muniment.errors import ConfigInvalid, InternalError, MunimentError
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.composition import Composition

_T = TypeVar("_T")


@dataclass(slots=True)
class Context:
    """One run of the command line.

    Attributes:
        home: the user's folder: account key, roster address and cache.
        grid: roster from --grid or MUNIMENT_GRID; None for the one joined.
        json: print one JSON document instead of text.
        quiet: no progress and no remarks.
        debug: show tracebacks.
    """

    composition: Composition
    home: Path
    grid: str | None
    json: bool
    quiet: bool
    debug: bool

    def emit(self, document: dict[str, Any], text: str | None = None) -> None:
        """Print a result: the document with --json, else the text."""
        if self.json:
            click.echo(json.dumps(document, indent=2, default=str))
        elif text is not None:
            click.echo(text)

    def remark(self, text: str) -> None:
        """Something for a person, on standard error."""
        if not self.quiet and not self.json:
            click.echo(text, err=True)

    @property
    def interactive(self) -> bool:
        """Whether a person looks at standard error."""
        return not self.quiet and not self.json and sys.stderr.isatty()

    def roster(self) -> str:
        """Where the nodes are.

        Raises: ConfigInvalid: not said anywhere: the first thing a new user meets, so it says all ways.
        """
        if self.grid:
            return self.grid
        joined = self.home / "roster-address"
        try:
            return joined.read_text().strip()
        except FileNotFoundError as error:
            raise ConfigInvalid(
                where="no grid is known yet",
                reason="run 'muni grid join ADDRESS' once (an introducer's address or a roster file), "
                "or give --grid, or set MUNIMENT_GRID; 'muni demo --keep' starts a grid to try",
            ) from error

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run one command's work on a loop of its own; Ctrl-C cancels it and waits for it to clean up."""
        return asyncio.run(work())


pass_context = click.make_pass_decorator(Context)


def fail(error: BaseException, *, as_json: bool, debug: bool) -> NoReturn:
    """End the process with what happened, what to do next, and the family's exit code."""
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, BaseExceptionGroup):
        error = _first(error)
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        click.echo("interrupted; nothing unfinished was left behind", err=True)
        _leave(exit_codes.INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        _leave(141)  # as the shell reports a writer killed by SIGPIPE
    if not isinstance(error, MunimentError):
        error = InternalError(reason=f"{type(error).__name__}: {error}")
    if as_json:
        facts = {"code": error.code, "message": str(error), "hint": error.hint, "facts": error.facts()}
        click.echo(json.dumps({"error": facts}, indent=2, default=str))
    else:
        click.echo(f"muni: {error}", err=True)
        if error.hint:
            click.echo(f"      {error.hint}", err=True)
    _leave(exit_codes.exit_code(error))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _leave(code: int) -> NoReturn:
    """Exit without touching a standard output that may be a broken pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)
