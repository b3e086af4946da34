"""Static roster: a text file with one node a line, read again when it changes.

# a comment
mun:node:<id>@host:port        the node is asked for its record, again before that expires
<signed record>                as `muni node status --record` prints it; good until it expires
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from muniment.discovery.known import KnownNodes
from muniment.errors import ConfigInvalid, InvalidRequest, MunimentError, RosterEmpty
from muniment.ids import NodeId
from muniment.ports import Clock
from muniment.spec.address import PeerAddress, PeerKind, parse_address
from muniment.spec.record import NodeRecord

_CHECK_S: Final = 2.0
_RESOLVE_S: Final = 60.0
_FILE_BYTES_MAX: Final = 16 << 20
_AT_ONCE: Final = 16
_log = logging.getLogger(__name__)

Resolve = Callable[[PeerAddress], Awaitable[str]]
"""Ask a node for its signed record; raises a MunimentError leaf."""


class FileRoster:
    """Follows one file.  `ports.Roster`.

    Args:
        path: the file.
        resolve: how to turn a short address into a record.
        clock: decides what has expired.
    """

    def __init__(self, path: Path, resolve: Resolve, clock: Clock) -> None:
        self._path, self._resolve, self._clock = path, resolve, clock
        self._known = KnownNodes(clock)
        self._addresses: list[PeerAddress] = []
        self._stamp: tuple[int, int] = (0, 0)
        self._fixed: set[NodeId] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def source(self) -> str:
        return str(self._path)

    async def start(self) -> None:
        self._read()
        await self._resolve_all()
        if not self._known.nodes_nowait():
            raise RosterEmpty(source=self.source)
        self._task = asyncio.create_task(self._follow(), name="follow the roster file")

    def nodes_nowait(self) -> Mapping[NodeId, NodeRecord]:
        return self._known.nodes_nowait()

    async def wait_changed(self) -> None:
        await self._known.wait_changed()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        """Look at the file every few seconds; ask the nodes again every minute, the missing ones sooner."""
        asked_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(_CHECK_S)
            try:
                changed = self._read()
            except ConfigInvalid as error:
                _log.warning("the roster file cannot be used: %s", error)
                continue
            known = self._known.nodes_nowait()
            missing = any(address.node not in known for address in self._addresses)
            if changed or missing or self._clock.monotonic_s() - asked_s > _RESOLVE_S:
                asked_s = self._clock.monotonic_s()
                await self._resolve_all()

    def _read(self) -> bool:
        """Read the file if it is another than before.  Raises: ConfigInvalid: it cannot be read."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return False
            if status.st_size > _FILE_BYTES_MAX:
                raise ConfigInvalid(where=self.source, reason="larger than any roster")
            lines = self._path.read_text().splitlines()
        except OSError as error:
            raise ConfigInvalid(where=self.source, reason=error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise ConfigInvalid(where=self.source, reason="not a text") from error
        self._stamp = stamp
        self._addresses, self._fixed = [], set()
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if text:
                self._take(text, number)
        self._known.keep_only(self._fixed | {address.node for address in self._addresses})
        return True

    def _take(self, text: str, number: int) -> None:
        if not text.startswith("mun:"):
            record = self._known.add(text)
            if record is not None:
                self._fixed.add(record.node)
            return
        try:
            self._addresses.append(parse_address(text, PeerKind.NODE))
        except InvalidRequest as error:
            raise ConfigInvalid(where=f"{self.source}, line {number}", reason=error.reason) from error

    async def _resolve_all(self) -> None:
        """Ask the nodes whose address is known for their records; those that do not answer are left out."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(address: PeerAddress) -> None:
            async with places:
                try:
                    self._known.add(await self._resolve(address))
                except MunimentError as error:
                    _log.info("%s has not told its record: %s", address, error)

        async with asyncio.TaskGroup() as tasks:
            for address in self._addresses:
                tasks.create_task(one(address))
