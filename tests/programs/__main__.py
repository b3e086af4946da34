"""`scripts/programs`: other people's programs in a mounted volume; see docs/gateways/mount.md section 9.

Exit code 0: all have worked; 1: one has failed; 3: none has failed, but one is missing on this machine.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.programs import archives, building, database, mapping, place, two_mounts

from muniment.errors import ConfigInvalid
from muniment.gateways.mount.machine import check_machine
from muniment.gateways.mount.places import mounted


@dataclass(frozen=True, slots=True)
class _Program:
    """One thing that is tried.

    Attributes:
        needs: programs, each with the line that installs it.
    """

    work: Callable[[place.Place], str]
    needs: dict[str, str]


_APT: Final = "apt-get install -y "
_PROGRAMS: Final = {
    "git": _Program(building.git, {"git": _APT + "git"}),
    "make": _Program(building.make, {"make": _APT + "make", "cc": _APT + "gcc"}),
    "sqlite": _Program(database.sqlite, {}),
    "tar": _Program(archives.tar, {"tar": _APT + "tar"}),
    "rsync": _Program(archives.rsync, {"rsync": _APT + "rsync"}),
    "mmap": _Program(mapping.mmap, {}),
    "fsx": _Program(mapping.fsx, {"fsx": "cargo install --quiet fsx"}),
    "two-mounts": _Program(two_mounts.two_mounts, {}),
}


def main() -> int:
    """Try what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/programs", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(_PROGRAMS)}; all without one"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10_000))
    parser.add_argument("--operations", type=int, default=100_000, help="calls of each seed of fsx")
    parser.add_argument("--files", type=int, default=20_000, help="for tar; rsync has a tenth")
    parser.add_argument("--keep", action="store_true", help="leave the folder with nodes, homes and logs")
    said = parser.parse_args()
    unknown = [name for name in said.names if name not in _PROGRAMS]
    if unknown:
        parser.error(f"there is no {unknown[0]}")
    try:
        check_machine()
    except ConfigInvalid as error:
        sys.stderr.write(f"volumes cannot be mounted here: {error}\n")
        return 3
    os.environ["PATH"] += f":{Path.home() / '.cargo' / 'bin'}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that mounts and nodes go as at Ctrl-C
    folder = Path(tempfile.mkdtemp(prefix="muniment-programs-"))
    _say(f"seed {said.seed}, in {folder}")
    try:
        with place.place(folder, seed=said.seed, operations=said.operations, files=said.files) as made:
            results = [_tried(name, made) for name in said.names or _PROGRAMS]
    finally:
        left = [one.folder for one in mounted() if folder in one.folder.parents]
        if left:  # what would be deleted is the volume
            _say(f"still mounted: {', '.join(map(str, left))}; type: fusermount3 -uz {left[0]}")
        elif not said.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if "failed" in results else 3 if "missing" in results else 0


def _tried(name: str, made: place.Place) -> str:
    program = _PROGRAMS[name]
    for needed, install in program.needs.items():
        if shutil.which(needed) is None:
            _say(f"{name:<10} missing          type: {install}")
            return "missing"
    begun = time.monotonic()
    try:
        result, told = "ok", program.work(made)
    except (place.Failed, OSError, AssertionError) as error:
        result, told = "failed", str(error) or repr(error)
    except Exception as error:  # noqa: BLE001 - one that failed in an unforeseen way leaves the others their turn
        result, told = "failed", repr(error)
    _say(f"{name:<10} {result:<7} {time.monotonic() - begun:6.1f} s  {told}")
    return result


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
