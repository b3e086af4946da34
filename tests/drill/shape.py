"""How large a drill is, and what it may do at one time without asking more of the coding than it gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One drill.

    An acknowledged blob lies on `happy` nodes, and any `k` of them restore it: so `budget` nodes may be in
    trouble at once, one of them with damaged shares, and no read fails for that.  While they are, `happy`
    nodes must still take shares.

    Attributes:
        minutes: of faults; the end comes on top.
        seed: of the schedule, of what is written and of what is read.
    """

    minutes: float
    seed: int

    @property
    def short(self) -> bool:
        """The form that the tests run."""
        return self.minutes < 1

    @property
    def nodes(self) -> int:
        return 6 if self.short else 10

    @property
    def k(self) -> int:
        return 2 if self.short else 4

    @property
    def n(self) -> int:
        return self.nodes - 2

    @property
    def budget(self) -> int:
        """Nodes in trouble at the same time."""
        return 2 if self.short else 3

    @property
    def happy(self) -> int:
        return self.k + self.budget

    @property
    def coding(self) -> str:
        return f"{self.k}/{self.n}"

    @property
    def writers(self) -> list[str]:
        return ["writer1"] if self.short else ["writer1", "writer2"]

    @property
    def readers(self) -> list[str]:
        return ["reader1"] if self.short else ["reader1", "reader2"]

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def hold_s(self) -> tuple[float, float]:
        """How long a fault lasts."""
        longest_s = min(90.0, max(2.0, self.seconds / 20))
        return min(3.0, longest_s / 4), longest_s

    @property
    def pause_s(self) -> tuple[float, float]:
        """From the end of a fault to the next of its lane."""
        return (0.1, 0.5) if self.short else (1.0, 5.0)

    @property
    def scrub_s(self) -> int:
        """So often a node reads every share again: what finds a flipped bit before a reader does."""
        return 3 if self.short else 20

    @property
    def scan_s(self) -> float:
        """From the end of a keeper's scan to the next: each has every share of thousands of blobs proven."""
        return 0.5 if self.short else 10.0

    @property
    def patience_s(self) -> float:
        """So long a keeper waits for a node before it rebuilds its shares elsewhere.

        Most are back by then, as each that is not costs as many repairs as it has shares.
        """
        return 2.0 if self.short else min(60.0, self.hold_s[1] * 2 / 3)

    @property
    def write_pause_s(self) -> float:
        """Between two writes of one writer: some thousands in half an hour, read again at the end."""
        return 0.2 if self.short else 0.6

    @property
    def heal_s(self) -> float:
        """From damage to full redundancy at most, other faults going on meanwhile."""
        return 60.0 if self.short else 600.0
