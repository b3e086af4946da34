"""Limits that a reader enforces before it parses or allocates (docs/spec/wire.md section 2).

They are constants of the format or of the protocol; what an operator may choose is configuration.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

LEAF_BYTES: Final = 16 * KIB
"""Share tree leaf; the unit of proof and of damage."""

CHUNK_BYTES_MIN: Final = 64 * KIB
CHUNK_BYTES_DEFAULT: Final = 4 * MIB
CHUNK_BYTES_MAX: Final = 16 * MIB

SEALED_BYTES_MAX: Final = CHUNK_BYTES_MAX + 64 * KIB
"""Largest blob before padding: a chunk, or a manifest of the same size, and its authentication tags."""

SHARES_MAX: Final = 256
"""n of Reed-Solomon over GF(2^8)."""

LITERAL_BYTES_MAX: Final = 128
"""Files up to this size live in the capability itself and need no node."""

BATCH_SHARES_MAX: Final = 1024
"""Shares named in one reserve, release, put, read, lease or trash request."""

HAVE_BLOBS_MAX: Final = 4096
"""Blobs asked for in one `have`."""

CONTROL_BODY_BYTES_MAX: Final = 1 * MIB
"""Body of any request that carries no share data."""

PUT_BODY_BYTES_MAX: Final = 64 * MIB
"""Body of one `put`: one largest share, or many small ones."""

PUT_NAMES_MAX: Final = 16
"""Shares that a put names in its header; one with more names none."""

READ_ANSWER_BYTES_MAX: Final = 8 * MIB
"""Share bytes in the answer of one `read`; larger shares are got one by one."""

ANSWER_BYTES_MAX: Final = READ_ANSWER_BYTES_MAX + 64 * KIB
"""Body of any answer but that of `get`.  The longest is that of `read`: 4 bytes before each of its shares."""

PROOF_BYTES_MAX: Final = 4 * (LEAF_BYTES + 32 * SHARES_MAX) // 3 + KIB
"""One proof as JSON: base64 of a leaf and of the roots; the rest is room for the fixed header, a path of 11
hashes (the most a share has) and the names of the fields."""

CHALLENGES_MAX: Final = ANSWER_BYTES_MAX // PROOF_BYTES_MAX
"""Challenges in one `prove`, so that its answer stays within the limit whatever shares they are about."""

LEAVES_MAX: Final = 64
"""Leaves in the answer of one `leaves`."""

LIST_SHARES_MAX: Final = 1000
"""Rows in one page of a listing."""

RECORD_BYTES_MAX: Final = 4 * KIB
"""Signed node record."""

TOKEN_LIFETIME_S_MAX: Final = 600
TOKEN_SKEW_S_MAX: Final = 120
"""How far an account token's times may be off the node's clock."""

LOG_SIZE_MAX: Final = (1 << 63) - 1
"""Entries of a log: what a signed 64-bit column holds; no proof is longer than 64 hashes."""
