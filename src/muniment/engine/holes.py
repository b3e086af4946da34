"""Where a file of this machine has data and where holes: SEEK_DATA and SEEK_HOLE, in bounded pieces.

A file system that does not tell has data everywhere.  Nothing depends on the answer but what is stored: a
hole reads as zeros either way.
"""

from __future__ import annotations

import errno
import os
from typing import Final

SPANS_MAX: Final = 4096
"""Pieces of one file; one with more of them has its smallest holes stored as zeros."""

Spans = list[tuple[int, int]]
"""Start and stop of each piece that has data, ascending, with holes between them."""


def data_spans(fd: int, facts: os.stat_result) -> Spans | None:
    """The pieces with data; None if there is no hole, which most files cost nothing to find out.

    Args:
        fd: of a regular file; its position moves.
        facts: of it; holes are looked for only if it has fewer blocks than its size takes.
    """
    size = facts.st_size
    if facts.st_blocks * 512 >= size:
        return None
    spans: Spans = []
    at = 0
    try:
        while at < size:
            start = _seek(fd, at, os.SEEK_DATA, size)
            at = _seek(fd, start, os.SEEK_HOLE, size) if start < size else size
            if start < at:
                spans.append((start, at))
            if len(spans) > 16 * SPANS_MAX:
                return None  # not sparse, but riddled: as many pieces as a whole transaction may have
    except OSError:
        return None
    finally:
        os.lseek(fd, 0, os.SEEK_SET)
    return None if spans == [(0, size)] else _fewer(spans)


def within(spans: Spans, start: int, stop: int) -> Spans:
    """What of the pieces lies in a range."""
    return [(max(a, start), min(b, stop)) for a, b in spans if a < stop and b > start]


def _seek(fd: int, at: int, how: int, size: int) -> int:
    try:
        return min(os.lseek(fd, at, how), size)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole behind `at`
            return size
        raise


def _fewer(spans: Spans) -> Spans:
    """At most SPANS_MAX, the smallest holes closed first."""
    if len(spans) <= SPANS_MAX:
        return spans
    gaps = sorted((spans[at + 1][0] - spans[at][1], at) for at in range(len(spans) - 1))
    closed = {at for _, at in gaps[: len(spans) - SPANS_MAX]}
    joined = [spans[0]]
    for at, (start, stop) in enumerate(spans[1:]):
        if at in closed:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined
