"""An introducer over HTTPS, as clients (`roster`) and nodes (`announce`) see it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from muniment.errors import ProtocolViolation
from muniment.net.caller import Caller
from muniment.net.channel import Exchange, Refusal
from muniment.net.timeouts import Timeouts
from muniment.spec.address import PeerAddress
from muniment.spec.wire import Announcement, RosterAnswer


class HttpIntroducer:
    """One introducer, with threads of its own: a long poll holds one for up to a minute.

    Args:
        address: where it is and who it must be.
        timeouts: of all calls; a long poll may take as much longer as it asks for.
    """

    def __init__(self, address: PeerAddress, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="muniment-introducer")
        self._caller = Caller(address.node, (address.host_port,), self._threads, self._timeouts, channels=2)

    async def roster(self, epoch: str, version: int, wait_s: float) -> RosterAnswer:
        """What changed since `version` of `epoch`, waiting up to `wait_s` for a change; all if unknown there.

        Raises: NodeUnreachable, DeadlineExceeded, PinMismatch, ProtocolViolation, Overloaded.
        """
        path = f"/v1/roster?epoch={epoch}&version={version}&wait_s={wait_s}"
        body = await self._exchange("roster", Exchange("GET", path), wait_s)
        try:
            return msgspec.json.decode(body, type=RosterAnswer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolViolation(node=self._caller.node, reason=f"no roster: {error}") from error

    async def announce(self, record: str) -> None:
        """Hand over a signed record's text; one that has expired withdraws its node.

        Raises: as `roster`; what the introducer finds wrong with the record.
        """
        body = msgspec.json.encode(Announcement(record))
        headers = {"Content-Type": "application/json"}
        await self._exchange("announce", Exchange("POST", "/v1/announce", (body,), headers), 0.0)

    async def _exchange(self, call: str, what: Exchange, extra_s: float) -> bytes:
        try:
            answer = await self._caller.exchange(what, call, self._timeouts.control_s + extra_s)
        except Refusal as refusal:
            raise refusal.error from None
        return answer.body

    async def aclose(self) -> None:
        """Close connections and end the threads."""
        await self._caller.aclose()
        self._threads.shutdown()
