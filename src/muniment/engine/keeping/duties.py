"""What a keeper is told to do, and what it has done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from muniment.core.keeping.repair import Condition

DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Duties:
    """What a keeper is told to do; times in seconds.

    Attributes:
        repair_below: missing shares are rebuilt when fewer distinct ones are live; None: as soon as one is.
        sample: one in so many blobs is proven in a scan, the others are only asked for; 1: all.
        scan_s: from the end of a scan to the next.
        soon_s: the same if nodes came, went, drain or are other than when it began (`core.keeping.change`).
        settle_s: from such a change to the scan, so that nodes that change together cost one.
        offline_s: for so long the shares of a node that does not answer count as live.
        lease_s: of leases taken; renewed when half of it is over.
        follow_s: between looks at the log.
        bytes_per_s: read and sent by repairs together.
        move: bring shares to where placement wants them.
    """

    repair_below: int | None = None
    sample: int = 1
    scan_s: float = DAY_S
    soon_s: float = 900.0
    settle_s: float = 10.0
    offline_s: float = DAY_S
    lease_s: int = 31 * int(DAY_S)
    follow_s: float = 60.0
    bytes_per_s: float = float("inf")
    move: bool = True


@dataclass(slots=True)
class KeeperTally:
    """What a keeper has done since it was made.

    Attributes:
        scans: ended.
        conditions: blobs in the last scan that ended, or in the one under way.
        proofs: shares that were proven.
        leased: leases taken or renewed.
        collected: leases on what was pruned, given up.
        unpaid: shares that nodes hold and give no lease on, by the reason, since the last scan began.
    """

    scans: int = 0
    conditions: Counter[Condition] = field(default_factory=Counter)
    proofs: int = 0
    leased: int = 0
    collected: int = 0
    unpaid: Counter[str] = field(default_factory=Counter)
