"""What a handler sees of HTTP: a request whose body has a limit, a response, and a table of routes.

Nothing here knows the server behind it; `net.server` hosts a `Router` on granian.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from muniment.errors import BodyTooLarge, InvalidRequest

JSON = "application/json"
_LENGTH_DIGITS_MAX = 20
"""The server reads a Content-Length with any number of zeros in front; Python refuses to."""
_T = TypeVar("_T")


class Body(Protocol):
    """A request body as the server gives it, once: in pieces of any size, or called for as a whole.

    A whole one that breaks off is a RuntimeError, or comes short.
    """

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def __call__(self) -> Awaitable[bytes]: ...


class Headers(Protocol):
    """Header look-up by lower-case name."""

    def get(self, key: str, default: str | None = None) -> str | None: ...


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        method: upper case.
        path: without the query.
        query: decoded, the last of equal names wins.
        headers: by lower-case name.
        params: the path's `{name}` parts, not decoded further.
        peer: `address:port` it came from.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Headers = field(repr=False)  # one of them is the account's token
    params: Mapping[str, str]
    _body: Body
    _limit_bytes: int
    peer: str = ""

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            BodyTooLarge: more than the call's limit; what Content-Length says is refused unread.
            InvalidRequest: the client broke off, or sent another length than it said.
        """
        announced = self.announced_bytes()
        seen = 0
        async for piece in self._body:
            seen += len(piece)
            if seen > self._limit_bytes:
                raise BodyTooLarge(limit_bytes=self._limit_bytes)
            if piece:
                yield piece
        self._check_whole(seen, announced)

    async def body(self) -> bytes:
        """All of the body, for calls whose limit fits into memory; one wait instead of one for each piece.

        Raises: as `pieces`.
        """
        announced = self.announced_bytes()
        if announced is None:
            return b"".join([piece async for piece in self.pieces()])
        try:
            body = await self._body()
        except RuntimeError as error:
            raise InvalidRequest(reason=f"the body broke off before its {announced} bytes") from error
        self._check_whole(len(body), announced)
        return body

    def announced_bytes(self) -> int | None:
        """What Content-Length says, if there is one.  Raises: BodyTooLarge."""
        announced = self.headers.get("content-length")
        if announced is None:
            return None
        if len(announced) <= _LENGTH_DIGITS_MAX and announced.isascii() and announced.isdecimal():
            size_bytes = int(announced)
            if size_bytes <= self._limit_bytes:
                return size_bytes
        raise BodyTooLarge(limit_bytes=self._limit_bytes)

    def _check_whole(self, seen: int, announced: int | None) -> None:
        if announced is not None and seen != announced:
            raise InvalidRequest(reason=f"the body broke off after {seen} of {announced} bytes")

    async def json(self, kind: type[_T]) -> _T:
        """The body as one message.  Raises: as `pieces`; InvalidRequest: not JSON or not that type."""
        body = await self.body()
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(reason=str(error)) from error

    def query_as(self, name: str, kind: type[_T], default: _T) -> _T:
        """One value of the query, converted.  Raises: InvalidRequest: it does not fit."""
        if name not in self.query:
            return default
        try:
            return msgspec.convert(self.query[name], kind, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidRequest(reason=f"{name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; `body` is sent as it is."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def json_response(message: msgspec.Struct, status: int = 200) -> Response:
    """A message as an answer."""
    return Response(status, msgspec.json.encode(message))


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call: where it is, what does it, and its limits."""

    method: str
    path: str
    handler: Handler
    body_bytes_max: int = 0
    deadline_s: float = 30.0
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        object.__setattr__(self, "pattern", re.compile(pattern))


class Router:
    """Finds the route of a request."""

    def __init__(self) -> None:
        self._fixed: dict[str, list[Route]] = {}
        self._patterns: list[Route] = []

    def add(
        self, method: str, path: str, handler: Handler, *, body_bytes_max: int = 0, deadline_s: float = 30.0
    ) -> None:
        """Add a call; `{name}` in the path matches one component."""
        route = Route(method, path, handler, body_bytes_max, deadline_s)
        if "{" in path:
            self._patterns.append(route)
        else:
            self._fixed.setdefault(path, []).append(route)

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | int:
        """The route and its path parameters, or 404 or 405."""
        fixed = self._fixed.get(path, ())
        for route in fixed:
            if route.method == method:
                return route, {}
        for route in self._patterns:
            if route.method == method and (found := route.pattern.fullmatch(path)):
                return route, found.groupdict()
        known = fixed or any(route.pattern.fullmatch(path) for route in self._patterns)
        return 405 if known else 404


def parse_query(text: str) -> dict[str, str]:
    """A query string as a mapping; empty values are kept.  Raises: InvalidRequest: too many fields."""
    if not text:
        return {}
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=32))
    except ValueError as error:
        raise InvalidRequest(reason="the query has too many fields") from error
