"""Inode numbers of this file system: those of the volume, and its own for what is not in the log yet.

What is made here is used at once, but gets its number in the volume only when its entry is ordered.  Until
then, and for as long as anybody here knows it, it has a number of this file system's own, from `LOCAL_FIRST`
on, where no volume ever counts to.  `Numbers` translates both ways.
"""

from __future__ import annotations

from typing import Final

from muniment.spec.operation import INODE_MAX

LOCAL_FIRST: Final = INODE_MAX >> 1
PAST_FIRST: Final = INODE_MAX
"""From here on numbers are of past states, see `past`."""


class Numbers:
    """Which number here is which one in the volume.

    Read by the volume's thread while a transaction is planned; written by the loop only.
    """

    def __init__(self) -> None:
        self._next = LOCAL_FIRST
        self._volume: dict[int, int] = {}
        self._here: dict[int, int] = {}

    def fresh(self) -> int:
        """A number for something new."""
        self._next += 1
        return self._next - 1

    def settle(self, here: int, volume: int) -> None:
        """What was made here has a number in the volume now."""
        self._volume[here], self._here[volume] = volume, here

    def in_volume(self, here: int) -> int:
        """The volume's number; 0 if it has none yet."""
        return here if here < LOCAL_FIRST else self._volume.get(here, 0)

    def settled(self, here: int) -> int:
        """The volume's number; the one given if it has none yet."""
        return self.in_volume(here) or here

    def here(self, volume: int) -> int:
        """The number by which this file system calls what the volume calls so."""
        return self._here.get(volume, volume)

    def forget(self, here: int) -> None:
        """Nobody knows it by this number any more; the next one who looks learns the volume's."""
        volume = self._volume.pop(here, None)
        if volume is not None:
            del self._here[volume]
