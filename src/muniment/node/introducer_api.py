"""The introducer's calls over HTTP: docs/spec/wire.md section 6."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from muniment.crypto.records import record_from_text
from muniment.errors import ClockSkewed, MalformedRecord, UnknownVersion
from muniment.net.http import JSON, Request, Response, Router, json_response
from muniment.node.introducer import WAIT_S_MAX, IntroducerService, RosterFile
from muniment.node.openapi import Call, Parameter, describe
from muniment.spec.limits import CONTROL_BODY_BYTES_MAX
from muniment.spec.wire import Announcement, EpochText, RosterAnswer, RosterVersion

Wait = Annotated[float, msgspec.Meta(ge=0, le=WAIT_S_MAX)]
_DEADLINE_S: Final = 30.0

# One row per call; the formatter would spread each over a dozen lines.
# fmt: off
CALLS: Final = (
    Call("openapi", "GET", "/v1/openapi.json", "This description.", answer=JSON, unguarded=True),
    Call("announce", "POST", "/v1/announce", "Enter a node's record, renew it, or withdraw the node.",
         status=204, request=Announcement, errors=(MalformedRecord, UnknownVersion, ClockSkewed),
         unguarded=True, body_bytes_max=CONTROL_BODY_BYTES_MAX),
    Call("roster", "GET", "/v1/roster", "All records, or what changed since a version; waits for a change.",
         answer=RosterAnswer, unguarded=True,
         parameters=(Parameter("epoch", "query", EpochText, "Run that the version is of.", required=False),
                     Parameter("version", "query", RosterVersion, "Last version seen.", required=False),
                     Parameter("wait_s", "query", Wait, "How long to wait for a change.", required=False))),
)
# fmt: on


class IntroducerApi:
    """Binds the calls to the set and the file that keeps it."""

    def __init__(self, service: IntroducerService, file: RosterFile, *, version: str) -> None:
        self._service, self._file = service, file
        self._description = describe(
            "Muniment introducer",
            version,
            CALLS,
            guarded=(),
            says="Keeps signed node records; docs/spec/wire.md says what each call means.",
        )

    def router(self) -> Router:
        """Every call of `CALLS` bound to its handler."""
        router = Router()
        handlers = {"openapi": self._openapi, "announce": self._announce, "roster": self._roster}
        for call in CALLS:
            deadline_s = _DEADLINE_S + (WAIT_S_MAX if call.name == "roster" else 0)
            router.add(
                call.method,
                call.path,
                handlers[call.name],
                body_bytes_max=call.body_bytes_max,
                deadline_s=deadline_s,
            )
        return router

    async def _openapi(self, request: Request) -> Response:
        return Response(body=self._description)

    async def _announce(self, request: Request) -> Response:
        body = await request.json(Announcement)
        if self._service.announce(record_from_text(body.record)):
            await self._file.save()  # so that what was answered survives a restart
        return Response(204)

    async def _roster(self, request: Request) -> Response:
        epoch = request.query_as("epoch", EpochText, "")
        version = request.query_as("version", RosterVersion, 0)
        wait_s = request.query_as("wait_s", Wait, 0.0)
        return json_response(await self._service.wait_answer(epoch, version, wait_s))
