"""What one account has on each node, as each node tells it: all asked at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from muniment.engine.lane import Lane
from muniment.engine.nodes import Nodes
from muniment.errors import MunimentError
from muniment.ids import AccountId, BlobId, NodeId, ShareKey, ShareNumber, id_from_text, id_text
from muniment.spec.limits import LIST_SHARES_MAX

_PAGES_MAX: Final = 10_000
"""Of one node's list: ten million shares; a node that says it has more is not believed any further."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """Shares that an account has leases on.

    Attributes:
        share_count, used_bytes: all, as they count against the quota, trash included.
        trashed_count, trashed_bytes: of them, those in the trash.
        reserved_bytes: promised to uploads.
        first_expiry_s: when the first lease ends that is not in the trash; 0: there is none.
    """

    share_count: int = 0
    used_bytes: int = 0
    trashed_count: int = 0
    trashed_bytes: int = 0
    reserved_bytes: int = 0
    first_expiry_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """One node's answer.

    Attributes:
        quota_bytes: what it allows the account; -1 is no quota.
        error: why it has not answered; empty if it has.
    """

    node: NodeId
    holdings: Holdings = field(default_factory=Holdings)
    quota_bytes: int = -1
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "node": id_text(self.node),
            **self.holdings.to_json(),
            "quota_bytes": self.quota_bytes,
            "error": self.error,
        }


def total(usages: Iterable[NodeUsage]) -> Holdings:
    """The sums over those that answered, and the first expiry among them."""
    found = [usage.holdings for usage in usages]
    return Holdings(
        share_count=sum(one.share_count for one in found),
        used_bytes=sum(one.used_bytes for one in found),
        trashed_count=sum(one.trashed_count for one in found),
        trashed_bytes=sum(one.trashed_bytes for one in found),
        reserved_bytes=sum(one.reserved_bytes for one in found),
        first_expiry_s=min((one.first_expiry_s for one in found if one.first_expiry_s), default=0.0),
    )


@dataclass(frozen=True, slots=True)
class AccountUsages:
    """One account on all nodes.

    Attributes:
        kind: `own`, or for a volume `keeper` or `archive`.
        account: its id.
        nodes: as each tells.
    """

    kind: str
    account: AccountId
    nodes: list[NodeUsage]

    @property
    def total(self) -> Holdings:
        """The sums over all nodes that answered."""
        return total(self.nodes)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "kind": self.kind,
            "account": id_text(self.account),
            "total": self.total.to_json(),
            "nodes": [usage.to_json() for usage in self.nodes],
        }


async def account_usage(nodes: Nodes) -> list[NodeUsage]:
    """Ask every node of the roster, in the order of their ids.  Cost: the account's whole list of each."""
    lanes = sorted(nodes.lanes(), key=lambda lane: lane.node)
    return list(await asyncio.gather(*(_ask(lane) for lane in lanes)))


async def _ask(lane: Lane) -> NodeUsage:
    try:
        told = await lane.connection.usage()
        listed = await _listed(lane)
    except MunimentError as error:
        return NodeUsage(lane.node, error=str(error))
    holdings = replace(
        listed,
        share_count=told.share_count,
        used_bytes=told.used_bytes,
        reserved_bytes=told.reserved_bytes,
    )
    return NodeUsage(lane.node, holdings, told.quota_bytes)


async def _listed(lane: Lane) -> Holdings:
    """What only the list of shares tells."""
    after: ShareKey | None = None
    trashed_count = trashed_bytes = 0
    first_expiry_s = 0.0
    for _ in range(_PAGES_MAX):
        page = await lane.connection.shares(after=after, limit=LIST_SHARES_MAX)
        for row in page:
            if row.trashed:
                trashed_count += 1
                trashed_bytes += row.size_bytes
            else:
                first_expiry_s = min(first_expiry_s or row.expires_s, row.expires_s)
        if len(page) < LIST_SHARES_MAX:
            break
        after = ShareKey(BlobId(id_from_text(page[-1].blob)), ShareNumber(page[-1].number))
    return Holdings(trashed_count=trashed_count, trashed_bytes=trashed_bytes, first_expiry_s=first_expiry_s)
