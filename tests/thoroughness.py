"""How much is tried by tests that choose cases by chance or walk along a range.

A run at every change takes the same few cases each time, so that a failure is found again.  `scripts/nightly`
takes NIGHTS times as many, chosen by a seed that it prints; the same seed gives the same cases.
"""

from __future__ import annotations

import os
import random
from typing import Final

SEED: Final = os.environ.get("MUNIMENT_NIGHTLY_SEED", "")
"""Empty in a run at every change."""

NIGHTS: Final = 20 if SEED else 1


def times(count: int) -> int:
    """Cases to try where `count` are enough at every change."""
    return count * NIGHTS


def along(start: int, stop: int, step: int) -> range:
    """Points of a range that is walked in steps; smaller steps at night."""
    return range(start, stop, max(1, step // NIGHTS))


def chance(of: object) -> random.Random:
    """What chooses the cases of the test that calls itself `of`."""
    return random.Random(f"{of} {SEED}")
