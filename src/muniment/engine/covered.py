"""Every blob that a capability covers, manifests before what is below them.  Needs a verify right only."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from muniment.engine.fetcher import Fetcher
from muniment.engine.results import DownloadTally
from muniment.engine.spans import DEPTH_MAX
from muniment.errors import IntegrityError, MalformedRecord, TooFewShares
from muniment.ids import BlobId
from muniment.spec.blob import BlobName
from muniment.spec.cap import BlobFileVerify, LiteralFileVerify, ManifestFileVerify, TreeVerifyCap, VerifyCap


async def covered_blobs(
    fetcher: Fetcher, cap: VerifyCap, unread: list[BlobId]
) -> AsyncGenerator[tuple[BlobName, bool], None]:
    """Each blob with whether it is a manifest.

    Args:
        fetcher: reads manifests' verify halves.
        cap: what to go through.
        unread: gets the manifests that cannot be read; what is below them is not found.
    Raises: MalformedRecord: manifests are nested without end.
    """
    match cap:
        case LiteralFileVerify():
            return
        case BlobFileVerify(name):
            yield name, False
        case ManifestFileVerify(name, key) | TreeVerifyCap(name, key):
            async for found in _below(fetcher, name, key, 0, unread):
                yield found


async def _below(
    fetcher: Fetcher, name: BlobName, key: bytes, depth: int, unread: list[BlobId]
) -> AsyncGenerator[tuple[BlobName, bool], None]:
    yield name, True
    if depth >= DEPTH_MAX:
        raise MalformedRecord(format="manifest", reason="nested too deep")
    try:
        half = await fetcher.verify_half(name, key, DownloadTally())
    except (TooFewShares, IntegrityError):
        unread.append(name.blob)
        return
    for row in half.rows:
        if row.verify_key:
            async for found in _below(fetcher, row.name, row.verify_key, depth + 1, unread):
                yield found
        else:
            yield row.name, False
