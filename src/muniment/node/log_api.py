"""The log service's calls over HTTP: docs/spec/log.md section 2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from muniment.errors import (
    AccountRefused,
    ClockSkewed,
    EntryRefused,
    InvalidRequest,
    MalformedRecord,
    MunimentError,
    Overloaded,
    UnknownVersion,
    VolumeUnknown,
)
from muniment.ids import VolumeId, id_from_text, id_text
from muniment.merkle.log_tree import consistency_path, inclusion_path
from muniment.net.http import JSON, Request, Response, Router, json_response
from muniment.net.problem import problem_of
from muniment.node.log_host import LogHost
from muniment.node.openapi import Call, Parameter, describe
from muniment.ports import Appended
from muniment.spec.limits import CONTROL_BODY_BYTES_MAX
from muniment.spec.log_wire import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    CLEAR_TYPE,
    ENTRIES_ANSWER_BYTES_MAX,
    ENTRIES_TYPE,
    WAIT_S_MAX,
    AppendAnswer,
    AppendOutcome,
    Index,
    LogInfo,
    NoteMessage,
    ProofAnswer,
    VolumeFounded,
    Wait,
    pack_clear,
    pack_frames,
    split_frames,
)
from muniment.spec.wire import IdText

_T = TypeVar("_T")
_DEADLINE_S: Final = 30.0
_VOLUME: Final = Parameter("volume", "path", IdText, "VolumeId.")
_ENTRY_ERRORS: Final = (
    MalformedRecord,
    UnknownVersion,
    ClockSkewed,
    *EntryRefused.__subclasses__(),
)


def _index(name: str, says: str) -> Parameter:
    return Parameter(name, "query", Index, says)


# One row per call; the formatter would spread each over a dozen lines.
# fmt: off
CALLS: Final = (
    Call("openapi", "GET", "/v1/openapi.json", "This description.", answer=JSON, unguarded=True),
    Call("log-info", "GET", "/v1/log", "The key that signs checkpoints.", answer=LogInfo, unguarded=True),
    Call("found", "POST", "/v1/logs", "Make a volume's log of its first entry.", request=ENTRIES_TYPE,
         answer=VolumeFounded, errors=(*_ENTRY_ERRORS, AccountRefused), unguarded=True,
         body_bytes_max=CONTROL_BODY_BYTES_MAX),
    Call("append", "POST", "/v1/logs/{volume}/entries", "Order entries as they come; durable when answered.",
         request=ENTRIES_TYPE, answer=AppendAnswer, errors=(MalformedRecord, VolumeUnknown), unguarded=True,
         parameters=(_VOLUME,), body_bytes_max=APPEND_BYTES_MAX),
    Call("entries", "GET", "/v1/logs/{volume}/entries", "Signed entries from one index on.",
         answer=ENTRIES_TYPE, errors=(VolumeUnknown,), unguarded=True,
         parameters=(_VOLUME, _index("start", "First."), _index("stop", "Behind the last."))),
    Call("checkpoint", "GET", "/v1/logs/{volume}/checkpoint",
         "The newest checkpoint; waits until the log is longer than asked.", answer=NoteMessage,
         errors=(VolumeUnknown,), unguarded=True,
         parameters=(_VOLUME, Parameter("beyond", "query", Index, "Entries known.", required=False),
                     Parameter("wait_s", "query", Wait, "How long to wait.", required=False))),
    Call("inclusion", "GET", "/v1/logs/{volume}/inclusion", "The proof that an entry is in the log.",
         answer=ProofAnswer, errors=(VolumeUnknown,), unguarded=True,
         parameters=(_VOLUME, _index("index", "Of the entry."), _index("size", "Of the log."))),
    Call("consistency", "GET", "/v1/logs/{volume}/consistency", "The proof that it extends an older log.",
         answer=ProofAnswer, errors=(VolumeUnknown,), unguarded=True,
         parameters=(_VOLUME, _index("old", "Size known."), _index("new", "Size asked about."))),
    Call("clear", "GET", "/v1/logs/{volume}/clear", "The newest checkpoint and the clear part in short.",
         answer=CLEAR_TYPE, errors=(VolumeUnknown, Overloaded), unguarded=True, parameters=(_VOLUME,)),
    Call("cosign", "POST", "/v1/logs/{volume}/cosignatures", "Add a cosignature to the newest checkpoint.",
         status=204, request=NoteMessage, errors=(VolumeUnknown, MalformedRecord), unguarded=True,
         parameters=(_VOLUME,), body_bytes_max=CONTROL_BODY_BYTES_MAX),
)
# fmt: on


class LogApi:
    """Binds the calls to the logs of a host."""

    def __init__(self, host: LogHost, *, version: str) -> None:
        self._host = host
        self._version = version
        self._description = describe(
            "Muniment log service",
            version,
            CALLS,
            guarded=(),
            says="Orders signed entries; docs/spec/log.md says what each call means.",
        )

    def router(self) -> Router:
        """Every call of `CALLS` bound to its handler."""
        router = Router()
        for call in CALLS:
            handler = getattr(self, f"_{call.name.replace('-', '_')}")
            deadline_s = _DEADLINE_S + (WAIT_S_MAX if call.name == "checkpoint" else 0)
            router.add(
                call.method,
                call.path,
                handler,
                body_bytes_max=call.body_bytes_max,
                deadline_s=deadline_s,
            )
        return router

    async def _openapi(self, request: Request) -> Response:
        return Response(body=self._description)

    async def _log_info(self, request: Request) -> Response:
        key = self._host.identity.public_key.hex()
        return json_response(LogInfo(key, self._version, self._host.clock.now_s()))

    async def _found(self, request: Request) -> Response:
        entries = await _entries(request)
        if len(entries) != 1:
            raise InvalidRequest(reason="a volume begins with one entry")
        sequencer = await self._host.found(entries[0])
        note = await sequencer.in_thread(sequencer.store.checkpoint)
        return json_response(VolumeFounded(id_text(sequencer.volume), note.decode()))

    async def _append(self, request: Request) -> Response:
        sequencer = await self._host.sequencer(_volume(request))
        entries = await _entries(request)
        outcomes = await sequencer.append(entries, request.peer)
        note = next((one.checkpoint for one in reversed(outcomes) if isinstance(one, Appended)), b"")
        return json_response(AppendAnswer([_outcome(outcome) for outcome in outcomes], note.decode()))

    async def _entries(self, request: Request) -> Response:
        sequencer = await self._host.sequencer(_volume(request))
        start, stop = _number(request, "start"), _number(request, "stop")
        body = await _in_thread(
            lambda: b"".join(
                pack_frames(sequencer.store.read(start, stop, bytes_max=ENTRIES_ANSWER_BYTES_MAX))
            )
        )
        return Response(body=body, content_type=ENTRIES_TYPE)

    async def _checkpoint(self, request: Request) -> Response:
        sequencer = await self._host.sequencer(_volume(request))
        beyond, wait_s = request.query_as("beyond", Index, -1), request.query_as("wait_s", Wait, 0.0)
        note = await sequencer.wait_beyond(beyond, wait_s)
        return json_response(NoteMessage(note.decode()))

    async def _inclusion(self, request: Request) -> Response:
        sequencer = await self._host.sequencer(_volume(request))
        index, size = _number(request, "index"), _number(request, "size")
        if not index < size <= sequencer.store.size:
            raise InvalidRequest(reason=f"the log has {sequencer.store.size} entries")
        return _proof(await _in_thread(lambda: inclusion_path(index, size, sequencer.store.node)))

    async def _consistency(self, request: Request) -> Response:
        sequencer = await self._host.sequencer(_volume(request))
        old, new = _number(request, "old"), _number(request, "new")
        if not old <= new <= sequencer.store.size:
            raise InvalidRequest(reason=f"the log has {sequencer.store.size} entries")
        return _proof(await _in_thread(lambda: consistency_path(old, new, sequencer.store.node)))

    async def _clear(self, request: Request) -> Response:
        sequencer = await self._host.sequencer(_volume(request))
        return Response(body=pack_clear(*await sequencer.clear_part()), content_type=CLEAR_TYPE)

    async def _cosign(self, request: Request) -> Response:
        body = await request.json(NoteMessage)
        await self._host.cosign(_volume(request), body.note.encode())
        return Response(204)


async def _in_thread(work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _volume(request: Request) -> VolumeId:
    return _volume_of(request.params["volume"])


@lru_cache(maxsize=4096)  # every call names its volume, and decoding the name costs more than finding its log
def _volume_of(text: str) -> VolumeId:
    return VolumeId(id_from_text(text))


def _number(request: Request, name: str) -> int:
    if name not in request.query:
        raise InvalidRequest(reason=f"{name} is missing")
    return request.query_as(name, Index, 0)


async def _entries(request: Request) -> list[bytes]:
    entries = list(split_frames(await request.body()))
    if not 0 < len(entries) <= APPEND_ENTRIES_MAX:
        raise InvalidRequest(reason=f"1 to {APPEND_ENTRIES_MAX} entries, not {len(entries)}")
    return entries


def _outcome(outcome: Appended | MunimentError) -> AppendOutcome:
    if isinstance(outcome, Appended):
        return AppendOutcome(index=outcome.index)
    return AppendOutcome(problem=problem_of(outcome))


def _proof(hashes: Sequence[bytes]) -> Response:
    return json_response(ProofAnswer([one.hex() for one in hashes]))
