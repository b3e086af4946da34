"""A small volume to fold one transaction onto."""

from __future__ import annotations

from muniment.core.fold import apply
from muniment.core.tree_state import Inode, Rejection, TreeReading
from muniment.spec.blob import BlobRef
from muniment.spec.operation import ROOT, SIZE_MAX, Extent, Kind, Make, Operation, SetXattr
from muniment.spec.transaction import Transaction
from muniment.testing.sample_volume import blob_ref, entry_time_ns, fold_into, tree_of
from muniment.views.memory import MemoryView

A, B = blob_ref(1, 4096), blob_ref(2, 4096)
SUB, DEEP, FILE, HARD, EMPTY, LINK, FIFO = range(2, 9)
GONE = 99
"""An inode that never was."""

START: tuple[Operation, ...] = (
    Make(ROOT, b"sub", Kind.FOLDER, 0o755),
    Make(-1, b"deep", Kind.FOLDER, 0o755),
    Make(-1, b"file", Kind.FILE, 0o644, content=(Extent(0, 100, 0, 10), Extent(200, 4, b"tail")), size=300),
    Make(-2, b"hard", Kind.FILE, 0o644, content=(Extent(0, 4, b"hard"),), size=4),
    Make(ROOT, b"empty", Kind.FOLDER, 0o700),
    Make(ROOT, b"link", Kind.SYMLINK, 0o777, content=(Extent(0, 3, b"sub"),), size=3),
    Make(ROOT, b"fifo", Kind.FIFO, 0o600),
    SetXattr(FILE, b"user.a", b"1"),
)
"""/sub/deep/hard, /sub/file, /empty, /link, /fifo."""


class Volume:
    """A memory view with `START` as entry 0; `time` is that of the next entry."""

    def __init__(self) -> None:
        self.view = MemoryView()
        assert self.fold(*START) is None

    @property
    def now(self) -> int:
        """The time of the last entry."""
        return entry_time_ns(self.view.size - 1)

    @property
    def state(self) -> TreeReading:
        return self.view.reading()

    def fold(self, *operations: Operation, blobs: tuple[BlobRef, ...] = (A, B)) -> Rejection | None:
        """One transaction; what it leaves is walked and checked."""
        with self.view.batch() as batch:
            rejection = fold_into(batch, *operations, blobs=blobs)
        tree_of(self.state)
        return rejection

    def code(self, *operations: Operation) -> tuple[str, int | None]:
        """Why a transaction is rejected: code and operation; nothing must have changed."""
        before, state = tree_of(self.state), self.view.state_hash()
        rejection = self.fold(*operations)
        assert rejection is not None
        assert (tree_of(self.state), self.view.state_hash()) == (before, state)
        return rejection.code, rejection.operation

    def inode(self, ino: int) -> Inode:
        found = self.state.inode(ino)
        assert found is not None
        return found

    def names(self, ino: int = ROOT) -> dict[bytes, int]:
        return {child.name: child.inode for child in self.state.children(ino, b"", 100)}

    def pieces(self, ino: int) -> list[tuple[int, int, BlobRef | bytes, int]]:
        """Offset, length, source and source offset of each extent."""
        rows = self.state.extents(ino, 0, SIZE_MAX)
        return [(row.offset, row.length, row.source, row.source_offset) for row in rows]

    def changes(self, *operations: Operation, blobs: tuple[BlobRef, ...] = (A, B)) -> object:
        """What a transaction would change."""
        transaction = Transaction(operations, blobs)
        return apply(self.state, transaction, index=self.view.size, time_ns=entry_time_ns(self.view.size))
