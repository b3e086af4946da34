"""What both views check before they record an entry."""

from __future__ import annotations

from muniment.core.tree_state import Changes, Rejection
from muniment.errors import HistoryMissing, InternalError, InvalidRequest

EMPTY_AT = -1
"""The index of the state before all entries."""


def check_next(index: int, size: int, outcome: Changes | Rejection | None, next_inode: int) -> None:
    """Raise InternalError unless the entry is the next one and its changes are of the present state."""
    if index != size:
        raise InternalError(reason=f"entry {index} recorded in a view of {size} entries")
    if isinstance(outcome, Changes) and (outcome.index, outcome.next_inode_before) != (index, next_inode):
        raise InternalError(reason=f"changes of another entry or state recorded as those of entry {index}")


def check_at(at: int, size: int, start: int = 0) -> None:
    """Raise unless the state after the entry `at` is known.

    Raises: InvalidRequest: it is not folded yet; HistoryMissing: the view began later, with a snapshot.
    """
    if EMPTY_AT <= at < start - 1:
        raise HistoryMissing(start=start)
    if not EMPTY_AT <= at < size:
        raise InvalidRequest(reason=f"there is no state after entry {at}: {size} entries are folded")


def check_between(before: int, after: int) -> None:
    """Raise InvalidRequest unless one entry is not behind the other."""
    if before > after:
        raise InvalidRequest(reason=f"entry {before} comes after entry {after}")
