"""What this machine must have before a volume can be mounted, and what to type where it is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil

from muniment.errors import ConfigInvalid


def check_machine() -> None:
    """Raises: ConfigInvalid: pyfuse3, its helper or the kernel's device is missing."""
    if importlib.util.find_spec("pyfuse3") is None:
        reason = (
            "mounting needs it; type: apt-get install fuse3 libfuse3-dev pkg-config gcc python3-dev && "
            "pip install 'muniment[mount]'"
        )
        raise ConfigInvalid(where="pyfuse3", reason=reason)
    if shutil.which("fusermount3") is None:
        raise ConfigInvalid(where="fusermount3", reason="mounting needs it; type: apt-get install fuse3")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        reason = (
            "this user cannot open it; type as root: modprobe fuse; or give it to the container: "
            "--device /dev/fuse --cap-add SYS_ADMIN"
        )
        raise ConfigInvalid(where="/dev/fuse", reason=reason)
