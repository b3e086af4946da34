"""Building manifests of any size in constant memory: full ones are sealed on the way and nest.

Sans-io: the builder says which manifest to seal and store, and is told the row that came of it.
"""

from __future__ import annotations

from muniment.core.sealing import verify_key
from muniment.spec.blob import BlobRef
from muniment.spec.manifest import ROWS_MAX, Manifest, ManifestKind, Row


def content_row(ref: BlobRef) -> Row:
    """The row of a blob of content."""
    return Row(ref, ref.plain_bytes)


def nested_row(ref: BlobRef, span_bytes: int) -> Row:
    """The row of a sealed manifest with `span_bytes` of file content under it."""
    return Row(ref, span_bytes, verify_key(ref.key))


class ManifestBuilder:
    """Collects the rows of one file, level by level; level 0 is content.

    Args:
        rows_max: rows of one manifest.
    """

    def __init__(self, *, rows_max: int = ROWS_MAX) -> None:
        self._rows_max = rows_max
        self._levels: list[list[Row]] = [[]]

    def add(self, row: Row, level: int = 0) -> Manifest | None:
        """Add the next row of a level.

        Returns: a full manifest to seal; add the row that names it to `level + 1`.
        """
        if level == len(self._levels):
            self._levels.append([])
        rows = self._levels[level]
        rows.append(row)
        return self._take(level) if len(rows) == self._rows_max else None

    def finish(self) -> tuple[int, Manifest, bool]:
        """After the last row: the next manifest to seal, its level, and whether it is the topmost.

        Unless it is, add the row that names it to `level + 1` and call `finish` again.
        """
        level = next(at for at, rows in enumerate(self._levels) if rows)
        top = not any(self._levels[level + 1 :])
        return level, self._take(level), top

    def sole_row(self) -> Row | None:
        """The only row there is: a file of one blob needs no manifest, and one manifest no index."""
        rows = [row for level in self._levels for row in level]
        return rows[0] if len(rows) == 1 else None

    def _take(self, level: int) -> Manifest:
        manifest = Manifest(ManifestKind.FILE, tuple(self._levels[level]))
        self._levels[level] = []
        return manifest
