"""What was written and is not in the log yet: assembled to whole chunks, stored while more comes.

Bytes go into the buffer of their chunk of the file.  A buffer that is full is stored at once, in the
background; what is left is stored when somebody closes or syncs the file: few bytes in the entry itself,
small pieces together in one blob, which files that are saved at the same time share.  Only then does one
`Write` name all of it: other clients and history see whole saves, never a half of one.

Memory is bounded: a writer waits while as much as `dirty_bytes` is not stored; the oldest buffers go first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Final

from muniment.errors import DeadlineExceeded, MunimentError
from muniment.fs.content.buffer import Buffer, Memory
from muniment.fs.content.chunk_cache import ChunkCache
from muniment.fs.content.pieces import Piece, Pieces
from muniment.fs.deadlines import Patience, within
from muniment.fs.store import Store
from muniment.spec.blob import BlobRef
from muniment.spec.limits import KIB
from muniment.spec.operation import INLINE_BYTES_MAX, Content, Extent

_STORING_MAX: Final = 6
_EXTENTS_MAX: Final = 4096
_SHARING_BYTES: Final = 64 * KIB
"""A save of so little goes into a blob with others'."""

_SHARED_BYTES: Final = 512 * KIB
"""So much at most is fetched for a byte of a small file."""

_COMPANY_S: Final = 0.005
"""So long the first of many who save at the same time waits for the others: storing costs by the blob."""

_AGAIN_S: Final = 1.0
"""So long after what waits for room has failed to be stored, it is tried again."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class DirtyFile:
    """One file's part.

    Attributes:
        pieces: what is newer than the log.
        filling: buffers that take more, by chunk.
        mtime_ns: when it was written last, or what its time was set to since.
        saving: held by who saves it.
    """

    pieces: Pieces = field(default_factory=Pieces)
    filling: dict[int, Buffer] = field(default_factory=dict)
    mtime_ns: int = 0
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Saved:
    """Pieces of a file that are stored, as a `Write` names them."""

    content: Content
    blobs: tuple[BlobRef, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class NotNamed:
    """What no entry names of a file.

    Attributes:
        stored: on the grid.
        pieces: in memory only.
        mtime_ns: of the file, by these.
    """

    stored: list[Saved]
    pieces: list[Piece]
    mtime_ns: int


class Dirty:
    """Of all files.

    Args:
        store: where to.
        cache: keeps what was stored, for who reads it.
        dirty_bytes: not stored at most.
        patience: so long a writer waits for room; at the end nobody does.
    """

    def __init__(self, store: Store, cache: ChunkCache, *, dirty_bytes: int, patience: Patience) -> None:
        self._store, self._cache = store, cache
        self._limit_bytes, self._patience = dirty_bytes, patience
        self._chunk_bytes = store.chunk_bytes
        self._memory = Memory(self._chunk_bytes)
        self._files: dict[int, DirtyFile] = {}
        self._buffers: set[Buffer] = set()  # those whose bytes count
        self._storing: set[asyncio.Task[None]] = set()
        self._trouble: MunimentError | None = None  # why the last one was not stored
        self._gate = asyncio.Semaphore(_STORING_MAX)
        self._sharing = asyncio.Lock()  # held while a shared blob is stored
        self._shared: Buffer | None = None
        self._sharers = 0  # saves in it
        self._has_company = False
        self._less = asyncio.Event()
        self._bytes = 0

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._files))

    def get(self, ino: int) -> DirtyFile | None:
        """What there is of a file."""
        return self._files.get(ino)

    async def aclose(self) -> None:
        """End what is under way; what is not saved is lost."""
        for task in self._storing:
            task.cancel()
        if self._storing:
            await asyncio.wait(self._storing)

    # --- writing ------------------------------------------------------------------------------

    def write(self, ino: int, offset: int, data: memoryview, now_ns: int) -> None:
        """Take bytes, whether there is room or not; they are read back from now on."""
        file = self._files.setdefault(ino, DirtyFile())
        file.mtime_ns = now_ns
        self._take_all(file, offset, data)

    async def wait_room(self) -> None:
        """Until there is room for more.  Raises: DeadlineExceeded; what keeps bytes from being stored."""
        if self._bytes < self._limit_bytes:
            return
        try:
            async with within("store", self._patience):
                while self._bytes >= self._limit_bytes and not self._patience.is_ending:
                    self._release_unused()
                    if len(self._storing) < _STORING_MAX:
                        self._begin_oldest()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_AGAIN_S):
                            await self._less.wait()
        except DeadlineExceeded as error:
            if self._trouble is None:
                raise
            raise self._trouble from error

    def _take_all(self, file: DirtyFile, offset: int, data: memoryview) -> None:
        at = 0
        while at < len(data):
            slot, within = divmod(offset + at, self._chunk_bytes)
            size = min(len(data) - at, self._chunk_bytes - within)
            self._take(file, slot, offset + at, data[at : at + size])
            at += size

    def _take(self, file: DirtyFile, slot: int, start: int, data: memoryview) -> None:
        buffer, stop = file.filling.get(slot), start + len(data)
        if buffer is not None:
            there = file.pieces.within(start, stop)
            if len(there) == 1 and there[0].buffer is buffer and there[0].stop - there[0].start == len(data):
                assert buffer.data is not None
                buffer.data[there[0].skip : there[0].skip + len(data)] = data
                return
            if buffer.size + len(data) > self._chunk_bytes:
                self._begin(file, buffer)
                buffer = None
        if buffer is None:
            buffer = file.filling[slot] = Buffer(slot)
        file.pieces.put(Piece(start, stop, buffer, self._append(buffer, data)))
        if buffer.size == self._chunk_bytes:
            self._begin(file, buffer)

    def _append(self, buffer: Buffer, data: memoryview) -> int:
        self._buffers.add(buffer)
        self._bytes += len(data)
        return self._memory.append(buffer, data)

    def ending(self) -> None:
        """Hold up nobody any more."""
        self._tell()

    def _begin_oldest(self) -> None:
        for file in self._files.values():
            for buffer in list(file.filling.values()):
                self._begin(file, buffer)
                return
            for piece in file.pieces:
                if piece.buffer.ref is None and not piece.buffer.is_under_way:
                    self._begin(file, piece.buffer)  # what failed is tried again
                    return

    def cut(self, ino: int, start: int, stop: int) -> None:
        """What was written in [start, stop) counts no more: the file was truncated, or has a hole there."""
        file = self._files.get(ino)
        if file is None:
            return
        file.pieces.cut(start, stop)
        used = {piece.buffer for piece in file.pieces}
        for buffer in [one for one in file.filling.values() if one not in used]:
            del file.filling[buffer.slot]
            self._release(buffer)
        if not file.pieces:
            del self._files[ino]

    def drop(self, ino: int) -> None:
        """Nobody will ever read or save this file."""
        file = self._files.pop(ino, None)
        if file is None:
            return
        for buffer in {piece.buffer for piece in file.pieces}:
            if buffer.storing is None:
                self._release(buffer)

    def _release_unused(self) -> None:
        """Give back what was replaced, cut off or dropped while it waited or could not be stored."""
        used = {piece.buffer for file in self._files.values() for piece in file.pieces}
        used.update(buffer for file in self._files.values() for buffer in file.filling.values())
        for buffer in self._buffers - used:
            if not buffer.is_under_way:
                self._release(buffer)

    # --- storing ------------------------------------------------------------------------------

    def _begin(self, file: DirtyFile, buffer: Buffer) -> None:
        """Store a buffer in the background; nothing is added to it any more."""
        if file.filling.get(buffer.slot) is buffer:
            del file.filling[buffer.slot]
        self._start(buffer, self._put(buffer))

    def _start(self, buffer: Buffer, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="store chunk")
        buffer.storing = task
        self._storing.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._storing.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._trouble is None:  # each is told to who saves the file
            _log.warning("a chunk could not be stored: %s", error)
        self._trouble = error if isinstance(error, MunimentError) else None

    async def _put(self, buffer: Buffer) -> None:
        async with self._gate:
            plain = buffer.view(0, buffer.size)
            ref = await self._store.put(plain)
        self._cache.put(ref, plain)
        buffer.ref = ref
        self._release(buffer)

    async def _put_shared(self, buffer: Buffer) -> None:
        """Store a shared buffer after the one before it: until then others add to it."""
        async with self._sharing:
            if self._has_company:
                await asyncio.sleep(_COMPANY_S)
            if self._shared is buffer:
                self._shared = None
            self._has_company, self._sharers = self._sharers > 1, 0
            await self._put(buffer)

    def _release(self, buffer: Buffer) -> None:
        """Its bytes are in memory no more."""
        self._buffers.discard(buffer)
        self._bytes -= buffer.size
        self._memory.give_back(buffer)
        self._tell()

    def _tell(self) -> None:
        less, self._less = self._less, asyncio.Event()
        less.set()

    # --- saving -------------------------------------------------------------------------------

    async def save(self, ino: int) -> list[Saved]:
        """Store what there is of a file; call with its `saving` held, then name it in the log, then `saved`.

        Returns: parts small enough for a `Write` each; what is written meanwhile is not in them.
        Raises: NotHappy and all that storing raises; the bytes are kept, and the next save tries again.
        """
        file = self._files[ino]
        small = [one for one in file.pieces if file.filling.get(one.buffer.slot) is one.buffer]
        if 0 < sum(piece.stop - piece.start for piece in small) <= INLINE_BYTES_MAX:
            for piece in small:
                file.filling.pop(piece.buffer.slot, None)
        else:
            self._pack(file, small)
            small = []
        inline = {piece.buffer for piece in small}
        under_way = []
        for buffer in dict.fromkeys(piece.buffer for piece in file.pieces):
            if buffer.ref is None and buffer not in inline:
                if not buffer.is_under_way:
                    self._begin(file, buffer)
                assert buffer.storing is not None
                under_way.append(buffer.storing)
        if under_way:
            await asyncio.wait(under_way)  # unlike `gather` it leaves them alone if whoever saves gives up
        for task in under_way:
            task.result()
        ready = [one for one in file.pieces if one.buffer.ref is not None or one.buffer in inline]
        return _parts(ready)

    def saved(self, ino: int, saved: Saved) -> None:
        """A `Write` names these now."""
        file = self._files.get(ino)
        if file is None:
            return
        for piece in saved.pieces:
            file.pieces.cut(piece.start, piece.stop)
            if piece.buffer.data is not None:
                self._release(piece.buffer)
        if not file.pieces:
            del self._files[ino]

    def unsaved(self, ino: int) -> NotNamed:
        """What the log does not have of a file, when all is ended."""
        file = self._files[ino]
        stored = [one for one in file.pieces if one.buffer.ref is not None]
        return NotNamed(_parts(stored), [one for one in file.pieces if one.buffer.ref is None], file.mtime_ns)

    def _pack(self, file: DirtyFile, pieces: list[Piece]) -> None:
        """Put pieces of several buffers together, so that a save of many small ones is few blobs."""
        if 0 < sum(piece.stop - piece.start for piece in pieces) <= _SHARING_BYTES:
            self._sharers += 1
            self._move(file, pieces, self._with_others)
        elif len({piece.buffer for piece in pieces}) > 1:
            packed = Buffer(-1)

            def alone(size: int) -> Buffer:
                nonlocal packed
                if packed.size + size > self._chunk_bytes:
                    packed = Buffer(-1)
                return packed

            self._move(file, pieces, alone)

    def _with_others(self, size: int) -> Buffer:
        """The buffer that other files' small pieces go to at present, with room for so many bytes."""
        shared = self._shared
        if shared is None or shared.size + size > min(_SHARED_BYTES, self._chunk_bytes):
            shared = self._shared = Buffer(-1)
            self._start(shared, self._put_shared(shared))
        return shared

    def _move(self, file: DirtyFile, pieces: list[Piece], place: Callable[[int], Buffer]) -> None:
        old = {piece.buffer for piece in pieces}
        for buffer in old:
            del file.filling[buffer.slot]
        for piece in pieces:
            size = piece.stop - piece.start
            target = place(size)
            at = self._append(target, piece.buffer.view(piece.skip, piece.skip + size))
            file.pieces.put(Piece(piece.start, piece.stop, target, at))
        for buffer in old:
            self._release(buffer)


def _parts(pieces: list[Piece]) -> list[Saved]:
    """Small enough for a `Write` each."""
    return [_saved(pieces[at : at + _EXTENTS_MAX]) for at in range(0, len(pieces), _EXTENTS_MAX)]


def _saved(pieces: list[Piece]) -> Saved:
    rows: dict[BlobRef, int] = {}
    content: list[Extent] = []
    for piece in pieces:
        size, ref = piece.stop - piece.start, piece.buffer.ref
        if ref is None:
            data = bytes(piece.buffer.view(piece.skip, piece.skip + size))
            content.append(Extent(piece.start, size, data))
        else:
            row = rows.setdefault(ref, len(rows))
            content.append(Extent(piece.start, size, row, piece.skip))
    return Saved(tuple(content), tuple(rows), tuple(pieces))
