"""The HTTPS client against servers that are slow, break off, lie about lengths, or are somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from muniment.crypto.identity import Identity
from muniment.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidRequest,
    NodeUnreachable,
    Overloaded,
    PinMismatch,
    ProtocolViolation,
    StoreFailed,
)
from muniment.ids import BlobId, ShareKey, ShareNumber, id_text
from muniment.net.account_tokens import AccountToken
from muniment.net.caller import Caller
from muniment.net.channel import Answer, Channel, Exchange, Refusal
from muniment.net.http import Request, Response, Router, json_response
from muniment.net.http_client import HttpNodeConnection
from muniment.net.introducer_client import HttpIntroducer
from muniment.net.server import HttpServer
from muniment.net.timeouts import Timeouts
from muniment.net.tls import client_context, server_files
from muniment.node.clock import SystemClock
from muniment.spec.address import PeerAddress, PeerKind
from muniment.spec.limits import BATCH_SHARES_MAX, READ_ANSWER_BYTES_MAX
from muniment.spec.wire import Flags, QuarantineList, ShareLease, ShareList, ShareNames, ShareQuarantined

SERVER = Identity(bytes(range(32)))
GET = Exchange("GET", "/x")
SHORT = Timeouts(connect_s=2, control_s=2)


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8, thread_name_prefix="test-net") as pool:
        yield pool


class RawServer:
    """A TLS server that answers each connection with bytes of the test's choice.

    Args:
        talk: gets each accepted connection, in a thread.
    """

    def __init__(
        self, folder: Path, talk: Callable[[ssl.SSLSocket], None], identity: Identity = SERVER
    ) -> None:
        cert, key = server_files(identity, folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._context.wrap_socket(raw, server_side=True) as connection:
                connection.settimeout(60)
                self._talk(connection)
            raw.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextlib.asynccontextmanager
async def talking(
    folder: Path, threads: ThreadPoolExecutor, talk: Callable[[ssl.SSLSocket], None], node: Identity = SERVER
) -> AsyncIterator[Caller]:
    server = RawServer(folder, talk)
    caller = Caller(node.node, (server.address,), threads, SHORT)
    try:
        yield caller
    finally:
        await caller.aclose()
        server.close()


def answering(answer: bytes) -> Callable[[ssl.SSLSocket], None]:
    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return talk


def ok(body: bytes, length: int | None = None) -> bytes:
    count = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (count, body)


async def test_a_true_answer_arrives(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    async with talking(tmp_path, threads, answering(ok(b"books"))) as caller:
        assert await caller.exchange(GET, "x", 2) == Answer(200, b"books")


async def test_the_longest_answer_of_all_arrives(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    # A `read` of as many shares as there may be, with as many bytes as they may have, and their lengths.
    body = bytes(READ_ANSWER_BYTES_MAX + 4 * BATCH_SHARES_MAX)
    async with talking(tmp_path, threads, answering(ok(body))) as caller:
        assert len((await caller.exchange(GET, "x", 2)).body) == len(body)


async def test_another_key_is_noticed_before_a_byte_is_sent(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    heard: list[bytes] = []
    other = Identity(bytes(32))
    async with talking(tmp_path, threads, lambda c: heard.append(c.recv(100)), other) as caller:
        with pytest.raises(PinMismatch) as caught:
            await caller.exchange(GET, "x", 2)
        assert caught.value.got == SERVER.node
    assert heard in ([], [b""])


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nendless",
        b"HTTP/1.1 500 no problem\r\ncontent-length: 4\r\n\r\noops",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 99999999\r\n\r\n",
        ok(b"", 1 << 40),
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2000 + b"\r\n",
    ],
    ids=["not HTTP", "no length", "no problem", "huge problem", "huge answer", "endless header"],
)
async def test_what_is_not_the_protocol_is_the_peers_fault(
    tmp_path: Path, threads: ThreadPoolExecutor, answer: bytes
) -> None:
    async with talking(tmp_path, threads, answering(answer)) as caller:
        with pytest.raises((ProtocolViolation, Refusal)) as caught:
            await caller.exchange(GET, "x", 2)
        if isinstance(caught.value, Refusal):
            assert isinstance(caught.value.error, ProtocolViolation)


@pytest.mark.parametrize("length", [0, 4, 6, 1000])
async def test_an_answer_of_another_size_than_asked_for_is_refused(
    tmp_path: Path, threads: ThreadPoolExecutor, length: int
) -> None:
    async with talking(tmp_path, threads, answering(ok(b"x" * length))) as caller:
        view = memoryview(bytearray(5))
        with pytest.raises(ProtocolViolation):
            await caller.exchange(Exchange("GET", "/x", into=(view[:2], view[2:])), "x", 2)


async def test_a_connection_that_breaks_in_the_body_is_unreachable(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async with talking(tmp_path, threads, answering(ok(b"half", 1000))) as caller:
        with pytest.raises(NodeUnreachable):
            await caller.exchange(Exchange("GET", "/x", into=(memoryview(bytearray(1000)),)), "x", 2)


async def test_nobody_there(threads: ThreadPoolExecutor) -> None:
    caller = Caller(SERVER.node, ("127.0.0.1:1",), threads, SHORT)
    with pytest.raises(NodeUnreachable) as error:
        await caller.exchange(GET, "x", 2)
    assert error.value.reason == "Connection refused"


async def test_a_peer_that_never_answers_meets_the_deadline(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async with talking(tmp_path, threads, _drain) as caller:
        with pytest.raises(DeadlineExceeded) as caught:
            await caller.exchange(GET, "x", 0.05)
        assert caught.value.call == "x"


def _drain(connection: ssl.SSLSocket) -> None:
    while connection.recv(65536):
        pass


async def test_cancelling_ends_the_exchange_and_lets_go_of_the_buffers(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    begun = threading.Event()

    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(ok(b"start", 1 << 20))
        begun.set()
        _drain(connection)

    async with talking(tmp_path, threads, talk) as caller:
        view = memoryview(bytearray(1 << 20))
        work = asyncio.create_task(caller.exchange(Exchange("GET", "/x", into=(view,)), "x", 5))
        await asyncio.to_thread(begun.wait, 5)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        view[:] = bytes(len(view))  # nobody writes into it any more
        await asyncio.to_thread(lambda: None)
        assert not any(view)


async def test_a_stale_connection_is_replaced_without_the_caller_noticing(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async with talking(tmp_path, threads, answering(ok(b"once"))) as caller:
        for _ in range(3):  # the server closes after each answer
            assert (await caller.exchange(GET, "x", 2)).body == b"once"


async def test_a_share_that_is_answered_by_nothing_is_refused(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async with talking(tmp_path, threads, answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as caller:
        with pytest.raises(ProtocolViolation):
            await caller.exchange(Exchange("GET", "/x", into=(memoryview(bytearray(5)),)), "x", 2)


@pytest.mark.parametrize("address", ["a..b:1", f"{'a' * 64}.example:1"])
async def test_a_name_that_no_host_can_have_is_unreachable(threads: ThreadPoolExecutor, address: str) -> None:
    with pytest.raises(NodeUnreachable):
        await Caller(SERVER.node, (address,), threads, SHORT).exchange(GET, "x", 2)


async def test_a_node_is_found_though_another_got_its_first_address(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async with talking(tmp_path, threads, answering(ok(b"books"))) as caller:
        other = RawServer(tmp_path, _drain, Identity(bytes(32)))
        both = Caller(SERVER.node, (other.address, *caller.addresses), threads, SHORT)
        assert (await both.exchange(GET, "x", 2)).body == b"books"
        assert both.addresses == (*caller.addresses, other.address)
        await both.aclose()
        other.close()


# --- giving up in time ----------------------------------------------------------------------------


@contextlib.contextmanager
def silent(*, full: bool) -> Iterator[str]:
    """An address where TCP connects and nobody says a word, or (`full`) where not even TCP connects."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0 if full else 16))
        if full:  # Linux drops the SYN when the queue of connections that nobody accepts is full
            for _ in range(2):
                stack.enter_context(contextlib.closing(_begun(listener.getsockname())))
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _begun(place: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(place)
    return sock


async def _took_s(work: Awaitable[object], error: type[Exception]) -> float:
    began_s = time.monotonic()
    with pytest.raises(error):
        await work
    return time.monotonic() - began_s


@pytest.mark.parametrize("full", [True, False], ids=["TCP", "TLS"])
async def test_a_deadline_ends_an_attempt_to_connect(threads: ThreadPoolExecutor, full: bool) -> None:
    with silent(full=full) as address:
        caller = Caller(SERVER.node, (address,), threads, Timeouts(connect_s=60))
        assert await _took_s(caller.exchange(GET, "x", 0.05), DeadlineExceeded) < 30


async def test_a_host_with_many_addresses_gets_no_more_time_than_others(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent(full=True) as address:
        port = int(address.rpartition(":")[2])
        many = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))] * 500
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: many)  # the name is the peer's own
        caller = Caller(SERVER.node, ("many.example:1",), threads, Timeouts(connect_s=0.2))
        assert await _took_s(caller.exchange(GET, "x", 60), NodeUnreachable) < 30  # not 500 times 0.2 s


async def test_a_deadline_does_not_wait_for_a_free_thread(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as one:
        async with talking(tmp_path, one, _drain) as caller:
            first = asyncio.create_task(caller.exchange(GET, "first", 60))
            await asyncio.sleep(0)
            with pytest.raises(DeadlineExceeded):
                await caller.exchange(GET, "second", 0.05)
            assert not first.done()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first


class WatchedPool(ThreadPoolExecutor):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.jobs: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        job = super().submit(fn, *args, **named)
        self.jobs.append(job)
        return job


async def test_cancelling_twice_does_not_leave_the_thread_in_the_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abort, aborted, heard = Channel.abort, asyncio.Event(), threading.Event()

    def talk(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        heard.set()
        _drain(connection)

    def late(channel: Channel) -> None:
        aborted.set()
        asyncio.get_running_loop().call_later(0.1, abort, channel)

    monkeypatch.setattr(Channel, "abort", late)  # so that the second cancellation surely meets a busy thread
    with WatchedPool() as pool:
        async with talking(tmp_path, pool, talk) as caller:
            work = asyncio.create_task(caller.exchange(GET, "x", 5))
            await asyncio.to_thread(heard.wait, 5)
            work.cancel()
            await aborted.wait()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert pool.jobs[0].done()


# --- our own server -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(
    folder: Path, threads: ThreadPoolExecutor, router: Router, requests_max: int = 8
) -> AsyncIterator[Caller]:
    cert, key = server_files(SERVER, folder)
    server = HttpServer(
        router, host="127.0.0.1", port=0, certificate=cert, key=key, requests_max=requests_max
    )
    await server.start()
    caller = Caller(SERVER.node, (server.address,), threads, SHORT)
    try:
        yield caller
    finally:
        await caller.aclose()
        await server.stop(1.0)


async def _refused(caller: Caller, what: Exchange) -> Exception:
    with pytest.raises(Refusal) as caught:
        await caller.exchange(what, "x", 2)
    return caught.value.error


async def test_the_server_knows_where_a_request_comes_from(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async def peer(request: Request) -> Response:
        return Response(200, request.peer.encode())

    router = Router()
    router.add("GET", "/x", peer)
    async with serving(tmp_path, threads, router) as caller:
        answer = await caller.exchange(GET, "x", 5)
    host, _, port = bytes(answer.body).decode().rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


async def test_the_server_answers_what_it_can_and_explains_what_it_cannot(
    tmp_path: Path, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    async def count(request: Request) -> Response:
        return Response(200, str(len(b"".join([p async for p in request.pieces()]))).encode())

    async def names(request: Request) -> Response:
        return json_response(Flags([True] * len((await request.json(ShareNames)).shares)))

    async def broken(_: Request) -> Response:
        raise ValueError("a secret in the cause")

    async def ill(_: Request) -> Response:
        raise StoreFailed(where="/srv/disk7", reason="Input/output error")

    async def slow(_: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    router = Router()
    router.add("PUT", "/count", count, body_bytes_max=1_000_000)
    router.add("POST", "/names", names, body_bytes_max=1000)
    router.add("GET", "/broken/{this}", broken)
    router.add("GET", "/ill", ill)
    router.add("GET", "/slow", slow, deadline_s=0.05)
    async with serving(tmp_path, threads, router) as caller:
        big = memoryview(bytearray(900_000))
        put = Exchange("PUT", "/count", (b"head", big, b"tail"))
        assert (await caller.exchange(put, "x", 2)).body == b"900008"
        # Short enough to be sent whole before the server refuses it and closes.
        assert isinstance(await _refused(caller, Exchange("POST", "/names", (bytes(2000),))), BodyTooLarge)
        assert isinstance(
            await _refused(caller, Exchange("POST", "/names", (b'{"shares":1}',))), InvalidRequest
        )
        assert isinstance(await _refused(caller, Exchange("POST", "/names", (b"\xff",))), InvalidRequest)
        assert isinstance(await _refused(caller, Exchange("GET", "/nowhere")), InvalidRequest)
        assert isinstance(await _refused(caller, Exchange("PUT", "/names")), InvalidRequest)
        assert isinstance(await _refused(caller, Exchange("GET", "/slow")), DeadlineExceeded)
        error = await _refused(caller, Exchange("GET", "/broken/x"))
        assert isinstance(error, ProtocolViolation)
        assert "secret" not in str(error)
        failed = await _refused(caller, Exchange("GET", "/ill"))
        assert isinstance(failed, StoreFailed)
        assert "disk7" not in str(failed)
    assert "a secret in the cause" in caplog.text  # for the operator, who needs it
    assert "/srv/disk7: Input/output error" in caplog.text


async def test_a_server_that_cannot_be_reached_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.net.server._accepts", lambda *_: False)
    monkeypatch.setattr("muniment.net.server._START_TIMEOUT_S", 0.05)
    cert, key = server_files(SERVER, tmp_path)
    server = HttpServer(Router(), host="127.0.0.1", port=0, certificate=cert, key=key)
    with pytest.raises(TimeoutError):
        await server.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_as_many_connections_as_requests_are_served(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async def answer(_: Request) -> Response:
        return Response()

    router = Router()
    router.add("GET", "/x", answer)
    async with serving(tmp_path, threads, router, requests_max=300) as caller:
        with contextlib.ExitStack() as stack:
            host, port = caller.addresses[0].split(":")
            for _ in range(280):
                raw = socket.create_connection((host, int(port)), timeout=2)
                stack.enter_context(await asyncio.to_thread(client_context().wrap_socket, raw))
            assert (await caller.exchange(GET, "x", 2)).status == 200


async def test_an_introducer_cannot_name_its_run_so_that_nobody_can_ask(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    told = '{"epoch":"ü","version":1,"full":true,"records":[]}'.encode()
    async with talking(tmp_path, threads, answering(ok(told))) as caller:
        introducer = HttpIntroducer(PeerAddress(PeerKind.INTRODUCER, SERVER.node, caller.addresses[0]), SHORT)
        with pytest.raises(ProtocolViolation):
            await introducer.roster("", 0, 0)
        await introducer.aclose()


KEYS = [ShareKey(BlobId(bytes([at]) * 32), ShareNumber(at)) for at in range(4)]


@pytest.mark.parametrize(
    ("rows", "after"),
    [([1, 2, 3], KEYS[0]), ([1, 1], KEYS[0]), ([2, 1], None), ([1], KEYS[1]), ([0], KEYS[1])],
    ids=["longer than asked for", "twice", "falling", "the cursor again", "before the cursor"],
)
async def test_a_page_that_would_be_asked_for_again_and_again_is_refused(
    tmp_path: Path, threads: ThreadPoolExecutor, rows: list[int], after: ShareKey | None
) -> None:
    names = [(id_text(KEYS[at].blob), int(KEYS[at].number)) for at in rows]

    async def damaged(_: Request) -> Response:
        return json_response(QuarantineList([ShareQuarantined(*name, "gone", 1.0) for name in names]))

    async def held(_: Request) -> Response:
        return json_response(ShareList([ShareLease(*name, 5, 1.0) for name in names]))

    router, clock = Router(), SystemClock()
    router.add("GET", "/v1/quarantine", damaged)
    router.add("GET", "/v1/shares", held)
    async with serving(tmp_path, threads, router) as caller:
        token = AccountToken(Identity(bytes(32)), SERVER.node, clock)
        node = HttpNodeConnection(caller, token, clock, SHORT)
        for listing in (node.shares, node.quarantined):
            with pytest.raises(ProtocolViolation):
                await listing(after=after, limit=2)


async def test_more_requests_than_the_server_takes_are_told_so(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(_: Request) -> Response:
        entered.set()
        await leave.wait()
        return Response()

    router = Router()
    router.add("GET", "/x", wait)
    async with serving(tmp_path, threads, router, requests_max=1) as caller:
        first = asyncio.create_task(caller.exchange(GET, "x", 2))
        await entered.wait()
        assert isinstance(await _refused(caller, GET), Overloaded)
        leave.set()
        assert (await first).status == 200
