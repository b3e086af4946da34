"""Which bytes of a file are newer than what the log knows, and where they are: a map of intervals."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace

from muniment.fs.content.buffer import Buffer


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `stop` of a file.

    Attributes:
        skip: where in the buffer the first one is.
    """

    start: int
    stop: int
    buffer: Buffer
    skip: int

    def part(self, start: int, stop: int) -> Piece:
        """The part of it between two places in the file."""
        start, stop = max(start, self.start), min(stop, self.stop)
        return Piece(start, stop, self.buffer, self.skip + start - self.start)


class Pieces:
    """Pieces that do not overlap, by their starts."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._at: dict[int, Piece] = {}

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[Piece]:
        return iter([self._at[start] for start in self._starts])

    @property
    def stop(self) -> int:
        """Behind the last byte; 0 if there is none."""
        return self._at[self._starts[-1]].stop if self._starts else 0

    def within(self, start: int, stop: int) -> list[Piece]:
        """The parts of pieces in [start, stop), in order."""
        first = bisect_right(self._starts, start)
        if first and self._at[self._starts[first - 1]].stop > start:
            first -= 1
        found = self._starts[first : bisect_left(self._starts, stop)]
        return [self._at[one].part(start, stop) for one in found]

    def put(self, piece: Piece) -> None:
        """Let these bytes be newer than all others in their place."""
        self.cut(piece.start, piece.stop)
        before = bisect_left(self._starts, piece.start)
        if before:
            last = self._at[self._starts[before - 1]]
            joins = last.stop == piece.start and last.buffer is piece.buffer
            if joins and last.skip + last.stop - last.start == piece.skip:
                self._at[last.start] = replace(last, stop=piece.stop)
                return
        self._add(piece)

    def cut(self, start: int, stop: int) -> None:
        """Leave nothing in [start, stop)."""
        if start >= stop:
            return
        first = bisect_right(self._starts, start)
        if first and self._at[self._starts[first - 1]].stop > start:
            first -= 1
        last = bisect_left(self._starts, stop)
        touched = [self._at.pop(one) for one in self._starts[first:last]]
        del self._starts[first:last]
        for piece in touched:
            if piece.start < start:
                self._add(piece.part(piece.start, start))
            if stop < piece.stop:
                self._add(piece.part(stop, piece.stop))

    def _add(self, piece: Piece) -> None:
        insort(self._starts, piece.start)
        self._at[piece.start] = piece
