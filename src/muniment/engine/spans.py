"""Which bytes of which blobs make up a range of a file: walks manifests lazily, and only those it needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from muniment.engine.fetcher import Fetcher
from muniment.engine.results import DownloadTally
from muniment.errors import BlobCorrupt, MalformedRecord
from muniment.spec.blob import BlobRef
from muniment.spec.manifest import Manifest, ManifestKind, Row

DEPTH_MAX: Final = 6
"""Levels of manifests: 8192 rows each reach further than any file; deeper ones were made to harm."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `stop` of one blob's plaintext."""

    ref: BlobRef
    start: int
    stop: int


async def row_spans(
    fetcher: Fetcher, tally: DownloadTally, row: Row, start: int, stop: int, *, depth: int = 0
) -> AsyncGenerator[Span, None]:
    """Bytes `start` to `stop` of what is under a row, in order.

    Raises: as `Fetcher.manifest`; BlobCorrupt: a manifest is not as long as the row says.
    """
    if not row.nested:
        yield Span(row.ref, start, stop)
        return
    if depth >= DEPTH_MAX:
        raise MalformedRecord(format="manifest", reason="nested too deep")
    manifest = await fetcher.manifest(row.ref, tally)
    check_file(manifest, row)
    at = 0
    for inner in manifest.rows:
        first, last = max(start, at), min(stop, at + inner.span_bytes)
        if first < last:
            async for span in row_spans(fetcher, tally, inner, first - at, last - at, depth=depth + 1):
                yield span
        at += inner.span_bytes


def check_file(manifest: Manifest, row: Row) -> None:
    """Raises: BlobCorrupt: it is not the manifest of a file of that length."""
    if manifest.kind is not ManifestKind.FILE or manifest.span_bytes != row.span_bytes:
        raise BlobCorrupt(blob=row.ref.name.blob)
