"""Writing a restored folder: into a new folder of our own beside the target, moved into place when whole.

Runs in a thread, one call at a time.  Nothing can be written outside the folder: names were validated by the
manifest's decoder, every folder in it was made here, and symbolic links come last, when nothing is written
through them any more.  Permissions are restored without set-user, set-group and sticky bits: whoever gives
you a capability does not get to plant such files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.engine.results import Skipped
from muniment.engine.target import local_error, sync_folder
from muniment.errors import InvalidRequest
from muniment.spec.tree_entry import EntryType, TreeEntry

_MODE_MASK: Final = 0o777

_SKIPPED_ERRORS: Final = frozenset(
    {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EPERM}
)
"""What this file system cannot represent; everything else ends the restore."""


@dataclass(slots=True)
class RestoredFile:
    """A file whose content is to come.

    Attributes:
        entry: what it will be.
        left_bytes: still to come.
        fd: open for writing, from the first content to the last: a leaf lists more files than may be open.
        skipped: it cannot be made here.
    """

    entry: TreeEntry
    left_bytes: int
    fd: int = -1
    skipped: bool = False


class TreeWriter:
    """Restores one tree.

    Args:
        folder: must not exist or be empty, unless `replace`.
        replace: put the restored folder in its place, and delete what was there.

    Attributes:
        skipped: what could not be restored.
        files: regular files restored.
        size_bytes: of them.
    Raises: FileFailed, DiskFull: from every method but `abandon`; InvalidRequest: from `begin`, if the
        folder is not empty, or is none.
    """

    def __init__(self, folder: Path, *, replace: bool) -> None:
        self._folder = folder
        self._replace = replace
        self._new: Path | None = None
        self._root = b""
        self._folders: list[TreeEntry] = []
        self._made: set[bytes] = {b""}
        self._links: list[TreeEntry] = []
        self._open: set[int] = set()
        self.skipped: list[Skipped] = []
        self.files = 0
        self.size_bytes = 0

    def begin(self) -> None:
        """Make the new folder."""
        folder = self._folder
        try:
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise InvalidRequest(reason=f"{folder} is not a folder")
            if not self._replace and folder.exists() and any(folder.iterdir()):
                raise InvalidRequest(reason=f"{folder} is not empty")
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._new = _make_beside(folder)
        except OSError as error:
            raise local_error(folder, error) from error
        self._root = os.fsencode(self._new)

    def add(self, entry: TreeEntry) -> RestoredFile | None:
        """Make an entry; returns a file whose content is to follow with `write`."""
        try:
            self._make_folder(entry.path.rpartition(b"/")[0])
            match entry.type:
                case EntryType.DIRECTORY:
                    self._make_folder(entry.path)
                    self._folders.append(entry)
                case EntryType.SYMLINK:
                    self._links.append(entry)
                case EntryType.FILE if entry.extents:
                    return RestoredFile(entry, entry.size_bytes)
                case EntryType.FILE:
                    self.write(RestoredFile(entry, entry.size_bytes), 0, memoryview(entry.inline))
        except OSError as error:
            self._skip_or_raise(entry, error)
        return None

    def write(self, file: RestoredFile, offset: int, data: memoryview) -> None:
        """Write verified content; closes the file when it is complete."""
        if file.fd < 0 and not file.skipped:
            self._open_file(file)
        if file.skipped:
            return
        try:
            at = offset
            while data:
                count = os.pwrite(file.fd, data, at)
                data, at = data[count:], at + count
            file.left_bytes -= at - offset
            if file.left_bytes == 0:
                self._finish_file(file)
        except OSError as error:
            raise local_error(self._folder / os.fsdecode(file.entry.path), error) from error

    def hole(self, file: RestoredFile, offset: int, length: int) -> None:
        """Leave a part of a file unwritten; it reads as zeros."""
        if file.fd < 0 and not file.skipped:
            self._open_file(file)
        if file.skipped:
            return
        try:
            if os.fstat(file.fd).st_size < offset + length:
                os.ftruncate(file.fd, offset + length)
            file.left_bytes -= length
            if file.left_bytes == 0:
                self._finish_file(file)
        except OSError as error:
            raise local_error(self._folder / os.fsdecode(file.entry.path), error) from error

    def finish(self) -> None:
        """Links, permissions and times; then everything is made durable and appears under its name."""
        assert self._new is not None
        try:
            for link in self._links:
                self._make_link(link)
            for folder in reversed(self._folders):
                path = self._path(folder)
                os.chmod(path, folder.mode & _MODE_MASK)  # noqa: PTH101
                os.utime(path, ns=(folder.mtime_ns, folder.mtime_ns))
            _sync_all(self._new)
            old = _move_aside(self._folder)
            self._new.rename(self._folder)
            self._new = None
            sync_folder(self._folder.parent)
        except OSError as error:
            raise local_error(self._folder, error) from error
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)

    def abandon(self) -> None:
        """Remove what was restored so far.  Idempotent; without effect before `begin` and after `finish`."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        if self._new is not None:
            shutil.rmtree(self._new, ignore_errors=True)
            self._new = None

    # --- one entry

    def _path(self, entry: TreeEntry) -> bytes:
        return self._root + b"/" + entry.path

    def _make_folder(self, path: bytes) -> None:
        """Make a folder and those above it, owner-only until the end."""
        if path in self._made:
            return
        self._make_folder(path.rpartition(b"/")[0])
        os.mkdir(self._root + b"/" + path, 0o700)  # noqa: PTH102
        self._made.add(path)

    def _open_file(self, file: RestoredFile) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file.fd = os.open(self._path(file.entry), flags, 0o600)
        except OSError as error:
            file.skipped = True
            self._skip_or_raise(file.entry, error)
        else:
            self._open.add(file.fd)

    def _finish_file(self, file: RestoredFile) -> None:
        entry, fd = file.entry, file.fd
        file.fd = -1
        os.fchmod(fd, entry.mode & _MODE_MASK)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        self._open.discard(fd)
        os.close(fd)
        self.files += 1
        self.size_bytes += entry.size_bytes

    def _make_link(self, entry: TreeEntry) -> None:
        path = self._path(entry)
        try:
            os.symlink(entry.inline, path)  # noqa: PTH211
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        except OSError as error:
            self._skip_or_raise(entry, error)

    def _skip_or_raise(self, entry: TreeEntry, error: OSError) -> None:
        if error.errno not in _SKIPPED_ERRORS:
            raise local_error(self._folder / os.fsdecode(entry.path), error) from error
        self.skipped.append(Skipped(os.fsdecode(entry.path), error.strerror or str(error)))


def _make_beside(folder: Path) -> Path:
    """A new empty folder in the same file system, of a name that nobody else uses."""
    for attempt in itertools.count():
        path = folder.parent / f".muniment-{os.getpid()}-{attempt}.partial"
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return path
    raise AssertionError


def _move_aside(folder: Path) -> Path | None:
    """Make way for the restored folder; returns where the old content is, if there was any."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return None
    except OSError:
        aside = _make_beside(folder)
        folder.rename(aside)  # over an empty folder
        return aside
    return None


def _sync_all(folder: Path) -> None:
    """Flush the file system that holds the folder: one call instead of one for each of its files."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            os.sync()
    except AttributeError:  # a C library without it
        os.sync()
    finally:
        os.close(fd)
