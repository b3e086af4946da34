"""One blocking HTTP/1.1 connection to one pinned address.

Bulk bytes move here on a blocking socket in a worker thread, because OpenSSL then works outside the GIL and
straight from and into the caller's buffers; asyncio's TLS copies everything twice (ADR 2).
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from muniment.errors import MunimentError, NodeUnreachable, ProtocolViolation
from muniment.ids import NodeId
from muniment.net.problem import error_of
from muniment.net.tls import check_pin, client_context
from muniment.spec.limits import ANSWER_BYTES_MAX
from muniment.spec.wire import Problem

Part = bytes | memoryview
_DIAL_S_MIN = 0.01
_JOIN_BYTES = 64 * 1024
_PROBLEM_BYTES_MAX = 64 * 1024


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
    """

    method: str
    path: str
    parts: Sequence[Part] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # one of them is the account's token
    into: tuple[memoryview, ...] = field(default=(), repr=False)


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
        self._aborted = False

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
        reused = self._used
        answered = False
        try:
            sock = self._sock or self._connect()
            sock.settimeout(timeout_s)
            _send(sock, self._address, what)
            response = http.client.HTTPResponse(sock, method=what.method)
            try:
                response.begin()
                answered = True
                self._used = True
                return self._receive(what, response)
            except BaseException:
                response.close()  # it may be all that still holds the socket
                raise
            finally:
                if response.will_close:  # the peer says so, or has not answered
                    self.close()
        except Refusal:
            raise
        except (http.client.HTTPException, OSError) as error:
            self.close()
            if reused and not answered and not self._aborted and not isinstance(error, TimeoutError):
                raise StaleConnection from error
            if isinstance(error, http.client.HTTPException) and not isinstance(
                error, http.client.RemoteDisconnected | http.client.IncompleteRead
            ):
                raise self._violation(f"not HTTP: {type(error).__name__}") from error
            reason = "the connection broke" if isinstance(error, http.client.HTTPException) else str(error)
            raise NodeUnreachable(node=self._node, reason=reason or type(error).__name__) from error
        except MunimentError:
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

    def _receive(self, what: Exchange, response: http.client.HTTPResponse) -> Answer:
        length = response.length
        if response.status >= 300:
            if length is None or length > _PROBLEM_BYTES_MAX:
                self.close()
                raise self._violation(f"status {response.status} without a problem")
            raise Refusal(self._problem(response), response.getheader("date"))
        if response.status == 204 and not what.into:
            response.read()
            return Answer(204, b"")
        if length is None:
            raise self._violation("an answer without a length")
        if what.into:
            if length != sum(len(view) for view in what.into):
                raise self._violation(f"{length} bytes instead of what was asked for")
            for view in what.into:
                _fill(response, view)
            response.read()  # at the end of the body: lets the connection be used again
            return Answer(response.status, b"")
        if length > ANSWER_BYTES_MAX:
            raise self._violation(f"an answer of {length} bytes")
        return Answer(response.status, response.read())

    def _problem(self, response: http.client.HTTPResponse) -> MunimentError:
        try:
            problem = msgspec.json.decode(response.read(), type=Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._violation(f"status {response.status} without a problem")
        return error_of(problem, self._node)

    def _violation(self, reason: str) -> ProtocolViolation:
        return ProtocolViolation(node=self._node, reason=reason)


def _send(sock: ssl.SSLSocket, host: str, what: Exchange) -> None:
    """Send a request.  Small parts go with their neighbours and the head: one TLS record instead of many, and
    a server that finds the body where the head is does not wait for it.
    """
    head = [f"{what.method} {what.path} HTTP/1.1", f"Host: {host}"]
    head += [f"{name}: {value}" for name, value in what.headers.items()]
    if what.parts or what.method != "GET":
        head.append(f"Content-Length: {sum(len(part) for part in what.parts)}")
    pending = bytearray("\r\n".join([*head, "\r\n"]).encode("ascii"))
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


def _fill(response: http.client.HTTPResponse, view: memoryview) -> None:
    """Receive exactly `len(view)` bytes into place."""
    got = 0
    while got < len(view):
        count = response.readinto(view[got:])
        if not count:
            raise http.client.IncompleteRead(b"", len(view) - got)
        got += count


assert issubclass(ssl.SSLError, OSError)  # so that a broken handshake is caught above
