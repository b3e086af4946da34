"""`ShareStore` in a folder of a local disk (docs/drivers/posix.md).

    folder/lock                           held while the store is open
    folder/incoming/<i>                   unfinished writes, wiped at open
    folder/shares/<f>/<blob>.<number>     shares, under `naming.FANS`
    folder/quarantine/...                 what was condemned; never touched again by this program

Invariants, all checked by killing the process at each system call and by cutting the power of a model disk:

- A name under `shares` stands for a whole record whose bytes were flushed before it got the name.
- What `commit`, `delete` or `quarantine` returned for survives power loss.
- A file leaves `shares` by `delete` only; quarantine has it durably before `shares` loses it.

Any thread may call anything.  The gate counts the calls under way so that `close` can wait for them; it holds
no lock while they run.  Quarantine's lock and each writer's are taken alone.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Final

from muniment.durable_file import failed
from muniment.errors import FolderBusy, InternalError, ShareUnknown
from muniment.ids import ShareKey
from muniment.ports import ForeignObject, ShareReader, ShareWriter, StoredShare
from muniment.stores.disk import Disk, DiskEntry, KernelDisk
from muniment.stores.gate import Gate
from muniment.stores.naming import FANS, fan_of, foreign_parts, foreign_text, parse_key, quarantine_stem
from muniment.stores.pages import Pages
from muniment.stores.posix_gather import GATHERING_MAX, Gatherer
from muniment.stores.posix_record import (
    UNCACHED_BYTES,
    Record,
    RecordReader,
    RecordWriter,
    close_quietly,
    translated,
)

_SCAN_ENTRIES: Final = 1024
"""Read from a folder at once, between which the store may be closed."""

_NO_SHARE: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO})
"""Nothing, a link, or a socket stands where a share would be."""


class PosixStore:
    """Shares as files under one folder, which belongs to one open store at a time.

    Args:
        folder: made if it is missing; its parent must exist.
        disk: the system calls; another one in tests.

    Raises:
        FolderBusy: another process, or this one, has the folder open.
        DiskFull, StoreFailed: the folder cannot be made, opened or flushed.
    """

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._where = str(folder)
        self._disk: Disk = KernelDisk() if disk is None else disk
        self._gate = Gate(self._where)
        self._serials = count()
        self._writers: dict[str, RecordWriter] = {}  # by the file's name, until ended or committed
        self._quarantine_lock = threading.Lock()
        self._pages = Pages(GATHERING_MAX)
        self._fds: list[int] = []
        try:
            self._open_folders(folder)
        except BaseException as error:
            self._close_folders()
            if isinstance(error, BlockingIOError):
                raise FolderBusy(folder=self._where) from error
            if isinstance(error, OSError):
                raise failed(self._where, error) from error
            raise

    def _open_folders(self, folder: Path) -> None:
        disk = self._disk
        self._root = self._folder(str(folder), None)
        self._fds.append(disk.lock_file("lock", self._root))
        self._incoming = self._folder("incoming", self._root)
        self._shares = self._folder("shares", self._root)
        self._quarantine = self._folder("quarantine", self._root)
        self._fans = {name: self._folder(name, self._shares) for name in FANS}
        # Besides the folders' own names, flushes those that a killed process left in them unflushed: whoever
        # sees a share from now on may rely on it.
        for fd in (*self._fans.values(), self._shares, self._quarantine, self._root):
            disk.flush_folder(fd)
        parent = disk.open_folder(str(folder.parent), None)
        try:
            disk.flush_folder(parent)
        finally:
            close_quietly(disk, parent)
        # Not flushed: what power loss brings back is wiped the next time.
        for entry in list(disk.entries(self._incoming)):
            if entry.is_folder:
                stem = quarantine_stem(foreign_text("incoming", entry.name))
                self._set_aside(self._incoming, entry.name, stem)
            else:
                disk.unlink(entry.name, self._incoming)

    def _folder(self, name: str, at: int | None) -> int:
        """Open a folder until `close`, made if it is missing."""
        try:
            self._disk.make_folder(name, at)
        except FileExistsError:
            pass
        fd = self._disk.open_folder(name, at)
        self._fds.append(fd)
        return fd

    # --- writing ------------------------------------------------------------------------------

    def create(self, key: ShareKey, size_bytes: int) -> ShareWriter:
        with self._gate, translated(self._where):
            name = str(next(self._serials))
            record = Record(key, name, size_bytes, self._disk.create_file(name, self._incoming))
            try:
                if size_bytes:
                    # What will not fit is refused now instead of after its transfer; costs next to nothing.
                    self._disk.reserve(record.fd, size_bytes)
                gatherer = self._gatherer(record)
            except OSError:
                self._discard(record)
                raise
            writer = RecordWriter(self._disk, self._where, record, gatherer, self._discard)
            self._writers[name] = writer
            return writer

    def _gatherer(self, record: Record) -> Gatherer | None:
        """What takes a large record past the page cache, while there is memory to gather it in."""
        buffer = self._pages.take() if record.size_bytes >= UNCACHED_BYTES else None
        if buffer is None:
            return None
        return Gatherer(self._disk, self._pages, buffer, record.fd, record.size_bytes)

    def commit(self, writers: Sequence[ShareWriter]) -> None:
        taken: deque[Record] = deque()
        with self._gate, translated(self._where):
            try:
                for writer in writers:
                    if not isinstance(writer, RecordWriter) or self._writers.get(writer.name) is not writer:
                        raise InternalError(reason=f"share {writer.key} is not being written here")
                    taken.append(writer.take())
                self._publish(taken)
            finally:
                for record in taken:
                    self._discard(record)
                for writer in writers:
                    writer.abort()

    def _publish(self, records: deque[Record]) -> None:
        """Flush the bytes, name the files, flush the names; takes out the records that got their name."""
        disk = self._disk
        # First all bytes: a name must never stand for bytes that power loss can still take.  A flush that
        # failed is not tried again: the kernel has dropped the bytes and would call the second one a success.
        for record in records:
            disk.flush_file(record.fd)
            if record.size_bytes >= UNCACHED_BYTES:
                with contextlib.suppress(OSError):  # advice, and the bytes are safe
                    disk.drop_cached(record.fd)
        touched: dict[int, None] = {}
        while records:
            record = records[0]
            fan = self._fans[fan_of(record.key)]
            disk.rename(record.name, self._incoming, str(record.key), fan)
            records.popleft()
            self._writers.pop(record.name, None)
            close_quietly(disk, record.fd)
            touched[fan] = None
        # `incoming` is not flushed: a name that reappears there is wiped at the next open.
        for fan in touched:
            disk.flush_folder(fan)

    def _discard(self, record: Record) -> None:
        """Throw an unfinished write away; what cannot be removed now is wiped at the next open."""
        self._writers.pop(record.name, None)
        close_quietly(self._disk, record.fd)
        try:
            self._disk.unlink(record.name, self._incoming)
        except OSError:
            pass

    # --- reading ------------------------------------------------------------------------------

    def open(self, key: ShareKey) -> ShareReader:
        disk = self._disk
        with self._gate, translated(self._where):
            try:
                fd = disk.open_file(str(key), self._fans[fan_of(key)])
            except OSError as error:
                if error.errno in _NO_SHARE:
                    raise ShareUnknown(blob=key.blob, share=key.number) from error
                raise
            try:
                entry = disk.describe(fd)
                if not entry.is_file:
                    raise ShareUnknown(blob=key.blob, share=key.number)
                return RecordReader(disk, self._where, fd, entry.size_bytes)
            except BaseException:
                close_quietly(disk, fd)
                raise

    def scan(self) -> Iterator[StoredShare | ForeignObject]:
        for entry in self._entries(self._shares):
            if not (entry.is_folder and entry.name in self._fans):
                yield ForeignObject(foreign_text(entry.name), entry.size_bytes)
        for fan, fd in self._fans.items():
            for entry in self._entries(fd):
                key = parse_key(entry.name)
                if key is not None and entry.is_file and fan_of(key) == fan:
                    yield StoredShare(key, entry.size_bytes)
                else:
                    yield ForeignObject(foreign_text(fan, entry.name), entry.size_bytes)

    def _entries(self, fd: int) -> Iterator[DiskEntry]:
        with contextlib.closing(self._disk.entries(fd)) as found:
            while True:
                with self._gate, translated(self._where):
                    batch = list(islice(found, _SCAN_ENTRIES))
                if not batch:
                    return
                yield from batch

    def free_bytes(self) -> int | None:
        with self._gate, translated(self._where):
            return self._disk.free_bytes(self._root)

    # --- removing -----------------------------------------------------------------------------

    def delete(self, key: ShareKey) -> None:
        fan = self._fans[fan_of(key)]
        with self._gate, translated(self._where):
            try:
                self._disk.unlink(str(key), fan)
            except FileNotFoundError:
                pass  # flushed all the same: whoever removed it may not have done so yet
            self._disk.flush_folder(fan)

    def quarantine(self, found: ShareKey | ForeignObject) -> None:
        if isinstance(found, ShareKey):
            fan, name, stem = fan_of(found), str(found), str(found)
        else:
            *above, name = foreign_parts(found.name)
            fan, stem = "/".join(above), quarantine_stem(found.name)
            if name in self._fans if not fan else fan not in self._fans:
                raise InternalError(reason=f"{found.name!r} is not the name of a foreign object")
        with self._gate, translated(self._where):
            self._set_aside(self._fans.get(fan, self._shares), name, stem)

    def _set_aside(self, source: int, name: str, stem: str) -> None:
        """Move what stands under `name` into quarantine, durably; no error if nothing does."""
        disk = self._disk
        with self._quarantine_lock:  # from finding a free name to taking it
            for serial in count():
                try:
                    disk.look(f"{stem}.{serial}", self._quarantine)
                except FileNotFoundError:
                    break
            try:
                disk.rename(name, source, f"{stem}.{serial}", self._quarantine)
            except FileNotFoundError:
                return
        # In this order: power loss in between must leave two names rather than none.
        disk.flush_folder(self._quarantine)
        disk.flush_folder(source)

    # --- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Waits for the calls under way.  Readers stay usable until they are closed themselves."""
        if self._gate.shut():
            for writer in list(self._writers.values()):
                writer.abort()
            self._close_folders()

    def _close_folders(self) -> None:
        while self._fds:
            close_quietly(self._disk, self._fds.pop())
