"""A volume with many small files, over real node processes: `python -m bench.volume`.

    put -r, get -r      files a second, there and back, compared byte by byte
    ls                  one folder with all the names, in the process
    mv, cp -r, rm -r    each one transaction

Everything goes through the composition root as commands do; the log is on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import filecmp
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from bench.processes import running_grid
from muniment.engine.opened import LOCAL
from muniment.node import volume_home, volumes
from muniment.spec.act import Quorum, VolumePolicy
from muniment.spec.limits import CHUNK_BYTES_DEFAULT

_T = TypeVar("_T")
_POLICY = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "4/6", 5, CHUNK_BYTES_DEFAULT)


def _make_files(folder: Path, count: int) -> int:
    """Files of 1 to 16 KiB in one folder; returns their bytes."""
    rng = random.Random(7)
    folder.mkdir()
    total = 0
    for at in range(count):
        size = rng.randrange(1 << 10, 1 << 14)
        (folder / f"file{at:05}").write_bytes(rng.randbytes(size))
        total += size
    return total


async def _measure(work: Path, roster: str, count: int, profiled: str) -> dict[str, Any]:
    home, figures = work / "home", {}

    async def timed(name: str, what: Awaitable[_T]) -> _T:
        profile = cProfile.Profile() if profiled == name else None
        before = time.perf_counter()
        if profile is not None:
            profile.enable()
        try:
            return await what
        finally:
            if profile is not None:
                profile.disable()
                profile.print_stats("tottime")
            figures[name] = round(time.perf_counter() - before, 3)

    volume_home.make_identity(home, "")
    await volumes.create_volume(home, "bench", LOCAL, _POLICY, own_name="bench", passphrase=str)
    async with volumes.open_files(home, "bench", roster, str) as (opened, files):
        await timed("put", files.put_tree(work / "in", b"in"))
        await timed("put again", files.put_tree(work / "in", b"in"))
        await timed("list", files.listing(b"in"))
        await timed("walk", files.walk(b""))
        await timed("get", files.get_tree(b"in", work / "out"))
        await timed("share", files.share(b"in"))
        await timed("move", files.move(b"in", b"moved"))
        await timed("copy", files.copy(b"moved", b"copied"))
        await timed("remove", files.remove(b"moved", recursive=True))
        await timed("restore", files.restore(b"in", opened.volume.view.size - 4))
    names = [f"file{at:05}" for at in range(count)]
    _, differ, errors = filecmp.cmpfiles(work / "in", work / "out", names, shallow=False)
    assert not differ
    assert not errors
    return figures | {"put/s": round(count / figures["put"]), "get/s": round(count / figures["get"])}


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--profile", default="", help="print the profile of this figure")
    parser.add_argument("--folder", default=None, help="where to work; a temporary folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        work = Path(name)
        size = _make_files(work / "in", chosen.files)
        with running_grid(work, chosen.nodes) as grid:
            figures = asyncio.run(_measure(work, str(grid.roster), chosen.files, chosen.profile))
    print(json.dumps({"files": chosen.files, "bytes": size, "load": os.getloadavg()[0], **figures}, indent=2))


if __name__ == "__main__":
    main()
