"""What an audit of a log service's folder comes to: a report for each log, and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muniment.audit.report import AuditReport, Finding, Severity, Verdict


@dataclass(slots=True)
class ServiceReport:
    """All logs of one folder.

    Attributes:
        folder: of the service.
        logs: a report for each log, by VolumeId.
        findings: what is wrong beside the logs, and with files that are none.
    """

    folder: Path
    logs: list[AuditReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of all findings."""
        told = {report.verdict for report in self.logs}
        if Verdict.FORGED in told or any(one.severity is Severity.FORGED for one in self.findings):
            return Verdict.FORGED
        return Verdict.DAMAGED if Verdict.DAMAGED in told or self.findings else Verdict.CLEAN

    def to_json(self) -> dict[str, Any]:
        """For `--json`: everything."""
        return {
            "folder": str(self.folder),
            "verdict": self.verdict.value,
            "findings": [finding.to_json() for finding in self.findings],
            "logs": [report.to_json() for report in self.logs],
        }

    def text(self) -> str:
        """For people: the verdict, what is wrong beside the logs, then each log."""
        lines = [f"{self.verdict.value}: {self.folder}, {len(self.logs)} logs"]
        lines += [line for finding in self.findings for line in finding.lines()]
        for report in self.logs:
            lines += ["", report.text()]
        return "\n".join(lines)
