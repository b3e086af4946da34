"""The audit of blobs: every one that an entry names, asked for at the nodes (docs/audit.md section 5).

The names come from the entries themselves, so a holder of the verify right checks as much as a reader.  They
are asked for in batches while the log is read; one that is named again soon after is asked for once.  What is
wrong is judged at the end, when it is known which were pruned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Final

from muniment.audit.report import AuditReport
from muniment.errors import UnavailableError
from muniment.ids import BlobId, id_text
from muniment.ports import BlobChecker, BlobCondition
from muniment.spec.blob import BlobName

BATCH: Final = 1024
"""Blobs asked for together."""

_REMEMBERED: Final = 65_536


class BlobAudit:
    """The blobs of one log under audit.

    Args:
        checker: asks the nodes.
        deep: read and verify every share.
        report: what is found goes there.
    """

    def __init__(self, checker: BlobChecker, report: AuditReport, *, deep: bool) -> None:
        self._checker = checker
        self._report = report
        self._deep = deep
        self._asked: dict[BlobId, None] = {}
        self._waiting: list[BlobName] = []
        self._failed = False
        self._suspected: list[BlobCondition] = []
        report.blobs = None

    def note(self, names: Iterable[BlobName]) -> None:
        """An entry names these."""
        for name in names:
            if name.blob not in self._asked:
                self._asked[name.blob] = None
                self._waiting.append(name)
                if len(self._asked) > _REMEMBERED:
                    del self._asked[next(iter(self._asked))]

    async def ask(self, *, least: int = BATCH) -> None:
        """Ask for what waits, if it is so many."""
        if len(self._waiting) < max(least, 1):
            return
        names, self._waiting = self._waiting, []
        if self._failed:
            return
        try:
            found: Sequence[BlobCondition] = await self._checker.check_blobs(names, verify=self._deep)
        except UnavailableError as error:
            self._failed = True
            self._report.blobs = f"behind {self._report.blobs_checked} of them: {error}"
            return
        self._report.blobs_checked += len(found)
        self._suspected += (
            one for one in found if one.live < one.name.shape.n or one.damaged or not one.consistent
        )

    def settle(self, gone: Set[BlobId]) -> None:
        """Judge what was found, when all is asked for.

        Args:
            gone: blobs that may be missing, as prunes have given them up.
        """
        for one in self._suspected:
            if one.name.blob not in gone:
                self._judge(one)
        self._suspected.clear()

    def _judge(self, one: BlobCondition) -> None:
        shape = one.name.shape
        self._report.shares_offline += one.offline
        self._report.blobs_out_of_reach += one.live < shape.k <= one.live + one.offline
        if not one.consistent:
            self._report.damaged(
                f"blob {id_text(one.name.blob)}",
                "each of its shares verifies, and they are not of one content",
                "whoever stored it made it so: it reads as one thing or not at all, as nodes answer; "
                "have its file written again",
            )
        wrong = []
        if one.damaged:
            wrong.append(f"{one.damaged} copies of shares do not verify")
        if one.missing:
            wrong.append(f"{one.missing} of {shape.n} shares are nowhere")
        if not wrong:
            return
        margin = one.live - shape.k
        consequence = (
            f"it can be read still, and {margin} more shares may be lost; repair it"
            if margin >= 0
            else f"it cannot be read: {one.live} of {shape.k} shares that are needed are live"
        )
        self._report.damaged(f"blob {id_text(one.name.blob)}", " and ".join(wrong), consequence)
