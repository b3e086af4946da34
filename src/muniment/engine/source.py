"""Where an upload's bytes come from: a file, pipe, bytes or asynchronous iterator, chunk by chunk.

Every source gives full chunks but for the last, so that equal content gives equal blobs however it comes.
Files are read ahead of sealing in a thread of their own, into a few buffers that are used in turn.  A pipe
that says nothing is waited for in a way that can be broken off, so that cancelling leaves no thread behind;
only a `read` of the caller's own that blocks for ever cannot be helped.
"""

from __future__ import annotations

import asyncio
import io
import mmap
import os
import select
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from muniment.engine.threads import wait_ended
from muniment.errors import FileFailed, InvalidRequest
from muniment.ports import Clock

BUFFERS: Final = 3
"""Chunks of plaintext in memory for one stream: one being read, one sealed in each kernel thread."""


class Readable(Protocol):
    """What `Grid.put` needs of a file object: `read`, and no `seek`.  `readinto` is used if it is there."""

    def read(self, size: int = -1, /) -> bytes | bytearray | memoryview: ...


SourceLike = Path | bytes | bytearray | memoryview | Readable | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of plaintext.

    Attributes:
        plain: valid until `free` is called.
        free: call once when `plain` is not needed any more.
        offset: in the file, if there may be a hole before it; None: right behind the piece before.
        spans: of a file with holes, where in `plain` it has data; None: everywhere.
    """

    plain: memoryview
    free: Callable[[], None]
    offset: int | None = None
    spans: tuple[tuple[int, int], ...] | None = None


class Source(Protocol):
    """Chunks in order.

    Attributes:
        total_bytes: what there is to read, if that is known; it may turn out otherwise.
        read_s: busy seconds spent reading.
    """

    total_bytes: int | None
    read_s: float

    async def next(self) -> Piece | None:
        """The next chunk; None after the last.

        Raises: FileFailed: a file opened by path cannot be read.  What a file object of the caller's raises
            passes as it is.
        """
        ...

    async def aclose(self) -> None:
        """Stop reading; no thread is left on return."""
        ...


def open_source(source: SourceLike, chunk_bytes: int, clock: Clock) -> Source:
    """The source behind anything `Grid.put` takes; a path is opened by its first `next`.

    Raises: InvalidRequest: it is nothing that can be read.
    """
    match source:
        case Path():
            return FileSource(source, chunk_bytes, clock)
        case bytes() | bytearray() | memoryview():
            return BytesSource(memoryview(source).cast("B"), chunk_bytes)
        case AsyncIterable():
            return IteratorSource(aiter(source), chunk_bytes)
        case _ if hasattr(source, "read"):
            return FileSource(source, chunk_bytes, clock)
    raise InvalidRequest(reason=f"{type(source).__name__} is nothing that can be read")


def _bytes_left(stream: Readable) -> int | None:
    """What is still to be read of a seekable file object, for progress."""
    if isinstance(stream, io.BytesIO):
        return len(stream.getbuffer()) - stream.tell()
    if isinstance(stream, io.FileIO | io.BufferedReader | io.BufferedRandom):
        try:
            facts = os.fstat(stream.fileno())
            return facts.st_size - stream.tell() if stat.S_ISREG(facts.st_mode) else None
        except (OSError, ValueError):
            return None
    return None


class BytesSource:
    """Bytes that are in memory already; nothing is copied."""

    def __init__(self, content: memoryview, chunk_bytes: int) -> None:
        self.total_bytes: int | None = len(content)
        self.read_s = 0.0
        self._content = content
        self._chunk_bytes = chunk_bytes
        self._at = 0

    async def next(self) -> Piece | None:
        plain = self._content[self._at : self._at + self._chunk_bytes]
        self._at += len(plain)
        return Piece(plain, lambda: None) if plain else None

    async def aclose(self) -> None:
        pass


class IteratorSource:
    """An asynchronous iterator of bytes, gathered into chunks."""

    def __init__(self, pieces: AsyncIterator[bytes], chunk_bytes: int) -> None:
        self.total_bytes: int | None = None
        self.read_s = 0.0
        self._pieces = pieces
        self._chunk_bytes = chunk_bytes
        self._rest = memoryview(b"")

    async def next(self) -> Piece | None:
        chunk = bytearray()
        while len(chunk) < self._chunk_bytes:
            if not self._rest:
                try:
                    self._rest = memoryview(await anext(self._pieces)).cast("B")
                except StopAsyncIteration:
                    break
            taken = self._rest[: self._chunk_bytes - len(chunk)]
            chunk += taken
            self._rest = self._rest[len(taken) :]
        return Piece(memoryview(chunk), lambda: None) if chunk else None

    async def aclose(self) -> None:
        pass


class _BrokenOffError(Exception):
    """Reading was stopped by `aclose`."""


class FileSource:
    """A file object or path, read ahead in a thread of its own.

    Owns: one task, one thread, `BUFFERS` chunks of memory.

    Args:
        file: read until its end; a path is opened in the thread and closed with the source.
        chunk_bytes: size of all chunks but the last.
        clock: measures reading.
    """

    def __init__(self, file: Readable | Path, chunk_bytes: int, clock: Clock) -> None:
        self.total_bytes: int | None = None
        self.read_s = 0.0
        self._clock = clock
        self._path = file if isinstance(file, Path) else None
        self._own: io.FileIO | None = None
        self._stream: Readable | None = None if isinstance(file, Path) else file
        self._pipe = _Pipe.of(self._stream)
        if self._stream is not None:
            self.total_bytes = _bytes_left(self._stream)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="muniment-read")
        self._buffers: asyncio.Queue[mmap.mmap] = asyncio.Queue()
        for _ in range(BUFFERS):  # anonymous maps: pages a short file does not need are never touched
            self._buffers.put_nowait(mmap.mmap(-1, chunk_bytes))
        self._pieces: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._read_all())
        self._task.add_done_callback(self._ended)

    async def next(self) -> Piece | None:
        piece = await self._pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    async def aclose(self) -> None:
        if self._pipe is not None:
            self._pipe.break_off()
        self._task.cancel()
        await wait_ended(self._task)
        self._thread.shutdown(wait=True)
        if self._pipe is not None:
            self._pipe.close()
        if self._own is not None:
            self._own.close()

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        short = False
        while not short:
            buffer = await self._buffers.get()
            reading = loop.run_in_executor(self._thread, self._fill, memoryview(buffer))
            try:
                count = await asyncio.shield(reading)
            except asyncio.CancelledError:
                await wait_ended(reading)
                raise
            except OSError as error:
                if self._path is None:
                    raise
                raise FileFailed(path=str(self._path), reason=error.strerror or str(error)) from error
            short = count < len(buffer)
            if count:
                free = partial(self._buffers.put_nowait, buffer)
                self._pieces.put_nowait(Piece(memoryview(buffer)[:count], free))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The stream's end, or what ended it: the file's error, or one of the caller's own object."""
        self._pieces.put_nowait(None if task.cancelled() else task.exception())

    def _fill(self, buffer: memoryview) -> int:
        """In the thread: read until the buffer is full or the stream ends."""
        begun_s = self._clock.monotonic_s()
        stream = self._stream or self._open()
        filled = 0
        while filled < len(buffer):
            count = self._read_some(stream, buffer[filled:])
            if not count:
                break
            filled += count
        self.read_s += self._clock.monotonic_s() - begun_s
        return filled

    def _open(self) -> Readable:
        """In the thread: open the path; a named pipe is waited for here."""
        assert self._path is not None
        try:
            self._stream = self._own = io.FileIO(self._path)
        except IsADirectoryError as error:
            raise InvalidRequest(reason=f"{self._path} is a folder; store it as a tree") from error
        self.total_bytes = _bytes_left(self._own)
        self._pipe = _Pipe.of(self._own)
        return self._own

    def _read_some(self, stream: Readable, buffer: memoryview) -> int:
        if self._pipe is not None:
            self._pipe.wait_readable()
            if isinstance(stream, io.BufferedReader):
                return stream.readinto1(buffer)
        if isinstance(stream, io.RawIOBase | io.BufferedIOBase):
            return stream.readinto(buffer) or 0
        data = stream.read(len(buffer))
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidRequest(reason="the source gives text, not bytes")
        buffer[: len(data)] = data
        return len(data)


class _Pipe:
    """Waits for a pipe or terminal in a thread, until there is something to read or `break_off` is called.

    A reader that has read from the stream before must not have left unread bytes in its buffer: they are
    noticed only when more arrives.
    """

    def __init__(self, fileno: int) -> None:
        self._wake_out, self._wake_in = os.pipe()
        self._poll = select.poll()
        self._poll.register(fileno, select.POLLIN)
        self._poll.register(self._wake_out, select.POLLIN)

    @classmethod
    def of(cls, stream: Readable | None) -> _Pipe | None:
        """For streams over a descriptor that may keep a reader waiting; None for all others."""
        raw = stream.raw if isinstance(stream, io.BufferedReader) else stream
        if not isinstance(raw, io.FileIO):
            return None
        mode = os.fstat(raw.fileno()).st_mode
        waits = stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)
        return cls(raw.fileno()) if waits else None

    def wait_readable(self) -> None:
        """Block; at the stream's end it is readable too.  Raises: _BrokenOffError."""
        if any(fd == self._wake_out for fd, _ in self._poll.poll()):
            raise _BrokenOffError

    def break_off(self) -> None:
        """Wake the thread; from then on nothing is read."""
        os.write(self._wake_in, b"\0")

    def close(self) -> None:
        """After the thread has ended."""
        os.close(self._wake_out)
        os.close(self._wake_in)
