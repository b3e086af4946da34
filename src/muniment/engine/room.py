"""Whether there is room for a large upload, before anything of it is sent."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from muniment.core.room import room_bytes
from muniment.engine.lane import Lane
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Policy
from muniment.errors import GridFull, MunimentError
from muniment.spec.limits import MIB

LARGE_BYTES: Final = 64 * MIB
"""Less is not worth a question to every node: it is found out soon enough."""

_PATIENCE_S: Final = 3.0
_BLOCK_BYTES: Final = 512


async def require_room(nodes: Nodes, size_bytes: int, policy: Policy) -> None:
    """Ask every node for its free space and hold it against what is to be stored.

    Args:
        size_bytes: of content; nothing is asked below LARGE_BYTES.
    A node that does not answer within 3 s counts with its whole capacity: only what certainly has no room is
    refused, if it neither gets smaller by compression nor is there already.
    Raises: GridFull.
    """
    if size_bytes < LARGE_BYTES:
        return
    asked = (_free(lane, nodes) for lane in nodes.lanes())
    free = await asyncio.gather(*asked)
    room = room_bytes(free, policy.happy) * policy.coding.k
    if room < size_bytes:
        raise GridFull(wanted_bytes=size_bytes, room_bytes=room, happy=policy.happy)


def content_bytes(paths: Iterable[Path]) -> int:
    """Of files, and of all below folders; holes and what cannot be looked at do not count.  Blocking."""
    total = 0
    for path in paths:
        found = (
            [path]
            if not path.is_dir()
            else (Path(at, name) for at, _, names in os.walk(path) for name in names)
        )
        for one in found:
            try:
                status = one.stat(follow_symlinks=one is path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                total += min(status.st_size, status.st_blocks * _BLOCK_BYTES)
    return total


async def _free(lane: Lane, nodes: Nodes) -> int:
    record = nodes.record(lane.node)
    if record.draining:
        return 0
    try:
        async with asyncio.timeout(_PATIENCE_S):
            status = await lane.connection.info()
    except (MunimentError, TimeoutError):
        return record.capacity_bytes
    return 0 if status.draining else max(0, status.capacity_bytes - status.used_bytes - status.reserved_bytes)
