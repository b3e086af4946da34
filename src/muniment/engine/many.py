"""Storing many files at once, each under a capability of its own.

Files of up to one chunk are read and sealed in batches, one hop to a thread for many, and sent together: the
lanes gather their claims and shares into few requests.  Larger ones are streamed as by `Grid.put`.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.core.sealing import SealedBlob
from muniment.engine.groups import task_group
from muniment.engine.kernels import Kernels, SealWork
from muniment.engine.policy import Policy
from muniment.engine.results import FilePut, UploadTally
from muniment.engine.sender import SealBuffers, Sender
from muniment.engine.target import local_error
from muniment.engine.threads import Threads
from muniment.errors import InvalidRequest, MunimentError, NotHappy
from muniment.ids import BlobId
from muniment.spec.cap import BlobFile, LiteralFile
from muniment.spec.limits import LITERAL_BYTES_MAX, MIB

_BATCH_FILES: Final = 64
_BATCH_BYTES: Final = 4 * MIB
_BATCHES: Final = 6
"""Batches under way: one being read, one sealed, the others sent."""

TakeBack = Callable[[UploadTally, Collection[BlobId]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Content:
    """A file as read; None if it is longer than a chunk and must be streamed."""

    index: int
    path: Path
    plain: bytes | None
    error: MunimentError | None = None


class ManyUpload:
    """One call of `Grid.put_many`.

    Args:
        kernels: seal.
        sender: brings to the nodes.
        policy: for all files.
        thread: reads.
        stream: stores one large file.
        told: hears of each file as it is done.
        tally: counts.
        take_back: gives up what a file has newly stored that could not be stored whole.
    """

    def __init__(
        self,
        kernels: Kernels,
        sender: Sender,
        policy: Policy,
        thread: Threads,
        stream: Callable[[Path], Awaitable[FilePut]],
        told: Callable[[FilePut], None] | None,
        tally: UploadTally,
        take_back: TakeBack,
    ) -> None:
        self._take_back = take_back
        self._kernels = kernels
        self._sender = sender
        self._policy = policy
        self._thread = thread
        self._stream = stream
        self._told = told
        self._tally = tally
        self._done: dict[int, FilePut] = {}
        self._room = asyncio.Semaphore(_BATCHES)

    async def run(self, paths: Iterable[Path]) -> list[FilePut]:
        """Store them; returns one result for each path, in order.

        A file that cannot be read or stored does not stop the others.
        """
        numbered = enumerate(paths)
        async with task_group() as group:
            while True:
                await self._room.acquire()
                batch, busy_s = await self._thread.run(self._read_batch, numbered)
                self._tally.stages.read_s += busy_s
                if not batch:
                    break
                group.create_task(self._store_batch(batch))
        return [self._done[at] for at in range(len(self._done))]

    # --- reading

    def _read_batch(self, numbered: Iterator[tuple[int, Path]]) -> list[_Content]:
        """In a thread: the next files, until there are enough of them or of their bytes."""
        batch: list[_Content] = []
        size = 0
        while len(batch) < _BATCH_FILES and size < _BATCH_BYTES:
            found = next(numbered, None)
            if found is None:
                break
            content = self._read(*found)
            size += len(content.plain or b"")
            batch.append(content)
        return batch

    def _read(self, index: int, path: Path) -> _Content:
        most = self._policy.chunk_bytes
        try:
            with io.FileIO(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                plain = stream.read(min(size, most) + 1) if size <= most else None
        except IsADirectoryError:
            return _Content(index, path, b"", InvalidRequest(reason=f"{path} is a folder"))
        except OSError as error:
            return _Content(index, path, b"", local_error(path, error))
        if plain is not None and len(plain) > size:  # it has grown since: read it as it is now
            plain = None
        return _Content(index, path, plain)

    # --- storing

    async def _store_batch(self, batch: Sequence[_Content]) -> None:
        try:
            waiting: list[_Content] = []
            for content in batch:
                plain = content.plain
                if content.error is not None:
                    self._finish(content, FilePut(str(content.path), None, 0, content.error))
                elif plain is None:
                    self._finish(content, await self._stream(content.path))
                elif len(plain) <= LITERAL_BYTES_MAX:
                    self._finish(content, FilePut(str(content.path), LiteralFile(plain), len(plain)))
                else:
                    waiting.append(content)
            async with asyncio.TaskGroup() as group:
                while waiting:
                    await self._seal_some(waiting, group)
        finally:
            self._room.release()

    async def _seal_some(self, waiting: list[_Content], group: asyncio.TaskGroup) -> None:
        """Seal as many as there is memory for now, at least one, in one hop; begin to send them.

        Waits for memory while it holds none: several batches that each held a part and waited for the rest
        would wait for ever.
        """
        taken: list[tuple[_Content, bytes, SealBuffers]] = []
        try:
            while waiting:
                plain = waiting[0].plain
                assert plain is not None
                buffers = self._sender.buffers_nowait(self._policy, len(plain))
                if buffers is None and not taken:
                    buffers = await self._sender.buffers(self._policy, len(plain))
                if buffers is None:
                    break
                taken.append((waiting.pop(0), plain, buffers))
            works = [SealWork(memoryview(plain), buffers.blob) for _, plain, buffers in taken]
            sealed, busy_s = await self._kernels.seal(works, self._policy)
        except BaseException:
            for _, _, buffers in taken:
                self._sender.give_back(buffers)
            raise
        self._tally.stages.seal_s += busy_s
        for blob, (content, plain, buffers) in zip(sealed, taken, strict=True):
            group.create_task(self._send(content, len(plain), blob, buffers))

    async def _send(self, content: _Content, size_bytes: int, blob: SealedBlob, buffers: SealBuffers) -> None:
        try:
            await self._sender.send(blob, buffers, self._policy, self._tally)
        except MunimentError as error:
            if isinstance(error, NotHappy):
                await self._take_back(self._tally, (blob.name.blob,))
            self._finish(content, FilePut(str(content.path), None, size_bytes, error))
        else:
            self._tally.fresh.keep((blob.name.blob,))
            self._finish(content, FilePut(str(content.path), BlobFile(blob.ref), size_bytes))

    def _finish(self, content: _Content, result: FilePut) -> None:
        self._done[content.index] = result
        if self._told is not None:
            self._told(result)
