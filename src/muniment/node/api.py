"""The node's calls over HTTP: docs/spec/wire.md section 5, one row of `CALLS` and one handler each.

A handler parses, asks the service in a worker thread, and encodes; it decides nothing.  Whatever it raises
becomes a Problem in `net.server`.

Bodies of `put` are collected to about a megabyte before each hop into a thread: a hop costs as much as
hashing 100 KiB, and a request never holds more than that.  A small body that names its shares is taken whole
while there is memory for it: waking up for each of its pieces costs more than hashing them.

Answers that carry shares are made in memory, so their sum over all requests has a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, TypeVar

import msgspec

from muniment.errors import (
    AccountRefused,
    ClockSkewed,
    InvalidRequest,
    TokenRejected,
)
from muniment.ids import AccountId, BlobId, ShareKey, ShareNumber, id_from_text
from muniment.net.http import Handler, Request, Response, Router, json_response
from muniment.net.problem import problem_of, withheld
from muniment.node.budget import Budget
from muniment.node.calls import (
    CALLS,
    COUNT_HEADER,
    NAMES_HEADER,
    RESERVING_HEADER,
    SHARE_TYPE,
    SHARES_TYPE,
    KeyText,
    LeafCount,
    NamesText,
    ReservingText,
    RowCount,
    ShareCount,
)
from muniment.node.gate import Gate
from muniment.node.openapi import describe
from muniment.node.receiving import PutReceiver
from muniment.node.service import NodeService
from muniment.ports import Accepted, Held, PutOutcome, Refused, ReserveOutcome, ShareClaim, ShareProof
from muniment.spec import wire
from muniment.spec.base64url import base64url
from muniment.spec.limits import (
    LIST_SHARES_MAX,
    MIB,
    PROOF_BYTES_MAX,
    READ_ANSWER_BYTES_MAX,
)

NOT_HELD: Final = 0xFFFF_FFFF
"""Length in a frame of `read` that stands for a share the node cannot serve."""

_HOP_BYTES: Final = MIB + MIB // 4
"""Collected before a hop; takes the usual 1 MiB share with its head in one."""

_WHOLE_BYTES: Final = 4 * MIB
"""Bodies of `put` up to this size may be taken whole: what an engine sends at once."""

_WHOLE_BYTES_SUM: Final = 32 * MIB
"""All bodies that are being taken whole; others are taken in pieces meanwhile."""

_PROOF_BYTES: Final = 2 * PROOF_BYTES_MAX
"""Memory that one proof takes while its answer is made: as texts, and as part of the answer."""

_CONTROL_DEADLINE_S: Final = 60.0
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_LENGTH: Final = struct.Struct(">I")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class NodeApi:
    """Binds the calls to a service.

    Args:
        pool: threads for everything that touches the disk or hashes.
        request_s: deadline of calls that carry shares; others have a minute at most.
        answer_bytes_max: memory for answers that carry shares, over all requests.
    """

    def __init__(
        self,
        service: NodeService,
        gate: Gate,
        pool: Executor,
        *,
        version: str,
        request_s: float,
        answer_bytes_max: int,
    ) -> None:
        self._service, self._gate, self._pool = service, gate, pool
        self._request_s = request_s
        self._budget = Budget(answer_bytes_max)
        self._whole_bytes = 0
        self._description = describe(
            "Muniment node",
            version,
            CALLS,
            guarded=(TokenRejected, ClockSkewed, AccountRefused),
            says="Keeps shares for accounts; docs/spec/wire.md says what each call means.",
        )

    def router(self) -> Router:
        """Every call of `CALLS` bound to its handler."""
        router = Router()
        for call in CALLS:
            handler: Handler = getattr(self, f"_{call.name}")
            carries_shares = call.name in ("put", "get", "read")
            router.add(
                call.method,
                call.path,
                handler,
                body_bytes_max=call.body_bytes_max,
                deadline_s=self._request_s if carries_shares else min(self._request_s, _CONTROL_DEADLINE_S),
            )
        return router

    # --- anybody ------------------------------------------------------------------------------

    async def _info(self, request: Request) -> Response:
        return json_response(await self._run(self._service.info))

    async def _openapi(self, request: Request) -> Response:
        return Response(body=self._description)

    # --- writing ------------------------------------------------------------------------------

    async def _reserve(self, request: Request) -> Response:
        account = self._gate.account(request)
        body = await request.json(wire.ReserveRequest)
        claims = [ShareClaim(_key(claim.blob, claim.number), claim.size_bytes) for claim in body.claims]
        return _outcomes(await self._run(self._service.reserve, account, claims))

    async def _release(self, request: Request) -> Response:
        account = self._gate.account(request)
        keys = _keys((await request.json(wire.ShareNames)).shares)
        await self._run(self._service.books.release, account, keys)
        return Response(204)

    async def _put(self, request: Request) -> Response:
        account = self._gate.account(request)
        count = _converted(COUNT_HEADER, request.headers.get(COUNT_HEADER.lower()) or "", ShareCount, int)
        reserving = request.headers.get(RESERVING_HEADER.lower())
        if reserving is not None:
            _converted(RESERVING_HEADER, reserving, ReservingText, str)
        receiver = self._service.begin_put(account, count, reserving=reserving is not None)
        named = request.headers.get(NAMES_HEADER.lower())
        size_bytes = request.announced_bytes()
        if named is not None and size_bytes is not None and size_bytes <= _WHOLE_BYTES:
            keys = [
                _key(*text.split(".")) for text in _converted(NAMES_HEADER, named, NamesText, str).split(",")
            ]
            if self._whole_bytes + size_bytes <= _WHOLE_BYTES_SUM:
                return await self._put_whole(request, receiver, account, keys, size_bytes)
        try:
            pieces: list[bytes] = []
            size_bytes = 0
            async for piece in request.pieces():
                pieces.append(piece)
                size_bytes += len(piece)
                if size_bytes >= _HOP_BYTES:
                    await self._run(receiver.feed, pieces)
                    pieces, size_bytes = [], 0
            return _outcomes(await self._run(_feed_and_finish, receiver, pieces))
        except BaseException:
            # Also when the client is gone or the deadline over: the abort waits for a feed under way.
            with contextlib.suppress(
                RuntimeError
            ):  # the pool has ended, and the store ends what is unfinished
                self._pool.submit(receiver.abort)
            raise

    async def _put_whole(
        self,
        request: Request,
        receiver: PutReceiver,
        account: AccountId,
        keys: Sequence[ShareKey],
        size_bytes: int,
    ) -> Response:
        """Take a body at once; if it breaks off, what is reserved for its shares is given back."""
        self._whole_bytes += size_bytes
        try:
            body = await request.body()
            return _outcomes(await self._run(_feed_and_finish, receiver, [body]))
        except BaseException:
            with contextlib.suppress(RuntimeError):
                self._pool.submit(receiver.abort)
                self._pool.submit(self._service.books.release, account, keys)
            raise
        finally:
            self._whole_bytes -= size_bytes

    # --- reading ------------------------------------------------------------------------------

    async def _get(self, request: Request) -> Response:
        self._gate.account(request)
        key = _path_key(request)
        found = _RANGE.fullmatch(request.headers.get("range") or "")
        if found is None or found.group(1) == found.group(2) == "":
            # Several ranges, or other units: RFC 9110 section 14.2 lets a server send the whole.
            return Response(body=await self._run(self._whole, key), content_type=SHARE_TYPE)
        first, last = found.groups()
        start = int(first) if first else -int(last)
        stop = int(last) + 1 if first and last else None
        data, offset, size_bytes = await self._run(self._span, key, start, stop)
        where = ("content-range", f"bytes {offset}-{offset + len(data) - 1}/{size_bytes}")
        return Response(206, data, SHARE_TYPE, (where,))

    async def _read(self, request: Request) -> Response:
        self._gate.account(request)
        keys = _keys((await request.json(wire.ShareNames)).shares)
        return Response(body=await self._run(self._frames, keys), content_type=SHARES_TYPE)

    async def _leaves(self, request: Request) -> Response:
        self._gate.account(request)
        first = request.query_as("first", wire.Leaf, 0)
        count = request.query_as("count", LeafCount, 1)
        return await self._run(self._proven_leaves, _path_key(request), first, count)

    async def _have(self, request: Request) -> Response:
        self._gate.account(request)
        blobs = [BlobId(id_from_text(text)) for text in (await request.json(wire.HaveRequest)).blobs]
        return json_response(wire.HaveAnswer(await self._run(self._service.books.have, blobs)))

    async def _prove(self, request: Request) -> Response:
        self._gate.account(request)
        body = await request.json(wire.ProveRequest)
        challenges = [(_key(item.blob, item.number), item.leaf) for item in body.challenges]
        return await self._run(self._proofs, challenges)

    # --- owning -------------------------------------------------------------------------------

    async def _lease(self, request: Request) -> Response:
        account = self._gate.account(request)
        body = await request.json(wire.LeaseRequest)
        keys = _keys(body.shares)
        return json_response(
            wire.Flags(await self._run(self._service.books.lease, account, keys, body.duration_s))
        )

    async def _trash(self, request: Request) -> Response:
        account = self._gate.account(request)
        keys = _keys((await request.json(wire.ShareNames)).shares)
        return json_response(wire.Flags(await self._run(self._service.books.trash, account, keys)))

    async def _list(self, request: Request) -> Response:
        account = self._gate.account(request)
        rows = await self._run(self._service.books.shares, account, *_page(request))
        return json_response(wire.ShareList(rows))

    async def _usage(self, request: Request) -> Response:
        account = self._gate.account(request)
        return json_response(await self._run(self._service.books.usage, account))

    async def _quarantine(self, request: Request) -> Response:
        account = self._gate.account(request)
        rows = await self._run(self._service.books.quarantined, account, *_page(request))
        return json_response(wire.QuarantineList(rows))

    async def _run(self, work: Callable[..., _T], *args: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    # --- in a worker thread -------------------------------------------------------------------

    def _whole(self, key: ShareKey) -> bytes:
        with self._budget.spend(self._service.size_bytes(key)):
            return self._service.get(key)

    def _span(self, key: ShareKey, start: int, stop: int | None) -> tuple[bytes, int, int]:
        with self._budget.spend(self._service.size_bytes(key)):
            return self._service.get_span(key, start, stop)

    def _frames(self, keys: Sequence[ShareKey]) -> bytes:
        size_bytes = self._service.sizes_bytes(keys)
        if size_bytes > READ_ANSWER_BYTES_MAX:
            raise InvalidRequest(reason=f"these shares have more than {READ_ANSWER_BYTES_MAX} bytes")
        with self._budget.spend(2 * size_bytes):
            parts: list[bytes] = []
            for record in self._service.get_many(keys):
                parts += [_LENGTH.pack(NOT_HELD)] if record is None else [_LENGTH.pack(len(record)), record]
            return b"".join(parts)

    def _proven_leaves(self, key: ShareKey, first: int, count: int) -> Response:
        with self._budget.spend(count * _PROOF_BYTES):
            proofs = [_proof(proof) for proof in self._service.leaves(key, first, count)]
            return json_response(wire.ProveAnswer(proofs))

    def _proofs(self, challenges: Sequence[tuple[ShareKey, int]]) -> Response:
        with self._budget.spend(len(challenges) * _PROOF_BYTES):
            proofs = [_proof(proof) for proof in self._service.prove(challenges)]
            return json_response(wire.ProveAnswer(proofs))


def _feed_and_finish(receiver: PutReceiver, pieces: Sequence[bytes]) -> list[PutOutcome]:
    receiver.feed(pieces)
    return receiver.finish()


# --- messages ---------------------------------------------------------------------------------


def _outcomes(outcomes: Sequence[ReserveOutcome | PutOutcome]) -> Response:
    refused = (withheld(outcome.error) for outcome in outcomes if isinstance(outcome, Refused))
    for cause in dict.fromkeys(filter(None, refused)):  # a full disk refuses a thousand shares: one line
        _log.error("shares were refused: %s", cause)
    return json_response(wire.Outcomes([_outcome(outcome) for outcome in outcomes]))


def _outcome(outcome: ReserveOutcome | PutOutcome) -> wire.Outcome:
    match outcome:
        case Held(new):
            return wire.Outcome("held", new)
        case Accepted(expires_s):
            return wire.Outcome("accepted", expires_s=expires_s)
        case Refused(error):
            return wire.Outcome("refused", problem=problem_of(error))


def _proof(proof: ShareProof | None) -> wire.Proof:
    if proof is None:
        return wire.Proof()
    path = [base64url(step) for step in proof.path]
    return wire.Proof(base64url(proof.header.encode()), base64url(proof.data), path)


def _keys(names: Sequence[wire.ShareName]) -> list[ShareKey]:
    return [_key(name.blob, name.number) for name in names]


def _key(blob: str, number: int | str) -> ShareKey:
    return ShareKey(BlobId(id_from_text(blob)), ShareNumber(_converted("number", number, wire.Number, int)))


def _page(request: Request) -> tuple[ShareKey | None, int]:
    """Behind which share a page begins, and its length."""
    text = request.query_as("after", KeyText, "")
    return _key(*text.split(".")) if text else None, request.query_as("limit", RowCount, LIST_SHARES_MAX)


def _path_key(request: Request) -> ShareKey:
    return _key(request.params["blob"], request.params["number"])


def _converted(name: str, value: int | str, kind: object, plain: type[_T]) -> _T:
    """A value of `kind`, which is an annotated `plain`.  Raises: InvalidRequest."""
    try:
        converted = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(reason=f"{name}: {error}") from error
    assert isinstance(converted, plain)
    return converted
