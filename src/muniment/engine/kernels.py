"""The kernel threads: hashing, ciphers and coding off the loop, one hop for each piece of work.

All of these kernels release the GIL, so two threads keep two cores busy while the loop goes on.  A thread has
its own Sealers (they are not thread-safe).  Owner: the Grid; nothing else in the engine makes kernel threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from muniment.core.sealing import BlobBuffers, SealedBlob, Sealer
from muniment.engine.policy import Policy
from muniment.engine.threads import Threads
from muniment.erasure.codec import Coding
from muniment.ports import Clock
from muniment.spec.manifest import Manifest

THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class SealWork:
    """One blob to be sealed: its content and the buffers it goes to."""

    plain: memoryview | Manifest
    buffers: BlobBuffers


class _Local(threading.local):
    """Sealers of one thread."""

    def __init__(self) -> None:
        self.sealers: dict[tuple[Coding, bool], Sealer] = {}


class Kernels(Threads):
    """Threads with sealers.

    Args:
        secret: the convergence secret.
        clock: measures busy seconds.
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        super().__init__("kernel", THREADS, clock)
        self._secret = secret
        self._local = _Local()

    async def seal(self, works: Sequence[SealWork], policy: Policy) -> tuple[list[SealedBlob], float]:
        """Seal several blobs in one hop; returns them in order, and the busy seconds."""
        return await self.run(self.seal_here, works, policy)

    def seal_here(self, works: Sequence[SealWork], policy: Policy) -> list[SealedBlob]:
        """In a thread of this pool: seal several blobs."""
        key = (policy.coding, policy.compress)
        sealer = self._local.sealers.get(key)
        if sealer is None:
            sealer = Sealer(self._secret, policy.coding, compress=policy.compress)
            self._local.sealers[key] = sealer
        return [
            sealer.seal_manifest(work.plain, work.buffers)
            if isinstance(work.plain, Manifest)
            else sealer.seal(work.plain, work.buffers)
            for work in works
        ]
