"""What a drill tells: for people as a table, for programs as one JSON object."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.drill.journal import Line


@dataclass
class Report:
    """All figures; times in seconds, latencies in milliseconds.

    Attributes:
        problems: why it failed; none: it did not.
        notes: what this machine does not permit.
    """

    seed: int
    minutes: float
    grid: str
    faults: dict[str, int] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    written_bytes: int = 0
    read_bytes: int = 0
    keeper: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, dict[str, float]] = field(default_factory=dict)
    whole_after_s: float | None = None
    versions: int = 0
    acknowledged: int = 0
    unacknowledged_landed: int = 0
    blobs: int = 0
    shares: dict[str, int] = field(default_factory=dict)
    wrong_bytes: int = 0
    acknowledged_lost: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        rows = [
            ("drill", f"{self.minutes:g} minutes, seed {self.seed}, {self.grid}"),
            *(("", note) for note in self.notes),
            ("faults", f"{sum(self.faults.values())}: {_counts(self.faults)}"),
            ("operations", _counts(self.operations)),
            ("errors survived", _counts(self.errors) or "none"),
        ]
        for name, of in self.latency_ms.items():
            rows.append(
                (f"{name} latency", f"p50 {of['p50']:.0f} ms, p99 {of['p99']:.0f} ms, max {of['max']:.0f} ms")
            )
        rows += [
            ("bytes", f"{self.written_bytes:,} acknowledged, {self.read_bytes:,} read"),
            ("keeper", _counts(self.keeper)),
        ]
        for kind, of in self.repairs.items():
            rows.append(
                (f"repair: {kind}", f"{of['times']:.0f} times, {of['shares']:.0f} shares, whole again after"
                                    f" p50 {of['p50_s']:.1f} s, max {of['max_s']:.1f} s")
            )  # fmt: skip
        after = "never" if self.whole_after_s is None else f"{self.whole_after_s:.1f} s"
        rows += [
            ("whole again", f"{after} after the last fault: {self.blobs} blobs"),
            ("shares on nodes", _counts(self.shares)),
            ("versions", f"{self.versions} read again, {self.acknowledged} of them acknowledged,"
                         f" {self.unacknowledged_landed} not"),
            ("wrong bytes", str(self.wrong_bytes)),
            ("acknowledged, lost", str(self.acknowledged_lost)),
        ]  # fmt: skip
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {text}" for name, text in rows]
        lines += [f"PROBLEM  {problem}" for problem in self.problems]
        return "\n".join(lines)


def count_clients(report: Report, journals: Mapping[str, Sequence[Line]]) -> None:
    """Operations, errors, latencies and bytes."""
    lines = [line for of in journals.values() for line in of]
    sizes = {(line["register"], line["version"]): line["size"] for line in lines if line["what"] == "begin"}
    for what in ("write", "read", "past"):
        times_s = [line["at_s"] - line["began_s"] for line in lines if line["what"] == what]
        report.operations[what] = len(times_s)
        if times_s:
            report.latency_ms[what] = {
                "p50": 1000 * quantile(times_s, 0.5),
                "p99": 1000 * quantile(times_s, 0.99),
                "max": 1000 * max(times_s),
            }
    report.written_bytes = sum(
        sizes[line["register"], line["version"]] for line in lines if line["what"] == "write"
    )
    errors = Counter(f"{line['doing']} {line['code']}" for line in lines if line["what"] == "error")
    report.errors = dict(errors.most_common())
    report.problems += [
        f"{line['doing']} of {line['register']} took longer than anything may"
        for line in lines
        if line["what"] == "error" and line["code"] == "hangs"
    ]


def count_repairs(report: Report, repairs: Sequence[tuple[str, str, int, float | None]]) -> None:
    """Of each kind of damage."""
    for kind in dict.fromkeys(kind for kind, *_ in repairs):
        times_s = [took_s for of, _, _, took_s in repairs if of == kind and took_s is not None]
        shares = sum(count for of, _, count, _ in repairs if of == kind)
        report.repairs[kind] = {
            "times": len(times_s),
            "shares": shares,
            "p50_s": quantile(times_s, 0.5) if times_s else math.nan,
            "max_s": max(times_s, default=math.nan),
        }
    report.problems += [
        f"{kind} at {node}: full redundancy did not come back"
        for kind, node, _, took in repairs
        if took is None
    ]


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * part) - 1)]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
