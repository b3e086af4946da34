"""Writing a restored folder: into a new folder of our own beside the target, moved into place when whole.

Runs in a thread, one call at a time.  Nothing can be written outside the folder: names were validated by the
manifest's decoder, every folder in it was made here, and symbolic links come last, when nothing is written
through them any more.  Set-user, set-group and sticky bits come back only together with a file's owner:
whoever gives you a capability, which names none, does not get to plant such files.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muniment.durable_file import flush, flush_all
from muniment.engine.file_facts import LeftOut, Settler
from muniment.engine.results import Skipped
from muniment.engine.target import local_error
from muniment.engine.tree_item import TreeItem
from muniment.errors import InvalidRequest
from muniment.spec.operation import Kind

_SKIPPED_ERRORS: Final = frozenset(
    {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EPERM}
)
"""What this file system cannot represent; everything else ends the restore."""

_NODES: Final = {
    Kind.FIFO: (stat.S_IFIFO, "named pipe"),
    Kind.CHARACTER_DEVICE: (stat.S_IFCHR, "device"),
    Kind.BLOCK_DEVICE: (stat.S_IFBLK, "device"),
}
"""Type bits, and what it is called where making one is not permitted."""


@dataclass(slots=True)
class RestoredFile:
    """A file whose content is to come.

    Attributes:
        item: what it will be.
        left_bytes: still to come.
        fd: open for writing, from the first content to the last: a leaf lists more files than may be open.
        skipped: it cannot be made here.
    """

    item: TreeItem
    left_bytes: int
    fd: int = -1
    skipped: bool = False


class TreeWriter:
    """Restores one tree.

    Args:
        folder: must not exist or be empty, unless `replace`.
        replace: put the restored folder in its place, and delete what was there.
        owners: restore owners, and what goes with them; None: if this process is root's.

    Attributes:
        skipped: what could not be restored.
        files: regular files restored; of one with several names, each.
        size_bytes: of them.
    Raises: FileFailed, DiskFull: from every method but `abandon`; InvalidRequest: from `begin`, if the
        folder is not empty, or is none.
    """

    def __init__(self, folder: Path, *, replace: bool, owners: bool | None = None) -> None:
        self._folder = folder
        self._replace = replace
        self._settler = Settler(owners=owners)
        self._new: Path | None = None
        self._root = b""
        self._folders: list[TreeItem] = []
        self._made: set[bytes] = {b""}
        self._links: list[TreeItem] = []
        self._same: list[TreeItem] = []
        self._top: TreeItem | None = None
        self._open: set[int] = set()
        self.skipped: list[Skipped] = []
        self.files = 0
        self.size_bytes = 0

    @property
    def left_out(self) -> LeftOut:
        """Of what was restored, what this process may not restore."""
        return self._settler.left_out

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

    def add(self, item: TreeItem) -> RestoredFile | None:
        """Make an entry; returns a file whose content is to follow with `write` and `hole`."""
        try:
            self._make_folder(item.path.rpartition(b"/")[0])
            if item.same_as:
                self._same.append(item)
            elif item.kind is Kind.FOLDER:
                self._make_folder(item.path)
                self._folders.append(item)
            elif not item.is_file:
                self._links.append(item)
            elif item.size_bytes > len(item.inline):
                return RestoredFile(item, item.size_bytes)
            else:
                self.write(RestoredFile(item, item.size_bytes), 0, memoryview(item.inline))
        except OSError as error:
            self._skip_or_raise(item, error)
        return None

    def settle_top(self, item: TreeItem) -> None:
        """Give the folder itself the facts of `item`, at the end; its path does not count."""
        self._top = item

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
            raise local_error(self._folder / os.fsdecode(file.item.path), error) from error

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
            raise local_error(self._folder / os.fsdecode(file.item.path), error) from error

    def finish(self) -> None:
        """Links, permissions and times; then everything is made durable and appears under its name."""
        assert self._new is not None
        try:
            for link in self._links:
                self._make_link(link)
            for name in self._same:
                self._make_name(name)
            for folder in reversed(self._folders):
                self._settler.settle(self._path(folder), folder)
            if self._top is not None:
                self._settler.settle(self._root, self._top)
            flush_all(self._folder.parent)
            old = _move_aside(self._folder)
            self._new.rename(self._folder)
            self._new = None
            flush(self._folder.parent)
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

    def _path(self, item: TreeItem) -> bytes:
        return self._root + b"/" + item.path

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
            file.fd = os.open(self._path(file.item), flags, 0o600)
        except OSError as error:
            file.skipped = True
            self._skip_or_raise(file.item, error)
        else:
            self._open.add(file.fd)

    def _finish_file(self, file: RestoredFile) -> None:
        item, fd = file.item, file.fd
        file.fd = -1
        self._settler.settle(fd, item)
        self._open.discard(fd)
        os.close(fd)
        self.files += 1
        self.size_bytes += item.size_bytes

    def _make_link(self, item: TreeItem) -> None:
        """A symbolic link, named pipe or device."""
        path = self._path(item)
        try:
            if item.kind is Kind.SYMLINK:
                os.symlink(item.inline, path)  # noqa: PTH211
            elif item.kind not in _NODES:
                raise OSError(errno.EINVAL, "a socket, which only its process can make")
            elif not self._make_node(path, item):
                return
            self._settler.settle(path, item)
        except OSError as error:
            self._skip_or_raise(item, error)

    def _make_node(self, path: bytes, item: TreeItem) -> bool:
        """Whether that is permitted here."""
        bits, called = _NODES[item.kind]
        try:
            os.mknod(path, bits | 0o600, item.rdev)
        except PermissionError:
            self.left_out[called] += 1
            return False
        return True

    def _make_name(self, item: TreeItem) -> None:
        """Another name of what has been restored."""
        try:
            os.link(self._root + b"/" + item.same_as, self._path(item), follow_symlinks=False)
        except FileNotFoundError:
            self.skipped.append(Skipped(os.fsdecode(item.path), "its other name is not restored"))
        except OSError as error:
            self._skip_or_raise(item, error)
        else:
            self.files += item.is_file

    def _skip_or_raise(self, item: TreeItem, error: OSError) -> None:
        if error.errno not in _SKIPPED_ERRORS:
            raise local_error(self._folder / os.fsdecode(item.path), error) from error
        self.skipped.append(Skipped(os.fsdecode(item.path), error.strerror or str(error)))


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
