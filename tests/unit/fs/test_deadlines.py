"""How long calls wait: each so long, and at the end all together so long."""

from __future__ import annotations

import asyncio

import pytest

from muniment.errors import DeadlineExceeded
from muniment.fs.deadlines import Patience, within
from muniment.testing.virtual_time import LoopClock, StepClock, run_virtual


def test_each_call_has_the_whole_time_until_the_end_begins() -> None:
    clock = StepClock()
    patience = Patience(10.0, clock)
    clock.advance(60.0)
    assert patience.left_s == 10.0
    assert not patience.is_ending


def test_from_the_beginning_of_the_end_all_calls_share_one_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        patience = Patience(10.0, LoopClock(loop))
        patience.end()
        began_s = loop.time()
        for call in ("save", "commit", "unlock"):
            with pytest.raises(DeadlineExceeded, match=call):
                async with within(call, patience):
                    await asyncio.Event().wait()
            patience.end()  # again, which changes nothing
        assert loop.time() - began_s == pytest.approx(9.0)  # and the rest to break off what is under way
        assert patience.left_s == 0.0

    run_virtual(main())
