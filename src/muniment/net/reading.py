"""One value that a process tells its operator's monitor; without the library that writes it down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reading:
    """One value as it is now.

    Attributes:
        name: without the prefix; with its unit at the end, in seconds and bytes.
        says: one line; the same for all readings of a name.
        kind: `counter` where it only grows in one run.
        labels: few values each, never a secret and never what grows with the data.
    """

    name: str
    says: str
    value: float
    kind: Literal["gauge", "counter"] = "gauge"
    labels: dict[str, str] = field(default_factory=dict)
