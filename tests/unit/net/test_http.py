"""Requests as handlers see them, and the table of routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from muniment.errors import BodyTooLarge, InvalidRequest
from muniment.net.http import Request, Response, Router, parse_query


class Sent:
    """A body as it arrives; a whole one that breaks off raises, as granian does."""

    def __init__(self, *pieces: bytes, breaks: bool = False) -> None:
        self._pieces, self._breaks = pieces, breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def __call__(self) -> bytes:
        if self._breaks:
            raise RuntimeError("connection reset")
        return b"".join(self._pieces)


class Known:
    """Headers of a request."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known

    def get(self, key: str, default: str | None = None) -> str | None:
        return self._known.get(key, default)


def request(body: Sent, headers: Mapping[str, str], limit_bytes: int = 10) -> Request:
    return Request("POST", "/", {}, Known(headers), {}, body, limit_bytes)


@pytest.mark.parametrize("headers", [{"content-length": "6"}, {"content-length": "0006"}, {}])
async def test_a_body_comes_whole_or_in_pieces(headers: dict[str, str]) -> None:
    assert await request(Sent(b"abc", b"", b"def"), headers).body() == b"abcdef"
    pieces = request(Sent(b"abc", b"", b"def"), headers).pieces()
    assert [piece async for piece in pieces] == [b"abc", b"def"]


@pytest.mark.parametrize("length", ["11", "-1", "six", "6.0", "0" * 21, "\u0666"])
async def test_a_length_that_is_none_or_too_large_is_refused_unread(length: str) -> None:
    with pytest.raises(BodyTooLarge):
        await request(Sent(b"abcdef", breaks=True), {"content-length": length}).body()
    with pytest.raises(BodyTooLarge):
        await anext(request(Sent(b"abcdef"), {"content-length": length}).pieces())


async def test_a_body_without_a_length_ends_at_the_limit() -> None:
    assert len(await request(Sent(b"12345", b"67890"), {}).body()) == 10
    with pytest.raises(BodyTooLarge):
        await request(Sent(b"12345", b"67890", b"1"), {}).body()


@pytest.mark.parametrize("body", [Sent(b"abc"), Sent(b"abc", breaks=True), Sent(b"abcdefg")])
async def test_a_body_that_is_not_as_long_as_it_said_is_told(body: Sent) -> None:
    with pytest.raises(InvalidRequest, match="broke off"):
        await request(body, {"content-length": "6"}).body()


async def answer(_: Request) -> Response:
    return Response()


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/all", {}),
        ("GET", "/one/x", {"name": "x"}),
        ("POST", "/one/x", {"name": "x"}),
        ("POST", "/one/new", {}),
        ("POST", "/all", 405),
        ("PUT", "/one/x", 405),
        ("GET", "/one/", 404),
        ("GET", "/one/x/y", 404),
        ("GET", "/", 404),
    ],
)
def test_a_route_is_found_by_method_and_path(method: str, path: str, found: object) -> None:
    router = Router()
    router.add("GET", "/all", answer)
    for known in ("GET", "POST"):
        router.add(known, "/one/{name}", answer)
    router.add("POST", "/one/new", answer)
    result = router.find(method, path)
    assert result == found if isinstance(result, int) else result[1] == found


def test_queries_are_decoded() -> None:
    assert parse_query("") == {}
    assert parse_query("a=1&b=&a=2%20") == {"a": "2 ", "b": ""}
    with pytest.raises(InvalidRequest):
        parse_query("&".join(f"k{number}=" for number in range(33)))
