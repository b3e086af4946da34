"""The node record: what a node says of itself, signed, expiring (docs/spec/record.md).

Signed form: canonical CBOR array [payload, signature], where payload is the canonical CBOR of the record's
fields and the signature is Ed25519 over RECORD_SIGNATURE + payload.  Pure layout; signing and the check of
NodeId, signature and expiry are `muniment.crypto.records`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from muniment.ids import NodeId

PROTOCOL_VERSION: Final = 1
ADDRESSES_MAX: Final = 8
ADDRESS_CHARS_MAX: Final = 255
ZONE_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A verified node record, or one about to be signed.

    Attributes:
        node: hash of `public_key`.
        public_key: Ed25519, 32 bytes.
        addresses: `host:port`, best first, 1 to ADDRESSES_MAX.
        zone: failure zone (a rack, a house, a provider); empty where unknown.
        capacity_bytes: what the operator gives; the weight in placement.
        price: micro-credits for one GiB and 30 days; 0 is free.
        protocols: versions spoken.
        issued_s: seconds since the epoch; of two records the later issued wins.
        expires_s: not to be used from then on.
    """

    node: NodeId
    public_key: bytes
    addresses: tuple[str, ...]
    zone: str
    capacity_bytes: int
    price: int
    protocols: tuple[int, ...]
    issued_s: int
    expires_s: int
