"""How long a caller waits: whatever he asked for, he is told at his deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from muniment.errors import DeadlineExceeded


@contextlib.asynccontextmanager
async def within(call: str, deadline_s: float) -> AsyncIterator[None]:
    """Break off what is awaited in here after so long.  Raises: DeadlineExceeded: by its name, `call`."""
    try:
        async with asyncio.timeout(deadline_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(node=b"", call=call, deadline_s=deadline_s) from error
