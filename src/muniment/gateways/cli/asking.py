"""Questions to a person at the terminal; a signal ends one at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import click

from muniment.gateways.cli.context import Context, Refusal, Stopped


def confirm(context: Context, question: str, *, yes: bool) -> None:
    """Go on only if the person wants it.

    Args:
        yes: what the option -y says: he was asked before.
    Raises: Refusal: he does not, or nobody can be asked.
    """
    if yes:
        return
    if not context.can_ask:
        raise Refusal("this needs a confirmation, and nobody can be asked", "say so with -y")
    with signals_at_once():
        wanted = click.confirm(question, err=True)
    if not wanted:
        raise Refusal("nothing was done", "repeat it when you are sure")


def has_terminal() -> bool:
    """Whether this process has a terminal, whatever its standard input is."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def signals_at_once() -> Iterator[None]:
    """End a question by Ctrl-C or SIGTERM: a loop under it would note them and wait for the answer."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    asked = [number for number, handler in before.items() if handler not in (None, signal.SIG_IGN)]
    for number in asked:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in asked:
            signal.signal(number, before[number])
