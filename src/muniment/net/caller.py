"""Calls to one peer: a bounded set of channels, deadlines, cancellation, and one retry of a stale channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from muniment.errors import DeadlineExceeded, NodeUnreachable, PinMismatch
from muniment.ids import NodeId
from muniment.net.channel import Answer, Channel, Exchange, StaleConnection
from muniment.net.timeouts import Timeouts


class Caller:
    """Makes exchanges with one peer, at most `channels` at a time.

    Belongs to one event loop; the blocking work runs in `threads`, brief exchanges on the loop itself
    once there is a connection.

    Args:
        addresses: tried in order when connecting; the one that works is kept.
        threads: shared with other callers; not closed here.
    """

    def __init__(
        self,
        node: NodeId,
        addresses: Sequence[str],
        threads: ThreadPoolExecutor,
        timeouts: Timeouts,
        *,
        channels: int = 4,
    ) -> None:
        self.node = node
        self._addresses = list(addresses)
        self._threads, self._timeouts = threads, timeouts
        self._idle: list[Channel] = []
        self._busy: set[Channel] = set()
        self._places = asyncio.Semaphore(channels)

    @property
    def addresses(self) -> tuple[str, ...]:
        """In the order in which they are tried next."""
        return tuple(self._addresses)

    async def exchange(self, what: Exchange, call: str, deadline_s: float) -> Answer:
        """One exchange within a deadline.

        Cancelling closes the connection and returns when its thread has let go of all buffers, also if it is
        cancelled again while it waits for that.

        Raises: DeadlineExceeded; as `Channel.exchange`, but for StaleConnection.
        """
        try:
            async with asyncio.timeout(deadline_s), self._places:
                return await self._try_addresses(what, deadline_s)
        except TimeoutError as error:
            raise DeadlineExceeded(node=self.node, call=call, deadline_s=round(deadline_s, 1)) from error

    async def _try_addresses(self, what: Exchange, deadline_s: float) -> Answer:
        if self._idle:
            with contextlib.suppress(StaleConnection):
                return await self._on(self._idle.pop(), what, deadline_s)
        for attempt, address in enumerate(self.addresses, 1):
            channel = Channel(self.node, address, self._timeouts.connect_s)
            try:
                answer = await self._on(channel, what, deadline_s)
            except (NodeUnreachable, PinMismatch):  # somebody else may have got a place the node has left
                if attempt == len(self._addresses):
                    raise
                continue
            if attempt > 1:
                self._addresses.remove(address)
                self._addresses.insert(0, address)
            return answer
        raise NodeUnreachable(node=self.node, reason="its record has no address")

    async def _on(self, channel: Channel, what: Exchange, deadline_s: float) -> Answer:
        self._busy.add(channel)
        if what.brief and channel.open:
            try:
                return await channel.exchange_here(what)
            finally:
                self._busy.discard(channel)
                self._keep(channel)
        job = self._threads.submit(channel.exchange, what, deadline_s)
        work = asyncio.wrap_future(job)
        try:
            answer = await asyncio.shield(work)
        except asyncio.CancelledError:
            channel.abort()
            # The thread may be in the middle of our caller's buffers: wait until it has left them.  A job for
            # which no thread was free yet is taken back.
            while not job.cancel() and not work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            if work.done() and not work.cancelled():
                work.exception()
            channel.close()
            raise
        except BaseException:
            self._keep(channel)
            raise
        finally:
            self._busy.discard(channel)
        self._keep(channel)
        return answer

    def _keep(self, channel: Channel) -> None:
        """Keep an open channel for the next exchange; a closed one would only connect anew, so drop it."""
        if channel.open:
            self._idle.append(channel)

    async def aclose(self) -> None:
        """Close all channels; exchanges still running end with NodeUnreachable."""
        for channel in self._busy:
            channel.abort()
        for channel in self._idle:
            channel.close()
        self._idle.clear()
