"""Times that callers were shown of an inode before its changes were ordered, which they go on to be shown.

An entry gives all it changes its own time; who has seen another one a moment ago (tar, git, make) would take
that for another change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muniment.core.tree_state import Inode, TreeReading


@dataclass(frozen=True, slots=True)
class Times:
    """What was shown of one.

    Attributes:
        there_ns: ctime in the volume, for which the others stand.
    """

    there_ns: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class ShownTimes:
    """See the module.

    Attributes:
        known: by numbers here; they hold while the volume's ctime is the one they stand for.
    """

    def __init__(self) -> None:
        self.known: dict[int, Times] = {}

    def keep(
        self,
        shown: Iterable[Inode],
        there: TreeReading,
        others: Sequence[tuple[TreeReading, TreeReading]],
    ) -> dict[int, Times | None]:
        """Let callers go on to be shown these times.

        Args:
            shown: inodes as callers see them.
            there: the state in which the log has what they were shown.
            others: states before and after what others have changed: of that, all see the volume's times.
        Returns: what was known of those that are shown.
        """
        before: dict[int, Times | None] = {}
        for row in shown:
            ino, now = row.inode, there.inode(row.inode)
            if now is None or any(then.inode(ino) != later.inode(ino) for then, later in others):
                continue
            before[ino] = self.known.get(ino)
            times = row.atime_ns, row.mtime_ns, row.ctime_ns
            is_so = times == (now.atime_ns, now.mtime_ns, now.ctime_ns)
            self._set(ino, None if is_so else Times(now.ctime_ns, *times))
        return before

    def put_back(self, before: dict[int, Times | None], inodes: Iterable[int]) -> None:
        """Let it be with these as it was before they were kept."""
        for ino in inodes:
            self._set(ino, before[ino])

    def forget(self, ino: int) -> None:
        """Nobody remembers them."""
        self.known.pop(ino, None)

    def _set(self, ino: int, times: Times | None) -> None:
        if times is None:
            self.forget(ino)
        else:
            self.known[ino] = times
