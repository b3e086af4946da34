"""A blob that is asked for again in the moment in which its upload has failed."""

from __future__ import annotations

import asyncio

import pytest

from muniment.engine.policy import Policy
from muniment.errors import NotHappy
from muniment.testing.fake_grid import FakeGrid

DATA = bytes(range(256)) * 40


async def test_who_comes_when_it_has_failed_begins_anew_and_does_not_stop_the_loop() -> None:
    fake = FakeGrid(10)
    for node in fake.nodes:
        node.faults.down = "no power"
    async with fake.client() as grid:
        sender = grid._sender
        putting = asyncio.create_task(grid.put(DATA))
        while not sender._sendings:  # noqa: ASYNC110 - it is told by no event
            await asyncio.sleep(0)
        (sending,) = sender._sendings.values()
        while not sending.settled.done():  # noqa: ASYNC110 - who waits for it comes too late
            await asyncio.sleep(0)
        assert sender._sendings, "it is forgotten a turn later"
        with pytest.raises(StopIteration) as done:
            sender._joined(sending._sealed, Policy()).send(None)
        assert done.value.value is None
        with pytest.raises(NotHappy):
            await putting
        assert not sender._sendings
