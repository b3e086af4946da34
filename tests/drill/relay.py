"""A process that stands in front of servers and passes their bytes on, or does not, as it is told.

    python -m tests.drill.relay '[["node1", 20001, 30001], ...]'      name, port here, port of the server

Lines on its standard input: `NAME MODE VALUE`.

    open          bytes pass
    cut           connections are reset, new ones too
    delay S       every piece waits so many seconds, each way
    throttle B    so many bytes a second pass on each connection, each way
    hang          connections stay, nothing passes, and new ones are taken
    half          requests pass, answers do not
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Final

_PIECE_BYTES: Final = 32 << 10


class Link:
    """One server behind the relay."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._mode, self._value = "open", 0.0
        self._changed = asyncio.Event()
        self._ends: set[asyncio.StreamWriter] = set()

    def turn(self, mode: str, value: float) -> None:
        """Behave otherwise from now on."""
        self._mode, self._value = mode, value
        self._changed.set()
        self._changed = asyncio.Event()
        if mode == "cut":
            for end in self._ends:
                end.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        ends = [writer]
        self._ends.add(writer)
        try:
            with contextlib.suppress(OSError):
                if self._mode == "cut":
                    return
                answers, requests = await asyncio.open_connection("127.0.0.1", self._target)
                ends.append(requests)
                self._ends.add(requests)
                pumps = [
                    asyncio.create_task(self._pump(reader, requests, answer=False)),
                    asyncio.create_task(self._pump(answers, writer, answer=True)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.wait(pumps)
        finally:
            for end in ends:
                self._ends.discard(end)
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE_BYTES):
                while self._mode == "hang" or (self._mode == "half" and answer):
                    await self._changed.wait()
                if self._mode == "delay":
                    await asyncio.sleep(self._value)
                elif self._mode == "throttle":
                    await asyncio.sleep(len(data) / self._value)
                writer.write(data)
                await writer.drain()


async def _commands(links: dict[str, Link]) -> None:
    """Until standard input ends: then whoever gave commands has ended."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        name, mode, value = line.decode().split()
        links[name].turn(mode, float(value))


async def main() -> None:
    links = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, port, target in json.loads(sys.argv[1]):
            links[name] = Link(target)
            server = await asyncio.start_server(links[name].serve, "127.0.0.1", port)
            stack.callback(server.close)
        print("serving", flush=True)
        await _commands(links)


if __name__ == "__main__":
    asyncio.run(main())
