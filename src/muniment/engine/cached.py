"""Blobs that were read before: from a cache on this machine instead of from the nodes, and into it.

A blob is looked for before nodes are asked; what the cache gives is held against the BlobId like what a node
gives, in the same hop to a kernel thread that reads and opens it.  What nodes gave is written in the
background from the buffers it was opened in, which are used again when it is written; when too many wait,
more are not kept.  The first time the cache fails, nothing more is brought into it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from muniment.core.sealing import OpenBuffers
from muniment.engine.fetching import Opener
from muniment.engine.kernels import Kernels
from muniment.engine.threads import Threads
from muniment.errors import LocalError, MunimentError, ShareCorrupt
from muniment.ids import BlobId
from muniment.merkle.share_tree import check_whole
from muniment.ports import BlobCache, Clock
from muniment.spec.blob import BlobName

_T = TypeVar("_T")

_NOTED_EVERY: Final = 64
"""After so many reads the cache is told to write down what was used, if it has nothing else to write."""

_log = logging.getLogger(__name__)


class Noting(Generic[_T]):
    """An opener that keeps what it opened from.

    Attributes:
        whole: the parts of the whole blob; valid as long as the buffers.
    """

    def __init__(self, opener: Opener[_T]) -> None:
        self._opener = opener
        self.whole: Sequence[bytes | memoryview] = ()

    def __call__(self, numbers: Sequence[int], buffers: OpenBuffers) -> _T:
        """In a kernel thread."""
        opened = self._opener(numbers, buffers)
        self.whole = buffers.whole
        return opened


@dataclass(frozen=True, slots=True)
class _Offer:
    """A blob that waits to be written.

    Attributes:
        held_bytes: memory that is in use until then.
        done: gives that memory back.
    """

    blob: BlobId
    parts: Sequence[bytes | memoryview]
    held_bytes: int
    done: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Found(Generic[_T]):
    """What was in the cache; `opened` is None if it was nothing, or wrong."""

    opened: _T | None
    wrong: str = ""


class CachedBlobs:
    """See the module.  Touched by the loop only.

    Args:
        cache: not closed here.
        kernels: read, check and open.
        clock: measures the thread that writes.
        held_bytes: memory of blobs that wait to be written, at most.
        linger_s: closing waits so long for them, and longer only for what is being written.
    """

    def __init__(
        self, cache: BlobCache, kernels: Kernels, clock: Clock, held_bytes: int, linger_s: float
    ) -> None:
        self._cache, self._kernels = cache, kernels
        self._thread = Threads("cache", 1, clock)
        self._held_max, self._linger_s = held_bytes, linger_s
        self._held_bytes = 0
        self._waiting: list[_Offer] = []
        self._writing: asyncio.Future[tuple[None, float]] | None = None
        self._unnoted = 0
        self._is_off = False
        self._write()  # brings what is there from earlier under the limit

    async def open(self, name: BlobName, buffers: OpenBuffers, opener: Opener[_T]) -> _T | None:
        """What an opener makes of a blob that is in the cache; None if it is not.

        Args:
            buffers: free; cancelled, nothing writes to them any more on return.
        Raises: what the opener raises.
        """
        if not self._cache.has(name.blob):
            return None
        found, _ = await self._kernels.run(self._open, name, buffers, opener)
        if found.wrong:
            _log.warning("the cache on disk is damaged, the nodes are asked: %s", found.wrong)
        self._unnoted += 1
        if self._unnoted >= _NOTED_EVERY:
            self._write()
        return found.opened

    def keep(
        self,
        name: BlobName,
        whole: Sequence[bytes | memoryview],
        held_bytes: int,
        done: Callable[[], None],
    ) -> None:
        """Write a blob soon, or not at all.

        Args:
            whole: its two parts (docs/spec/share.md section 6), unchanged until `done` is called.
            held_bytes: memory that is in use until then.
            done: called once, also where it is not written.
        """
        if self._is_off or self._held_bytes + held_bytes > self._held_max:
            done()
            return
        self._held_bytes += held_bytes
        self._waiting.append(_Offer(name.blob, whole, held_bytes, done))
        self._write()

    async def aclose(self) -> None:
        """Write what waits, for `linger_s` at most.  Cancelled too, it leaves nobody who uses the cache."""
        if self._unnoted:
            self._write()
        try:
            async with asyncio.timeout(self._linger_s):
                while self._writing is not None:
                    await asyncio.wait({self._writing})
        except TimeoutError:
            _log.warning("the cache on disk is slow; not all that was read is kept")
        finally:
            self._is_off = True
            self._let_go(self._take_waiting())
            self._thread.close()

    # --- background

    def _write(self) -> None:
        """Have the thread write what waits, and what was used, unless it is writing already."""
        if self._writing is None and not self._is_off:
            batch, self._unnoted = self._take_waiting(), 0
            self._writing = self._thread.start(self._cache.keep, {one.blob: one.parts for one in batch})
            self._writing.add_done_callback(partial(self._written, batch))

    def _written(self, batch: Sequence[_Offer], work: asyncio.Future[tuple[None, float]]) -> None:
        self._writing = None
        self._let_go(batch)
        try:
            work.result()
        except (MunimentError, asyncio.CancelledError) as error:
            self._is_off = True
            self._let_go(self._take_waiting())
            if isinstance(error, MunimentError):
                _log.warning("nothing more is kept in the cache on disk until the next start: %s", error)
        if self._waiting:
            self._write()

    def _take_waiting(self) -> list[_Offer]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _let_go(self, offers: Sequence[_Offer]) -> None:
        for one in offers:
            self._held_bytes -= one.held_bytes
            one.done()

    # --- kernel thread

    def _open(self, name: BlobName, buffers: OpenBuffers, opener: Opener[_T]) -> _Found[_T]:
        """In a kernel thread: read, check, open."""
        buffers.begin(name.shape)
        head, data = buffers.room_for_whole()
        try:
            size_bytes = self._cache.read_into(name.blob, (head, data))
            if size_bytes is None:
                return _Found(None)
            if size_bytes != len(head) + len(data):
                return self._drop(name, f"{size_bytes} bytes instead of {len(head) + len(data)}")
            check_whole(name, head, data)
        except (LocalError, ShareCorrupt) as error:
            return self._drop(name, str(error))
        return _Found(opener(range(name.shape.k), buffers))

    def _drop(self, name: BlobName, wrong: str) -> _Found[_T]:
        try:
            self._cache.drop(name.blob)
        except MunimentError as error:
            wrong = f"{wrong}; and it cannot be deleted: {error}"
        return _Found(None, wrong)
