"""Magic numbers and hash contexts: one name per meaning, so that no hash or record can pass as another.

Contexts are BLAKE3 `derive_key` contexts (BLAKE3 paper section 2.3): hard-coded, globally unique.
"""

from __future__ import annotations

from typing import Final

SHARE_MAGIC: Final = b"MUNSHARE"
MANIFEST_MAGIC: Final = b"MUNMANIF"

NODE_ID: Final = "muniment v1 node id"
BLOB_ID: Final = "muniment v1 blob id"
SHARE_LEAF: Final = "muniment v1 share leaf"
SHARE_NODE: Final = "muniment v1 share node"
CONTENT_KEY: Final = "muniment v1 content key"
MANIFEST_KEY: Final = "muniment v1 manifest key"
VERIFY_KEY: Final = "muniment v1 manifest verify key"
ACCOUNT_CONVERGENCE: Final = "muniment v1 account convergence secret"
PLACEMENT: Final = "muniment v1 placement"
RECORD_SIGNATURE: Final = b"muniment v1 node record\n"
"""Prefix of the signed bytes, so that a signature on a record is a signature on nothing else."""
