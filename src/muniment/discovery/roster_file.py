"""Static roster: a text file with one node a line, read again when it changes.

# a comment
mun:node:<id>@host:port        the node is asked for its record, again before that expires
<signed record>                as `muni node status --record` prints it; good until it expires
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from muniment.discovery.asking import Asker, Resolve
from muniment.discovery.known import KnownNodes
from muniment.errors import ConfigInvalid, InvalidRequest, RosterEmpty
from muniment.ids import NodeId
from muniment.ports import Clock
from muniment.spec.address import PeerAddress, PeerKind, parse_address
from muniment.spec.record import NodeRecord

_CHECK_S: Final = 2.0
_RESOLVE_S: Final = 60.0
_PATIENCE_S: Final = 2.0
_FILE_BYTES_MAX: Final = 16 << 20
_log = logging.getLogger(__name__)


class FileRoster:
    """Follows one file.  `ports.Roster`.

    Args:
        path: the file.
        resolve: how to turn a short address into a record.
        clock: decides what has expired.
    """

    def __init__(self, path: Path, resolve: Resolve, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._known = KnownNodes(clock)
        self._addresses: list[PeerAddress] = []
        self._listed: set[NodeId] = set()
        self._asker = Asker(resolve, self._known, lambda node: node in self._listed)
        self._stamp: tuple[int, int] = (0, 0)
        self._task: asyncio.Task[None] | None = None

    @property
    def source(self) -> str:
        return str(self._path)

    async def start(self) -> None:
        """As the port; ConfigInvalid: the file cannot be read, or has a line that is nothing."""
        self._read()
        self._asker.ask(self._addresses)
        await self._asker.wait_answers(_PATIENCE_S)
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
        await self._asker.aclose()

    async def _follow(self) -> None:
        """Look at the file every few seconds; ask the nodes again every minute, the missing ones sooner."""
        asked_s = self._clock.monotonic_s()
        trouble = ""
        while True:
            await asyncio.sleep(_CHECK_S)
            changed = False
            try:
                changed = self._read()
                trouble = ""
            except ConfigInvalid as error:  # go on with what was read last; say so once
                if trouble != str(error):
                    trouble = str(error)
                    _log.warning("the roster file cannot be used: %s", error)
            if changed or self._clock.monotonic_s() - asked_s > _RESOLVE_S:
                asked_s = self._clock.monotonic_s()
                self._asker.ask(self._addresses)
            else:
                known = self._known.nodes_nowait()
                self._asker.ask(one for one in self._addresses if one.node not in known)

    def _read(self) -> bool:
        """Take in the file if it is another than before.

        Raises: ConfigInvalid: it cannot be read, or not every line of it; nothing is changed then.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return False
            if status.st_size > _FILE_BYTES_MAX:
                raise ConfigInvalid(where=self.source, reason="larger than any roster")
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid(where=self.source, reason=str(error)) from error
        addresses, texts = [], []
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if text.startswith("mun:"):
                addresses.append(self._parsed(text, number))
            elif text:
                texts.append(text)
        self._stamp, self._addresses = stamp, addresses
        self._listed = {address.node for address in addresses}
        records = [self._known.add(text) for text in texts]
        self._known.keep_only(self._listed.union(record.node for record in records if record is not None))
        return True

    def _parsed(self, text: str, number: int) -> PeerAddress:
        try:
            return parse_address(text, PeerKind.NODE)
        except InvalidRequest as error:
            raise ConfigInvalid(where=f"{self.source}, line {number}", reason=error.reason) from error
