"""One HTTP/1.1 connection to one pinned address.

Bulk bytes move here on a blocking socket in a worker thread, because OpenSSL then works outside the GIL and
straight from and into the caller's buffers; asyncio's TLS copies everything twice (ADR 2).  A brief exchange
is made on the event loop, on the same socket: waking a thread and being woken by it would cost several times
what it does itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from muniment.errors import InternalError, MunimentError, NodeUnreachable, ProtocolViolation
from muniment.ids import NodeId
from muniment.net.answer_head import HEAD_BYTES_MAX, AnswerHead, NotHttp, read_head
from muniment.net.problem import error_of
from muniment.net.tls import check_pin, client_context
from muniment.spec.limits import ANSWER_BYTES_MAX
from muniment.spec.wire import Problem

Part = bytes | memoryview
_DIAL_S_MIN = 0.01
_JOIN_BYTES = 64 * 1024
_PROBLEM_BYTES_MAX = 64 * 1024
BRIEF_BYTES_MAX: Final = 64 * 1024
"""Of a request that may be brief: encrypted in some 50 us."""

_RECORD_BYTES: Final = 16 * 1024
_RECORDS_AT_ONCE: Final = 16
"""TLS records read by one turn of the event loop, before it looks after others."""


class StaleConnection(Exception):
    """A kept connection was closed by the peer before it answered anything: ask again on a new one."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request.

    Attributes:
        method: of HTTP.
        path: with the query.
        parts: the body, sent part by part without joining what is large.
        headers: besides those every request has.
        into: buffers that the body of a good answer fills exactly; empty to get it as bytes.
        brief: the request has at most BRIEF_BYTES_MAX and the answer is small too, so it may be made on the
            event loop; not with `into`.
    """

    method: str
    path: str
    parts: Sequence[Part] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # one of them is the account's token
    into: tuple[memoryview, ...] = field(default=(), repr=False)
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer; `body` is empty if it went into the exchange's buffers."""

    status: int
    body: bytes


class Refusal(Exception):
    """The peer answered with a Problem.

    Attributes:
        error: as an exception of ours.
        date: the peer's clock as it told it, or None.
    """

    def __init__(self, error: MunimentError, date: str | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.date = date


class Channel:
    """Connects at the first exchange and stays open; one exchange at a time, from any one thread.

    Args:
        node: who must be there.
        address: `host:port`.
        connect_s: for TCP and the TLS handshake each.
    """

    def __init__(self, node: NodeId, address: str, connect_s: float) -> None:
        self._node, self._address, self._connect_s = node, address, connect_s
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._sock: ssl.SSLSocket | None = None
        self._connecting: socket.socket | None = None
        self._used = False
        self._aborted = self._answered = False

    @property
    def open(self) -> bool:
        """Whether the next exchange finds a connection."""
        return self._sock is not None and not self._aborted

    def exchange(self, what: Exchange, timeout_s: float) -> Answer:
        """Send and receive; blocks.

        Args:
            timeout_s: for each wait on the socket; the deadline of the whole is the caller's, by `abort`.

        Raises:
            Refusal: the peer answered with a Problem.
            StaleConnection: see there.
            PinMismatch, NodeUnreachable, ProtocolViolation.
        """
        with self._attempt():
            sock = self._sock or self._connect()
            sock.settimeout(timeout_s)
            _send(sock, self._address, what)
            got = bytearray()
            while (head := read_head(got)) is None:
                got += _received(sock, _RECORD_BYTES)
            size_bytes = self._expected(what, head)
            rest = memoryview(got)[head.size_bytes :]
            if not what.into or head.status >= 300:
                return self._answer(head, _body(sock, rest, size_bytes))
            _fill(sock, rest, what.into)
            return self._answer(head, b"")

    async def exchange_here(self, what: Exchange) -> Answer:
        """As `exchange`, for a brief one on an open connection, without a thread.

        Its deadline is the caller's: cancelling closes the connection.
        """
        with self._attempt():
            sock = self._sock
            if sock is None:
                raise InternalError(reason="a brief exchange opens no connection")
            sock.setblocking(False)
            await _send_here(sock, b"".join((_head(self._address, what), *what.parts)))
            got, head, whole = bytearray(), None, HEAD_BYTES_MAX
            while head is None or len(got) < whole:
                await _ready(sock)
                with contextlib.suppress(ssl.SSLWantReadError):
                    for _ in range(_RECORDS_AT_ONCE):
                        got += _received(sock, _RECORD_BYTES)
                        if head is None and (head := read_head(got)) is not None:
                            whole = head.size_bytes + self._expected(what, head)
                        if head is not None and len(got) >= whole:
                            break
            if len(got) > whole:
                raise NotHttp("more than an answer")
            return self._answer(head, bytes(memoryview(got)[head.size_bytes :]))

    @contextlib.contextmanager
    def _attempt(self) -> Iterator[None]:
        """One exchange.  Whatever breaks it off closes the connection, and is told as an error of ours."""
        reused, self._answered = self._used, False
        try:
            yield
        except Refusal:
            raise
        except NotHttp as error:
            self.close()
            raise self._violation(f"not HTTP: {error}") from error
        except OSError as error:
            self.close()
            if reused and not self._answered and not self._aborted and not isinstance(error, TimeoutError):
                raise StaleConnection from error
            reason = error.strerror or str(error) or type(error).__name__
            raise NodeUnreachable(node=self._node, reason=reason) from error
        except BaseException:
            self.close()
            raise

    def abort(self) -> None:
        """From another thread: make the running exchange end at once."""
        self._aborted = True
        sock = self._sock or self._connecting
        if sock is not None:
            # shutdown wakes a thread that waits in recv or send; close alone would not.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close; the next exchange connects anew."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        self._used = False

    def _connect(self) -> ssl.SSLSocket:
        raw = self._dial()
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.settimeout(self._connect_s)
            secured = client_context().wrap_socket(raw, do_handshake_on_connect=False)
        except BaseException:
            raw.close()
            raise
        try:
            self._watch(secured)
            secured.do_handshake()
            check_pin(secured, self._node, self._address)
            self._sock = secured
            self._watch(None)
        except BaseException:
            self._sock = self._connecting = None
            secured.close()
            raise
        return secured

    def _dial(self) -> socket.socket:
        """Connect TCP.

        The host's addresses share the time: whoever names a host decides how many it has, and a hundred that
        do not answer must not take a hundred times as long.
        """
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{self._address!r} is no host's name") from error
        until_s = time.monotonic() + self._connect_s
        failed = OSError("its host has no address")
        for tried, (family, kind, protocol, _, place) in enumerate(found):
            sock = socket.socket(family, kind, protocol)
            try:
                self._watch(sock)
                sock.settimeout(max(_DIAL_S_MIN, (until_s - time.monotonic()) / (len(found) - tried)))
                sock.connect(place)
            except OSError as error:
                sock.close()
                failed = error
                if self._aborted or time.monotonic() >= until_s:
                    break
            else:
                return sock
        raise failed

    def _watch(self, sock: socket.socket | None) -> None:
        """Let `abort` reach a socket on which a connection is being made; raises if it came before."""
        self._connecting = sock
        if self._aborted:
            raise OSError("the exchange was given up")

    def _expected(self, what: Exchange, head: AnswerHead) -> int:
        """Bytes of the body that comes now.  Raises: ProtocolViolation: it cannot be the answer."""
        self._answered = self._used = True
        length = head.length_bytes
        if head.status >= 300:
            if length is None or length > _PROBLEM_BYTES_MAX:
                raise self._violation(f"status {head.status} without a problem")
        elif length is None:
            raise self._violation("an answer without a length")
        elif what.into and length != sum(len(view) for view in what.into):
            raise self._violation(f"{length} bytes instead of what was asked for")
        elif length > ANSWER_BYTES_MAX and not what.into:
            raise self._violation(f"an answer of {length} bytes")
        return length

    def _answer(self, head: AnswerHead, body: bytes) -> Answer:
        """What came.  Raises: Refusal."""
        if head.last:
            self.close()
        if head.status >= 300:
            raise Refusal(self._problem(head.status, body), head.date)
        return Answer(head.status, body)

    def _problem(self, status: int, body: bytes) -> MunimentError:
        try:
            problem = msgspec.json.decode(body, type=Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._violation(f"status {status} without a problem")
        return error_of(problem, self._node)

    def _violation(self, reason: str) -> ProtocolViolation:
        return ProtocolViolation(node=self._node, reason=reason)


def _send(sock: ssl.SSLSocket, host: str, what: Exchange) -> None:
    """Send a request.  Small parts go with their neighbours and the head: one TLS record instead of many, and
    a server that finds the body where the head is does not wait for it.
    """
    pending = bytearray(_head(host, what))
    for part in what.parts:
        if len(part) < _JOIN_BYTES and len(pending) < _JOIN_BYTES:
            pending += part
            continue
        if pending:
            sock.sendall(pending)
            pending.clear()
        if len(part) < _JOIN_BYTES:
            pending += part
        else:
            sock.sendall(part)
    if pending:
        sock.sendall(pending)


def _head(host: str, what: Exchange) -> bytes:
    head = [f"{what.method} {what.path} HTTP/1.1", f"Host: {host}"]
    head += [f"{name}: {value}" for name, value in what.headers.items()]
    if what.parts or what.method != "GET":
        head.append(f"Content-Length: {sum(len(part) for part in what.parts)}")
    return "\r\n".join([*head, "\r\n"]).encode("ascii")


async def _send_here(sock: ssl.SSLSocket, data: bytes) -> None:
    """Send all of it from the event loop."""
    pending = memoryview(data)
    while pending:
        try:
            pending = pending[sock.send(pending) :]
        except ssl.SSLWantWriteError:
            await _ready(sock, to_send=True)
        except ssl.SSLWantReadError:
            await _ready(sock)


async def _ready(sock: ssl.SSLSocket, *, to_send: bool = False) -> None:
    """Wait until a socket that does not block has something to read, or room to send."""
    loop, place = asyncio.get_running_loop(), sock.fileno()
    woken: asyncio.Future[None] = loop.create_future()
    watch, leave = (loop.add_writer, loop.remove_writer) if to_send else (loop.add_reader, loop.remove_reader)
    watch(place, _wake, woken)
    try:
        await woken
    finally:
        leave(place)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _received(sock: ssl.SSLSocket, most: int) -> bytes:
    piece = sock.recv(most)
    if not piece:
        raise _broken()
    return piece


def _body(sock: ssl.SSLSocket, rest: memoryview, size_bytes: int) -> bytes:
    """A body whose start was received with its head."""
    if len(rest) > size_bytes:
        raise NotHttp("more than an answer")
    pieces: list[bytes | memoryview] = [rest]
    missing = size_bytes - len(rest)
    while missing:
        pieces.append(_received(sock, min(missing, _RECORD_BYTES)))
        missing -= len(pieces[-1])
    return b"".join(pieces)


def _fill(sock: ssl.SSLSocket, rest: memoryview, into: Sequence[memoryview]) -> None:
    """Receive exactly as much as the buffers hold into place; `rest` came with the head."""
    for view in into:
        got = min(len(rest), len(view))
        view[:got] = rest[:got]
        rest = rest[got:]
        while got < len(view):
            count = sock.recv_into(view[got:])
            if not count:
                raise _broken()
            got += count
    if rest:
        raise NotHttp("more than an answer")


def _broken() -> OSError:
    return OSError("the connection broke")


assert issubclass(ssl.SSLError, OSError)  # so that a broken handshake is caught above
