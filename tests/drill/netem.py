"""Whether this kernel could spoil its own network (netem); the drill's relay does what it does without it."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

_PROBE: Final = "ip link set lo up && tc qdisc add dev lo root netem delay 1ms"


def netem_permitted() -> str:
    """Empty if a network namespace may have it, else why not."""
    if not all(map(shutil.which, ("unshare", "ip", "tc"))):
        return "unshare, ip or tc is not installed"
    done = subprocess.run(["unshare", "-rn", "sh", "-c", _PROBE], capture_output=True, check=False)
    return done.stderr.decode().strip() if done.returncode else ""
