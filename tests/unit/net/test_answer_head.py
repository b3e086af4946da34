"""Heads of HTTP answers, of which any may come from a hostile peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.net.answer_head import HEAD_BYTES_MAX, AnswerHead, NotHttp, read_head

GOOD = b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Mon\r\nContent-Length: 5\r\n\r\n"


def test_a_head_is_read_once_it_is_whole() -> None:
    for count in range(len(GOOD)):
        assert read_head(GOOD[:count]) is None
    assert read_head(GOOD + b"books") == AnswerHead(200, 5, "Mon", last=False, size_bytes=len(GOOD))


@pytest.mark.parametrize(
    ("head", "length", "last"),
    [
        (b"HTTP/1.1 200\r\ncontent-length: 7", 7, False),
        (b"HTTP/1.1 204 No Content", 0, False),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 9", 0, False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: Close", 7, True),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 7", 7, True),
        (b"HTTP/1.1 200 OK", None, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1", None, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1e3", None, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: \xb2", None, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000, None, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked", None, True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 7", 7, False),
    ],
)
def test_how_long_the_body_is_and_whether_another_answer_may_follow(
    head: bytes, length: int | None, last: bool
) -> None:
    read = read_head(head + b"\r\n\r\n")
    assert read is not None
    assert (read.length_bytes, read.last) == (length, last)


@pytest.mark.parametrize(
    "sent",
    [
        b"S",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20\xb2 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 8\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n",
    ],
)
def test_what_is_no_head_is_told_as_soon_as_it_is_seen(sent: bytes) -> None:
    with pytest.raises(NotHttp):
        read_head(sent)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_not_http_or_a_start(noise: bytes) -> None:
    for sent in (noise, GOOD[:17] + noise + b"\r\n\r\n"):
        try:
            head = read_head(sent)
        except NotHttp:
            continue
        assert head is None or 0 < head.size_bytes <= len(sent)
