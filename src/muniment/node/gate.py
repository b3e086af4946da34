"""Who is calling: the account token of a request, checked once and remembered while it is valid.

A token costs two signature checks' worth of time and a client uses one for minutes, so verified tokens are
kept, bounded in number, until they expire.  Admission is asked every time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from muniment.crypto.tokens import open_token
from muniment.errors import TokenRejected
from muniment.ids import AccountId, NodeId
from muniment.net.http import Request
from muniment.node.admission import Admission
from muniment.ports import Clock

_TOKENS_KEPT: Final = 1024


class Gate:
    """Turns a request into the account that makes it.  Belongs to the event loop.

    Args:
        tokens_kept: verified tokens remembered at most; the oldest is forgotten.
    """

    def __init__(
        self, node: NodeId, admission: Admission, clock: Clock, *, tokens_kept: int = _TOKENS_KEPT
    ) -> None:
        self._node, self._admission, self._clock = node, admission, clock
        self._tokens_kept = tokens_kept
        self._verified: OrderedDict[str, tuple[AccountId, float]] = OrderedDict()

    def account(self, request: Request) -> AccountId:
        """The account whose valid token the request carries.

        Raises:
            TokenRejected: no token, or not a valid one for this node.
            ClockSkewed: its times cannot be right.
            AccountRefused: the node does not serve this account.
        """
        scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenRejected(reason="the request has no 'Authorization: Bearer' header")
        now_s = self._clock.now_s()
        known = self._verified.get(token)
        if known is None or known[1] <= now_s:
            self._verified.pop(token, None)
            known = open_token(token, self._node, now_s=now_s)
            self._verified[token] = known
            if len(self._verified) > self._tokens_kept:
                self._verified.popitem(last=False)
        return self._admission.admit(known[0])
