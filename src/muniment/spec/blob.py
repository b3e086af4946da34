"""What names a blob to a verifier, and what opens it to a reader (docs/spec/caps.md section 2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from muniment.errors import MalformedRecord
from muniment.ids import BlobId, ShareKey, ShareNumber
from muniment.spec.limits import CHUNK_BYTES_MAX
from muniment.spec.share import BlobShape

KEY_BYTES = 32


class Compression(enum.IntEnum):
    """What was done to the plaintext before encryption."""

    NONE = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class BlobName:
    """Everything a checker or repairer needs to know of a blob, and nothing that reads it."""

    blob: BlobId
    shape: BlobShape

    def share(self, number: int) -> ShareKey:
        """The key of one of this blob's shares."""
        return ShareKey(self.blob, ShareNumber(number))


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A blob and the secret that opens it.

    Attributes:
        name: the verifier's half.
        key: AES-256 key, never shown.
        plain_bytes: size of the plaintext, at most CHUNK_BYTES_MAX.
        compression: applied before encryption.
    """

    name: BlobName
    key: bytes = field(repr=False)
    plain_bytes: int
    compression: Compression

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise MalformedRecord(format="blob reference", reason=f"key of {len(self.key)} bytes")
        if not 0 <= self.plain_bytes <= CHUNK_BYTES_MAX:
            raise MalformedRecord(format="blob reference", reason=f"{self.plain_bytes} bytes of plaintext")
