"""What all commands share: global options, output, and the loop with its signals."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from muniment.gateways.cli.composition import Composition

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import FrameType

    from muniment.engine.grid import Grid
    from muniment.engine.policy import Policy

_T = TypeVar("_T")
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal ended the command, which has cleaned up.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def printable(text: str) -> str:
    """The text with everything a terminal might obey, or not be able to show, as a backslash and its code.

    Names of files, zones of nodes and what they answer are made by others.
    """
    if all(char.isprintable() or char == "\n" for char in text):
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


class Refusal(click.UsageError):
    """What was asked for cannot be meant; `hint` says what to do instead of 'see --help'."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(slots=True)
class Context:
    """One run of the command line.

    Attributes:
        composition: makes the parts.
        home: the user's folder: account key, joined grid, last known nodes.
        grid: roster from --grid or MUNIMENT_GRID; None for the one joined.
        json: print one JSON document instead of text.
        quiet: no progress and no remarks.
        debug: show tracebacks.
        interrupted: what to tell somebody who pressed Ctrl-C.
        passphrase: of the identity, once it was given; see `passphrases`.
    """

    composition: Composition
    home: Path = field(default_factory=Path)
    grid: str | None = None
    json: bool = False
    quiet: bool = False
    debug: bool = False
    interrupted: str = "nothing unfinished is left behind"
    passphrase: str | None = field(default=None, repr=False)

    def emit(self, document: dict[str, Any], text: str | None = None) -> None:
        """Print a result: the document with --json, else the text."""
        if self.json:
            click.echo(json.dumps(document, indent=2))
        elif text is not None:
            click.echo(printable(text))

    def remark(self, text: str) -> None:
        """Something for a person, on standard error."""
        if not self.quiet and not self.json:
            click.echo(printable(text), err=True)

    def warn(self, text: str) -> None:
        """Something that nobody may overlook, on standard error; not silenced by --quiet or --json."""
        click.echo(printable(f"muni: {text}"), err=True)

    @property
    def shows_progress(self) -> bool:
        """Whether a person looks at standard error."""
        return not self.quiet and not self.json and sys.stderr.isatty()

    @property
    def can_ask(self) -> bool:
        """Whether there is a person to ask."""
        return not self.json and sys.stdin.isatty() and sys.stderr.isatty()

    def open_grid(self, policy: Policy | None = None) -> AbstractAsyncContextManager[Grid]:
        """The grid of this run.  Raises: GridUnknown, RosterEmpty, ConfigInvalid."""
        return self.composition.open_grid(self.home, self.grid, policy)

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a command's work on a loop of its own.

        Ctrl-C and SIGTERM cancel the work and wait for it to clean up; a second Ctrl-C does not wait.
        Raises: KeyboardInterrupt; Stopped: by SIGTERM or SIGHUP.
        """
        import asyncio

        import uvloop

        stopped_by: list[int] = []

        async def main() -> _T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None

            def stop(number: int) -> None:
                stopped_by.append(number)
                task.cancel()

            for number in _ENDING:
                if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                    loop.add_signal_handler(number, stop, number)
            with _noted_interrupt(stopped_by):
                return await work()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(main())
            except asyncio.CancelledError:
                if not stopped_by:
                    raise
        raise Stopped(stopped_by[0])


@contextlib.contextmanager
def _noted_interrupt(numbers: list[int]) -> Iterator[None]:
    """Note Ctrl-C, which the runner handles: where something else cancels the same task at that moment, the
    runner lets a CancelledError out, and not a KeyboardInterrupt.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


pass_context = click.make_pass_decorator(Context)


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    context = ctx.find_object(Context)
    if value and context is not None:
        context.json = True


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_json,
    help="Print one JSON document on standard output, errors too.",
)
"""On every command, so that it may stand anywhere in the line."""

limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="COUNT",
    help="Only the newest so many.",
)
"""Of commands that list what a volume's log has, the newest first."""
