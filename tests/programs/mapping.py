"""Files as memory, and fsx, which tries every way to change a file against what it should hold."""

from __future__ import annotations

import mmap as memory
import os
import random
import shutil
from typing import Final

from tests.programs.place import Failed, Place, run

_BYTES: Final = 12_000_000
_SEEDS: Final = 3
_FSX_S: Final = 3600.0
_FSX: Final = """
nomsyncafterwrite = true
[weights]
close_open = 0.2
fsync = 0.02
fdatasync = 0.02
invalidate = 0.1
"""
"""Each call that waits for the grid costs as much as hundreds that do not: some do, between all others."""


def mmap(place: Place) -> str:
    """Write through one mapping, read through another and through read(), and again when mounted anew."""
    rng = random.Random(place.seed)
    model = bytearray(rng.randbytes(_BYTES))
    with place.mounted() as mount:
        path = mount / "mapped"
        path.write_bytes(model)
        descriptor = os.open(path, os.O_RDWR)
        with (
            memory.mmap(descriptor, _BYTES) as writing,
            memory.mmap(descriptor, _BYTES, prot=memory.PROT_READ) as seen,
        ):
            for _ in range(200):
                at, data = rng.randrange(_BYTES - 9000), rng.randbytes(rng.randrange(1, 9000))
                model[at : at + len(data)] = writing[at : at + len(data)] = data
                if seen[at : at + len(data)] != data or os.pread(descriptor, len(data), at) != data:
                    raise Failed("what was written through memory is not seen at once")
                at = rng.randrange(_BYTES - 100)
                model[at : at + 100] = data = rng.randbytes(100)
                os.pwrite(descriptor, data, at)
                if writing[at : at + 100] != data:
                    raise Failed("what was written by a call is not seen through memory")
            writing.flush()
        os.close(descriptor)
        if path.read_bytes() != model:
            raise Failed("the file is another one after it was closed")
    with (
        place.mounted() as mount,
        (mount / "mapped").open("rb") as file,
        memory.mmap(file.fileno(), 0, prot=memory.PROT_READ) as seen,
    ):
        if seen[:] != model:
            raise Failed("the file is another one when it is mounted again")
    return f"{_BYTES} bytes"


def fsx(place: Place) -> str:
    """Draw calls on one file, of memory too, and compare it after each; with several seeds."""
    program = shutil.which("fsx")
    assert program is not None
    config = place.folder / "fsx.toml"
    config.write_text(_FSX)
    with place.mounted("lazy_close", "writeback=1") as mount:
        for seed in range(place.seed, place.seed + _SEEDS):
            drawn = ("-N", str(place.operations), "-S", str(seed), "-P", place.fresh("fsx"))
            run(program, "-f", config, *drawn, mount / f"fsx{seed}", timeout_s=_FSX_S)
    return f"{place.operations} calls of seeds {place.seed} to {place.seed + _SEEDS - 1}"
