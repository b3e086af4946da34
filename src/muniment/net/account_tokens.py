"""The account's token for each node, made anew shortly before it ends and corrected for the node's clock."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from muniment.crypto.identity import Identity
from muniment.crypto.tokens import issue_token
from muniment.ids import NodeId
from muniment.ports import Clock

_LIFETIME_S = 300
_RENEW_S = 60


class AccountToken:
    """One account's token for one node."""

    def __init__(self, identity: Identity, node: NodeId, clock: Clock) -> None:
        self._identity, self._node, self._clock = identity, node, clock
        self._token = ""
        self._until_s = 0.0
        self._offset_s = 0.0

    def header(self) -> dict[str, str]:
        """The header that proves the account."""
        now_s = self._clock.now_s()
        if now_s >= self._until_s - _RENEW_S:
            issued_s = now_s + self._offset_s
            self._token = issue_token(self._identity, self._node, now_s=issued_s, lifetime_s=_LIFETIME_S)
            self._until_s = now_s + _LIFETIME_S
        return {"Authorization": f"Bearer {self._token}"}

    def correct(self, date: str | None) -> bool:
        """Take the peer's clock for the next token.  Returns: whether that changes anything."""
        try:
            theirs_s = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return False
        offset_s = theirs_s - self._clock.now_s()
        changed = abs(offset_s - self._offset_s) > 1
        self._offset_s, self._until_s = offset_s, 0.0
        return changed
