"""Disks of a few nodes that can be full: small file systems in memory, where mounting is permitted.

The drill then runs in a mount namespace of its own (`unshare -rm`), which ends with it.  Elsewhere a node is
full because it is started again with a capacity of what it holds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

_INSIDE: Final = "MUNIMENT_DRILL_MOUNTS"
_SIZE_BYTES: Final = 1 << 30
_LEFT_BYTES: Final = 96 << 10
_PROBE: Final = ("unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt")


def enter_namespace() -> bool:
    """Start this program again where it may mount; returns whether it may, in the one that goes on."""
    if _INSIDE in os.environ:
        return os.environ[_INSIDE] == "yes"
    if shutil.which("unshare") is None or subprocess.run(_PROBE, capture_output=True, check=False).returncode:
        return False
    os.environ[_INSIDE] = "yes"
    return _exec("unshare", "-rm", sys.executable, "-m", "tests.drill", *sys.argv[1:])


def _exec(*words: str) -> NoReturn:
    os.execvp(words[0], words)


class SmallDisk:
    """A node's folder as a file system of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={_SIZE_BYTES},mode=700", "none")

    def fill(self) -> None:
        """Leave next to nothing: the next share does not fit, and soon no page of the ledger."""
        self._mount("-o", f"remount,size={shutil.disk_usage(self._folder).used + _LEFT_BYTES}")

    def empty(self) -> None:
        """As large as at first."""
        self._mount("-o", f"remount,size={_SIZE_BYTES}")

    def close(self, *, keep: bool) -> None:
        """Take it away; to be kept, its content is put into its place, where it outlives the drill."""
        aside = self._folder.with_name(f"{self._folder.name}.kept")
        if keep:
            shutil.copytree(self._folder, aside)
        subprocess.run(["umount", str(self._folder)], check=True, capture_output=True)
        if keep:
            self._folder.rmdir()
            aside.rename(self._folder)

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self._folder)], check=True, capture_output=True)


def set_capacity(folder: Path, capacity_bytes: int) -> None:
    """In the configuration of a node that does not run."""
    path = folder / "node.toml"
    text = re.sub(r"(?m)^capacity_bytes = \d+$", f"capacity_bytes = {capacity_bytes}", path.read_text())
    path.write_text(text)


def used_bytes(folder: Path) -> int:
    """Of a node's shares."""
    return sum(path.stat().st_size for path in (folder / "store" / "shares").glob("*/*"))
