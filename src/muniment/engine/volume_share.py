"""Sharing: a file or folder of a volume under a capability that works without membership.

What is stored stays where it is wherever that is possible: a manifest is made that names the volume's blobs.
But a capability opens whole blobs, and small files share theirs with neighbours, and an overwritten file
leaves old content in its own.  So a blob is named only if every byte of it belongs to what is shared;
everything else (parts of blobs, inline content, holes) is stored anew, in blobs with nothing else in them.

    file      rows of whole blobs in order; one row: no manifest, tiny: in the capability
    folder    leaves of up to 8192 entries and rows, as `tree_upload` makes them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from muniment.core.manifesting import content_row, nested_row
from muniment.core.tree_state import StoredExtent, TreeReading
from muniment.engine.blobs import BlobWriter, FileRows
from muniment.engine.grid import Grid
from muniment.engine.threads import Threads
from muniment.engine.tree_reader import DIRECT_CHUNKS_MAX
from muniment.engine.volume_gather import Use, gather
from muniment.engine.volume_tree import Listed, find, link_target, path_text, walk
from muniment.errors import InvalidRequest
from muniment.spec.blob import BlobRef
from muniment.spec.cap import BlobFile, LiteralFile, ManifestFile, ReadCap, TreeReadCap
from muniment.spec.limits import LITERAL_BYTES_MAX, MIB
from muniment.spec.manifest import ENTRIES_MAX, ROWS_MAX, Manifest, ManifestKind, Row
from muniment.spec.operation import Kind
from muniment.spec.tree_entry import EntryType, Extent, TreeEntry

_ENTRY_BYTES_MAX: Final = 4 * MIB
"""Paths, links and inline content of one leaf."""


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file that is to be shared.

    Attributes:
        extents: with a byte in it, cut at its end, in order.
    """

    size: int
    extents: tuple[StoredExtent, ...]


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """Something in a folder that is to be shared; `file` for files only."""

    listed: Listed
    target: bytes = b""
    file: SharedFile | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a file, stored already (`ref`) or to be stored.

    Attributes:
        offset: in the file.
        source_offset: in the blob's plaintext.
    """

    offset: int
    length: int
    ref: BlobRef | None
    source_offset: int = 0


def what_to_share(state: TreeReading, path: bytes) -> SharedFile | list[SharedEntry]:
    """Read from a state all that is needed.  Raises: PathUnknown; InvalidRequest: neither file nor folder."""
    top = find(state, path)
    if top.kind is Kind.FILE:
        return _file(state, top.inode, top.size)
    if top.kind is not Kind.FOLDER:
        raise InvalidRequest(reason=f"{path_text(path)} is neither a file nor a folder")
    entries = []
    for one in walk(state, top):
        if one.inode.kind is Kind.FILE:
            entries.append(SharedEntry(one, file=_file(state, one.inode.inode, one.inode.size)))
        elif one.inode.kind is Kind.SYMLINK:
            entries.append(SharedEntry(one, link_target(state, one.inode)))
        elif one.inode.kind is Kind.FOLDER:
            entries.append(SharedEntry(one))
    return entries


def _file(state: TreeReading, ino: int, size: int) -> SharedFile:
    cut = []
    for one in state.extents(ino, 0, size):
        length = min(one.stop, size) - one.offset
        source = one.source[:length] if isinstance(one.source, bytes) else one.source
        cut.append(StoredExtent(one.offset, length, source, one.source_offset))
    return SharedFile(size, tuple(cut))


class Share:
    """Makes one capability.

    Args:
        grid: has the content.
        writer: stores what has to be stored, under the volume's policy and secret.
        entries_max: of one leaf of a tree.
    """

    def __init__(self, grid: Grid, writer: BlobWriter, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._grid = grid
        self._writer = writer
        self._chunk_bytes = writer.policy.chunk_bytes
        self._whole: set[BlobRef] = set()
        self._zeros: BlobRef | None = None
        self._thread = Threads("share", 1, grid.clock)

    async def run(self, what: SharedFile | list[SharedEntry]) -> ReadCap:
        """Store what is missing.  Raises: NotHappy; TooFewShares, BlobCorrupt."""
        try:
            if isinstance(what, SharedFile):
                self._whole = self._covered([what])
                return await self._share_file(what)
            self._whole = self._covered([entry.file for entry in what if entry.file is not None])
            return await self._share_tree(what)
        finally:
            self._thread.close()

    def _covered(self, files: Sequence[SharedFile]) -> set[BlobRef]:
        """The blobs of which every byte belongs to these files, and that a manifest of ours can name."""
        used: dict[BlobRef, list[tuple[int, int]]] = {}
        for file in files:
            for one in file.extents:
                if not isinstance(one.source, bytes):
                    parts = used.setdefault(one.source, [])
                    parts.append((one.source_offset, one.source_offset + one.length))
        coding, whole = self._writer.policy.coding, set()
        for ref, parts in used.items():
            end, shape = 0, ref.name.shape
            for first, last in sorted(parts):
                if first > end:
                    break
                end = max(end, last)
            if end >= ref.plain_bytes and (shape.codec, shape.k, shape.n) == (
                coding.codec,
                coding.k,
                coding.n,
            ):
                whole.add(ref)
        return whole

    # --- files

    async def _share_file(self, file: SharedFile) -> ReadCap:
        if file.size <= LITERAL_BYTES_MAX:
            return LiteralFile(bytes(await self._bytes([_Use(file, 0, file.size, 0)], file.size)))
        row = await self._file_row(file)
        return ManifestFile(row.ref, file.size) if row.nested else BlobFile(row.ref)

    async def _file_row(self, file: SharedFile) -> Row:
        """The one row of a whole file: its blob, or its manifest."""
        rows = FileRows(self._writer)
        for piece in self._pieces(file, whole_only=True):
            expect, ref = rows.expect(), piece.ref
            expect(await self._stored(file, piece) if ref is None else ref)
            await rows.collect()
        return await rows.finish()

    def _pieces(self, file: SharedFile, *, whole_only: bool) -> list[_Piece]:
        """The file in order.

        Args:
            whole_only: what is stored already counts only as a whole blob.
        """
        found: list[_Piece] = []
        at = 0

        def store(stop: int) -> None:
            nonlocal at
            while at < stop:
                length = min(stop - at, self._chunk_bytes)
                found.append(_Piece(at, length, None))
                at += length

        for one in file.extents:
            ref = one.source
            if isinstance(ref, bytes) or ref not in self._whole:
                continue
            if whole_only and (one.source_offset or one.length != ref.plain_bytes):
                continue
            store(one.offset)
            found.append(_Piece(at, one.length, ref, one.source_offset))
            at = one.stop
        store(file.size)
        return found

    async def _stored(self, file: SharedFile, piece: _Piece) -> BlobRef:
        """Store a piece in a blob of its own."""
        stop = piece.offset + piece.length
        hole = not any(one.offset < stop and one.stop > piece.offset for one in file.extents)
        if hole and piece.length == self._chunk_bytes and self._zeros is not None:
            return self._zeros
        plain = await self._bytes([_Use(file, piece.offset, piece.length, 0)], piece.length)
        ref = await self._writer.store(plain, piece.length)
        if hole and piece.length == self._chunk_bytes:
            self._zeros = ref
        return ref

    # --- folders

    async def _share_tree(self, entries: Sequence[SharedEntry]) -> TreeReadCap:
        leaves, leaf = [], _Leaf(self._chunk_bytes, self._entries_max)
        for one in entries:
            pieces = self._pieces(one.file, whole_only=False) if one.file is not None else []
            if not leaf.has_room(one, len(pieces)):
                leaves.append(await self._store_leaf(leaf))
                leaf = _Leaf(self._chunk_bytes, self._entries_max)
            await self._add(leaf, one, pieces)
        leaves.append(await self._store_leaf(leaf))
        while len(leaves) > 1:
            groups = [tuple(leaves[at : at + ROWS_MAX]) for at in range(0, len(leaves), ROWS_MAX)]
            leaves = [await self._store_tree(Manifest(ManifestKind.TREE_INDEX, group)) for group in groups]
        return TreeReadCap(leaves[0].ref)

    async def _add(self, leaf: _Leaf, one: SharedEntry, pieces: list[_Piece]) -> None:
        inode, file = one.listed.inode, one.file
        kind, mode = EntryType.DIRECTORY, inode.mode
        inline, extents = one.target, []
        if inode.kind is Kind.SYMLINK:
            kind, mode = EntryType.SYMLINK, 0o777
        elif file is not None:
            kind = EntryType.FILE
            if 0 < file.size <= LITERAL_BYTES_MAX:
                inline = bytes(await self._bytes([_Use(file, 0, file.size, 0)], file.size))
            elif len(pieces) > DIRECT_CHUNKS_MAX:
                extents = [Extent(leaf.add_row(await self._file_row(file)), 0, file.size)]
            else:
                for piece in pieces:
                    if piece.ref is not None:
                        extents.append(Extent(leaf.row_of(piece.ref), piece.source_offset, piece.length))
                        continue
                    if not leaf.pack_has_room(piece.length):
                        await self._store_pack(leaf)
                    extents.append(leaf.pack(_Use(file, piece.offset, piece.length, leaf.pack_bytes)))
        size = file.size if file is not None else 0
        path = one.listed.path
        leaf.add(TreeEntry(path, kind, mode, inode.mtime_ns, size, inline, tuple(extents)))

    async def _store_pack(self, leaf: _Leaf) -> None:
        """Store what was collected of small pieces."""
        uses, size, row = leaf.take_pack()
        if uses:
            leaf.rows[row] = content_row(await self._writer.store(await self._bytes(uses, size), size))

    async def _store_leaf(self, leaf: _Leaf) -> Row:
        await self._store_pack(leaf)
        rows = [row for row in leaf.rows if row is not None]
        assert len(rows) == len(leaf.rows)
        return await self._store_tree(Manifest(ManifestKind.TREE, tuple(rows), tuple(leaf.entries)))

    async def _store_tree(self, manifest: Manifest) -> Row:
        """As a row, a manifest of a tree has no span of its own."""
        return nested_row((await self._writer.store_manifest(manifest)).ref, 0)

    # --- content

    async def _bytes(self, uses: Sequence[_Use], size: int) -> memoryview:
        """Pieces of files in one buffer; each blob is fetched once."""
        pieces = [Use(use.file.extents, use.offset, use.length, use.to) for use in uses]
        return await gather(self._grid, self._thread, pieces, size)


@dataclass(frozen=True, slots=True)
class _Use:
    """Bytes `offset` to `offset + length` of a file, wanted at `to` of a buffer."""

    file: SharedFile
    offset: int
    length: int
    to: int


class _Leaf:
    """What has come together of one leaf manifest, and the pack of small pieces that is open in it."""

    def __init__(self, chunk_bytes: int, entries_max: int) -> None:
        self._entries_max = entries_max
        self._chunk_bytes = chunk_bytes
        self.rows: list[Row | None] = []
        self.entries: list[TreeEntry] = []
        self.pack_bytes = 0
        self._entry_bytes = 0
        self._known: dict[BlobRef, int] = {}
        self._pack: list[_Use] = []
        self._pack_row = -1

    def has_room(self, one: SharedEntry, pieces: int) -> bool:
        """Whether an entry fits: each piece may need a row, and the open pack one."""
        rows = 1 if pieces > DIRECT_CHUNKS_MAX else pieces
        few = len(self.entries) < self._entries_max and len(self.rows) + rows + 1 <= ROWS_MAX
        return few and self._entry_bytes + len(one.listed.path) <= _ENTRY_BYTES_MAX

    def add(self, entry: TreeEntry) -> None:
        self.entries.append(entry)
        self._entry_bytes += len(entry.path) + len(entry.inline) + 48 + 12 * len(entry.extents)

    def add_row(self, row: Row | None) -> int:
        self.rows.append(row)
        return len(self.rows) - 1

    def row_of(self, ref: BlobRef) -> int:
        """The row of a whole blob."""
        if ref not in self._known:
            self._known[ref] = self.add_row(content_row(ref))
        return self._known[ref]

    def pack_has_room(self, length: int) -> bool:
        return self.pack_bytes + length <= self._chunk_bytes

    def pack(self, use: _Use) -> Extent:
        """Take a piece into the open pack."""
        if not self._pack:
            self._pack_row = self.add_row(None)
        self._pack.append(use)
        self.pack_bytes += use.length
        return Extent(self._pack_row, use.to, use.length)

    def take_pack(self) -> tuple[list[_Use], int, int]:
        """Close the pack: its pieces, bytes and row."""
        taken = self._pack, self.pack_bytes, self._pack_row
        self._pack, self.pack_bytes = [], 0
        return taken
