"""When a blob is late, in virtual time."""

from __future__ import annotations

import asyncio

from muniment.engine.lateness import Lateness
from muniment.testing.virtual_time import run_virtual

USUAL_S = 10.0
LEAST_S = 1.0


def late_at(*came_s: float, wanted: int = 4, stop_s: float | None = None) -> list[float]:
    """When it was late within 100 s, if shares came at these times."""
    late: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()

        def fired() -> None:
            late.append(round(loop.time() - begun_s, 3))

        lateness = Lateness(wanted, LEAST_S, lambda: USUAL_S, fired)
        lateness.start()
        for at_s in came_s:
            loop.call_later(at_s, lateness.share_came)
        if stop_s is not None:
            loop.call_later(stop_s, lateness.stop)
        await asyncio.sleep(100)

    run_virtual(main())
    return late


def test_it_is_late_after_what_is_usual() -> None:
    assert late_at() == [USUAL_S]
    assert late_at(0.5) == [USUAL_S]  # less than half


def test_it_is_late_sooner_once_half_has_come() -> None:
    assert late_at(1, 2) == [2 + 2 * 2]
    assert late_at(1, 2, 3) == [6]  # a later share does not put it off
    assert late_at(0.1, 0.1) == [0.1 + LEAST_S]


def test_it_is_never_later_than_usual() -> None:
    assert late_at(6, 6) == [USUAL_S]
    assert late_at(11, 12) == [USUAL_S]  # it was late already, and nobody started it again


def test_it_is_not_late_once_stopped() -> None:
    assert late_at(stop_s=5) == []
    assert late_at(1, 2, 4, stop_s=3) == []
