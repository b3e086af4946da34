"""Store and ledger compared after a start, while the node serves (docs/node.md section 7).

    in the store, not in the ledger   read and verified: taken into the books without an owner, or quarantine
    not named as a share              quarantine
    in the ledger, not in the store   out of the books, listed as missing for its owners

Nothing is deleted.  Names and sizes are compared for all, contents only where the ledger knows nothing: a
node with a good ledger starts without reading its shares.  Memory is constant, reading is rate-limited, and
the comparison can be stopped between any two shares and begun again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from muniment.errors import StoreFailed
from muniment.node.service import NodeService
from muniment.node.survey import Survey
from muniment.ports import ForeignObject, ShareStore, StoredShare

_BATCH_SHARES: Final = 500

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Findings:
    """What a comparison found, by number of shares or objects.

    Attributes:
        seen: shares in the store.
        adopted: good shares that the ledger did not know.
        damaged: put into quarantine because they do not verify.
        foreign: put into quarantine because they are not named as shares.
        unreadable: left where they are because the medium failed; the next start tries again.
        missing: in the ledger but not in the store.
        finished: False if it was stopped.
    """

    seen: int = 0
    adopted: int = 0
    damaged: int = 0
    foreign: int = 0
    unreadable: int = 0
    missing: int = 0
    finished: bool = False


def reconcile(
    service: NodeService,
    store: ShareStore,
    survey: Survey,
    *,
    now_s: float,
    bytes_per_s: int,
    pause: Callable[[float], bool],
) -> Findings:
    """Compare everything once; sets `service.reconciled` at the end.  Blocking: for a thread of its own.

    Args:
        survey: made for this comparison.
        now_s: the node's wall clock; shares stored from now on are not looked for.
        bytes_per_s: rate at which shares are read at most.
        pause: waits so many seconds; True if the comparison should stop.
    Raises: StoreFailed: the store or the ledger cannot be listed.
    """
    findings = Findings()
    found = iter(store.scan())
    while batch := list(islice(found, _BATCH_SHARES)):
        for item in batch:
            if isinstance(item, ForeignObject):
                service.set_aside(item)
                findings.foreign += 1
        shares = [item for item in batch if isinstance(item, StoredShare)]
        findings.seen += len(shares)
        if pause(0.0) or _adopt(service, survey.unknown(shares), findings, bytes_per_s, pause):
            return findings
    for keys in survey.unseen(now_s):
        if pause(0.0):
            return findings
        findings.missing += service.drop_missing(keys)
    findings.finished = service.reconciled = True
    _log.info(
        "store and ledger compared: %d shares, %d adopted, %d damaged, %d foreign, %d unreadable, %d missing",
        *(findings.seen, findings.adopted, findings.damaged),
        *(findings.foreign, findings.unreadable, findings.missing),
    )
    return findings


def _adopt(
    service: NodeService,
    unknown: Iterable[StoredShare],
    findings: Findings,
    bytes_per_s: int,
    pause: Callable[[float], bool],
) -> bool:
    """Verify shares the ledger does not know; True if the comparison should stop."""
    for share in unknown:
        try:
            if service.adopt(share):
                findings.adopted += 1
            else:
                findings.damaged += 1
        except StoreFailed as error:
            findings.unreadable += 1
            _log.warning("%s cannot be read: %s", share.key, error)
        if pause(share.size_bytes / bytes_per_s):
            return True
    return False
