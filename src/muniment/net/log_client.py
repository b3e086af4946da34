"""One volume's log service over HTTPS: docs/spec/log.md section 2.  `ports.LogClient`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from muniment.crypto.identity import node_id
from muniment.errors import MalformedRecord, MunimentError, ProtocolViolation
from muniment.ids import VolumeId, id_text
from muniment.net.caller import Caller
from muniment.net.channel import BRIEF_BYTES_MAX, Exchange, Refusal
from muniment.net.problem import error_of
from muniment.net.timeouts import Timeouts
from muniment.ports import Appended
from muniment.spec.address import PeerAddress
from muniment.spec.log_wire import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    CLEAR_ANSWER_BYTES_MAX,
    ENTRIES_TYPE,
    AppendAnswer,
    LogInfo,
    NoteMessage,
    ProofAnswer,
    VolumeFounded,
    pack_frames,
    split_clear,
    split_frames,
)

_MESSAGE = TypeVar("_MESSAGE", bound=msgspec.Struct)
_BINARY: Final = {"Content-Type": ENTRIES_TYPE}
_JSON: Final = {"Content-Type": "application/json"}
_FRAME_BYTES: Final = 4


class HttpLogService:
    """A log service; gives clients of its volumes, which share its connections.

    Args:
        address: where it is and who it must be.
        timeouts: of all calls; a long poll may take as much longer as it asks for.
    """

    def __init__(self, address: PeerAddress, timeouts: Timeouts | None = None) -> None:
        self.timeouts = timeouts or Timeouts()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="muniment-log")
        self.caller = Caller(address.node, (address.host_port,), self._threads, self.timeouts, channels=4)

    async def public_key(self) -> bytes:
        """The key that signs its checkpoints, checked against the pinned NodeId."""
        info = await self.ask(LogInfo, "log-info", Exchange("GET", "/v1/log"))
        key = bytes.fromhex(info.public_key)
        if node_id(key) != self.caller.node:
            raise ProtocolViolation(node=self.caller.node, reason="it shows another's key")
        return key

    async def found(self, signed: bytes) -> bytes:
        """Make a volume's log of its first entry; returns its first checkpoint, unverified.

        Raises: AccountRefused, CapacityFull, EntryRefused; as `LogClient`.
        """
        what = Exchange("POST", "/v1/logs", pack_frames([signed]), _BINARY)
        return (await self.ask(VolumeFounded, "found", what)).note.encode()

    def volume(self, volume: VolumeId) -> HttpLogClient:
        """The client of one of its volumes."""
        return HttpLogClient(self, volume)

    async def exchange(self, call: str, what: Exchange, *, size_bytes: int = 0, extra_s: float = 0) -> bytes:
        """One call; the peer's problem as an error of ours."""
        deadline_s = max(self.timeouts.control_s, self.timeouts.bulk_s(size_bytes)) + extra_s
        try:
            return (await self.caller.exchange(what, call, deadline_s)).body
        except Refusal as refusal:
            raise refusal.error from None

    async def ask(
        self,
        kind: type[_MESSAGE],
        call: str,
        what: Exchange,
        *,
        size_bytes: int = 0,
        extra_s: float = 0,
    ) -> _MESSAGE:
        """As `exchange`, for an answer of one message."""
        body = await self.exchange(call, what, size_bytes=size_bytes, extra_s=extra_s)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolViolation(node=self.caller.node, reason=f"'{call}': {error}") from error

    async def aclose(self) -> None:
        """Close connections and end the threads."""
        await self.caller.aclose()
        self._threads.shutdown()


class HttpLogClient:
    """One volume.  `ports.LogClient`."""

    def __init__(self, service: HttpLogService, volume: VolumeId) -> None:
        self._service = service
        self._base = f"/v1/logs/{id_text(volume)}"

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        appended: list[Appended] = []
        for batch in _batches(signed):
            appended += await self._append(batch)
        return appended

    async def _append(self, signed: Sequence[bytes]) -> list[Appended]:
        size_bytes = sum(map(len, signed))
        brief = size_bytes + _FRAME_BYTES * len(signed) <= BRIEF_BYTES_MAX
        what = Exchange("POST", f"{self._base}/entries", pack_frames(signed), _BINARY, brief=brief)
        answer = await self._service.ask(AppendAnswer, "append", what, size_bytes=size_bytes)
        node = self._service.caller.node
        appended = []
        for outcome in answer.outcomes:
            if outcome.problem is not None:
                raise error_of(outcome.problem, node)
            if outcome.index is None:
                raise ProtocolViolation(node=node, reason="'append': an outcome that says nothing")
            appended.append(Appended(outcome.index, answer.note.encode()))
        if len(appended) != len(signed):
            raise ProtocolViolation(node=node, reason=f"{len(appended)} outcomes for {len(signed)} entries")
        return appended

    async def checkpoint(self) -> bytes:
        what = Exchange("GET", f"{self._base}/checkpoint", brief=True)
        return (await self._service.ask(NoteMessage, "checkpoint", what)).note.encode()

    async def entries(self, start: int, stop: int) -> list[bytes]:
        what = Exchange("GET", f"{self._base}/entries?start={start}&stop={stop}")
        body = await self._service.exchange("entries", what, size_bytes=APPEND_BYTES_MAX)
        try:
            found = list(split_frames(body))
        except MalformedRecord as error:
            raise self._violation(str(error)) from error
        if not 0 < len(found) <= stop - start:
            raise self._violation(f"{len(found)} entries from {start} to {stop}")
        return found

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return await self._proof("inclusion", f"index={index}&size={size}")

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return await self._proof("consistency", f"old={old}&new={new}")

    async def clear_part(self) -> tuple[bytes, bytes]:
        what = Exchange("GET", f"{self._base}/clear")
        body = await self._service.exchange("clear", what, size_bytes=CLEAR_ANSWER_BYTES_MAX)
        try:
            return split_clear(body)
        except MalformedRecord as error:
            raise self._violation(str(error)) from error

    async def wait_beyond(self, size: int, wait_s: float) -> bytes:
        what = Exchange("GET", f"{self._base}/checkpoint?beyond={size}&wait_s={wait_s}", brief=True)
        return (await self._service.ask(NoteMessage, "checkpoint", what, extra_s=wait_s)).note.encode()

    async def cosign(self, note: bytes) -> None:
        body = msgspec.json.encode(NoteMessage(note.decode()))
        await self._service.exchange("cosign", Exchange("POST", f"{self._base}/cosignatures", (body,), _JSON))

    async def aclose(self) -> None:
        """Nothing of its own: the service's connections are closed with it."""

    async def _proof(self, call: str, query: str) -> tuple[bytes, ...]:
        what = Exchange("GET", f"{self._base}/{call}?{query}", brief=True)
        answer = await self._service.ask(ProofAnswer, call, what)
        return tuple(bytes.fromhex(one) for one in answer.hashes)

    def _violation(self, reason: str) -> MunimentError:
        return ProtocolViolation(node=self._service.caller.node, reason=reason)


def _batches(signed: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Parts that one request may carry, in order."""
    batches: list[Sequence[bytes]] = []
    start = size_bytes = 0
    for at, entry in enumerate(signed):
        size_bytes += _FRAME_BYTES + len(entry)
        if at > start and (size_bytes > APPEND_BYTES_MAX or at - start == APPEND_ENTRIES_MAX):
            batches.append(signed[start:at])
            start, size_bytes = at, _FRAME_BYTES + len(entry)
    batches.append(signed[start:])
    return batches
