"""Giving up an account's leases on blobs, wherever their shares are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from muniment.engine.lane import Lane
from muniment.errors import MunimentError
from muniment.ids import BlobId, ShareKey, id_text
from muniment.spec.limits import BATCH_SHARES_MAX, HAVE_BLOBS_MAX

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What came of it.

    Attributes:
        shares: on which the account had a lease.
        answered: nodes that heard all of it.
    """

    shares: int
    answered: int


async def give_up(lanes: Sequence[Lane], blobs: Sequence[BlobId]) -> GivenUp:
    """Give up all shares of these blobs.

    A node that does not answer keeps the leases: until they are given up again, or end.
    Cost: two requests for some hundred blobs at each node.
    """
    counts = await asyncio.gather(*(_give_up_at(lane, blobs) for lane in lanes))
    return GivenUp(sum(count or 0 for count in counts), sum(count is not None for count in counts))


async def _give_up_at(lane: Lane, blobs: Sequence[BlobId]) -> int | None:
    """How many; None if the node has not heard all of it."""
    done = 0
    try:
        for at in range(0, len(blobs), HAVE_BLOBS_MAX):
            part = blobs[at : at + HAVE_BLOBS_MAX]
            held = await lane.connection.have(part)
            keys = [ShareKey(blob, number) for blob in part for number in sorted(held.get(blob, ()))]
            for first in range(0, len(keys), BATCH_SHARES_MAX):
                done += sum(await lane.connection.trash(keys[first : first + BATCH_SHARES_MAX]))
    except MunimentError as error:
        _log.info("node %s keeps leases that are not needed: %s", id_text(lane.node)[:12], error)
        return None
    return done
