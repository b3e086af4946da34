"""A log from the tiles of it that the nodes hold (docs/spec/archive.md section 5).

Whoever has the volume capability can open the tiles; what is in them is verified all the same as if it came
from a stranger: each entry's signature, author chain and right to stand there, and the tree against every
checkpoint that a tile brings.  One tile is in memory at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from muniment.core.keeping.tiles import HeldTile
from muniment.core.membership import Membership
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.entries import SignedEntry
from muniment.engine.keeping.shelf import Look, TileShelf
from muniment.engine.opening import open_entries
from muniment.errors import (
    EntryRefused,
    IntegrityError,
    InternalError,
    InvalidRequest,
    LogIncomplete,
    MalformedRecord,
    TooFewShares,
)
from muniment.ids import BlobId, VolumeId, id_text
from muniment.merkle.log_tree import Frontier
from muniment.ports import LoggedEntry, LogStore
from muniment.spec.act import Role
from muniment.spec.archive import FORMAT, TILE_BYTES_MAX, Tile
from muniment.spec.checkpoint import Checkpoint, origin_of

_NAMED_MAX: Final = 8

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Restored:
    """What was restored.

    Attributes:
        entries: from the first on.
        tiles: that were used.
        own: entries that came from stores on this machine.
        name: of the volume; empty if not even its first entry was found.
        missing: what is missing behind them, as far as is known; for the caller to raise.
        troubles: what was passed over, one line each.
    """

    entries: int = 0
    tiles: int = 0
    own: int = 0
    name: str = ""
    missing: LogIncomplete | None = None
    troubles: list[str] = field(default_factory=list)


class LogRestorer:
    """Restores one log.

    Args:
        volume: whose log it is.
        shelf: under the member's archive account.
        target: empty; gets the entries with their tree, for `engine.rehost`.
        own: what this machine has of the same log; used where no tile goes on.
        told: hears how many entries there are, after each step.
    """

    def __init__(
        self,
        volume: VolumeId,
        shelf: TileShelf,
        target: LogStore,
        own: Sequence[LogStore] = (),
        told: Callable[[int], None] = lambda entries: None,
    ) -> None:
        if target.size:
            raise InternalError(reason="a log is restored to an empty store")
        self._volume, self._shelf, self._target, self._own, self._told = volume, shelf, target, own, told
        self._membership, self._frontier = Membership(), Frontier()
        self._signed: dict[int, bytes] = {}  # root by size, of checkpoints beyond what is restored
        self._result = Restored()

    async def run(self) -> Restored:
        """Restore what there is.

        Returns: what was done; `target` has it durably.
        Raises: InvalidRequest: what this machine has is of another history; RosterEmpty; DiskFull,
            StoreFailed.
        """
        result = self._result
        look = await self._shelf.look()
        result.troubles = look.troubles
        left = _preferred(look)
        while True:
            tile = _next(left, self._frontier.size)
            if tile is not None:
                left.remove(tile)
                result.tiles += await self._used(tile, look)
            elif not await asyncio.to_thread(self._fill):
                break
            result.entries = self._frontier.size
            self._told(result.entries)
        await asyncio.to_thread(self._check_own)
        if result.entries:
            result.name = self._membership.name
        stop, known = self._missing_stop(look), self._largest(look)
        if stop > result.entries:
            result.missing = LogIncomplete(
                volume=self._volume, start=result.entries, stop=stop if known else 0, who=self._who(look)
            )
        return result

    async def _used(self, tile: HeldTile, look: Look) -> bool:
        """Read a tile and add its entries; False: it is passed over."""
        try:
            opened = await self._shelf.fetch(tile.name)
            await asyncio.to_thread(self._take, opened)
        except (IntegrityError, EntryRefused, TooFewShares) as error:
            where = f"entries {tile.range.start} to {tile.range.stop - 1}"
            look.trouble(f"the tile {_short(tile.name.blob)} with {where} is passed over: {error}")
            return False
        return True

    def _missing_stop(self, look: Look) -> int:
        """Up to which entry some are missing; what was restored, if none is known of."""
        size = self._frontier.size
        if not size:
            return max(self._largest(look), 1)
        behind = [tile.range.start for tile in (*look.tiles, *look.given_up) if tile.range.start > size]
        return min(behind, default=self._largest(look))

    def _largest(self, look: Look) -> int:
        ranges = (tile.range.stop for tile in (*look.tiles, *look.given_up))
        return max([self._frontier.size, *self._signed, *ranges])

    def _who(self, look: Look) -> str:
        """Who may have what is missing."""
        parts = []
        if look.silent:
            parts.append(
                "nodes that do not answer now (" + ", ".join(map(_short, look.silent[:_NAMED_MAX])) + ")"
            )
        members = self._membership.members.values() if self._frontier.size else ()
        names = [member.card.name for member in members if member.role is not Role.WITNESS]
        if names:
            more = "" if len(names) <= _NAMED_MAX else f" and {len(names) - _NAMED_MAX} more"
            parts.append("the homes of its members " + ", ".join(names[:_NAMED_MAX]) + more)
        else:
            parts.append("the homes of its members, and a backup of the log service")
        return ", or ".join(parts)

    # --- adding, in a thread

    def _take(self, tile: Tile) -> None:
        """Verify a tile and add its entries behind those that are there; all or none.

        Raises: MalformedRecord, UnknownVersion, EntryRefused: it is not of this log; DiskFull, StoreFailed.
        """
        checkpoint = self._note_of(tile)
        signed = self._signed | {checkpoint.size: checkpoint.root}
        self._add(tile.entries[self._frontier.size - tile.start :], signed, tile.note)

    def _fill(self) -> bool:
        """Add some entries from this machine; False: it has none that come next."""
        at = self._frontier.size
        for log in self._own:
            if not log.start <= at < log.size or (at and not self._agrees(log)):
                continue
            try:
                entries = log.read(at, log.size, bytes_max=TILE_BYTES_MAX)
                self._add(entries, self._signed, log.checkpoint())
            except (IntegrityError, EntryRefused) as error:
                self._result.troubles.append(f"what this machine has from entry {at} on is no use: {error}")
                continue
            self._result.own += len(entries)
            return True
        return False

    def _agrees(self, log: LogStore) -> bool:
        """Whether a store on this machine has the same log, as far as both go."""
        size = min(self._frontier.size, log.size)
        return Frontier.at(size, log.node).root() == Frontier.at(size, self._target.node).root()

    def _check_own(self) -> None:
        """Raises: InvalidRequest: what this machine has is of another history."""
        for log in self._own:
            if log.size and log.start <= self._frontier.size and not self._agrees(log):
                raise InvalidRequest(
                    reason="the archive has another history than what this machine has of the log: "
                    "'muni audit VOL' tells more, and without --from-grid the replica here is used alone"
                )

    def _add(self, signed_entries: Sequence[bytes], signed: dict[int, bytes], note: bytes) -> None:
        """Verify entries from anybody and add them; all or none.

        Args:
            signed: roots by size that the tree must have.
        Raises: as `_take`.
        """
        at = self._frontier.size
        membership, fresh = self._membership.copy(), list[LoggedEntry]()
        for index, entry in enumerate(open_entries(signed_entries), at):
            if not isinstance(entry, SignedEntry):
                raise entry
            membership.admit(entry, index)
            fresh.append(LoggedEntry(entry.hash, entry.signed))
        if membership.volume != self._volume:
            raise MalformedRecord(format=FORMAT, reason="its entries found another volume")
        frontier, nodes = self._frontier.extend(entry.hash for entry in fresh)
        known = {(node.level, node.index): node.hash for node in nodes}
        known |= {(0, at + place): entry.hash for place, entry in enumerate(fresh)}

        def node(level: int, index: int) -> bytes:
            return known.get((level, index)) or self._target.node(level, index)

        for size in sorted(size for size in signed if size <= frontier.size):
            if Frontier.at(size, node).root() != signed[size]:
                reason = f"the entries are not those of the checkpoint of {size}"
                raise MalformedRecord(format=FORMAT, reason=reason)
        self._target.append(fresh, nodes, note)
        self._membership, self._frontier = membership, frontier
        self._signed = {size: root for size, root in signed.items() if size > frontier.size}

    def _note_of(self, tile: Tile) -> Checkpoint:
        """The tile's checkpoint, if it is of this log, covers the tile and agrees with those seen before."""
        checkpoint = open_checkpoint(tile.note, tile.log_key, origin=origin_of(self._volume))
        if checkpoint.size < tile.range.stop:
            raise MalformedRecord(format=FORMAT, reason="its checkpoint does not cover its entries")
        if self._signed.get(checkpoint.size, checkpoint.root) != checkpoint.root:
            reason = f"two tiles have different checkpoints of {checkpoint.size} entries"
            raise MalformedRecord(format=FORMAT, reason=reason)
        return checkpoint


def _preferred(look: Look) -> list[HeldTile]:
    """All tiles that may be read, those that were given up last."""
    seen: dict[BlobId, HeldTile] = {}
    for tile in (*look.tiles, *look.given_up):
        if tile.readable:
            seen.setdefault(tile.name.blob, tile)
    return list(seen.values())


def _next(left: Sequence[HeldTile], at: int) -> HeldTile | None:
    """The tile that has entry `at` and most behind it; of equals the first."""
    fitting = (tile for tile in left if tile.range.start <= at < tile.range.stop)
    return max(fitting, key=lambda tile: tile.range.stop, default=None)


def _short(id_: bytes) -> str:
    return id_text(id_)[:12]
