"""Exchanges on the event loop itself, against peers that are slow, break off, lie or say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fault.test_net_faults import SERVER, SHORT, RawServer, _drain, answering, ok, talking

from muniment.errors import DeadlineExceeded, InternalError, NodeUnreachable, ProtocolViolation
from muniment.net.caller import Caller
from muniment.net.channel import Answer, Channel, Exchange, Refusal

OPENING = Exchange("GET", "/first")
BRIEF = Exchange("POST", "/x", (b"question",), brief=True)

Talk = Callable[[ssl.SSLSocket], None]


@contextlib.asynccontextmanager
async def open_to(folder: Path, talk: Talk) -> AsyncIterator[Caller]:
    """A caller with a connection and no thread left; on that connection the server talks."""

    def first(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(ok(b"open"))
        talk(connection)

    server, free = RawServer(folder, first), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        caller = Caller(SERVER.node, (server.address,), threads, SHORT)
        try:
            assert await caller.exchange(OPENING, "first", 2) == Answer(200, b"open")
            threads.submit(free.wait, 20)
            yield caller
        finally:
            free.set()
            await caller.aclose()
            server.close()


def after(*answers: bytes) -> Talk:
    def talk(connection: ssl.SSLSocket) -> None:
        for answer in answers:
            assert connection.recv(65536).endswith(b"\r\n\r\nquestion")
            connection.sendall(answer)
        if answers:
            _drain(connection)

    return talk


async def test_one_after_the_other_on_one_connection_without_a_thread(tmp_path: Path) -> None:
    async with open_to(tmp_path, after(ok(b"a"), ok(b""), b"HTTP/1.1 204 No Content\r\n\r\n")) as caller:
        got = [await caller.exchange(BRIEF, "x", 2) for _ in range(3)]
        assert got == [Answer(200, b"a"), Answer(200, b""), Answer(204, b"")]


async def test_an_answer_may_come_byte_by_byte(tmp_path: Path) -> None:
    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        for byte in ok(b"books"):
            connection.sendall(bytes((byte,)))

    async with open_to(tmp_path, talk) as caller:
        assert (await caller.exchange(BRIEF, "x", 2)).body == b"books"


async def test_more_than_fits_into_buffers_goes_both_ways(tmp_path: Path) -> None:
    body, heard = bytes(range(256)) * (1 << 14), bytearray()

    def talk(connection: ssl.SSLSocket) -> None:
        while not heard.endswith(b"\r\n\r\n" + body):
            heard.extend(connection.recv(65536))
        connection.sendall(ok(body))

    async with open_to(tmp_path, talk) as caller:
        what = Exchange("POST", "/x", (body,), brief=True)
        assert (await caller.exchange(what, "x", 10)).body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nendless",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 99999999\r\n\r\n",
        ok(b"", 1 << 40),
        ok(b"an answer and") + b"more",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2000,
    ],
    ids=["not HTTP", "no length", "huge problem", "huge answer", "too much", "endless header"],
)
async def test_what_is_not_the_protocol_ends_the_connection(tmp_path: Path, answer: bytes) -> None:
    async with open_to(tmp_path, after(answer)) as caller:
        with pytest.raises(ProtocolViolation):
            await caller.exchange(BRIEF, "x", 2)
        assert not caller._idle


async def test_a_problem_is_told_and_the_connection_goes_on(tmp_path: Path) -> None:
    problem = b"HTTP/1.1 500 oh\r\ncontent-length: 4\r\n\r\noops"
    async with open_to(tmp_path, after(problem, ok(b"books"))) as caller:
        with pytest.raises(Refusal):
            await caller.exchange(BRIEF, "x", 2)
        assert (await caller.exchange(BRIEF, "x", 2)).body == b"books"


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ok(b"last")])
async def test_a_connection_is_kept_only_if_another_answer_can_follow(tmp_path: Path, sent: bytes) -> None:
    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(sent.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))

    async with open_to(tmp_path, talk) as caller:
        if sent.endswith(b"half"):
            with pytest.raises(NodeUnreachable):
                await caller.exchange(BRIEF, "x", 2)
        else:
            assert (await caller.exchange(BRIEF, "x", 2)).body == b"last"
        assert not caller._idle


async def test_a_stale_connection_is_replaced_without_the_caller_noticing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        async with talking(tmp_path, threads, answering(ok(b"once"))) as caller:
            for _ in range(3):  # the server closes after each answer
                assert (await caller.exchange(BRIEF, "x", 2)).body == b"once"


async def test_silence_meets_the_deadline_and_ends_the_connection(tmp_path: Path) -> None:
    async with open_to(tmp_path, _drain) as caller:
        with pytest.raises(DeadlineExceeded):
            await caller.exchange(BRIEF, "x", 0.05)
        assert not caller._idle


async def test_closing_the_caller_ends_what_waits(tmp_path: Path) -> None:
    asked = threading.Event()

    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        asked.set()
        _drain(connection)

    async with open_to(tmp_path, talk) as caller:
        work = asyncio.create_task(caller.exchange(BRIEF, "x", 5))
        assert await asyncio.to_thread(asked.wait, 5)
        await caller.aclose()
        with pytest.raises(NodeUnreachable):
            await work


async def test_a_channel_that_is_not_open_has_no_brief_exchange() -> None:
    with pytest.raises(InternalError):
        await Channel(SERVER.node, "127.0.0.1:1", 1).exchange_here(BRIEF)
