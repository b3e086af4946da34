"""HTTP/1.1 over TLS 1.3 for a Router, on granian inside the running event loop (ADR 2).

TLS, framing and writing run in granian's own thread outside the GIL; handlers run here.  Every request has a
deadline, a body limit and a place among a bounded number; whatever a handler raises becomes a Problem.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from muniment.errors import DeadlineExceeded, InternalError, InvalidRequest, MunimentError, Overloaded
from muniment.net.http import JSON, Request, Response, Router, parse_query
from muniment.net.problem import IN_ITS_LOG, problem_of, status_of, withheld

_HEADER_TIMEOUT_MS: Final = 10_000
_READ_BUFFER_BYTES: Final = 1 << 20
_BACKLOG: Final = 256
_START_TIMEOUT_S: Final = 10.0
_FLUSH_S: Final = 0.1
_log = logging.getLogger(__name__)


class RequestMeter(Protocol):
    """Told of every request that was answered; on the event loop, so it must not wait."""

    def answered(
        self, call: str, status: int, seconds: float, *, received_bytes: int, sent_bytes: int
    ) -> None:
        """Count it; `call` is method and path as the router has them, and the sizes are those of bodies."""
        ...


class HttpServer:
    """One listening server.

    Args:
        router: the calls.
        host: address to listen on.
        port: 0 for any free one.
        certificate: PEM file.
        key: PEM file.
        requests_max: handled at the same time; one more is answered Overloaded.
        meter: told of every answer.
    """

    def __init__(
        self,
        router: Router,
        *,
        host: str,
        port: int,
        certificate: Path,
        key: Path,
        requests_max: int = 128,
        meter: RequestMeter | None = None,
    ) -> None:
        self._router = router
        self._host = host
        self.port = port or free_port(host)
        self._requests_max = requests_max
        self._meter = meter
        self._running = 0
        self._answered_s = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._certificate, self._key = certificate, key
        self._server: Server | None = None

    @property
    def address(self) -> str:
        """`host:port` where it listens."""
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    async def start(self) -> None:
        """Listen; returns when connections are accepted.

        Raises: OSError: the address is taken or not ours.
        """
        _check_free(self._host, self.port)
        self._server = Server(
            self._handle,
            self._host,
            self.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=_HEADER_TIMEOUT_MS, max_buffer_size=_READ_BUFFER_BYTES
            ),
            websockets=False,
            backlog=_BACKLOG,
            # Connections served at a time; granian's default is the backlog, and each idle one counts.
            backpressure=max(_BACKLOG, 2 * self._requests_max),
            log_enabled=False,
            ssl_cert=self._certificate,
            ssl_key=self._key,
        )
        self._task = asyncio.create_task(self._server.serve(), name=f"http server {self.address}")
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await asyncio.to_thread(_accepts, self._host, self.port):
                    if self._task.done():
                        await self._task
                    await asyncio.sleep(0.01)
        except BaseException:
            await self.stop(0.0)
            raise

    async def stop(self, grace_s: float = 5.0) -> None:
        """Refuse new requests, let running ones finish for `grace_s`, then end them and all connections."""
        self._stopping = True
        if self._server is None or self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        # Granian does not tell when an answer has left its thread, so the last one gets a moment to.
        await asyncio.sleep(max(0.0, self._answered_s + _FLUSH_S - asyncio.get_running_loop().time()))
        self._server.stop()  # type: ignore[no-untyped-call]
        # Idle keep-alive connections would hold granian's own graceful end: it gets a moment, not more.
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._task, 1.0)

    async def _handle(self, scope: Any, protocol: Any) -> None:
        """Granian's entry: one request."""
        if scope.proto != "http":
            return
        if self._running >= self._requests_max or self._stopping:
            limit = "it is stopping" if self._stopping else f"{self._requests_max} requests"
            self._send(protocol, self._measured(scope, _problem(Overloaded(limit=limit)), 0.0))
            return
        self._running += 1
        self._idle.clear()
        try:
            begun_s = asyncio.get_running_loop().time()
            response = await self._answer(scope, protocol)
            seconds = asyncio.get_running_loop().time() - begun_s
            self._send(protocol, self._measured(scope, response, seconds))
        finally:
            self._running -= 1
            self._answered_s = asyncio.get_running_loop().time()
            if not self._running:
                self._idle.set()

    async def _answer(self, scope: Any, protocol: Any) -> Response:
        try:
            found = self._router.find(scope.method, scope.path)
            if isinstance(found, int):
                call = f"there is no call {scope.method} {scope.path[:200]}"
                return _problem(InvalidRequest(reason=call), found)
            route, params = found
            request = Request(
                scope.method,
                scope.path,
                parse_query(scope.query_string),
                scope.headers,
                params,
                protocol,
                route.body_bytes_max,
                scope.client,
            )
            try:
                async with asyncio.timeout(route.deadline_s):
                    return await route.handler(request)
            except TimeoutError:
                return _problem(DeadlineExceeded(node=b"", call=route.path, deadline_s=route.deadline_s))
        except MunimentError as error:
            if cause := withheld(error):
                bug = error if isinstance(error, InternalError) else None
                _log.error("%s %r failed: %s", scope.method, scope.path[:200], cause, exc_info=bug)
            return _problem(error)
        except Exception:  # noqa: BLE001 - the last line of defence of a server
            # The cause goes to our log, with its traceback, and not to the stranger who provoked it.
            _log.exception("%s %r failed", scope.method, scope.path[:200])
            return _problem(InternalError(reason=IN_ITS_LOG))

    def _measured(self, scope: Any, response: Response, seconds: float) -> Response:
        """Tell the meter of an answer."""
        if self._meter is not None:
            found = self._router.find(scope.method, scope.path)
            call = "unknown" if isinstance(found, int) else f"{found[0].method} {found[0].path}"
            announced = scope.headers.get("content-length") or ""
            received_bytes = int(announced) if announced.isascii() and announced.isdigit() else 0
            self._meter.answered(
                call, response.status, seconds, received_bytes=received_bytes, sent_bytes=len(response.body)
            )
        return response

    def _send(self, protocol: Any, response: Response) -> None:
        headers = [("content-type", response.content_type), *response.headers]
        # A client that has gone away is not an error of ours.
        with contextlib.suppress(RuntimeError):
            if response.status == 204:
                protocol.response_empty(204, [])
            else:
                protocol.response_bytes(response.status, headers, response.body)


def _problem(error: MunimentError, status: int | None = None) -> Response:
    return Response(status or status_of(type(error)), msgspec.json.encode(problem_of(error)), JSON)


def free_port(host: str) -> int:
    """A port nobody listens on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _check_free(host: str, port: int) -> None:
    """Raise OSError where another process listens; granian would share the port and say nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _accepts(host: str, port: int) -> bool:
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound, but reached
    try:
        with socket.create_connection((reach, port), timeout=1):
            return True
    except OSError:
        return False
