"""Exit codes: one for each family of the error tree, two each for what `check` and `audit` find,
and those of signals.
"""

from __future__ import annotations

from typing import Final

from muniment import errors

OK: Final = 0
DEGRADED: Final = 10
UNRECOVERABLE: Final = 11
DAMAGED: Final = 12
FORGED: Final = 13
INTERRUPTED: Final = 130
_SIGNAL: Final = 128

FAMILY: Final[dict[type[errors.MunimentError], int]] = {
    errors.CallerError: 2,
    errors.UnavailableError: 3,
    errors.IntegrityError: 4,
    errors.PeerError: 5,
    errors.LocalError: 6,
    errors.InternalError: 70,
}

USAGE: Final = FAMILY[errors.CallerError]
LOCAL: Final = FAMILY[errors.LocalError]

MEANING: Final[dict[int, str]] = {
    OK: "done",
    FAMILY[errors.CallerError]: "cannot be granted: wrong capability, option or argument",
    FAMILY[errors.UnavailableError]: "unavailable: too few nodes or shares; later may help",
    FAMILY[errors.IntegrityError]: "data does not verify",
    FAMILY[errors.PeerError]: "another machine lied or broke the protocol",
    FAMILY[errors.LocalError]: "this machine: files, disk, configuration",
    DEGRADED: "check: readable, but not every share is in place",
    UNRECOVERABLE: "check: not readable at present",
    DAMAGED: "audit: damaged: bytes that do not verify, or are missing",
    FORGED: "audit: forged: somebody signed what must not be",
    FAMILY[errors.InternalError]: "a bug in muni",
    INTERRUPTED: "Ctrl-C (128 + number of the signal, also for others)",
}
"""The one table: help prints it, docs/gateways/cli.md repeats it, and a test compares them."""


def exit_code(error: errors.MunimentError) -> int:
    """The exit code of an error: that of its family."""
    return of_family(type(error))


def of_family(kind: type[errors.MunimentError]) -> int:
    """The exit code of all errors of a kind."""
    return next(code for family, code in FAMILY.items() if issubclass(kind, family))


def of_signal(number: int) -> int:
    """As shells report a process that a signal ended."""
    return _SIGNAL + number


def table() -> str:
    """The exit codes for people, a line each."""
    return "\n".join(f"{code:>3}  {meaning}" for code, meaning in MEANING.items())
