"""A real node that lies: it keeps shares as promised and alters what it serves.

    python -m muniment.testing.lying_node FOLDER

Everything but the answers is the real node: store, ledger, TLS key, quarantine of what its disk damaged.
The last byte of every record it serves is flipped after the node's own verification, as a node with bad
memory or bad intent would.  The demo and the fault tests run it; nobody else should.
"""

from __future__ import annotations

import sys
from pathlib import Path

from muniment.ids import ShareKey
from muniment.node import compose
from muniment.node.service import NodeService
from muniment.spec.address import PeerAddress


class LyingService(NodeService):
    """Flips the last byte of every share record it serves."""

    def get(self, key: ShareKey) -> bytes:
        record = bytearray(super().get(key))
        record[-1] ^= 0xFF
        return bytes(record)


def main() -> None:
    """Run the node in the folder given, until stopped."""

    def ready(address: PeerAddress) -> None:
        print(f"serving {address}", flush=True)  # noqa: T201 - as `muni node run` does

    compose.run_process(compose.run_node(Path(sys.argv[1]), ready=ready, service_type=LyingService))


if __name__ == "__main__":
    main()
