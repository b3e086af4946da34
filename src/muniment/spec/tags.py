"""Magic numbers and hash contexts: one name per meaning, so that no hash or record can pass as another.

Contexts are BLAKE3 `derive_key` contexts (BLAKE3 paper section 2.3): hard-coded, globally unique.
"""

from __future__ import annotations

from typing import Final

SHARE_MAGIC: Final = b"MUNSHARE"
MANIFEST_MAGIC: Final = b"MUNMANIF"
EVIDENCE_MAGIC: Final = b"MUNEVIDE"

NODE_ID: Final = "muniment v1 node id"
BLOB_ID: Final = "muniment v1 blob id"
SHARE_LEAF: Final = "muniment v1 share leaf"
SHARE_NODE: Final = "muniment v1 share node"
CONTENT_KEY: Final = "muniment v1 content key"
MANIFEST_KEY: Final = "muniment v1 manifest key"
VERIFY_KEY: Final = "muniment v1 manifest verify key"
ACCOUNT_CONVERGENCE: Final = "muniment v1 account convergence secret"
PLACEMENT: Final = "muniment v1 placement"
CHALLENGE: Final = "muniment v1 challenge"
CHALLENGE_BLOB: Final = "muniment v1 challenge blob"
CHALLENGE_LEAF: Final = "muniment v1 challenge leaf"
KEEPER_ACCOUNT: Final = "muniment v1 keeper account"
ARCHIVE_ACCOUNT: Final = "muniment v1 archive account"
ARCHIVE_KEY: Final = "muniment v1 archive key"
VOLUME_ID: Final = "muniment v1 volume id"
WRAP_KEY: Final = "muniment v1 wrap key"
MEMBER_READ_SEED: Final = "muniment v1 member read seed"
MEMBER_VERIFY_SEED: Final = "muniment v1 member verify seed"
EPOCH_VERIFY_KEY: Final = "muniment v1 epoch verify key"
EPOCH_CONVERGENCE: Final = "muniment v1 epoch convergence"
CHAIN_READ: Final = "muniment v1 chain read"
CHAIN_VERIFY: Final = "muniment v1 chain verify"
EPOCH_COMMITMENT: Final = "muniment v1 epoch commitment"
TRANSACTION_KEY: Final = "muniment v1 transaction key"
TRANSACTION_VERIFY_KEY: Final = "muniment v1 transaction verify key"
VIEW_ROW: Final = "muniment v1 view row"
VIEW_STATE: Final = "muniment v1 view state"
ENTRY_SIGNATURE: Final = b"muniment v1 log entry\n"
GRANT: Final = b"muniment v1 grant\n"
COSIGNATURE: Final = b"cosignature/v1\n"
LOG_LEAF: Final = b"\x00"
LOG_NODE: Final = b"\x01"
"""Prefixes of RFC 6962 section 2.1, under SHA-256: a node of the log's tree never passes for an entry."""
RECORD_SIGNATURE: Final = b"muniment v1 node record\n"
"""Prefix of the signed bytes, so that a signature on a record is a signature on nothing else."""
