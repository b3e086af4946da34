"""What the kernel is told without having asked: which names and attributes it must forget."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from muniment.gateways.mount import protocol

_ATTRIBUTES_ONLY: Final = -1
_END_S: Final = 5.0
_log = logging.getLogger(__name__)


class Notices:
    """Of one mount; before `begin` and after `aclose` nobody is told anything."""

    def __init__(self) -> None:
        self._device: int | None = None
        self._thread = ThreadPoolExecutor(1, "fuse-notices")
        self._last: asyncio.Future[None] | None = None

    def begin(self, device: int) -> None:
        """Tell this device from now on.

        By a descriptor of its own: the kernel may hold up a notice until the device is closed, and the next
        would go to whatever file has that number by then.
        """
        self._device = os.dup(device)

    async def aclose(self) -> None:
        """Say nothing more; what is on its way needs the mount to be served until this returns."""
        device, self._device = self._device, None
        if self._last is not None:
            await asyncio.wait({self._last}, timeout=_END_S)
        if device is not None:
            self._thread.submit(os.close, device)
        self._thread.shutdown(wait=False)

    def attributes_changed(self, node: int) -> None:
        """Let the kernel ask for a file's attributes before it shows them again."""
        if self._device is not None:
            _tell(
                self._device,
                protocol.NOTIFY_INVAL_INODE,
                protocol.INVAL_INODE.pack(node, _ATTRIBUTES_ONLY, 0),
            )

    async def content_changed(self, node: int) -> None:
        """Let the kernel read a file anew; it has forgotten its pages when this returns.

        In a thread: it may wait for pages that this loop is about to bring.
        """
        if self._device is not None:
            body = protocol.INVAL_INODE.pack(node, 0, 0)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, _tell, self._device, protocol.NOTIFY_INVAL_INODE, body)

    def names_changed(self, names: Iterable[tuple[int, bytes]]) -> None:
        """Let the kernel forget what these names in these folders lead to.

        In a thread: the kernel may hold the folder's lock while it waits for this loop.
        """
        if self._device is None:
            return
        bodies = [protocol.INVAL_ENTRY.pack(node, len(name), 0) + name + b"\0" for node, name in names]
        if bodies:
            loop = asyncio.get_running_loop()
            self._last = loop.run_in_executor(self._thread, self._tell_all, self._device, bodies)

    def _tell_all(self, device: int, bodies: list[bytes]) -> None:
        for body in bodies:
            if self._device is None:
                return
            _tell(device, protocol.NOTIFY_INVAL_ENTRY, body)


def _tell(device: int, code: int, body: bytes) -> None:
    try:
        os.write(device, protocol.notification(code, body))
    except OSError as error:
        if error.errno != errno.ENOENT:  # it has never known it
            _log.debug("the kernel did not take an invalidation: %s", error)
