"""Collecting: page by page along what a node lists for the keeper's account (docs/keeping.md section 7).

Corrects what is known of leases, and gives up those on what a prune names and no entry names since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from muniment.core.placement import Slot
from muniment.engine.grid import Grid
from muniment.engine.keeping.duties import KeeperTally
from muniment.engine.keeping.work import Work
from muniment.ids import BlobId, NodeId, ShareKey, ShareNumber, id_from_text
from muniment.ports import BlobBook
from muniment.spec.limits import BATCH_SHARES_MAX, LIST_SHARES_MAX

_SHARES_OF_BLOB_MAX: Final = 256


class Collecting:
    """Of one keeper.

    Args:
        grid: a client under the keeper's account of this volume.
        book: what is remembered.
        follow: brings it up to the log's newest entry.
        tally: what is done is counted there.
    """

    def __init__(
        self, grid: Grid, book: BlobBook, follow: Callable[[], Awaitable[None]], tally: KeeperTally
    ) -> None:
        self._grid, self._book, self._follow, self._tally = grid, book, follow, tally

    async def step(self, work: Work) -> None:
        """One page of what a node lists for this account."""
        node, after = NodeId(id_from_text(work.key)), work.box("after")
        behind = None if after is None else ShareKey(BlobId(after[0]), ShareNumber(after[1]))
        last = await self._page(node, behind)
        if last is not None and work.progress_done <= await self._listed_max():
            work.put("after", [last.blob, last.number])
            work.progress(work.progress_done + LIST_SHARES_MAX)
            work.repeat()

    async def _listed_max(self) -> int:
        """So much can a node have for this account; one that lists on for ever is believed no more."""
        named, _ = await asyncio.to_thread(self._book.count)
        return named * _SHARES_OF_BLOB_MAX

    async def _page(self, node: NodeId, behind: ShareKey | None) -> ShareKey | None:
        """Where the next page begins; None behind the last."""
        lane = self._grid.lane(node)
        if lane is None:  # it left the roster
            return None
        rows = await lane.connection.shares(after=behind, limit=LIST_SHARES_MAX)
        ends = {
            ShareKey(BlobId(id_from_text(row.blob)), ShareNumber(row.number)): row.expires_s
            for row in rows
            if not row.trashed
        }
        last = None
        if len(rows) == LIST_SHARES_MAX:
            last = ShareKey(BlobId(id_from_text(rows[-1].blob)), ShareNumber(rows[-1].number))
        await asyncio.to_thread(self._book.listed, node, behind, last, ends)
        if await self._pruned(ends):
            await self._follow()  # a newer entry may name it again
            pruned = await self._pruned(ends)
            for at in range(0, len(pruned), BATCH_SHARES_MAX):
                batch = pruned[at : at + BATCH_SHARES_MAX]
                done = sum(await lane.connection.trash(batch))
                self._tally.collected += done  # in one line with the await, others' would be forgotten
                slots = [(key.blob, Slot(key.number, node)) for key in batch]
                await asyncio.to_thread(self._book.leased, slots, 0.0)
        return last

    async def _pruned(self, keys: Iterable[ShareKey]) -> list[ShareKey]:
        """Those whose blobs were pruned."""
        asked = list(keys)
        pruned = await asyncio.to_thread(self._book.is_pruned, [key.blob for key in asked])
        return [key for key, is_gone in zip(asked, pruned, strict=True) if is_gone]
