"""What a machine must have to mount volumes, what to type where it is missing, and how far it reads ahead."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from muniment.errors import ConfigInvalid

_READ_AHEAD_KIB: Final = 1024
"""As much as one request to a FUSE process may ask for."""


def check_machine() -> None:
    """Raises: ConfigInvalid: FUSE's helper or the kernel's device is missing."""
    if shutil.which("fusermount3") is None:
        raise ConfigInvalid(where="fusermount3", reason="mounting needs it; type: apt-get install fuse3")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reason = (
            "this user cannot open it; type as root: modprobe fuse; or give it to the container: "
            "--device /dev/fuse --cap-add SYS_ADMIN"
        )
        raise ConfigInvalid(where="/dev/fuse", reason=reason)


def read_far_ahead(folder: Path) -> None:
    """Let the kernel ask this mount for 1 MiB at once where a file is read in order, instead of 128 KiB.

    Only root may set it; without, reads cost more processor time.
    """
    with contextlib.suppress(OSError):
        device = os.stat(folder).st_dev  # noqa: PTH116 - one call, since all of it goes through the mount
        queue = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        queue.write_text(f"{_READ_AHEAD_KIB}\n")
