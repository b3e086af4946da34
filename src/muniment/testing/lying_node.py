"""A real node that lies: it keeps shares as promised and alters what it serves.

    python -m muniment.testing.lying_node FOLDER

Everything but the answers is the real node: store, ledger, TLS key, quarantine of what its disk damaged.
One byte of every record, range and proof is changed after the node's own verification, as a node with bad
memory or bad intent would.  The demo and the fault tests run it; nobody else should.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from muniment.ids import ShareKey
from muniment.node import compose
from muniment.node.service import NodeService
from muniment.ports import ShareProof
from muniment.spec.address import PeerAddress


class LyingService(NodeService):
    """Changes the last byte of everything it serves."""

    def get(self, key: ShareKey) -> bytes:
        return _altered(super().get(key))

    def get_span(self, key: ShareKey, start: int, stop: int | None) -> tuple[bytes, int, int]:
        data, first, size_bytes = super().get_span(key, start, stop)
        return _altered(data), first, size_bytes

    def leaves(self, key: ShareKey, first: int, count: int) -> list[ShareProof]:
        proofs = super().leaves(key, first, count)
        return [dataclasses.replace(proof, data=_altered(proof.data)) for proof in proofs]


def _altered(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 0xFF,))


def main() -> None:
    """Run the node in the folder given, until stopped."""

    def ready(address: PeerAddress) -> None:
        print(f"serving {address}", flush=True)  # noqa: T201 - as `muni node run` does

    compose.run_process(compose.run_node(Path(sys.argv[1]), ready=ready, service_type=LyingService))


if __name__ == "__main__":
    main()
