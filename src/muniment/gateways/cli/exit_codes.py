"""Exit codes: one for each family of the error tree, and two for what `check` finds."""

from __future__ import annotations

from typing import Final

from muniment import errors

OK: Final = 0
DEGRADED: Final = 10
UNRECOVERABLE: Final = 11
INTERRUPTED: Final = 130

FAMILY: Final[dict[type[errors.MunimentError], int]] = {
    errors.CallerError: 2,
    errors.UnavailableError: 3,
    errors.IntegrityError: 4,
    errors.PeerError: 5,
    errors.LocalError: 6,
    errors.InternalError: 70,
}

TABLE: Final = """\
Exit codes:
  0    done
  2    the request cannot be granted: wrong capability, option or argument
  3    unavailable now: too few nodes, shares or answers; trying again later can help
  4    data does not verify
  5    another machine lied or broke the protocol
  6    this machine: disk, configuration, permissions
  10   check: the file can be read, but shares are missing
  11   check: the file cannot be read at present
  70   a bug in muni
  130  interrupted (Ctrl-C)"""


def exit_code(error: errors.MunimentError) -> int:
    """The exit code of an error: that of its family."""
    return next(code for family, code in FAMILY.items() if isinstance(error, family))
