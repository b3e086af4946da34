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
    LogIncomplete,
    MalformedRecord,
    TooFewShares,
)
from muniment.ids import BlobId, VolumeId, id_text
from muniment.merkle.log_tree import Frontier
from muniment.ports import LoggedEntry, LogStore
from muniment.spec.act import Role
from muniment.spec.archive import Tile
from muniment.spec.checkpoint import Checkpoint, origin_of

_NAMED_MAX: Final = 8

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Restored:
    """What was restored.

    Attributes:
        entries: from the first on.
        signed_size: entries of the largest log that a checkpoint in the archive is of.
        tiles: that were used.
        name: of the volume; empty if not even its first entry was found.
        troubles: what was passed over, one line each.
    """

    entries: int = 0
    signed_size: int = 0
    tiles: int = 0
    name: str = ""
    troubles: list[str] = field(default_factory=list)


class LogRestorer:
    """Restores one log.

    Args:
        volume: whose log it is.
        shelf: under the member's archive account.
        target: empty; gets the entries with their tree, for `engine.rehost`.
        told: hears how many entries there are, after each tile.
    """

    def __init__(
        self,
        volume: VolumeId,
        shelf: TileShelf,
        target: LogStore,
        told: Callable[[int], None] = lambda entries: None,
    ) -> None:
        if target.size:
            raise InternalError(reason="a log is restored to an empty store")
        self._volume, self._shelf, self._target, self._told = volume, shelf, target, told
        self._membership, self._frontier = Membership(), Frontier()
        self._signed: dict[int, bytes] = {}  # root by size, of checkpoints beyond what is restored
        self._result = Restored()

    async def run(self, *, incomplete: bool = False) -> Restored:
        """Restore what there is.

        Args:
            incomplete: what lies before the first gap will do, if there is anything.
        Returns: what was done; `target` has it durably.
        Raises: LogIncomplete: entries are missing, and `target` has those before; RosterEmpty; DiskFull,
            StoreFailed.
        """
        result = self._result
        look = await self._shelf.look()
        result.troubles = look.troubles
        # Tiles that were given up are taken where no other will do: they are there until the grace ends.
        left = _preferred(look)
        while (tile := _next(left, self._frontier.size)) is not None:
            left.remove(tile)
            try:
                opened = await self._shelf.fetch(tile.name)
                await asyncio.to_thread(self._take, opened)
            except (IntegrityError, EntryRefused, TooFewShares) as error:
                where = f"entries {tile.range.start} to {tile.range.stop - 1}"
                look.trouble(f"the tile {_short(tile.name.blob)} with {where} is passed over: {error}")
                continue
            result.tiles += 1
            result.entries = self._frontier.size
            self._told(result.entries)
        result.signed_size = max(self._signed, default=result.entries)
        stop = self._missing_stop(look)
        if self._frontier.size:
            result.name = self._membership.name
        if stop > result.entries and not (incomplete and result.entries):
            known = self._largest(look)
            raise LogIncomplete(
                volume=self._volume, start=result.entries, stop=stop if known else 0, who=self._who(look)
            )
        return result

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

    # --- one tile, in a thread

    def _take(self, tile: Tile) -> None:
        """Verify a tile and add its entries behind those that are there; all or none.

        Raises: MalformedRecord, UnknownVersion, EntryRefused: it is not of this log; DiskFull, StoreFailed.
        """
        checkpoint = self._note_of(tile)
        at = self._frontier.size
        membership, fresh = self._membership.copy(), list[LoggedEntry]()
        for index, entry in enumerate(open_entries(tile.entries[at - tile.start :]), at):
            if not isinstance(entry, SignedEntry):
                raise entry
            membership.admit(entry, index)
            fresh.append(LoggedEntry(entry.hash, entry.signed))
        if membership.volume != self._volume:
            raise MalformedRecord(format="log tile", reason="its entries found another volume")
        frontier, nodes = self._frontier.extend(entry.hash for entry in fresh)
        known = {(node.level, node.index): node.hash for node in nodes}
        known |= {(0, at + place): entry.hash for place, entry in enumerate(fresh)}
        signed = self._signed | {checkpoint.size: checkpoint.root}
        for size in sorted(size for size in signed if size <= frontier.size):
            root = Frontier.at(
                size, lambda level, index: known.get((level, index)) or self._target.node(level, index)
            ).root()
            if root != signed[size]:
                raise MalformedRecord(
                    format="log tile", reason=f"the entries are not those of the checkpoint of {size}"
                )
        self._target.append(fresh, nodes, tile.note)
        self._membership, self._frontier = membership, frontier
        self._signed = {size: root for size, root in signed.items() if size > frontier.size}

    def _note_of(self, tile: Tile) -> Checkpoint:
        """The tile's checkpoint, if it is of this log, covers the tile and agrees with those seen before."""
        checkpoint = open_checkpoint(tile.note, tile.log_key, origin=origin_of(self._volume))
        if checkpoint.size < tile.range.stop:
            raise MalformedRecord(format="log tile", reason="its checkpoint does not cover its entries")
        if self._signed.get(checkpoint.size, checkpoint.root) != checkpoint.root:
            reason = f"two tiles have different checkpoints of {checkpoint.size} entries"
            raise MalformedRecord(format="log tile", reason=reason)
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
