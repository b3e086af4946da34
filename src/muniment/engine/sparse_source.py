"""A file with holes as a source: full chunks where it has data, nothing where a whole chunk is a hole.

Chunks are cut where those of a full file would be, so that equal content gives equal blobs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from muniment.engine.holes import Spans, data_spans, within
from muniment.engine.source import Piece
from muniment.engine.threads import Threads
from muniment.errors import FileFailed
from muniment.ports import Clock

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class SparseSource:
    """Reads one chunk at a time; what is sparse is seldom long to read.

    Owns: a descriptor and a thread.
    """

    def __init__(self, path: Path, fd: int, spans: Spans, chunk_bytes: int, clock: Clock) -> None:
        self.total_bytes: int | None = os.fstat(fd).st_size
        self.read_s = 0.0
        self._path, self._fd, self._spans, self._chunk_bytes = path, fd, spans, chunk_bytes
        self._size: int = self.total_bytes or 0
        self._at = 0
        self._thread = Threads("read", 1, clock)

    @classmethod
    def of(cls, path: Path, chunk_bytes: int, clock: Clock) -> SparseSource | None:
        """Of a regular file that has holes; None for anything else, also for what cannot be opened."""
        try:
            if not path.is_file():  # to open a pipe and close it again would break it
                return None
            fd = os.open(path, _FLAGS)
        except OSError:
            return None
        spans = data_spans(fd, os.fstat(fd))
        if spans is None:
            os.close(fd)
            return None
        return cls(path, fd, spans, chunk_bytes, clock)

    async def next(self) -> Piece | None:
        """The next chunk with data; after the last an empty piece at the file's end."""
        if self._at > self._size:
            return None
        held = next((b for _, b in self._spans if b > self._at), None)
        if held is None:
            self._at = self._size + 1
            return Piece(memoryview(b""), lambda: None, offset=self._size)
        first = max(self._at, next(a for a, b in self._spans if b > self._at))
        at = first // self._chunk_bytes * self._chunk_bytes
        self._at = min(at + self._chunk_bytes, self._size)
        plain, busy_s = await self._thread.run(self._read, at, self._at - at)
        self.read_s += busy_s
        spans = tuple((a - at, b - at) for a, b in within(self._spans, at, self._at))
        return Piece(memoryview(plain), lambda: None, offset=at, spans=spans)

    async def aclose(self) -> None:
        self._thread.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, at: int, size: int) -> bytearray:
        """In the thread: what a file that shrank does not have is zeros, as in a hole."""
        plain = bytearray(size)
        filled = 0
        try:
            while filled < size:
                count = os.preadv(self._fd, [memoryview(plain)[filled:]], at + filled)
                if not count:
                    break
                filled += count
        except OSError as error:
            raise FileFailed(path=str(self._path), reason=error.strerror or str(error)) from error
        return plain
