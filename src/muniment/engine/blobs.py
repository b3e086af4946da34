"""Storing content: from plaintext in a buffer to a blob that enough nodes hold, and manifests above blobs.

What the upload of a file, of many files and of a tree have in common.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from muniment.core.manifesting import ManifestBuilder, content_row, nested_row
from muniment.engine.kernels import Kernels, SealWork
from muniment.engine.policy import Policy
from muniment.engine.results import UploadTally
from muniment.engine.sender import Sender
from muniment.spec.blob import BlobRef
from muniment.spec.manifest import Manifest, Row

Expect = Callable[[BlobRef], None]
"""Told the reference of a blob as soon as it is sealed."""


class BlobWriter:
    """Stores blobs of one operation under one policy.

    Args:
        kernels: seal.
        sender: brings to the nodes.
        policy: coding, happiness, placement.
        tally: counts.
    """

    def __init__(self, kernels: Kernels, sender: Sender, policy: Policy, tally: UploadTally) -> None:
        self._kernels = kernels
        self._sender = sender
        self.policy = policy
        self.tally = tally

    async def store(
        self,
        plain: memoryview | Manifest,
        plain_bytes: int,
        *,
        sealed: Expect = lambda ref: None,
    ) -> BlobRef:
        """Seal and send one blob; durable on `policy.happy` nodes on return.

        Args:
            plain: the content, not needed any more when `sealed` is called.
            plain_bytes: of it, or about as much as the manifest will take.
            sealed: told the reference before it is sent.
        Raises: NotHappy, InvalidCoding.
        """
        buffers = await self._sender.buffers(self.policy, plain_bytes)
        try:
            (blob,), busy_s = await self._kernels.seal([SealWork(plain, buffers.blob)], self.policy)
            self.tally.stages.seal_s += busy_s
            sealed(blob.ref)
        except BaseException:
            self._sender.give_back(buffers)
            raise
        await self._sender.send(blob, buffers, self.policy, self.tally)
        return blob.ref

    async def store_manifest(self, manifest: Manifest) -> Row:
        """Seal and send a manifest; returns the row that names it."""
        ref = await self.store(manifest, manifest_bytes(manifest))
        return nested_row(ref, manifest.span_bytes)


def manifest_bytes(manifest: Manifest) -> int:
    """About what a manifest takes when sealed; buffers grow if it is more."""
    entries = sum(len(entry.path) + len(entry.inline) + 48 for entry in manifest.entries)
    return 1024 + 120 * len(manifest.rows) + entries


class FileRows:
    """The rows of one file, in order, while its blobs finish in any order; full manifests are stored on the
    way, so that memory stays constant.

    Args:
        writer: stores the manifests.
    """

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._builder = ManifestBuilder()
        self._coming: deque[asyncio.Future[BlobRef]] = deque()
        self.size_bytes = 0

    def expect(self) -> Expect:
        """The next blob of the file is begun; call what is returned with its reference."""
        coming: asyncio.Future[BlobRef] = asyncio.get_running_loop().create_future()
        self._coming.append(coming)
        return coming.set_result

    async def collect(self) -> None:
        """Take in what has come, in order; returns at once unless a manifest is full."""
        while self._coming and self._coming[0].done():
            ref = self._coming.popleft().result()
            self.size_bytes += ref.plain_bytes
            await self._add(content_row(ref), 0)

    async def finish(self) -> Row:
        """All blobs are begun: store what manifests are needed; returns the one row of the whole file.

        A file of one blob needs none, and its row is that of content.
        """
        while self._coming:
            await self._coming[0]
            await self.collect()
        while (row := self._builder.sole_row()) is None:
            level, manifest, _ = self._builder.finish()
            await self._add(await self._writer.store_manifest(manifest), level + 1)
        return row

    async def _add(self, row: Row, level: int) -> None:
        manifest = self._builder.add(row, level)
        if manifest is not None:
            await self._add(await self._writer.store_manifest(manifest), level + 1)
