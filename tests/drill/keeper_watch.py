"""What the keeper prints after each scan, followed over its restarts."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Final

Scan = dict[str, Any]
_LOOK_S: Final = 0.1
_SUMS: Final = (
    "proofs",
    "leased",
    "collected",
    "rebuilt_shares",
    "rebuilt_bytes",
    "moved_shares",
    "read_bytes",
)


class KeeperWatch:
    """Follows the keeper's standard output."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def scans(self) -> list[Scan]:
        """Whole lines up to now."""
        if not self._out.exists():
            return []
        *lines, _ = self._out.read_text().split("\n")
        return [json.loads(line) for line in lines if line.startswith("{")]

    def sums(self) -> dict[str, int]:
        """What it did in all: each process counts from nothing."""
        scans, sums = self.scans(), dict.fromkeys(_SUMS, 0)
        for scan, after in zip(scans, [*scans[1:], {"scans": 0}], strict=True):
            if after["scans"] <= scan["scans"]:
                for name in _SUMS:
                    sums[name] += scan[name]
        return sums

    async def whole(self, within_s: float) -> float | None:
        """Wait until a scan that begins from now on finds all whole; seconds it took, None: too long."""
        begun_s, seen = time.monotonic(), len(self.scans())
        while (took_s := time.monotonic() - begun_s) < within_s:
            # The first that ends now may have begun before.
            if any(_is_whole(scan) for scan in self.scans()[seen + 1 :]):
                return took_s
            await asyncio.sleep(_LOOK_S)
        return None


def _is_whole(scan: Scan) -> bool:
    return all(name == "whole" or not count for name, count in scan["conditions"].items())
