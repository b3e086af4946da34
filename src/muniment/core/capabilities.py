"""Weakening: the verify capability that every read capability contains (docs/spec/caps.md section 3)."""

from __future__ import annotations

from muniment.core.sealing import verify_key
from muniment.spec.cap import (
    BlobFile,
    BlobFileVerify,
    Cap,
    LiteralFile,
    LiteralFileVerify,
    ManifestFile,
    ManifestFileVerify,
    TreeReadCap,
    TreeVerifyCap,
    VerifyCap,
)


def weaken(cap: Cap) -> VerifyCap:
    """The verify capability of the same blobs, which checks and repairs and reads none; idempotent."""
    match cap:
        case LiteralFile():
            return LiteralFileVerify()
        case BlobFile(ref):
            return BlobFileVerify(ref.name)
        case ManifestFile(ref, _):
            return ManifestFileVerify(ref.name, verify_key(ref.key))
        case TreeReadCap(ref):
            return TreeVerifyCap(ref.name, verify_key(ref.key))
        case LiteralFileVerify() | BlobFileVerify() | ManifestFileVerify() | TreeVerifyCap():
            return cap
