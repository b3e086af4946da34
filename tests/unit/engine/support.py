"""Small chunks, deterministic content, and short ways to put and get."""

from __future__ import annotations

import io
import random
import threading
from pathlib import Path
from typing import Final

from muniment.engine.grid import Grid
from muniment.engine.policy import Limits, Policy
from muniment.engine.results import GetResult
from muniment.erasure.codec import Coding
from muniment.spec.cap import Cap
from muniment.spec.limits import KIB

CHUNK: Final = 64 * KIB
SMALL: Final = Policy(coding=Coding.from_text("4/6"), happy=5, chunk_bytes=CHUNK)
PLAIN: Final = Policy(coding=Coding.from_text("4/6"), happy=5, chunk_bytes=CHUNK, compress=False)
THREE: Final = Policy(coding=Coding.from_text("2/3"), happy=3, chunk_bytes=CHUNK)

IMPATIENT: Final = Limits(put_patience_s=1.0, get_patience_s=0.5, first_patience_s=2.0)


def content(size: int, seed: int = 0) -> bytes:
    """The same random bytes for the same arguments."""
    return random.Random(f"{seed} {size}").randbytes(size)


async def got(grid: Grid, cap: Cap, *, start: int = 0, stop: int | None = None) -> bytes:
    """A file's content."""
    return (await got_with_result(grid, cap, start=start, stop=stop))[0]


async def got_with_result(
    grid: Grid, cap: Cap, *, start: int = 0, stop: int | None = None
) -> tuple[bytes, GetResult]:
    """A file's content and what it took."""
    target = io.BytesIO()
    result = await grid.get(cap, target, start=start, stop=stop)
    return target.getvalue(), result


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def our_threads() -> list[str]:
    """Names of the engine's threads that run now."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("muniment-")]
