"""Reading a folder: entries in the order a manifest wants them, content packed into chunks on the way.

Runs in a thread, one step at a time; a step ends where a chunk is full or a buffer is needed, so the thread
never waits for the loop.  The plan of a leaf manifest (which row holds what) is made here, because only the
reader knows what was read.

    small file (< 64 KiB)      into the pack, the open chunk that it shares with its neighbours
    tiny file (<= 128 bytes)   inline in its entry
    file of up to 256 chunks   rows of its own
    larger file                one row: a nested manifest

A file is stored as long as it was when it was opened, or shorter if it shrank; what cannot be read is skipped
and said.  Symbolic links are stored, never followed.  A `whole` plan also takes what a manifest has no place
for: owners, extended attributes, second names of an inode, named pipes, devices and holes.  Chunks are cut
alike in both, so that equal content gives equal blobs; a hole is what no extent covers, and chunks of nothing
else are not stored.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from muniment.engine.file_facts import KINDS, LeftOut, read_xattrs
from muniment.engine.holes import Spans, data_spans, within
from muniment.engine.policy import SMALL_FILE_BYTES
from muniment.engine.results import Skipped
from muniment.engine.tree_item import TreeItem
from muniment.errors import MalformedRecord
from muniment.spec.limits import LITERAL_BYTES_MAX, MIB
from muniment.spec.manifest import ENTRIES_MAX, ROWS_MAX
from muniment.spec.operation import Extent, Kind

DIRECT_CHUNKS_MAX: Final = 256
"""Chunks of one file listed in the tree's own manifest; beyond that it gets a manifest of its own."""

_ENTRY_BYTES_MAX: Final = 4 * MIB
"""Paths, links and inline content of one leaf manifest."""

_EXTENTS: Final = 1 << 16
"""In a leaf another file begins only below so many: with its own they stay within those of a log entry."""


@dataclass(frozen=True, slots=True)
class LeafPlan:
    """What goes where in a leaf.

    Attributes:
        direct_chunks_max: files of more chunks get a manifest of their own.
        inline_bytes_max: files up to this size live in their entries.
        entry_bytes_max: paths, links and inline content of one leaf.
        whole: take all that a file system knows, not only what a manifest holds.
    """

    direct_chunks_max: int = DIRECT_CHUNKS_MAX
    inline_bytes_max: int = LITERAL_BYTES_MAX
    entry_bytes_max: int = _ENTRY_BYTES_MAX
    whole: bool = False


@dataclass(frozen=True, slots=True)
class NeedBuffer:
    """Step again with an empty chunk buffer."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk is ready to be stored.

    Attributes:
        row: of the present leaf.
        buffer: as given; it comes back through the loop.
        size_bytes: of it that is filled.
        nested: the chunk is one of a large file, whose manifest will be the row.
        data_bytes: of it that extents refer to; the rest lies in holes.
    """

    row: int
    buffer: memoryview
    size_bytes: int
    nested: bool
    data_bytes: int


@dataclass(frozen=True, slots=True)
class FileEnd:
    """All chunks of the large file whose manifest is row `row` have been given."""

    row: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf manifest is complete; `row_count` rows belong to it."""

    entries: tuple[TreeItem, ...]
    row_count: int


Step = NeedBuffer | Chunk | FileEnd | Leaf
_Steps = Generator[Step, memoryview | None, None]


@dataclass(slots=True)
class _Pack:
    """The open chunk for small files; it has a row as soon as it has content."""

    buffer: memoryview
    used: int = 0
    data_bytes: int = 0
    row: int | None = None


@dataclass(slots=True)
class _Leaf:
    """What has come together of one leaf manifest."""

    entries: list[TreeItem] = field(default_factory=list)
    entry_bytes: int = 0
    row_count: int = 0
    extent_count: int = 0

    def add(self, item: TreeItem) -> None:
        self.entries.append(item)
        self.entry_bytes += item.cost_bytes
        self.extent_count += len(item.extents)

    def is_full(self, plan: LeafPlan) -> bool:
        few = len(self.entries) < ENTRIES_MAX and self.extent_count < _EXTENTS
        return not few or self.entry_bytes >= plan.entry_bytes_max

    def new_row(self) -> int:
        self.row_count += 1
        return self.row_count - 1


class TreeReader:
    """Reads one folder.

    Args:
        folder: its content is stored, not the folder itself.
        chunk_bytes: of every chunk but the last of a file.
        plan: what goes where in a leaf.

    Attributes:
        skipped: what could not be read.
        left_out: of what was read, the facts that could not be.
        files: regular files read; of one with several names, each.
        size_bytes: of them.
    """

    def __init__(self, folder: Path, chunk_bytes: int, plan: LeafPlan | None = None) -> None:
        self._root = os.fsencode(folder)
        self._chunk_bytes = chunk_bytes
        self._plan = plan or LeafPlan()
        self._leaf = _Leaf()
        self._pack: _Pack | None = None
        self._spare: memoryview | None = None
        self._steps = self._run()
        self._begun = False
        self._first: dict[tuple[int, int], bytes] = {}  # the first name of each inode that has several
        self.skipped: list[Skipped] = []
        self.left_out = LeftOut()
        self.files = 0
        self.size_bytes = 0

    def step(self, buffer: memoryview | None = None) -> Step | None:
        """Read on until something is to be done; None when the whole folder is read.

        Raises: OSError: the folder itself cannot be listed.
        """
        try:
            if not self._begun:
                self._begun = True
                return next(self._steps)
            return self._steps.send(buffer)
        except StopIteration:
            return None

    def close(self) -> None:
        """Close what is open; no step after this."""
        self._steps.close()

    # --- walking

    def _run(self) -> _Steps:
        for path, facts in self._walk():
            first = self._first.get((facts.st_dev, facts.st_ino)) if self._shared(facts) else None
            if first is not None:
                self._add(path, facts, same_as=first)
            elif stat.S_ISDIR(facts.st_mode):
                self._add(path, facts)
            elif stat.S_ISLNK(facts.st_mode):
                self._add_link(path, facts)
            elif stat.S_ISREG(facts.st_mode):
                yield from self._read_file(path)
            elif not self._plan.whole:
                self._skip(path, "neither a file, a folder nor a symbolic link")
            elif stat.S_ISSOCK(facts.st_mode):
                self._skip(path, "a socket, which only its process can make")
            else:
                self._add(path, facts)
            if self._leaf.is_full(self._plan):
                yield from self._end_leaf()
        yield from self._end_leaf()

    def _walk(self) -> Iterator[tuple[bytes, os.stat_result]]:
        """Everything below, a folder before its content, names in byte order: the order manifests want."""
        levels = [(b"", iter(_listed(self._root)))]
        while levels:
            above, names = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
                continue
            path = above + name
            try:
                facts = os.lstat(self._full(path))
            except OSError as error:
                self._skip(path, error.strerror)
                continue
            yield path, facts
            if stat.S_ISDIR(facts.st_mode):
                try:
                    levels.append((path + b"/", iter(_listed(self._full(path)))))
                except OSError as error:
                    self._skip(path, error.strerror)

    # --- entries

    def _shared(self, facts: os.stat_result) -> bool:
        """Whether other names may lead to it that count."""
        return self._plan.whole and facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode)

    def _add(
        self,
        path: bytes,
        facts: os.stat_result,
        *,
        fd: int = -1,
        size_bytes: int = 0,
        inline: bytes = b"",
        extents: tuple[Extent, ...] = (),
        same_as: bytes = b"",
    ) -> None:
        """Add an entry.

        Args:
            fd: if it is open.
            same_as: an earlier name of it.
        """
        kind = KINDS[stat.S_IFMT(facts.st_mode)]
        whole, shared = self._plan.whole, self._shared(facts)
        try:
            item = TreeItem(
                path,
                kind,
                stat.S_IMODE(facts.st_mode),
                facts.st_mtime_ns,
                size_bytes,
                inline,
                extents,
                owner=(facts.st_uid, facts.st_gid) if whole else None,
                rdev=facts.st_rdev if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE) else 0,
                xattrs=self._xattrs(path, fd) if whole and not same_as else (),
                same_as=same_as,
                shared=shared,
            )
        except MalformedRecord as error:
            self._skip(path, error.reason)
            return
        self._leaf.add(item)
        if shared and not same_as:
            self._first[facts.st_dev, facts.st_ino] = path
        if kind is Kind.FILE:
            self.files += 1
            self.size_bytes += size_bytes

    def _xattrs(self, path: bytes, fd: int) -> tuple[tuple[bytes, bytes], ...]:
        return read_xattrs(fd if fd >= 0 else self._full(path), self.left_out)

    def _add_link(self, path: bytes, facts: os.stat_result) -> None:
        try:
            target = os.readlink(self._full(path))  # noqa: PTH115
        except OSError as error:
            self._skip(path, error.strerror)
        else:
            self._add(path, facts, inline=target)

    def _skip(self, path: bytes, reason: str | None) -> None:
        self.skipped.append(Skipped(os.fsdecode(path), reason or "cannot be read"))

    # --- files

    def _read_file(self, path: bytes) -> _Steps:
        try:
            # O_NONBLOCK: it may have become a named pipe since it was listed.
            fd = os.open(self._full(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._skip(path, error.strerror)
            return
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                self._skip(path, "it changed while it was read")
            elif facts.st_size < SMALL_FILE_BYTES:
                yield from self._read_small(path, fd, facts)
            else:
                yield from self._read_large(path, fd, facts)
        except OSError as error:
            self._skip(path, error.strerror)
        finally:
            os.close(fd)

    def _spans(self, fd: int, facts: os.stat_result) -> Spans | None:
        """Where it has data; None if that is everywhere, or does not matter."""
        return data_spans(fd, facts) if self._plan.whole else None

    def _read_small(self, path: bytes, fd: int, facts: os.stat_result) -> _Steps:
        size, spans = facts.st_size, self._spans(fd, facts)
        if spans == []:
            self._add(path, facts, fd=fd, size_bytes=size)
            return
        if size <= self._plan.inline_bytes_max:
            content = os.read(fd, size)
            self._add(path, facts, fd=fd, size_bytes=len(content), inline=content)
            return
        if self._pack is not None and self._chunk_bytes - self._pack.used < size:
            yield from self._end_pack()
        if self._pack is None:
            yield from self._require_rows(1)
            self._pack = _Pack((yield from self._take_buffer()))
        pack = self._pack
        size = _read_into(fd, pack.buffer[pack.used : pack.used + size])
        extents: tuple[Extent, ...] = ()
        if size:
            pack.row = self._leaf.new_row() if pack.row is None else pack.row
            extents = _extents(pack.row, 0, size, spans, pack.used)
            pack.used += size
            pack.data_bytes += sum(one.length for one in extents)
        self._add(path, facts, fd=fd, size_bytes=size, extents=extents)

    def _read_large(self, path: bytes, fd: int, facts: os.stat_result) -> _Steps:
        spans = self._spans(fd, facts)
        offsets = range(0, facts.st_size, self._chunk_bytes)
        if spans is not None:
            size = self._chunk_bytes
            offsets = sorted({at for a, b in spans for at in range(a // size * size, b, size)})  # type: ignore[assignment]
        nested = len(offsets) > self._plan.direct_chunks_max
        yield from self._require_rows(1 if nested else len(offsets))
        extents: list[Extent] = []
        total = 0 if spans is None else facts.st_size
        failure: OSError | None = None
        for at in offsets:
            buffer = yield from self._take_buffer()
            try:
                if spans is not None:
                    os.lseek(fd, at, os.SEEK_SET)
                size = _read_into(fd, buffer[: facts.st_size - at])
            except OSError as error:
                size, failure = 0, error
            if not size:
                self._spare, total = buffer, min(total, at)
                break
            if nested and extents:
                row = extents[0].source
                assert isinstance(row, int)
                extents = [Extent(0, at + size, row)]
            else:
                row = self._leaf.new_row()
                extents += _extents(row, at, size, spans, 0)
            data_bytes = size if spans is None else sum(b - a for a, b in within(spans, at, at + size))
            total = max(total, at + size)
            yield Chunk(row, buffer, size, nested, data_bytes)
            if size < len(buffer):
                total = at + size  # the end, or where it was cut while it was read
                break
        if nested and extents:
            assert isinstance(extents[0].source, int)
            yield FileEnd(extents[0].source)
        if failure is not None:
            raise failure  # the rows stay, without an entry that names them
        self._add(path, facts, fd=fd, size_bytes=total, extents=tuple(extents))

    def _require_rows(self, count: int) -> _Steps:
        """Begin another leaf unless this one has room for so many rows, and for the open pack's."""
        if self._leaf.row_count + count + 1 > ROWS_MAX:
            yield from self._end_leaf()

    def _take_buffer(self) -> Generator[Step, memoryview | None, memoryview]:
        buffer, self._spare = self._spare, None
        if buffer is None:
            buffer = yield NeedBuffer()
        assert buffer is not None
        return buffer

    # --- ends

    def _end_pack(self) -> _Steps:
        pack, self._pack = self._pack, None
        if pack is None:
            return
        if pack.row is None:
            self._spare = pack.buffer
        else:
            yield Chunk(pack.row, pack.buffer, pack.used, False, pack.data_bytes)

    def _end_leaf(self) -> _Steps:
        yield from self._end_pack()
        leaf, self._leaf = self._leaf, _Leaf()
        yield Leaf(tuple(leaf.entries), leaf.row_count)

    def _full(self, path: bytes) -> bytes:
        return self._root + b"/" + path


class FileListReader(TreeReader):
    """Reads files from anywhere as if they were the entries of one folder.

    Args:
        files: by the names that they are to have; regular files, or links to such.
    """

    def __init__(self, files: Mapping[bytes, Path], chunk_bytes: int, plan: LeafPlan | None = None) -> None:
        super().__init__(Path(), chunk_bytes, plan)
        self._files = {name: os.fsencode(path.resolve()) for name, path in sorted(files.items())}

    def _walk(self) -> Iterator[tuple[bytes, os.stat_result]]:
        for name in self._files:
            try:
                yield name, os.lstat(self._full(name))
            except OSError as error:
                self._skip(name, error.strerror)

    def _full(self, path: bytes) -> bytes:
        return self._files[path]


def _listed(folder: bytes) -> list[bytes]:
    return sorted(os.listdir(folder))  # noqa: PTH208


def _extents(row: int, at: int, size: int, spans: Spans | None, used: int) -> tuple[Extent, ...]:
    """Content from byte `at` of a file on, `size` bytes from byte `used` of a row on; without the holes."""
    held = [(at, at + size)] if spans is None else within(spans, at, at + size)
    return tuple(Extent(a, b - a, row, used + a - at) for a, b in held)


def _read_into(fd: int, buffer: memoryview) -> int:
    """Fill the buffer, or as much of it as the file has."""
    filled = 0
    while filled < len(buffer):
        count = os.readv(fd, [buffer[filled:]])
        if not count:
            break
        filled += count
    return filled


def folder_bytes(folder: Path) -> int:
    """Sizes of all files below, for progress; what cannot be looked at does not count."""
    total = 0
    pending = [os.fsencode(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
