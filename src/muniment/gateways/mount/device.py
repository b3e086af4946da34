"""The kernel's end of a mount: made by `fusermount3`, which may for every user, and handed over.

Source: libfuse's fusermount: it mounts, and sends the opened /dev/fuse through the socket whose number is in
`_FUSE_COMMFD`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from muniment.errors import ConfigInvalid, InvalidRequest

_HELPER_S: Final = 30.0


async def attach(folder: Path, options: Iterable[str]) -> int:
    """Mount at a folder.

    Args:
        options: as fusermount3 and the kernel know them; commas in them are meant.
    Returns: the open device; reading from it does not block, and closing it leaves a dead mount.
    Raises: ConfigInvalid: this machine or user cannot.
    """
    escaped = (option.replace("\\", "\\\\").replace(",", "\\,") for option in options)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        said = await _helped("-o", ",".join(escaped), "--", str(folder), through=theirs.fileno())
        theirs.close()
        ours.setblocking(False)  # it has ended: what it sent is there
        received = [] if said is not None else socket.recv_fds(ours, 1, 1)[1]
    if not received:
        raise ConfigInvalid(where="FUSE", reason=f"{folder}: {said or 'fusermount3 has sent no device'}")
    os.set_inheritable(received[0], False)
    os.set_blocking(received[0], False)
    return received[0]


async def detach(folder: Path, *, lazy: bool) -> None:
    """Take a mount away.

    Args:
        lazy: at once, though somebody uses it; who does so can go on until he is done.
    Raises: InvalidRequest: somebody uses it, or this user may not; ConfigInvalid: the helper is missing.
    """
    said = await _helped("-u", *(["-z"] if lazy else []), "--", str(folder))
    if said is not None:
        at_once = "; 'muni umount --lazy' takes it away all the same" if "busy" in said else ""
        raise InvalidRequest(reason=(said or f"{folder} cannot be unmounted") + at_once)


async def _helped(*arguments: str, through: int | None = None) -> str | None:
    """Let fusermount3 do something; returns what it complains of, None if it is done.

    Args:
        through: a socket through which it sends the device.
    Raises: ConfigInvalid: it is missing; InvalidRequest: it does not end.
    """
    helper = shutil.which("fusermount3")
    if helper is None:
        raise ConfigInvalid(where="fusermount3", reason="it is missing; type: apt-get install fuse3")
    process = await asyncio.create_subprocess_exec(
        helper,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=None if through is None else os.environ | {"_FUSE_COMMFD": str(through)},
        pass_fds=() if through is None else (through,),
    )
    try:
        async with asyncio.timeout(_HELPER_S):
            _, said = await process.communicate()
    except TimeoutError as error:
        raise InvalidRequest(reason=f"fusermount3 has not ended within {_HELPER_S:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                process.kill()
    return said.decode(errors="replace").strip().removeprefix(f"{helper}: ") if process.returncode else None
