"""What an audit finds: where, what, what follows from it, and the verdict (docs/audit.md section 2)."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from muniment.ids import VolumeId, id_text

FINDINGS_MAX: Final = 256
"""Told one by one; all others are counted."""

_SHOWN: Final = 20


class Severity(enum.Enum):
    """Damaged: bytes for which nobody vouches.  Forged: what somebody's signature vouches for, and what must
    not be.
    """

    DAMAGED = "damaged"
    FORGED = "forged"


class Verdict(enum.Enum):
    """Of the whole audit: the worst of its findings."""

    CLEAN = "clean"
    DAMAGED = "damaged"
    FORGED = "forged"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be.

    Attributes:
        severity: see `Severity`.
        place: where, for people: "entry 17", "tree node 3/0", "view: inode 5".
        what: is wrong there.
        consequence: for the holder, and what he can do.
    """

    severity: Severity
    place: str
    what: str
    consequence: str

    def lines(self) -> list[str]:
        """For people."""
        return [f"{self.severity.value.upper()} {self.place}: {self.what}", f"    {self.consequence}"]

    def to_json(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "severity": self.severity.value,
            "place": self.place,
            "what": self.what,
            "consequence": self.consequence,
        }


@dataclass(slots=True)
class AuditReport:
    """What was audited and what was found; bounded memory, however much that is.

    Attributes:
        volume: whose log it is.
        content: None if all transactions were opened and folded, else why not and from where on.
        view: None if the stored view was compared as far as it goes, else why not.
        blobs: None if all blobs were asked for, else why not.
        prune_rules: None if every prune was held against the rules and holds in force, else which were not.
        entries: in the log.
        signatures: of entries that verify.
        judged: entries whose author had the right to write them there.
        nodes: stored tree hashes compared, leaves included.
        notes: checkpoints whose signature and root were checked.
        cosignatures: of members on them that verify.
        transactions: folded; `rejected` of them changed nothing.
        snapshots: view snapshots whose state was held against that of the log.
        prunes: in the log.
        pruned_blobs: that they name.
        state_hash: after the last one folded.
        view_entries: compared with the fold.
        view_rows: versions of rows compared with the fold.
        view_samples: states that were read back row by row.
        blobs_checked: asked for; a blob that is referred to often may count more than once.
        shares_offline: shares that only nodes can have that do not answer: nothing is known of them.
        blobs_out_of_reach: blobs that cannot be read while those nodes do not answer.
        found: how many findings there are of each severity.
        findings: the first FINDINGS_MAX of them.
    """

    volume: VolumeId
    content: str | None = None
    view: str | None = "no view was given"
    blobs: str | None = "the nodes were not asked"
    prune_rules: str | None = None
    entries: int = 0
    signatures: int = 0
    judged: int = 0
    nodes: int = 0
    notes: int = 0
    cosignatures: int = 0
    transactions: int = 0
    rejected: int = 0
    snapshots: int = 0
    prunes: int = 0
    pruned_blobs: int = 0
    state_hash: bytes = b""
    view_entries: int = 0
    view_rows: int = 0
    view_samples: int = 0
    blobs_checked: int = 0
    shares_offline: int = 0
    blobs_out_of_reach: int = 0
    found: Counter[Severity] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings."""
        if self.found[Severity.FORGED]:
            return Verdict.FORGED
        return Verdict.DAMAGED if self.found[Severity.DAMAGED] else Verdict.CLEAN

    def damaged(self, place: str, what: str, consequence: str) -> None:
        """Put down bytes for which nobody vouches."""
        self.add(Finding(Severity.DAMAGED, place, what, consequence))

    def forged(self, place: str, what: str, consequence: str) -> None:
        """Put down what was signed and must not be."""
        self.add(Finding(Severity.FORGED, place, what, consequence))

    def add(self, finding: Finding) -> None:
        """Put down a finding; only the first FINDINGS_MAX are kept."""
        self.found[finding.severity] += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)
        elif self.found[finding.severity] == 1:
            self.findings[-1] = finding  # the first forgery is told, whatever else there is

    def to_json(self) -> dict[str, Any]:
        """For `--json`: everything."""
        return {
            "volume": id_text(self.volume),
            "verdict": self.verdict.value,
            "entries": self.entries,
            "signatures": self.signatures,
            "judged": self.judged,
            "nodes": self.nodes,
            "notes": self.notes,
            "cosignatures": self.cosignatures,
            "transactions": self.transactions,
            "rejected": self.rejected,
            "view_snapshots": self.snapshots,
            "prunes": self.prunes,
            "pruned_blobs": self.pruned_blobs,
            "prunes_unchecked": self.prune_rules,
            "state_hash": self.state_hash.hex(),
            "content_unchecked": self.content,
            "view_entries": self.view_entries,
            "view_rows": self.view_rows,
            "view_samples": self.view_samples,
            "view_unchecked": self.view,
            "blobs_checked": self.blobs_checked,
            "shares_offline": self.shares_offline,
            "blobs_out_of_reach": self.blobs_out_of_reach,
            "blobs_unchecked": self.blobs,
            "damaged": self.found[Severity.DAMAGED],
            "forged": self.found[Severity.FORGED],
            "findings": [finding.to_json() for finding in self.findings],
            "findings_complete": len(self.findings) == self.found.total(),
        }

    def text(self) -> str:
        """For people: the verdict, what was looked at, what was not, and the first findings."""
        lines = [
            f"{self.verdict.value}: volume {id_text(self.volume)[:12]}, {self.entries} entries",
            f"log       {self.signatures} signatures, {self.judged} rights, {self.nodes} tree hashes, "
            f"{self.notes} checkpoints, {self.cosignatures} cosignatures verified",
            f"content   {self.transactions} transactions folded, {self.rejected} of them rejected, "
            f"{self.snapshots} view snapshots compared",
            f"view      {self.view_entries} entries and {self.view_rows} rows compared, "
            f"{self.view_samples} states read back",
            f"blobs     {self.blobs_checked} checked, {self.shares_offline} shares offline, "
            f"{self.blobs_out_of_reach} out of reach",
        ]
        if self.prunes:
            lines.insert(3, f"prunes    {self.prunes}, of {self.pruned_blobs} blobs together")
        unchecked = (
            ("content", self.content),
            ("prunes", self.prune_rules),
            ("view", self.view),
            ("blobs", self.blobs),
        )
        lines += [f"not checked: {what}: {why}" for what, why in unchecked if why is not None]
        for one in self.findings[:_SHOWN]:
            lines += one.lines()
        if more := self.found.total() - _SHOWN:
            lines += [f"and {more} more"] if more > 0 else []
        return "\n".join(lines)
