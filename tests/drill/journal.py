"""Lines of JSON that are on the disk when `add` returns: what a process that is killed has done for certain.

Times are CLOCK_MONOTONIC, which all processes of one machine share.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Journal:
    """One process's own file, which goes on after a restart; a half line of a killed one is ended first."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if os.fstat(self._fd).st_size:
            os.write(self._fd, b"\n")

    def add(self, what: str, **facts: Any) -> float:
        """Durable on return; returns the line's time."""
        now_s = time.monotonic()
        os.write(self._fd, json.dumps({"what": what, "at_s": now_s, **facts}).encode() + b"\n")
        os.fsync(self._fd)
        return now_s

    def close(self) -> None:
        os.close(self._fd)


def read_journal(path: Path) -> list[Line]:
    """All whole lines; none if the process never came to write one."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue  # it was killed while it wrote
    return lines
