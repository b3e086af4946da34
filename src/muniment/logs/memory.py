"""`LogStore` in memory: for tests, simulation, and as the reference of its contract."""

from __future__ import annotations

from collections.abc import Sequence

from muniment.errors import InternalError, StoreFailed
from muniment.ids import EntryHash
from muniment.merkle.log_tree import Subtree
from muniment.ports import LoggedEntry


class MemoryLog:
    """One log; `where` names it in errors."""

    def __init__(self, where: str = "memory") -> None:
        self._where = where
        self._entries: list[LoggedEntry] = []
        self._places: dict[EntryHash, int] = {}
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._checkpoint = b""
        self._start = 0

    @property
    def size(self) -> int:
        return self._start + len(self._entries)

    @property
    def start(self) -> int:
        return self._start

    def begin(
        self, start: int, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes
    ) -> None:
        if self.size or not entries:
            raise InternalError(reason="a log begins once, with an entry")
        self._start = start
        self.append(entries, nodes, checkpoint)
        self._nodes |= {(0, node.index): node.hash for node in nodes if not node.level}

    def append(self, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes) -> None:
        hashes = [entry.hash for entry in entries]
        if len({*hashes} - {*self._places}) != len(hashes):
            raise StoreFailed(where=self._where, reason="an entry is in the log already")
        self._places |= {entry: self.size + at for at, entry in enumerate(hashes)}
        self._entries += entries
        self._nodes |= {(node.level, node.index): node.hash for node in nodes if node.level}
        self._checkpoint = checkpoint

    def read(self, start: int, stop: int, *, bytes_max: int) -> list[bytes]:
        found: list[bytes] = []
        if start < min(stop, self._start):
            raise StoreFailed(where=self._where, reason=f"entry {start} is missing")
        for entry in self._entries[start - self._start : stop - self._start]:
            bytes_max -= len(entry.signed)
            if found and bytes_max < 0:
                break
            found.append(entry.signed)
        return found

    def find(self, entry: EntryHash) -> int | None:
        return self._places.get(entry)

    def node(self, level: int, index: int) -> bytes:
        if level == 0 and self._start <= index < self.size:
            return self._entries[index - self._start].hash
        try:
            return self._nodes[level, index]
        except KeyError:
            raise StoreFailed(where=self._where, reason=f"tree node {level}/{index} is missing") from None

    def checkpoint(self) -> bytes:
        return self._checkpoint

    def replace_checkpoint(self, checkpoint: bytes) -> None:
        self._checkpoint = checkpoint

    def inspect(self) -> Sequence[str]:
        """There is nothing below what it keeps."""
        return ()

    def close(self) -> None:
        """Nothing to give back."""
