"""Whom the node serves and how much each may keep (docs/node.md section 3)."""

from __future__ import annotations

from muniment.errors import AccountRefused
from muniment.ids import AccountId, id_from_text
from muniment.node.config import Policy


class Admission:
    """A policy made ready for one look-up per request."""

    def __init__(self, policy: Policy) -> None:
        self._open = policy.mode == "open"
        self._default = _limit(policy.quota_bytes)
        self._quotas = {
            AccountId(id_from_text(invited.account)): _limit(invited.quota_bytes)
            for invited in policy.accounts
        }

    def admit(self, account: AccountId) -> AccountId:
        """The account, if the node serves it.  Raises: AccountRefused."""
        if not self._open and account not in self._quotas:
            raise AccountRefused(account=account, reason="not invited")
        return account

    def quota_bytes(self, account: AccountId) -> int | None:
        """What the account may hold and have promised together; None without a quota."""
        return self._quotas.get(account, self._default)


def _limit(quota_bytes: int) -> int | None:
    return None if quota_bytes == -1 else quota_bytes
