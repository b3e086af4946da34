"""How likely a blob is lost, and what keeping it costs (docs/keeping.md section 10, docs/reliability.md).

The model, stated so that it can be doubted: within the time it takes to notice and repair, every node is lost
with the same probability, every zone with another, all independently of each other; a lost zone takes its
nodes with it, a lost node its shares.  The blob is lost if fewer than k distinct shares are left.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muniment.ids import NodeId


@dataclass(frozen=True, slots=True)
class Hazard:
    """What happens to nodes and zones.

    Attributes:
        node_mttf_s: mean time until a node is lost for good with all it has.
        zone_mttf_s: the same for a whole zone; infinity for never.
        repair_s: from the loss of a share until it is rebuilt.
    """

    node_mttf_s: float
    zone_mttf_s: float = math.inf
    repair_s: float = 86400.0

    @property
    def node_loss(self) -> float:
        """Probability that a node is lost within the time of a repair."""
        return -math.expm1(-self.repair_s / self.node_mttf_s)

    @property
    def zone_loss(self) -> float:
        """The same for a zone."""
        return -math.expm1(-self.repair_s / self.zone_mttf_s)


def loss_probability(k: int, places: Iterable[tuple[NodeId, str]], hazard: Hazard) -> float:
    """That a blob is lost within the time of one repair, if nothing is done before.

    Args:
        k: shares needed.
        places: node and zone of each live share; zone "" is that of nobody else.
    Returns: 0 to 1, exact under the model.
    Cost: O(shares^2).
    """
    zones: defaultdict[tuple[str, NodeId], Counter[NodeId]] = defaultdict(Counter)
    for node, zone in places:
        zones[zone, NodeId(b"") if zone else node][node] += 1
    survivors = [1.0]
    for (zone, _), nodes in zones.items():
        inside = [1.0]
        for shares in nodes.values():
            inside = _convolve(inside, _all_or_none(shares, hazard.node_loss))
        if zone:
            inside = [value * (1.0 - hazard.zone_loss) for value in inside]
            inside[0] += hazard.zone_loss
        survivors = _convolve(survivors, inside)
    return min(1.0, math.fsum(survivors[:k]))


@dataclass(frozen=True, slots=True)
class LazyRepair:
    """Repair that waits until only `threshold` of n shares are left, then rebuilds to n.

    Attributes:
        k: shares needed.
        threshold: shares left when it begins; k <= threshold < n.
        n: shares.
        mttf: mean life of a share, in any unit of time.
    Source: H. Weatherspoon and J. Kubiatowicz, "Erasure coding vs. replication" (2002), and B. Chun et al.,
        "Efficient replica maintenance for distributed storage systems" (2006), for waiting; the time is that
        of an exponential decay from n to the threshold.
    """

    k: int
    threshold: int
    n: int
    mttf: float

    @property
    def interval(self) -> float:
        """Between repairs of one blob: ln(n / threshold) * mttf."""
        return math.log(self.n / self.threshold) * self.mttf

    @property
    def download(self) -> float:
        """Bytes read for each stored byte and unit of time: a repair reads the blob once."""
        return 1.0 / self.interval

    @property
    def upload(self) -> float:
        """Bytes sent likewise: n - threshold shares of a k-th each."""
        return (self.n - self.threshold) / (self.k * self.interval)


def _all_or_none(shares: int, loss: float) -> list[float]:
    """Distribution of what is left of so many shares at one node."""
    return [loss, *[0.0] * (shares - 1), 1.0 - loss]


def _convolve(left: Sequence[float], right: Sequence[float]) -> list[float]:
    """Distribution of the sum of two independent counts."""
    total = [0.0] * (len(left) + len(right) - 1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            total[i + j] += a * b
    return total
