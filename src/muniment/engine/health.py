"""What a check has found: per share and node, per blob, and in one line for the whole file or tree.

Three outcomes and no fourth (row Y18): held, damaged or missing, node offline.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from muniment.core.happiness import happiness
from muniment.core.placement import Slot
from muniment.ids import BlobId, NodeId, ShareNumber, id_text
from muniment.spec.blob import BlobName

DETAILS_MAX: Final = 256
"""Blobs described share by share, the worst ones; all others are counted."""


class ShareState(enum.Enum):
    """What is known of one share at one node."""

    HELD = "held"
    DAMAGED = "damaged"
    MISSING = "missing"
    OFFLINE = "node offline"


@dataclass(frozen=True, slots=True)
class ShareHealth:
    """One share.

    Attributes:
        number: which.
        nodes: the nodes that hold a copy, good or damaged, and the one that should but does not.
    """

    number: ShareNumber
    nodes: tuple[tuple[NodeId, ShareState], ...]

    @property
    def live(self) -> bool:
        """Whether a good copy can be had."""
        return any(state is ShareState.HELD for _, state in self.nodes)

    @property
    def state(self) -> ShareState:
        """The best of its copies' states; missing if nobody is known to have it."""
        states = [state for _, state in self.nodes]
        return next((state for state in ShareState if state in states), ShareState.MISSING)


@dataclass(frozen=True, slots=True)
class BlobHealth:
    """One blob.

    Attributes:
        name: the blob.
        manifest: whether it is a manifest; without it nothing below can be read.
        shares: all n, in order.
        consistent: False: every share verifies alone, and they are not of one content.
        liars: nodes that sent what does not verify instead of saying that they do not have it.
    """

    name: BlobName
    manifest: bool
    shares: tuple[ShareHealth, ...]
    consistent: bool = True
    liars: frozenset[NodeId] = frozenset()

    @property
    def live(self) -> int:
        """Distinct shares of which a good copy can be had."""
        return sum(share.live for share in self.shares)

    @property
    def nodes(self) -> int:
        """Distinct nodes with distinct good shares."""
        return happiness(
            [
                Slot(share.number, node)
                for share in self.shares
                for node, state in share.nodes
                if state is ShareState.HELD
            ]
        )

    @property
    def recoverable(self) -> bool:
        """Whether it can be read now."""
        return self.live >= self.name.shape.k

    @property
    def margin(self) -> int:
        """How many more shares may be lost before it cannot be read; negative if it cannot now."""
        return self.live - self.name.shape.k

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "blob": id_text(self.name.blob),
            "manifest": self.manifest,
            "k": self.name.shape.k,
            "n": self.name.shape.n,
            "live_shares": self.live,
            "nodes": self.nodes,
            "recoverable": self.recoverable,
            "shares": [
                {
                    "number": int(share.number),
                    "state": share.state.value,
                    "nodes": [{"node": id_text(node), "state": state.value} for node, state in share.nodes],
                }
                for share in self.shares
            ],
        }


@dataclass(slots=True)
class Health:
    """One file or tree; bounded memory, however large it is.

    Attributes:
        verified: shares were read and checked, not only asked for.
        blobs: how many there are, manifests included.
        degraded: of those, how many lack a share.
        lost: of those, how many cannot be read now.
        unread: manifests that could not be read; what is below them is not counted.
        shares: how many shares are in which state.
        by_node: the same for each node.
        details: blobs share by share, those with the least margin first, at most DETAILS_MAX.
        worst: the blob with the least margin; None for a literal, which needs no node.
    """

    verified: bool
    blobs: int = 0
    degraded: int = 0
    lost: int = 0
    unread: list[BlobId] = field(default_factory=list)
    shares: Counter[ShareState] = field(default_factory=Counter)
    by_node: dict[NodeId, Counter[ShareState]] = field(default_factory=dict)
    details: list[BlobHealth] = field(default_factory=list)

    @property
    def worst(self) -> BlobHealth | None:
        """See the class."""
        return min(self.details, key=lambda blob: blob.margin, default=None)

    @property
    def recoverable(self) -> bool:
        """Whether all of it can be read now."""
        return not self.lost and not self.unread

    @property
    def healthy(self) -> bool:
        """Whether no share is missing, damaged or out of reach."""
        return self.recoverable and not self.degraded

    def add(self, blob: BlobHealth) -> None:
        """Count one more blob."""
        self.blobs += 1
        self.degraded += blob.live < blob.name.shape.n
        self.lost += not blob.recoverable
        for share in blob.shares:
            self.shares[share.state] += 1
            for node, state in share.nodes:
                self.by_node.setdefault(node, Counter())[state] += 1
        self.details.append(blob)
        if len(self.details) > 2 * DETAILS_MAX:
            self.trim()

    def trim(self) -> None:
        """Keep the details of the worst blobs only."""
        self.details.sort(key=lambda blob: blob.margin)
        del self.details[DETAILS_MAX:]

    def to_json(self) -> dict[str, Any]:
        """For `--json`: everything."""
        worst = self.worst
        return {
            "verified": self.verified,
            "healthy": self.healthy,
            "recoverable": self.recoverable,
            "blobs": self.blobs,
            "degraded": self.degraded,
            "lost": self.lost,
            "unread_manifests": [id_text(blob) for blob in self.unread],
            "shares": {state.value: self.shares[state] for state in ShareState},
            "nodes": {
                id_text(node): {state.value: counts[state] for state in ShareState}
                for node, counts in sorted(self.by_node.items())
            },
            "worst": None if worst is None else worst.to_json(),
            "details": [blob.to_json() for blob in self.details],
            "details_complete": len(self.details) == self.blobs,
        }

    def text(self) -> str:
        """For people: the verdict, then a line for each node."""
        worst = self.worst
        if worst is None and not self.unread:
            return "healthy: the content lies in the capability itself, no node is needed"
        how = "checked" if self.verified else "reported held"
        verdict = "readable, but degraded" if self.recoverable else "NOT READABLE"
        if self.healthy:
            verdict = "healthy"
        blobs = f"{self.blobs} blob{'' if self.blobs == 1 else 's'}"
        lines = [f"{verdict}: {blobs}, {self.shares[ShareState.HELD]} shares {how}"]
        if worst is not None:
            shape = worst.name.shape
            lines.append(
                f"worst blob: {worst.live} of {shape.n} shares live on {worst.nodes} nodes, {shape.k} needed"
            )
        lines += [f"manifest {id_text(blob)[:12]} cannot be read" for blob in self.unread]
        lines.append(f"{'node':<14}" + "".join(f"{state.value:>14}" for state in ShareState))
        for node, counts in sorted(self.by_node.items()):
            numbers = "".join(f"{counts[state]:>14}" for state in ShareState)
            lines.append(f"{id_text(node)[:12]:<14}{numbers}")
        return "\n".join(lines)
