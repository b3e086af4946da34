"""The node's own signed record, and the tasks that keep introducers supplied with it.

A record lives `record_s`; after a third of that it is signed anew and announced again, so that two
announcements may fail before the node leaves anybody's roster.  At a graceful stop a record that has already
expired is announced: it withdraws the node at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from muniment.crypto.identity import Identity
from muniment.crypto.records import record_text, sign_record
from muniment.errors import MunimentError
from muniment.ports import Clock
from muniment.spec.record import NodeRecord

_RETRY_S_MIN: Final = 1.0
_RETRY_S_MAX: Final = 60.0
_JITTER: Final = 0.2
"""Part of an interval that chance takes off, so that a grid's nodes do not announce in step."""

Announce = Callable[[str, bytes], Awaitable[None]]
"""Send a signed record to the introducer at this address; raises a MunimentError leaf."""

_log = logging.getLogger(__name__)


class OwnRecord:
    """What the node says of itself; any thread.

    Args:
        template: all but the times, which are set at each signature.
        lifetime_s: from issue to expiry.
    """

    def __init__(self, identity: Identity, template: NodeRecord, lifetime_s: int, clock: Clock) -> None:
        self._identity, self._template = identity, template
        self._lifetime_s, self._clock = lifetime_s, clock
        self._lock = threading.Lock()
        self._issued_s = 0
        self._signed = b""

    def set_draining(self, *, draining: bool) -> None:
        """Say from now on whether the node gives its shares away."""
        with self._lock:
            self._template = replace(self._template, draining=draining)
            self._sign(int(self._clock.now_s()), self._lifetime_s)

    def signed(self) -> bytes:
        """The record, signed anew if a third of its life is over (or the clock was set back)."""
        now_s = int(self._clock.now_s())
        with self._lock:
            if not self._issued_s <= now_s < self._issued_s + max(1, self._lifetime_s // 3):
                self._sign(now_s, self._lifetime_s)
            return self._signed

    def text(self) -> str:
        """The record as `info` carries it."""
        return record_text(self.signed())

    def renewed(self) -> bytes:
        """The record, signed anew."""
        with self._lock:
            self._sign(int(self._clock.now_s()), self._lifetime_s)
            return self._signed

    def withdrawal(self) -> bytes:
        """A record later than all before that has already expired."""
        with self._lock:
            self._sign(max(int(self._clock.now_s()), self._issued_s + 1), 0)
            signed, self._issued_s = self._signed, 0
            return signed

    def _sign(self, issued_s: int, lifetime_s: int) -> None:
        record = replace(self._template, issued_s=issued_s, expires_s=issued_s + lifetime_s)
        self._signed, self._issued_s = sign_record(self._identity, record), issued_s


class Wait:
    """Sleep that can be ended for all who sleep."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until `end`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def end(self) -> None:
        """Wake everybody who sleeps now."""
        self._over.set()
        self._over = asyncio.Event()


class Announcer:
    """Announces one node to its introducers until cancelled.

    Args:
        introducers: addresses `mun:introducer:...`.
        announce: sends one record.
        chance: a number from 0 to 1, new at each call.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        record: OwnRecord,
        introducers: Sequence[str],
        interval_s: float,
        announce: Announce,
        *,
        chance: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._record, self._introducers, self._interval_s = record, introducers, interval_s
        self._announce, self._chance, self._sleep = announce, chance, sleep

    async def run(self) -> None:
        """Keep every introducer supplied; one that is away is tried again, ever more seldom up to a minute.

        Ends only by cancellation.
        """
        async with asyncio.TaskGroup() as tasks:
            for introducer in self._introducers:
                tasks.create_task(self._supply(introducer), name=f"announce to {introducer}")

    async def withdraw(self, timeout_s: float) -> None:
        """Tell every introducer once that the node goes; whom that does not reach learns it by expiry."""
        record = self._record.withdrawal()
        async with asyncio.TaskGroup() as tasks:
            for introducer in self._introducers:
                tasks.create_task(self._withdraw(introducer, record, timeout_s))

    async def _supply(self, introducer: str) -> None:
        retry_s = _RETRY_S_MIN
        record = self._record.signed()
        while True:
            try:
                await self._announce(introducer, record)
            except MunimentError as error:
                _log.warning("not announced to %s: %s", introducer, error)
                wait_s, retry_s = retry_s, min(2 * retry_s, _RETRY_S_MAX)
            else:
                _log.debug("announced to %s", introducer)
                wait_s, retry_s = self._interval_s, _RETRY_S_MIN
            await self._sleep(wait_s * (1 - _JITTER * self._chance()))
            # Signed anew at each attempt: an introducer that knows one as late or later (of the same second,
            # from before a quick restart, or from before the clock was set) takes the next one.
            record = self._record.renewed()

    async def _withdraw(self, introducer: str, record: bytes, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._announce(introducer, record)
        except (MunimentError, TimeoutError) as error:
            _log.warning("not withdrawn from %s: %s", introducer, error)
