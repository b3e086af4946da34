"""`ShareStore` in an object store: S3, Google Cloud Storage, Azure, or a folder (docs/drivers/object.md).

    shares/<f>/<blob>.<number>      shares, below the URL's own prefix
    quarantine/...                  what was condemned; never touched again by this program

An object store shows an object whole or not at all and answers a put when the object is durable, so a commit
is one put for each record, several at a time.  Until then a record waits in a spool file without a name, so
that memory stays bounded and a killed process leaves nothing behind.  A local folder is not flushed by
obstore; this driver does it.

Needs the optional package obstore.  Any thread may call anything; there is no lock against a second node on
the same prefix, since object stores have none that every one of them knows.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from muniment.errors import InternalError, ShareUnknown, StoreFailed
from muniment.ids import ShareKey
from muniment.ports import ForeignObject, ShareReader, ShareWriter, StoredShare
from muniment.spec.limits import MIB
from muniment.stores.gate import Gate
from muniment.stores.naming import fan_of, foreign_parts, foreign_text, parse_key, quarantine_stem
from muniment.stores.object_client import flush_local, load_obstore, open_url, shown, translated

if TYPE_CHECKING:
    from obstore.store import ObjectStore as ObstoreStore

_SHARES: Final = "shares"
_QUARANTINE: Final = "quarantine"

_PUTS: Final = 4
_PARTS: Final = 2
_PART_BYTES: Final = 5 * MIB
"""A larger record is sent in parts, these being the smallest S3 takes; puts at once, parts of each at once
and their size bound the memory of all commits to 40 MiB."""

_PAGE_OBJECTS: Final = 1000
"""Listed in one request; what S3 gives at most."""


class ObjectStore:
    """Shares as objects below one prefix, which belongs to one node.

    Args:
        target: a URL that obstore knows (`s3://bucket/prefix`, `gs://`, `az://`, `file:///folder`;
            credentials and endpoints come from the environment, see the page), or a store made with obstore.
        spool: an existing folder on a local disk for records on their way.

    Raises:
        ConfigInvalid: obstore is not installed, or the URL is not one of an object store.
        StoreFailed: the store does not answer, or refuses.
    """

    def __init__(self, target: str | ObstoreStore, spool: Path) -> None:
        obstore = load_obstore()
        # Not its repr: Azure's panics when the account came from the environment.
        self._where = shown(target) if isinstance(target, str) else f"obstore's {type(target).__name__}"
        self._store: ObstoreStore = open_url(target) if isinstance(target, str) else target
        self._spool = spool
        self._obstore = obstore
        self._gate = Gate(self._where)
        self._writers: set[SpoolWriter] = set()
        self._quarantine_lock = threading.Lock()
        self._puts = ThreadPoolExecutor(_PUTS, thread_name_prefix="object-put")
        with translated(self._where):  # wrong bucket, endpoint or credentials: now, not at the first share
            next(iter(obstore.list(self._store, _SHARES, chunk_size=1)), None)

    # --- writing ------------------------------------------------------------------------------

    def create(self, key: ShareKey, size_bytes: int) -> ShareWriter:
        with self._gate, translated(str(self._spool)):
            # Unbuffered: what was written is counted, and the pieces are large.
            spooled = tempfile.TemporaryFile(dir=self._spool, buffering=0)  # noqa: SIM115 - closed by the writer
            writer = SpoolWriter(key, size_bytes, str(self._spool), spooled, self._writers.discard)
            self._writers.add(writer)
            return writer

    def commit(self, writers: Sequence[ShareWriter]) -> None:
        taken: list[tuple[ShareKey, BinaryIO]] = []
        with self._gate:
            try:
                for writer in writers:
                    if not isinstance(writer, SpoolWriter) or writer not in self._writers:
                        raise InternalError(reason=f"share {writer.key} is not being written here")
                    taken.append((writer.key, writer.take()))
                # One after the other where the same share comes twice: the last must win.
                puts = [self._puts.submit(self._put, key, spooled) for key, spooled in dict(taken).items()]
                wait(puts)
                for put in puts:
                    put.result()
            finally:
                for _, spooled in taken:
                    spooled.close()
                for writer in writers:
                    writer.abort()

    def _put(self, key: ShareKey, spooled: BinaryIO) -> None:
        path = _share_path(key)
        with translated(self._where):
            spooled.seek(0)
            self._obstore.put(self._store, path, spooled, chunk_size=_PART_BYTES, max_concurrency=_PARTS)
            flush_local(self._store, path)

    # --- reading ------------------------------------------------------------------------------

    def open(self, key: ShareKey) -> ShareReader:
        path = _share_path(key)
        with self._gate, translated(self._where):
            try:
                size_bytes = self._obstore.head(self._store, path)["size"]
            except FileNotFoundError as error:
                raise ShareUnknown(blob=key.blob, share=key.number) from error
        return _Reader(self._store, self._where, path, size_bytes)

    def scan(self) -> Iterator[StoredShare | ForeignObject]:
        with self._gate, translated(self._where):
            pages = iter(self._obstore.list(self._store, _SHARES, chunk_size=_PAGE_OBJECTS))
        while True:
            with self._gate, translated(self._where):
                page = next(pages, None)
            if page is None:
                return
            for item in page:
                path, size_bytes = item["path"], item["size"]
                key = parse_key(path.rpartition("/")[2])
                if key is not None and path == _share_path(key):
                    yield StoredShare(key, size_bytes)
                else:
                    yield ForeignObject(foreign_text(*path.split("/")[1:]), size_bytes)

    def free_bytes(self) -> int | None:
        with self._gate:
            return None

    # --- removing -----------------------------------------------------------------------------

    def delete(self, key: ShareKey) -> None:
        with self._gate, translated(self._where):
            self._remove(_share_path(key))

    def quarantine(self, found: ShareKey | ForeignObject) -> None:
        if isinstance(found, ShareKey):
            path, stem = _share_path(found), str(found)
        else:
            path = "/".join((_SHARES, *foreign_parts(found.name)))
            stem = quarantine_stem(found.name)
        with self._gate, translated(self._where), self._quarantine_lock:
            for serial in count():
                new_path = f"{_QUARANTINE}/{stem}.{serial}"
                try:
                    self._obstore.head(self._store, new_path)
                except FileNotFoundError:
                    break
            try:
                self._obstore.copy(self._store, path, new_path)
            except FileNotFoundError:
                return
            flush_local(self._store, new_path)
            self._remove(path)

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._obstore.delete(self._store, path)
        flush_local(self._store, path)

    # --- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Waits for the calls under way."""
        if self._gate.shut():
            for writer in list(self._writers):
                writer.abort()
            self._puts.shutdown()


def _share_path(key: ShareKey) -> str:
    return f"{_SHARES}/{fan_of(key)}/{key}"


class SpoolWriter:
    """A nameless spool file that grows, until aborted or taken by a commit."""

    def __init__(
        self,
        key: ShareKey,
        size_bytes: int,
        where: str,
        spooled: BinaryIO,
        on_end: Callable[[SpoolWriter], None],
    ) -> None:
        self._on_end = on_end
        self._key, self._size_bytes, self._where = key, size_bytes, where
        self._spooled: BinaryIO | None = spooled
        self._written_bytes = 0
        self._lock = threading.Lock()

    @property
    def key(self) -> ShareKey:
        return self._key

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        with self._lock:
            if self._spooled is None:
                raise StoreFailed(where=self._where, reason="this write was ended")
            self._written_bytes += len(view)
            if self._written_bytes > self._size_bytes:
                return  # the commit refuses it
            try:
                with translated(self._where):
                    while view:
                        view = view[self._spooled.write(view) :]
            except BaseException:
                self._end()
                raise

    def abort(self) -> None:
        with self._lock:
            self._end()

    def take(self) -> BinaryIO:
        """Hand the complete spool file over.  Raises: InternalError: ended before, or of another size."""
        with self._lock:
            if self._spooled is None or self._written_bytes != self._size_bytes:
                raise InternalError(reason=f"the write of share {self._key} was ended or is not complete")
            spooled, self._spooled = self._spooled, None
            self._on_end(self)
            return spooled

    def _end(self) -> None:
        spooled, self._spooled = self._spooled, None
        if spooled is not None:
            self._on_end(self)
            spooled.close()


class _Reader:
    """An object of known size, read by ranges."""

    def __init__(self, store: ObstoreStore, where: str, path: str, size_bytes: int) -> None:
        self._store, self._where, self._path, self._size_bytes = store, where, path, size_bytes

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> int:
        stop = min(offset + len(buffer), self._size_bytes)
        if offset >= stop:
            return 0
        with translated(self._where):
            piece = memoryview(load_obstore().get_range(self._store, self._path, start=offset, end=stop))
        if len(piece) != stop - offset:
            raise StoreFailed(where=self._where, reason="the object became shorter while it was read")
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Nothing is held open between reads."""
