"""Tiles of an archived log: sealed and opened, and which of them are needed (docs/spec/archive.md).

The cover of a log is the chain of tiles that a reader would take: from entry 0 on, each time the one that
reaches furthest.  It follows from the tiles alone, so that two keepers of one account come to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from muniment.crypto.cipher import DoesNotOpen
from muniment.crypto.hashing import derive
from muniment.crypto.messages import open_once, seal_once
from muniment.errors import MalformedRecord
from muniment.spec import archive as spec
from muniment.spec.archive import Tile, TileRange
from muniment.spec.blob import BlobName
from muniment.spec.tags import ARCHIVE_HEAD_KEY, ARCHIVE_KEY


def seal_tile(tile: Tile, secret: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """The sealed bytes of a tile's blob; two of the same tile differ.

    Args:
        secret: `crypto.keeping.archive_secret`.
        entropy: gives so many unpredictable bytes.  With the same salt twice, two tiles would be encrypted
            under one key.
    Raises: MalformedRecord: the entries are more than a tile has.
    """
    salt = entropy(spec.SALT_BYTES)
    head = seal_once(derive(ARCHIVE_HEAD_KEY, secret, salt), spec.encode_head(tile.range))
    return (
        spec.encode_prefix(salt) + head + seal_once(derive(ARCHIVE_KEY, secret, salt), spec.encode_body(tile))
    )


def open_head(sealed: bytes | memoryview, secret: bytes) -> TileRange:
    """Which entries a tile has, from its first `spec.archive.BODY_AT` bytes or more.

    Raises: MalformedRecord: it is none, or of another account; UnknownVersion.
    """
    salt = spec.decode_prefix(sealed)
    head = _opened(ARCHIVE_HEAD_KEY, secret, salt, sealed[spec.HEAD_AT : spec.BODY_AT])
    return spec.decode_head(head)


def open_tile(sealed: bytes | memoryview, secret: bytes) -> Tile:
    """All of a tile; its entries and its note are as whoever wrote it had them, and are verified elsewhere.

    Raises: MalformedRecord: as `open_head`; UnknownVersion.
    """
    if len(sealed) > spec.SEALED_TILE_BYTES_MAX:
        raise MalformedRecord(format=spec.FORMAT, reason=f"{len(sealed)} bytes")
    range_ = open_head(sealed, secret)
    salt = spec.decode_prefix(sealed)
    return spec.decode_body(_opened(ARCHIVE_KEY, secret, salt, sealed[spec.BODY_AT :]), range_)


def _opened(context: str, secret: bytes, salt: bytes, sealed: bytes | memoryview) -> bytes:
    try:
        return open_once(derive(context, secret, salt), bytes(sealed))
    except DoesNotOpen as error:
        raise MalformedRecord(format=spec.FORMAT, reason="it does not open with this capability") from error


# --- which are needed -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeldTile:
    """A tile at the nodes.

    Attributes:
        name: of its blob.
        range: which entries it has.
        live: how many distinct shares are at nodes that answer, those given up not counted.
    """

    name: BlobName
    range: TileRange
    live: int

    @property
    def readable(self) -> bool:
        """Whether enough shares are there."""
        return self.live >= self.name.shape.k


def cover(tiles: Iterable[HeldTile]) -> list[HeldTile]:
    """The readable tiles that have the log from its first entry on, up to the first gap."""
    left = sorted(
        (tile for tile in tiles if tile.readable),
        key=lambda tile: (tile.range.start, -tile.range.stop, tile.name.blob),
    )
    chain: list[HeldTile] = []
    end, at = 0, 0
    best: HeldTile | None = None
    while True:
        while at < len(left) and left[at].range.start <= end:
            if best is None or left[at].range.stop > best.range.stop:
                best = left[at]
            at += 1
        if best is None or best.range.stop <= end:
            return chain
        chain.append(best)
        end = best.range.stop


def end_of(chain: Sequence[HeldTile]) -> int:
    """The first entry that a cover has not."""
    return chain[-1].range.stop if chain else 0


def gap_end(tiles: Iterable[HeldTile], end: int, size: int) -> int:
    """How far entries are missing behind a cover that ends at `end`: to the next readable tile, or `size`."""
    return min((t.range.start for t in tiles if t.readable and t.range.start > end), default=size)


def merged_start(chain: Sequence[HeldTile], fresh_bytes: int) -> int:
    """Where a tile begins that gets entries behind a cover, which alone would be a tile of so many bytes.

    It takes in the last tiles as long as each makes it at most three times as long, and all fit one tile.  So
    an entry is written again at most some log(4 MiB / what a round brings) times to base 1.5, and as many
    partial tiles are left; rewriting the last tile every time would fill the nodes' trash with hundreds of
    times the log.
    """
    start = end_of(chain)
    for tile in reversed(chain):
        tile_bytes = tile.name.shape.length
        if tile_bytes > 2 * fresh_bytes or tile_bytes + fresh_bytes > spec.TILE_BYTES_MAX:
            break
        fresh_bytes += tile_bytes
        start = tile.range.start
    return start


def superfluous(tiles: Collection[HeldTile], chain: Sequence[HeldTile], happy: int) -> list[HeldTile]:
    """Tiles that nobody needs: all their entries are in tiles of the cover that `happy` nodes hold."""
    needed = {tile.name.blob for tile in chain}
    weak = [tile.range for tile in chain if tile.live < min(happy, tile.name.shape.n)]
    end = end_of(chain)
    return [
        tile
        for tile in tiles
        if tile.name.blob not in needed
        and tile.range.stop <= end
        and not any(one.start < tile.range.stop and tile.range.start < one.stop for one in weak)
    ]
