"""The tiles of an archived log at the nodes: listed, read, stored, leased, given up (docs/spec/archive.md).

Everything is learned from the nodes: which shares they list for the archive account, the shape of a blob from
a share's header, and which entries it has from its first leaf, both held against the BlobId.  What is known
of a blob never changes and is kept; who holds it is what the last look found.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from muniment.core.keeping.tiles import HeldTile, open_head, open_tile, seal_tile
from muniment.core.placement import Slot
from muniment.engine.check import Depth
from muniment.engine.grid import Grid
from muniment.engine.keeping.giving_up import give_up
from muniment.engine.lane import Lane
from muniment.engine.policy import Policy
from muniment.engine.results import DownloadTally
from muniment.errors import (
    IntegrityError,
    MalformedRecord,
    MunimentError,
    TooFewShares,
    UnknownVersion,
)
from muniment.ids import BlobId, NodeId, ShareKey, ShareNumber, id_from_text, id_text
from muniment.merkle.share_tree import check_proof
from muniment.ports import Entropy, ShareProof
from muniment.spec.archive import BODY_AT, SEALED_TILE_BYTES_MAX, Tile, TileRange
from muniment.spec.blob import BlobName
from muniment.spec.limits import BATCH_SHARES_MAX, LIST_SHARES_MAX

ROWS_MAX: Final = 1 << 16
"""Shares of an account that a node may list: tiles of 256 GiB of log.  Whatever is behind is not seen."""

_SEED_BYTES: Final = 32

_PROOFS_AT_ONCE: Final = 256
"""First leaves in memory at a time: 4 MiB."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A share that a node lists.

    Attributes:
        slot: which share, at which node.
        expires_s: when its lease ends, seconds since the epoch.
        trashed: it was given up, and is there until the node's grace ends.
    """

    slot: Slot
    expires_s: float
    trashed: bool


@dataclass(slots=True)
class Look:
    """What a look at the nodes found.

    Attributes:
        tiles: whose entries are known; shares that were given up do not count.
        given_up: those that can be read only because these shares are still there; they count.
        torn: blobs of which too few shares are listed to know what they are.
        rows: who holds what.
        silent: nodes that did not answer, so that more may be there.
        troubles: what was passed over, one line each.
    """

    tiles: list[HeldTile] = field(default_factory=list)
    given_up: list[HeldTile] = field(default_factory=list)
    torn: list[BlobId] = field(default_factory=list)
    rows: Mapping[BlobId, Sequence[Row]] = field(default_factory=dict)
    silent: list[NodeId] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def trouble(self, line: str) -> None:
        """Something was passed over."""
        _log.warning("%s", line)
        self.troubles.append(line)


class TileShelf:
    """The tiles of one archive account.

    Args:
        grid: a client under that account.
        secret: opens them (`crypto.keeping.archive_secret`).
        entropy: for salts.

    Attributes:
        liars: nodes that served false shares, how many each.
    """

    def __init__(self, grid: Grid, secret: bytes, entropy: Entropy) -> None:
        self._grid, self._secret, self._entropy = grid, secret, entropy
        self._known: dict[BlobId, tuple[BlobName, TileRange]] = {}
        self.liars: Counter[NodeId] = Counter()

    def __repr__(self) -> str:
        return "<TileShelf>"

    # --- looking

    async def look(self) -> Look:
        """List the account at every node, and learn what is new there.

        Never fails for what nodes say: that is in `Look.silent` and `Look.troubles`.
        Cost: one page for every 1000 shares at each node; one leaf of 16 KiB for each new tile.
        """
        look = Look()
        rows: defaultdict[BlobId, list[Row]] = defaultdict(list)
        lanes = self._grid.lanes()
        for lane, found in zip(
            lanes, await asyncio.gather(*(self._listed(one, look) for one in lanes)), strict=True
        ):
            if found is None:
                look.silent.append(lane.node)
            for blob, row in found or ():
                rows[blob].append(row)
        look.rows = rows
        await self._learn({blob: own for blob, own in rows.items() if blob not in self._known}, look)
        for blob, own in rows.items():
            if blob in self._known:
                name, range_ = self._known[blob]
                live = len({row.slot.share for row in own if not row.trashed})
                left = len({row.slot.share for row in own})
                if live:
                    look.tiles.append(HeldTile(name, range_, live))
                if live < name.shape.k <= left:
                    look.given_up.append(HeldTile(name, range_, left))
        return look

    async def _listed(self, lane: Lane, look: Look) -> list[tuple[BlobId, Row]] | None:
        """All that a node lists; None if it does not answer to the end."""
        found: list[tuple[BlobId, Row]] = []
        after: ShareKey | None = None
        try:
            while True:
                page = await lane.connection.shares(after=after, limit=LIST_SHARES_MAX)
                for row in page:
                    key = ShareKey(BlobId(id_from_text(row.blob)), ShareNumber(row.number))
                    found.append((key.blob, Row(Slot(key.number, lane.node), row.expires_s, row.trashed)))
                    after = key
                if len(page) < LIST_SHARES_MAX:
                    return found
                if len(found) >= ROWS_MAX:
                    look.trouble(
                        f"node {_short(lane.node)} lists more than {ROWS_MAX} shares of the archive; "
                        "those behind are not looked at"
                    )
                    return found
        except MunimentError as error:
            look.trouble(f"node {_short(lane.node)} does not list what it holds of the archive: {error}")
            return None

    async def _learn(self, fresh: Mapping[BlobId, Sequence[Row]], look: Look) -> None:
        """Find out what these blobs are."""
        left = {blob: sorted({row.slot for row in own}) for blob, own in fresh.items()}
        named: dict[BlobId, BlobName] = {}
        false: Counter[NodeId] = Counter()
        while left:
            asked = list(left)[:_PROOFS_AT_ONCE]
            proofs = await self._first_leaves([(blob, left[blob].pop(0)) for blob in asked], false)
            for blob in asked:
                proof = proofs.get(blob)
                if proof is None:
                    if not left[blob]:
                        del left[blob]
                        self._give_up_on(blob, fresh[blob], look)
                    continue
                del left[blob]
                named[blob] = BlobName(blob, proof.header.shape)
                await self._identify(named[blob], proof, fresh[blob], look)
        for node, count in false.items():
            look.trouble(f"node {_short(node)} serves {count} shares of the archive wrongly or not at all")

    async def _first_leaves(
        self, slots: Sequence[tuple[BlobId, Slot]], false: Counter[NodeId]
    ) -> dict[BlobId, ShareProof]:
        """The first leaf of each of these shares, with a header that is the blob's; others are left away."""
        by_node: defaultdict[NodeId, list[tuple[BlobId, Slot]]] = defaultdict(list)
        for blob, slot in slots:
            by_node[slot.node].append((blob, slot))
        found: dict[BlobId, ShareProof] = {}

        async def ask(lane: Lane, own: Sequence[tuple[BlobId, Slot]]) -> None:
            try:
                proofs = await lane.connection.prove([(ShareKey(blob, slot.share), 0) for blob, slot in own])
            except MunimentError as error:
                _log.info("node %s does not prove what it lists: %s", _short(lane.node), error)
                false[lane.node] += len(own)
                return
            for (blob, slot), proof in zip(own, proofs, strict=True):
                try:
                    if proof is None:
                        raise MalformedRecord(format="proof", reason="it is not there")
                    name = BlobName(blob, proof.header.shape)
                    check_proof(name, slot.share, 0, proof.header, proof.data, proof.path)
                except IntegrityError:
                    false[lane.node] += 1
                else:
                    found[blob] = proof

        lanes = ((self._grid.lane(node), own) for node, own in by_node.items())
        await asyncio.gather(*(ask(lane, own) for lane, own in lanes if lane is not None))
        return found

    async def _identify(self, name: BlobName, proof: ShareProof, rows: Sequence[Row], look: Look) -> None:
        """Which entries a blob has: from its first bytes if they are here, else from all of it."""
        try:
            if name.shape.length > SEALED_TILE_BYTES_MAX:
                raise MalformedRecord(format="log tile", reason=f"{name.shape.length} bytes")
            if proof.header.number == 0 and len(proof.data) >= BODY_AT:
                range_ = open_head(proof.data[:BODY_AT], self._secret)
            elif len({row.slot.share for row in rows}) >= name.shape.k:
                range_ = (await self.fetch(name)).range
            else:
                look.torn.append(name.blob)
                return
        except TooFewShares as error:
            look.trouble(f"a tile of the archive cannot be read now: {error}")
        except (MalformedRecord, UnknownVersion, IntegrityError) as error:
            look.trouble(f"blob {_short(name.blob)} of the archive account is passed over: {error}")
        else:
            self._known[name.blob] = (name, range_)

    def _give_up_on(self, blob: BlobId, rows: Sequence[Row], look: Look) -> None:
        nodes = ", ".join(sorted({_short(row.slot.node) for row in rows}))
        look.trouble(f"blob {_short(blob)} of the archive account is passed over: no good share at {nodes}")

    # --- one tile

    async def fetch(self, name: BlobName) -> Tile:
        """Read a tile, every share checked.

        Raises: TooFewShares; BlobInconsistent, MalformedRecord, UnknownVersion: no reading again helps.
        """
        tally = DownloadTally()
        try:
            sealed = await self._grid.fetch_sealed(name, tally)
        finally:
            self.liars.update(tally.liars)
        return await asyncio.to_thread(open_tile, sealed, self._secret)

    async def store(self, tile: Tile, policy: Policy) -> HeldTile:
        """Bring a tile to the nodes; durable on `policy.happy` of them on return, if they say the truth.

        Returns: the tile with as many live shares as were proven then, by leaves that no node could foresee.
        Raises: NotHappy, InvalidCoding; RosterEmpty; MalformedRecord: more entries than a tile has.
        """
        sealed = await asyncio.to_thread(seal_tile, tile, self._secret, self._entropy)
        name = await self._grid.store_sealed(sealed, policy)
        self._known[name.blob] = (name, tile.range)
        check = self._grid.checker(Depth.PROVEN, self._entropy(_SEED_BYTES))
        (health,) = await check.blobs([name])
        return HeldTile(name, tile.range, health.live)

    # --- leases

    async def lease(self, rows: Iterable[tuple[BlobId, Row]], duration_s: int) -> int:
        """Extend leases, in bulk; returns how many are extended."""
        done = 0

        async def ask(lane: Lane, keys: Sequence[ShareKey]) -> None:
            nonlocal done
            extended = await lane.connection.lease(keys, duration_s)
            done += sum(extended)

        by_node: defaultdict[NodeId, list[ShareKey]] = defaultdict(list)
        for blob, row in rows:
            by_node[row.slot.node].append(ShareKey(blob, row.slot.share))
        await self._everywhere(by_node, ask)
        return done

    async def give_up(self, blobs: Sequence[BlobId]) -> int:
        """Give up all shares of these blobs wherever they are; returns how many were given up.

        A node that does not hear it keeps them until the next look finds them.
        """
        given = await give_up(self._grid.lanes(), blobs)
        for blob in blobs:
            self._known.pop(blob, None)
        return given.shares

    async def _everywhere(
        self,
        by_node: Mapping[NodeId, Sequence[ShareKey]],
        ask: Callable[[Lane, Sequence[ShareKey]], Awaitable[None]],
    ) -> None:
        """Ask each node for its own, in batches; one that fails is left to the next look."""

        async def one(lane: Lane, keys: Sequence[ShareKey]) -> None:
            try:
                for at in range(0, len(keys), BATCH_SHARES_MAX):
                    await ask(lane, keys[at : at + BATCH_SHARES_MAX])
            except MunimentError as error:
                _log.warning("node %s: tiles of the archive stay as they are: %s", _short(lane.node), error)

        await asyncio.gather(*(one(lane, by_node.get(lane.node, ())) for lane in self._grid.lanes()))


def _short(id_: bytes) -> str:
    return id_text(id_)[:12]
