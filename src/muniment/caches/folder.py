"""`BlobCache` in a folder: a file for each blob, and an index of them (docs/drivers/blob-cache.md).

    index.sqlite     size and last use of each blob, and how much they take up together
    BLOBID           a blob
    BLOBID.new       one that is being written; nobody reads it

Several caches, of any processes, may use one folder.  Who changes it holds the folder's lock.  A blob stands
in the index before its file is made, and until the file is gone: so the sum there is never less than what the
disk has, whenever a process is killed.  Reading takes neither lock nor index.  Larger files pass
by the kernel's page cache, as those of `stores.posix` do: fresh pages there cost more than all else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from muniment.durable_file import failed
from muniment.errors import StoreFailed
from muniment.ids import BlobId, id_text
from muniment.sqlite_file import FileKind, SqliteFile
from muniment.stores.disk import KernelDisk
from muniment.stores.pages import PAGES_BYTES, Pages
from muniment.stores.posix_gather import Gatherer
from muniment.stores.posix_record import UNCACHED_BYTES, RecordReader

_INDEX: Final = "index.sqlite"
_INDEX_FILES: Final = (_INDEX, f"{_INDEX}-wal", f"{_INDEX}-shm")
_NEW: Final = ".new"
_BLOCK_BYTES: Final = 4096
"""What files of this size and less take up; sizes are counted in these."""

_TRIES: Final = 100
_PAUSE_S: Final = 0.02
"""Between them.  Whoever else holds the lock writes a few blobs; if he is stopped, nothing is kept here."""

_SCHEMA: Final = """
-- Of all blobs together.
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 0),  -- one row
    size_bytes INTEGER NOT NULL,            -- the sum of theirs
    turn INTEGER NOT NULL                   -- counts uses
) STRICT;
INSERT INTO head VALUES (0, 0, 0);

-- What may be in the folder; a file may be missing, and is then made when the blob comes again.
CREATE TABLE blobs (
    blob BLOB PRIMARY KEY,                  -- BlobId, 32 bytes
    size_bytes INTEGER NOT NULL,            -- whole blocks
    used INTEGER NOT NULL                   -- the turn of its last use
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_used ON blobs (used);
"""

_KIND: Final = FileKind(
    "blob cache's index",
    0x4D554E43,
    (_SCHEMA,),
    "delete its folder",
    settings=("journal_size_limit = 1048576", "synchronous = NORMAL"),  # it may forget, and not rot
)


class FolderBlobCache:
    """See the module.

    Args:
        folder: made if missing, for its owner only; its parent must exist.
        limit_bytes: what the blobs' files take up at most, in whole blocks; the index comes on top, some
            hundred bytes for each.  Of several caches of one folder, each keeps to its own.
    Raises: DiskFull, StoreFailed: the folder cannot be made or opened.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._path, self._limit_bytes = folder, limit_bytes
        self._index: SqliteFile | None = None
        self._inode = 0
        self._used: dict[BlobId, None] = {}  # read since the index was written, in order
        self._disk, self._pages = KernelDisk(), Pages()
        self._used_lock, self._keeping = threading.Lock(), threading.Lock()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fchmod(self._folder, 0o700)
        except OSError as error:
            raise failed(folder, error) from error

    # --- reading ------------------------------------------------------------------------------

    def has(self, blob: BlobId) -> bool:
        return os.access(id_text(blob), os.F_OK, dir_fd=self._folder)

    def read_into(self, blob: BlobId, parts: Sequence[memoryview]) -> int | None:
        where = self._path / id_text(blob)
        try:
            file = self._disk.open_file(id_text(blob), self._folder)
            size_bytes = os.fstat(file).st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed(where, error) from error
        with contextlib.closing(RecordReader(self._disk, str(where), file, size_bytes)) as record:
            if size_bytes == sum(len(part) for part in parts):
                size_bytes = self._read(record, parts)
        with self._used_lock:
            self._used.pop(blob, None)
            self._used[blob] = None
        return size_bytes

    def _read(self, record: RecordReader, parts: Sequence[memoryview]) -> int:
        if record.size_bytes < UNCACHED_BYTES:
            offset = 0
            for part in parts:
                offset += record.read_into(offset, part)
            return offset
        left, offset = list(parts), 0
        with self._pages.borrow(PAGES_BYTES) as pages:
            while left and (count := record.read_into(offset, pages)):
                offset += count
                _deal_out(pages[:count], left)
        return offset

    # --- changing -----------------------------------------------------------------------------

    def keep(self, blobs: Mapping[BlobId, Sequence[bytes | memoryview]]) -> None:
        with self._used_lock:
            used, self._used = self._used, {}
        try:
            with self._keeping, self._alone() as is_alone:
                if is_alone:
                    sizes = {blob: _blocks(sum(len(part) for part in parts)) for blob, parts in blobs.items()}
                    for blob in self._make_room(self._opened(), used, sizes):
                        if not self.has(blob):
                            self._write(id_text(blob), blobs[blob])
        except OSError as error:
            raise failed(self._path, error) from error

    def drop(self, blob: BlobId) -> None:
        try:
            self._unlink(id_text(blob))
        except OSError as error:
            raise failed(self._path, error) from error

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether nobody else changes the folder meanwhile."""
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE_S)
                continue
            try:
                yield True
            finally:
                fcntl.flock(self._folder, fcntl.LOCK_UN)
            return
        yield False

    def _make_room(
        self, index: SqliteFile, used: Mapping[BlobId, None], sizes: Mapping[BlobId, int]
    ) -> list[BlobId]:
        """Note what was used, and that these blobs will be here; returns those that fit, in order."""
        coming = {blob: None for blob, size_bytes in sizes.items() if size_bytes <= self._limit_bytes}
        try:
            with index.transaction() as sqlite:
                size_bytes, turn = sqlite.execute("SELECT size_bytes, turn FROM head").fetchone()
                for blob in (*used, *coming):
                    turn += 1
                    values = turn, blob
                    known = sqlite.execute("UPDATE blobs SET used = ? WHERE blob = ?", values).rowcount
                    if not known and blob in coming:
                        sqlite.execute("INSERT INTO blobs VALUES (?, ?, ?)", (blob, sizes[blob], turn))
                        size_bytes += sizes[blob]
                while size_bytes > self._limit_bytes:
                    oldest = sqlite.execute(
                        "SELECT blob, size_bytes FROM blobs ORDER BY used LIMIT 1"
                    ).fetchone()
                    if oldest is None:
                        raise StoreFailed(where=str(self._path), reason="the index adds up to too much")
                    blob, freed_bytes = oldest
                    self._unlink(id_text(blob), id_text(blob) + _NEW)
                    sqlite.execute("DELETE FROM blobs WHERE blob = ?", (blob,))
                    size_bytes -= freed_bytes
                    coming.pop(blob, None)
                sqlite.execute("UPDATE head SET size_bytes = ?, turn = ?", (size_bytes, turn))
        except StoreFailed:
            self._unlink(*_INDEX_FILES)  # who opens the folder next begins a new one
            raise
        return list(coming)

    def _write(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        self._unlink(name + _NEW)  # of somebody who was killed
        try:
            file = self._disk.create_file(name + _NEW, self._folder)
            try:
                self._fill(file, parts)
            finally:
                os.close(file)
            self._disk.rename(name + _NEW, self._folder, name, self._folder)
        except OSError:
            self._unlink(name + _NEW)
            raise

    def _fill(self, file: int, parts: Sequence[bytes | memoryview]) -> None:
        size_bytes = sum(len(part) for part in parts)
        if size_bytes < UNCACHED_BYTES:
            left = memoryview(b"".join(parts))
            while left:
                left = left[self._disk.write(file, left) :]
            return
        pages = self._pages.take()
        assert pages is not None  # as many as are asked for
        gatherer = Gatherer(self._disk, self._pages, pages, file, size_bytes)
        try:
            for part in parts:
                gatherer.write(memoryview(part))
        finally:
            gatherer.end()

    def _unlink(self, *names: str) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(name, self._folder)

    # --- index --------------------------------------------------------------------------------

    def _opened(self) -> SqliteFile:
        """The index; the first time it and the folder are compared."""
        if self._index is None:
            self._index = self._open()
            self._inode = self._inode_now()
            self._compare(self._index)
        if self._inode_now() != self._inode or not self._inode:
            raise StoreFailed(where=str(self._path), reason="somebody has deleted the cache")
        return self._index

    def _open(self) -> SqliteFile:
        try:
            return SqliteFile(self._path / _INDEX, _KIND)
        except StoreFailed:  # damaged: it can be made again
            self._unlink(*_INDEX_FILES)
            return SqliteFile(self._path / _INDEX, _KIND)

    def _inode_now(self) -> int:
        """Of the file that has the index's name in the folder that is open; 0: there is none."""
        try:
            return os.stat(_INDEX, dir_fd=self._folder).st_ino
        except FileNotFoundError:
            return 0

    def _compare(self, index: SqliteFile) -> None:
        """Delete files that the index does not know, and forget those that are not there.

        Cost: reads the folder's names, some microseconds for each.
        """
        here = {name for name in os.listdir(self._folder) if name not in _INDEX_FILES}  # noqa: PTH208
        rows = index.rows("SELECT blob, size_bytes FROM blobs")
        known = {id_text(blob) for blob, _ in rows}
        for name in here - known:
            with contextlib.suppress(IsADirectoryError):
                self._unlink(name)
        missing = [(blob,) for blob, _ in rows if id_text(blob) not in here]
        with index.transaction() as sqlite:
            sqlite.executemany("DELETE FROM blobs WHERE blob = ?", missing)
            sqlite.execute("UPDATE head SET size_bytes = (SELECT total(size_bytes) FROM blobs)")


def _deal_out(data: memoryview, left: list[memoryview]) -> None:
    """Copy bytes to where there is room left, as far as there is."""
    while data and left:
        count = min(len(data), len(left[0]))
        left[0][:count] = data[:count]
        data, left[0] = data[count:], left[0][count:]
        if not left[0]:
            del left[0]


def _blocks(size_bytes: int) -> int:
    """What a file takes up on disk."""
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
