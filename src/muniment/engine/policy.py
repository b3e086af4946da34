"""What a user decides about an upload, and the engine's own limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from muniment.core.placement import PAIR_NODES
from muniment.erasure.codec import Coding
from muniment.errors import InvalidCoding
from muniment.spec.limits import CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, KIB, MIB
from muniment.spec.share import CodecId

PlacementName = Literal["rendezvous", "pairs"]

SMALL_FILE_BYTES: Final = 64 * KIB
"""Files of a tree below this size are packed with their neighbours."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How files are coded and how many nodes must hold them.

    Attributes:
        coding: codec, k and n.
        happy: an upload succeeds when this many distinct nodes hold distinct shares; k <= happy <= n, so a
            blob that was acknowledged is whole.
        chunk_bytes: plaintext of one blob; 64 KiB to 16 MiB.
        placement: "rendezvous" for any grid, "pairs" for the four-node table (k = n = 4).
        compress: try zstd on every chunk that seems compressible, keep it where it is smaller.
    Raises: InvalidCoding: the values do not fit together.
    """

    coding: Coding = field(default_factory=lambda: Coding(CodecId.RS, 4, 6))
    happy: int = 5
    chunk_bytes: int = CHUNK_BYTES_DEFAULT
    placement: PlacementName = "rendezvous"
    compress: bool = True

    def __post_init__(self) -> None:
        k, n = self.coding.k, self.coding.n
        if not k <= self.happy <= n:
            raise InvalidCoding(reason=f"happy = {self.happy} is not between k = {k} and n = {n}")
        if not CHUNK_BYTES_MIN <= self.chunk_bytes <= CHUNK_BYTES_MAX:
            raise InvalidCoding(reason=f"chunks of {self.chunk_bytes} bytes; 64 KiB to 16 MiB are possible")
        if self.placement == "pairs" and (k, n) != (PAIR_NODES, PAIR_NODES):
            raise InvalidCoding(reason=f"placement 'pairs' needs coding 4/4, not {k}/{n}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the engine's memory, traffic and patience; the defaults are measured ones.

    Attributes:
        share_bytes: memory for the shares of all blobs being uploaded at once.
        open_bytes: memory for all blobs being downloaded at once.
        put_bytes: share data of one put request, unless one share is larger.
        get_bytes: share data of one batched read.
        small_share_bytes: shares up to this size are read in batches.
        direct_bytes: a lone blob's shares up to this size are sent without asking first if there is room.
        requests: puts, and reads, under way at one node.
        streams: files being read, or written, at once.
        put_patience_s: no share is late before this, however fast the others are.
        get_patience_s: the same for a fetch.
        first_patience_s: late by this while nothing is known of the nodes' speed.
        lateness: a share is late when it takes this many times as long as the median node's.
        trouble_s: for so long a node that failed or was late comes after the others.
        overload_tries: so often a request is repeated that found the node overloaded.
        cleanup_s: a cancelled operation waits so long for its reservations to be released.
        linger_s: closing waits so long for shares finished in the background.
    """

    share_bytes: int = 72 * MIB
    open_bytes: int = 72 * MIB
    put_bytes: int = 4 * MIB
    get_bytes: int = 2 * MIB
    small_share_bytes: int = 256 * KIB
    direct_bytes: int = 32 * KIB
    requests: int = 2
    streams: int = 8
    put_patience_s: float = 1.0
    get_patience_s: float = 0.5
    first_patience_s: float = 5.0
    lateness: float = 4.0
    trouble_s: float = 30.0
    overload_tries: int = 8
    cleanup_s: float = 5.0
    linger_s: float = 5.0
