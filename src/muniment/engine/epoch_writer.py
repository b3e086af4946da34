"""Storing content of a volume under the convergence secret of the epoch in which it is committed.

    writer = await EpochWriter.begin(volume, grid, tally, progress)
    ref = await writer.store(plain, size)
    committed = await writer.commit((ref,), plan)

Blobs are sealed before the entry that names them is ordered, and the keys may change in between, because
somebody was removed: he has the old secret, and could test guesses of what is in blobs under it.  So they are
not committed then: their content is read back and stored under the new secret, and the log names only that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Final

from muniment.core.keys import EpochKeys
from muniment.core.tree_state import TreeReading
from muniment.engine.blobs import BlobWriter, Expect
from muniment.engine.download import Part
from muniment.engine.grid import Grid
from muniment.engine.groups import task_group
from muniment.engine.policy import Policy
from muniment.engine.results import DownloadTally, Progress, ProgressCallback, UploadTally
from muniment.engine.spans import Span
from muniment.engine.threads import Threads
from muniment.engine.volume import Attempt, BlobPlan, Committed, Volume
from muniment.erasure.codec import Coding
from muniment.errors import CallerError, EpochPassed, NotHappy
from muniment.spec.blob import BlobRef
from muniment.spec.manifest import Manifest
from muniment.spec.transaction import Transaction

_TRIES: Final = 8
_AT_ONCE: Final = 4


class EpochWriter:
    """Stores blobs of one operation on a volume, and commits them.

    Args:
        volume: whose keys and log are used.
        grid: where the blobs go.
        tally: counts what is sent.
        progress: told while blobs are stored again, from 0 bytes up to all of them.
    """

    def __init__(
        self,
        volume: Volume,
        grid: Grid,
        tally: UploadTally,
        progress: ProgressCallback | None,
        keys: EpochKeys,
    ) -> None:
        self._volume, self._grid, self._progress = volume, grid, progress
        self._sealed_in: dict[BlobRef, int] = {}
        self.tally = tally
        self._take(keys)

    @classmethod
    async def begin(
        cls, volume: Volume, grid: Grid, tally: UploadTally, progress: ProgressCallback | None = None
    ) -> EpochWriter:
        """A writer under the present keys.  Raises: NotMember, NotCapable: there are none for this member."""
        return cls(volume, grid, tally, progress, await volume.sealing_keys())

    def _take(self, keys: EpochKeys) -> None:
        agreed = self._volume.membership.policy
        policy = Policy(
            coding=Coding.from_text(agreed.coding), happy=agreed.happy, chunk_bytes=agreed.chunk_bytes
        )
        self._epoch = keys.epoch
        self.blobs: BlobWriter = self._grid.blob_writer(keys.convergence_secret(), policy, self.tally)
        """Under the present secret; what it stores itself is not for this volume's log."""

    @property
    def policy(self) -> Policy:
        """The volume's."""
        return self.blobs.policy

    async def store(
        self, plain: memoryview | Manifest, plain_bytes: int, *, sealed: Expect = lambda ref: None
    ) -> BlobRef:
        """As `BlobWriter.store`."""
        epoch = self._epoch
        ref = await self.blobs.store(plain, plain_bytes, sealed=sealed)
        self._sealed_in[ref] = epoch
        return ref

    def forget(self, blobs: Iterable[BlobRef]) -> None:
        """These are committed, or never will be: a writer that lives long need not remember them.

        Committed all the same, they are stored again before.
        """
        for ref in blobs:
            self._sealed_in.pop(ref, None)

    async def commit(
        self,
        blobs: Sequence[BlobRef],
        plan: BlobPlan,
        attempt: Attempt | None = None,
        *,
        is_brief: bool = False,
    ) -> Committed:
        """Commit a change that names blobs of this writer; those under passed keys are stored again before.

        Args:
            blobs: each from `store`.
            plan: is given as many, in the same order and with the same plaintext.
            attempt, is_brief: as `Volume.commit`.
        Raises: as `Volume.commit`; NotHappy; TooFewShares, BlobCorrupt; EpochPassed: the keys changed again
            and again meanwhile.
        """
        current = tuple(blobs)
        planned: list[tuple[BlobRef, ...]] = []

        def make(state: TreeReading, named: tuple[BlobRef, ...]) -> Transaction:
            transaction = plan(state, named)
            planned.append(named)
            return transaction

        try:
            for _ in range(_TRIES):
                current = await self._under_present_keys(current)
                epoch = self._epoch if current else None
                try:
                    return await self._volume.commit(
                        lambda state, c=current: make(state, c),  # type: ignore[misc]
                        epoch=epoch,
                        attempt=attempt,
                        is_brief=is_brief,
                    )
                except EpochPassed as error:
                    passed = error
                    self._take(await self._volume.sealing_keys())
            raise passed
        finally:
            # What was planned is sent next: from then on the log may refer to these, whatever comes back.
            self.tally.fresh.keep(ref.name.blob for named in planned for ref in named)

    @contextlib.asynccontextmanager
    async def taking_back(self) -> AsyncIterator[None]:
        """If this fails for good, give up what was newly stored and that no transaction has named.

        For good is: too little space, too few nodes, or a refusal before anything was sent to the log.
        Broken off by anything else, what is stored is found by the next attempt.
        """
        try:
            yield
        except (NotHappy, CallerError):
            await self._grid.take_back(self.tally)
            raise

    async def _under_present_keys(self, blobs: tuple[BlobRef, ...]) -> tuple[BlobRef, ...]:
        """The same content in blobs of the present epoch."""
        old = [ref for ref in dict.fromkeys(blobs) if self._sealed_in.get(ref) != self._epoch]
        if not old:
            return blobs
        total, done = sum(ref.plain_bytes for ref in old), 0
        gate, thread = asyncio.Semaphore(_AT_ONCE), Threads("again", 1, self._grid.clock)
        again: dict[BlobRef, BlobRef] = {}

        async def store(ref: BlobRef) -> None:
            nonlocal done
            async with gate:
                plain = memoryview(bytearray(ref.plain_bytes))
                await self._grid.read_parts(_whole(ref, plain), thread, DownloadTally(), len(plain), None)
                again[ref] = await self.store(plain, len(plain))
                done += ref.plain_bytes
            self._tell(done, total)

        self._tell(0, total)
        try:
            async with task_group() as group:
                for ref in old:
                    group.create_task(store(ref))
        finally:
            thread.close()
        return tuple(again.get(ref, ref) for ref in blobs)

    def _tell(self, done_bytes: int, total_bytes: int) -> None:
        if self._progress is not None:
            self._progress(Progress(done_bytes, total_bytes))


async def _whole(ref: BlobRef, into: memoryview) -> AsyncGenerator[Part, None]:
    def take(data: memoryview) -> None:
        into[:] = data

    yield Part(Span(ref, 0, ref.plain_bytes), take)
