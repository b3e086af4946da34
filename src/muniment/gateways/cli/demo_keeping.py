"""The demo's third act: somebody who can read nothing rebuilds what the dead node and the damage cost."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from muniment.core.keeping.repair import Condition
from muniment.errors import InternalError
from muniment.gateways.cli.context import Context
from muniment.gateways.cli.demo_grid import DemoGrid
from muniment.gateways.cli.demo_volume import Story
from muniment.gateways.cli.show import bytes_text, count_text
from muniment.spec.cap import VerifyCap

_SEED_BYTES: Final = 32
_END_S: Final = 10.0


async def play_keeping(context: Context, grid: DemoGrid, place: Path, cap: VerifyCap, story: Story) -> None:
    """Repair by the verify right, under an account of its own, and look again.

    Raises: InternalError: something is not as it must be.
    """
    context.remark("switching the node off that lies; a keeper, who cannot read, rebuilds what is missing")
    begun = time.monotonic()
    grid.liar.terminate()
    await grid.liar.wait_ended(begun + _END_S)
    async with context.composition.open_grid(place / "keeper", grid.address) as client:
        done = await client.repair(cap, seed=os.urandom(_SEED_BYTES))
        due = done.blobs - done.conditions[Condition.WHOLE]
        story.tell("due for repair", f"{due} of {count_text(done.blobs, 'blob')}", due=due)
        story.tell(
            "rebuilt",
            f"{count_text(done.rebuilt, 'share')}, {bytes_text(done.rebuilt_bytes)}, by one who cannot read, "
            f"on the nodes that are left: {grid.liar.name} was switched off",
            rebuilt_shares=done.rebuilt,
        )
        again = await client.repair(cap, seed=os.urandom(_SEED_BYTES))
    whole, took_s = again.conditions[Condition.WHOLE], time.monotonic() - begun
    if not due or done.failed or whole != again.blobs:
        raise InternalError(reason=f"of {again.blobs} blobs {whole} are whole after the repair")
    story.tell(
        "whole again",
        f"all {count_text(whole, 'blob')}, proven anew, in {took_s:.1f} s",
        whole=whole,
        keeping_s=round(took_s, 3),
    )
