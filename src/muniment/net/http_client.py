"""The node ports over HTTPS: docs/spec/wire.md section 5, from the client's side."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from muniment.crypto.identity import Identity
from muniment.crypto.records import open_record, record_from_text
from muniment.errors import ClockSkewed, IntegrityError, ProtocolViolation, ShareCorrupt, ShareUnknown
from muniment.ids import BlobId, NodeId, ShareKey, ShareNumber, id_from_text, id_text
from muniment.net.account_tokens import AccountToken
from muniment.net.caller import Caller
from muniment.net.channel import Answer, Exchange, Refusal
from muniment.net.problem import error_of
from muniment.net.timeouts import Timeouts
from muniment.ports import (
    Accepted,
    Clock,
    Held,
    PutOutcome,
    Refused,
    ReserveOutcome,
    ShareClaim,
    ShareProof,
    ShareUpload,
)
from muniment.spec import wire
from muniment.spec.base64url import from_base64url
from muniment.spec.limits import (
    BATCH_SHARES_MAX,
    CHALLENGES_MAX,
    HAVE_BLOBS_MAX,
    PROOF_BYTES_MAX,
    PUT_NAMES_MAX,
)
from muniment.spec.record import NodeRecord
from muniment.spec.share import decode_header

_MESSAGE = TypeVar("_MESSAGE", bound=msgspec.Struct)
_ITEM = TypeVar("_ITEM")
_ROW = TypeVar("_ROW", wire.ShareLease, wire.ShareQuarantined)
SHARES_TYPE: Final = "application/vnd.muniment.shares"
_FRAME: Final = struct.Struct(">I")
_ABSENT: Final = 0xFFFFFFFF
_THREADS: Final = 32


class HttpConnector:
    """Makes clients that share one set of worker threads.  `ports.Connector`.

    Args:
        identity: the account whose shares they handle.
        clock: for tokens and records.
        timeouts: of all calls.
    """

    def __init__(self, identity: Identity, clock: Clock, timeouts: Timeouts | None = None) -> None:
        self._identity, self._clock = identity, clock
        self._timeouts = timeouts or Timeouts()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="muniment-net")

    def __call__(self, record: NodeRecord) -> HttpNodeConnection:
        caller = Caller(record.node, record.addresses, self._threads, self._timeouts)
        token = AccountToken(self._identity, record.node, self._clock)
        return HttpNodeConnection(caller, token, self._clock, self._timeouts)

    def close(self) -> None:
        """End the threads; the clients must be closed before."""
        self._threads.shutdown()


class HttpNodeConnection:
    """One node.  `ports.NodeConnection`."""

    def __init__(self, caller: Caller, token: AccountToken, clock: Clock, timeouts: Timeouts) -> None:
        self._caller, self._token, self._clock, self._timeouts = caller, token, clock, timeouts

    @property
    def node(self) -> NodeId:
        return self._caller.node

    # --- NodeClient ---------------------------------------------------------------------------

    async def info(self) -> wire.NodeStatus:
        status = await self._ask(wire.NodeStatus, "info", Exchange("GET", "/v1/info"), guarded=False)
        try:
            record = open_record(record_from_text(status.record), now_s=self._clock.now_s())
        except IntegrityError as error:
            raise self._violation(f"its own record: {error}") from error
        if record.node != self.node:
            raise self._violation("it shows another node's record")
        return status

    async def reserve(self, claims: Sequence[ShareClaim]) -> list[ReserveOutcome]:
        asked = [wire.Claim(id_text(c.key.blob), c.key.number, c.size_bytes) for c in claims]
        answer = await self._ask(wire.Outcomes, "reserve", _post("reserve", wire.ReserveRequest(asked)))
        return [self._reserved(outcome) for outcome in self._counted(answer.outcomes, len(claims))]

    async def release(self, keys: Sequence[ShareKey]) -> None:
        for at in range(0, len(keys), BATCH_SHARES_MAX):
            names = _names(keys[at : at + BATCH_SHARES_MAX])
            await self._exchange("release", _post("release", names), self._timeouts.control_s)

    async def put(self, uploads: Sequence[ShareUpload], *, reserving: bool = False) -> list[PutOutcome]:
        parts: list[bytes | memoryview] = []
        for upload in uploads:
            parts.append(upload.key.blob)
            parts.extend(upload.parts)
        headers = {"Content-Type": SHARES_TYPE, "Muniment-Shares": str(len(uploads))}
        if 0 < len(uploads) <= PUT_NAMES_MAX:
            headers["Muniment-Names"] = ",".join(str(upload.key) for upload in uploads)
        if reserving:
            headers["Muniment-Reserving"] = "1"
        deadline_s = self._timeouts.bulk_s(sum(len(part) for part in parts))
        answer = await self._exchange("put", Exchange("PUT", "/v1/shares", parts, headers), deadline_s)
        outcomes = self._decoded(wire.Outcomes, answer).outcomes
        return [self._stored(outcome) for outcome in self._counted(outcomes, len(uploads))]

    async def get(self, key: ShareKey, header: memoryview, data: memoryview) -> None:
        path = f"/v1/shares/{id_text(key.blob)}/{key.number}"
        what = Exchange("GET", path, into=(header, data))
        try:
            await self._exchange("get", what, self._timeouts.bulk_s(len(header) + len(data)))
        except ShareUnknown:  # on the wire its identifiers are shortened; here the whole one is known
            raise ShareUnknown(blob=key.blob, share=key.number) from None
        except ShareCorrupt as error:
            raise ShareCorrupt(blob=key.blob, share=key.number, reason=error.reason) from None

    async def get_many(self, keys: Sequence[ShareKey]) -> list[bytes | None]:
        what = _post("shares/read", _names(keys))
        answer = await self._exchange("read", what, self._timeouts.bulk_s(len(keys) * 65536))
        records: list[bytes | None] = []
        at = 0
        while at < len(answer.body):
            if len(answer.body) - at < _FRAME.size:
                raise self._violation("a frame without a length")
            (size,) = _FRAME.unpack_from(answer.body, at)
            at += _FRAME.size
            if size == _ABSENT:
                records.append(None)
                continue
            if size > len(answer.body) - at:
                raise self._violation("a frame longer than the answer")
            records.append(answer.body[at : at + size])
            at += size
        return self._counted(records, len(keys))

    async def have(self, blobs: Sequence[BlobId]) -> Mapping[BlobId, frozenset[ShareNumber]]:
        held: dict[BlobId, frozenset[ShareNumber]] = {}
        for at in range(0, len(blobs), HAVE_BLOBS_MAX):
            asked = blobs[at : at + HAVE_BLOBS_MAX]
            request = wire.HaveRequest([id_text(blob) for blob in asked])
            answer = await self._ask(wire.HaveAnswer, "have", _post("have", request))
            numbers = self._counted(answer.numbers, len(asked))
            for blob, found in zip(asked, numbers, strict=True):
                held[blob] = frozenset(ShareNumber(number) for number in found)
        return held

    async def prove(self, challenges: Sequence[tuple[ShareKey, int]]) -> list[ShareProof | None]:
        proven: list[ShareProof | None] = []
        for at in range(0, len(challenges), CHALLENGES_MAX):
            asked = challenges[at : at + CHALLENGES_MAX]
            request = wire.ProveRequest(
                [wire.Challenge(id_text(key.blob), key.number, leaf) for key, leaf in asked]
            )
            deadline_s = self._timeouts.bulk_s(len(asked) * PROOF_BYTES_MAX)
            answer = await self._exchange("prove", _post("prove", request), deadline_s)
            proofs = self._counted(self._decoded(wire.ProveAnswer, answer).proofs, len(asked))
            proven += [self._proof(proof, leaf) for proof, (_, leaf) in zip(proofs, asked, strict=True)]
        return proven

    # --- NodeAccount --------------------------------------------------------------------------

    async def lease(self, keys: Sequence[ShareKey], duration_s: int) -> list[bool]:
        request = wire.LeaseRequest(_names(keys).shares, duration_s)
        answer = await self._ask(wire.Flags, "lease", _post("lease", request))
        return self._counted(answer.done, len(keys))

    async def trash(self, keys: Sequence[ShareKey]) -> list[bool]:
        answer = await self._ask(wire.Flags, "trash", _post("trash", _names(keys)))
        return self._counted(answer.done, len(keys))

    async def shares(self, *, after: ShareKey | None, limit: int) -> list[wire.ShareLease]:
        what = Exchange("GET", f"/v1/shares?{_page(after, limit)}")
        return self._paged((await self._ask(wire.ShareList, "list", what)).shares, after, limit)

    async def usage(self) -> wire.AccountUsage:
        return await self._ask(wire.AccountUsage, "usage", Exchange("GET", "/v1/usage"))

    async def quarantined(self, *, after: ShareKey | None, limit: int) -> list[wire.ShareQuarantined]:
        what = Exchange("GET", f"/v1/quarantine?{_page(after, limit)}")
        return self._paged((await self._ask(wire.QuarantineList, "quarantine", what)).shares, after, limit)

    async def aclose(self) -> None:
        await self._caller.aclose()

    # --- one exchange -------------------------------------------------------------------------

    async def _ask(
        self, kind: type[_MESSAGE], call: str, what: Exchange, *, guarded: bool = True
    ) -> _MESSAGE:
        answer = await self._exchange(call, what, self._timeouts.control_s, guarded=guarded)
        return self._decoded(kind, answer)

    async def _exchange(
        self, call: str, what: Exchange, deadline_s: float, *, guarded: bool = True
    ) -> Answer:
        """One exchange with the account's token; once more if only the clocks differed."""
        try:
            return await self._caller.exchange(self._with_token(what, guarded), call, deadline_s)
        except Refusal as refusal:
            if not isinstance(refusal.error, ClockSkewed) or not self._token.correct(refusal.date):
                raise refusal.error from None
        try:
            return await self._caller.exchange(self._with_token(what, guarded), call, deadline_s)
        except Refusal as refusal:
            raise refusal.error from None

    def _with_token(self, what: Exchange, guarded: bool) -> Exchange:
        if not guarded:
            return what
        return Exchange(
            what.method, what.path, what.parts, {**what.headers, **self._token.header()}, what.into
        )

    # --- answers ------------------------------------------------------------------------------

    def _decoded(self, kind: type[_MESSAGE], answer: Answer) -> _MESSAGE:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._violation(f"an answer that is no {kind.__name__}: {error}") from error

    def _counted(self, items: list[_ITEM], count: int) -> list[_ITEM]:
        if len(items) != count:
            raise self._violation(f"{len(items)} answers to {count} questions")
        return items

    def _paged(self, rows: list[_ROW], after: ShareKey | None, limit: int) -> list[_ROW]:
        """A page that is what it must be, so that whoever asks for page after page always gets further."""
        if len(rows) > limit:
            raise self._violation(f"{len(rows)} rows where {limit} were asked for")
        last = after
        for row in rows:
            key = ShareKey(BlobId(id_from_text(row.blob)), ShareNumber(row.number))
            if last is not None and key <= last:
                raise self._violation("a page that is not in order")
            last = key
        return rows

    def _reserved(self, outcome: wire.Outcome) -> ReserveOutcome:
        if outcome.result == "accepted":
            return Accepted(outcome.expires_s)
        return self._stored(outcome)

    def _stored(self, outcome: wire.Outcome) -> PutOutcome:
        if outcome.result == "held":
            return Held(outcome.new)
        if outcome.result == "refused" and outcome.problem is not None:
            return Refused(error_of(outcome.problem, self.node))
        raise self._violation(f"an outcome '{outcome.result[:20]}'")

    def _proof(self, proof: wire.Proof, leaf: int) -> ShareProof | None:
        if not proof.header:
            return None
        try:
            header = decode_header(from_base64url(proof.header))
            path = tuple(from_base64url(item) for item in proof.path)
            return ShareProof(header, leaf, from_base64url(proof.data), path)
        except (IntegrityError, ValueError) as error:
            raise self._violation(f"a proof that cannot be read: {error}") from error

    def _violation(self, reason: str) -> ProtocolViolation:
        return ProtocolViolation(node=self.node, reason=reason)


def _post(call: str, message: msgspec.Struct) -> Exchange:
    body = msgspec.json.encode(message)
    return Exchange("POST", f"/v1/{call}", (body,), {"Content-Type": "application/json"})


def _page(after: ShareKey | None, limit: int) -> str:
    """The query for a page of a listing."""
    return f"after={after}&limit={limit}" if after else f"limit={limit}"


def _names(keys: Sequence[ShareKey]) -> wire.ShareNames:
    return wire.ShareNames([wire.ShareName(id_text(key.blob), key.number) for key in keys])
