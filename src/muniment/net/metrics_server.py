"""`GET /metrics` on an address of its own: plain HTTP/1.1, one request for each connection, no secrets.

Apart from the public server on purpose: another port, no TLS and no account, so that it can be kept on the
loopback or a private network, and so that a flood of requests there does not keep a monitor from asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from muniment.errors import MunimentError

_HEAD_BYTES_MAX: Final = 8192
_DEADLINE_S: Final = 10.0
_AT_ONCE_MAX: Final = 16
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_log = logging.getLogger(__name__)


class MetricsServer:
    """Serves until closed.

    Args:
        address: `host:port`.
        text: makes the answer; called in a worker thread.
    """

    def __init__(self, address: str, text: Callable[[], bytes]) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port, self._text = host.strip("[]"), int(port), text
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.  Raises: OSError: the address is taken or not ours."""
        self._server = await asyncio.start_server(
            self._accepted, self._host, self._port, limit=_HEAD_BYTES_MAX
        )

    async def aclose(self) -> None:
        """Listen no more and break off what is under way."""
        if self._server is not None:
            self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._running) >= _AT_ONCE_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="metrics")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also of one that never began

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever asks wrongly, slowly or goes away costs himself the answer.
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(_DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = await self._answer(head.split(b"\r\n", 1)[0].split(b" "))
                lines = (
                    f"HTTP/1.1 {status}",
                    f"Content-Type: {_TEXT}",
                    f"Content-Length: {len(body)}",
                    "Connection: close",
                )
                writer.write("\r\n".join((*lines, "", "")).encode() + body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()

    async def _answer(self, words: list[bytes]) -> tuple[str, bytes]:
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return "400 Bad Request", b""
        if words[0] != b"GET":
            return "405 Method Not Allowed", b""
        if words[1].split(b"?")[0] != b"/metrics":
            return "404 Not Found", b"the metrics are at /metrics\n"
        try:
            return "200 OK", await asyncio.to_thread(self._text)
        except MunimentError as error:  # a ledger on a full disk: the monitor sees that it cannot be read
            _log.error("metrics cannot be read: %s", error)
            return "500 Internal Server Error", b"the log has the cause\n"
