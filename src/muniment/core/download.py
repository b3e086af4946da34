"""The download machine: gathers k good shares of one blob from nodes that may be late, empty or lying.

Sans-io.  It asks for the k most preferred shares, asks for one more as soon as one is late or cannot be had,
and looks around (`Locate`) when the planned places are used up.  Shares are checked before they count; a node
that served a false one is named and not asked again for this blob.  Every (share, node) is fetched once and
every node is asked once what it has, so the machine always ends.

    phase      leaves on                                                     emits
    RUNNING    k distinct shares checked good                                Finish, Withdraw of the rest
               nothing under way, nothing left to try                        Fail
               GiveUp                                                        Withdraw of everything
    ENDING     no fetch or check is under way any more                       Settled
    SETTLED    never; events are ignored

    fetch      event -> next
    ASKED      Received -> UNCHECKED    Missing, Lost, Withdrawn -> GONE
    UNCHECKED  Check(slot) emitted -> CHECKING
    CHECKING   Checked -> GOOD or BAD

Invariants: never more than one check at a time; a `Finish` names k distinct shares that were checked good;
`Settled` comes once and last.  Source: docs/transfer.md section 3.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muniment.core.placement import Slot
from muniment.errors import TooFewShares
from muniment.ids import BlobId, NodeId, ShareNumber

# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Buffers are ready to receive into."""


@dataclass(frozen=True, slots=True)
class Received:
    """The whole share arrived; nothing is known of its content."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Missing:
    """The node answered that it does not hold the share."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Lost:
    """The node did not answer, or broke the protocol; it is not asked again."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The fetch was taken back or broken off as asked."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Checked:
    """All slots of the last `Check` have been held against the BlobId.

    Attributes:
        bad: those that do not verify, with the reason; all others do.
    """

    bad: tuple[tuple[Slot, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Located:
    """The node says that it holds these shares (none, if it did not answer)."""

    node: NodeId
    shares: frozenset[ShareNumber]


@dataclass(frozen=True, slots=True)
class Late:
    """Whatever has not answered by now is late."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody wants this blob any more."""


DownloadEvent = Begin | Received | Missing | Lost | Withdrawn | Checked | Located | Late | GiveUp


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get this share."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Check:
    """Hold these shares against the BlobId; if all verify, they are enough to open the blob.

    Attributes:
        slots: k distinct shares less those already `Checked` good.
        good: those already checked, so that check and opening can be one piece of work.
    """

    slots: tuple[Slot, ...]
    good: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Blame:
    """This node served a false share."""

    slot: Slot
    reason: str


@dataclass(frozen=True, slots=True)
class Locate:
    """Ask the node which shares of the blob it has."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Break this fetch off; its end is still to be reported, whatever it is."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Finish:
    """These k distinct shares are good, data shares first."""

    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """k good shares cannot be had."""

    error: TooFewShares


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing is under way any more: buffers may be reused once the plaintext is used."""


DownloadAction = Fetch | Check | Blame | Locate | Withdraw | Finish | Fail | Settled


# --- machine --------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """Where the whole download stands."""

    RUNNING = "running"
    ENDING = "ending"
    SETTLED = "settled"


class Stage(enum.Enum):
    """Where one share from one node stands."""

    ASKED = "asked"
    LATE = "late"
    UNCHECKED = "unchecked"
    CHECKING = "checking"
    GOOD = "good"
    BAD = "bad"
    GONE = "gone"


_UNDER_WAY = (Stage.ASKED, Stage.LATE)
_PROMISING = (Stage.ASKED, Stage.UNCHECKED, Stage.CHECKING, Stage.GOOD)


class Download:
    """The machine for one blob.

    Args:
        blob: for the error.
        k: how many distinct shares are enough.
        expected: where shares should be, most preferred first (data shares need no decoding).
        nodes: everybody who may be asked what they have, best first.
    """

    def __init__(self, blob: BlobId, k: int, expected: Iterable[Slot], nodes: Iterable[NodeId]) -> None:
        self._blob = blob
        self._k = k
        self._queue = deque(dict.fromkeys(expected))
        self._nodes = tuple(dict.fromkeys(nodes))
        self._phase = Phase.RUNNING
        self._stages: dict[Slot, Stage] = {}
        self._shunned: set[NodeId] = set()
        self._asked: set[NodeId] = set()
        self._locating: set[NodeId] = set()
        self._begun = False

    def handle(self, event: DownloadEvent) -> list[DownloadAction]:
        """Take one event and say what to do now.

        Events that do not fit the state (duplicates, answers for what was never asked) change nothing.
        """
        out: list[DownloadAction] = []
        match event:
            case Received(slot):
                self._move(slot, _UNDER_WAY, Stage.UNCHECKED)
            case Missing(slot) | Withdrawn(slot):
                self._move(slot, _UNDER_WAY, Stage.GONE)
            case Lost(slot):
                if self._move(slot, _UNDER_WAY, Stage.GONE):
                    self._shunned.add(slot.node)
            case Checked(bad):
                self._checked(bad, out)
            case Located(node, shares):
                self._located(node, shares)
            case Late():
                for slot in self._in(Stage.ASKED):
                    self._stages[slot] = Stage.LATE
            case GiveUp():
                if self._phase is Phase.RUNNING:
                    self._end(out)
            case Begin():
                self._begun = True
        if self._phase is Phase.RUNNING and self._begun:
            self._pursue(out)
        if self._phase is Phase.ENDING and not self._in(*_UNDER_WAY, Stage.CHECKING):
            self._phase = Phase.SETTLED
            out.append(Settled())
        return out

    # --- transitions

    def _move(self, slot: Slot, stages: Sequence[Stage], to: Stage) -> bool:
        if self._stages.get(slot) not in stages:
            return False
        self._stages[slot] = to
        return True

    def _checked(self, bad: tuple[tuple[Slot, str], ...], out: list[DownloadAction]) -> None:
        for slot, reason in bad:
            if self._move(slot, (Stage.CHECKING,), Stage.BAD):
                self._shunned.add(slot.node)
                out.append(Blame(slot, reason))
        for slot in self._in(Stage.CHECKING):
            self._stages[slot] = Stage.GOOD

    def _located(self, node: NodeId, shares: frozenset[ShareNumber]) -> None:
        if node in self._locating:
            self._locating.discard(node)
            found = (Slot(share, node) for share in sorted(shares))
            self._queue.extend(slot for slot in found if slot not in self._stages)

    # --- decisions

    def _pursue(self, out: list[DownloadAction]) -> None:
        """Finish, check, ask for more, look around or fail: the first of these that applies."""
        good = self._distinct(Stage.GOOD)
        if len(good) >= self._k:
            chosen = sorted(good.values())[: self._k]
            out.append(Finish(tuple(chosen)))
            self._end(out)
            return
        fresh = [slot for share, slot in self._distinct(Stage.UNCHECKED).items() if share not in good]
        if len(good) + len(fresh) >= self._k:
            self._check(fresh, good, out)
        lacking = self._k - len(self._distinct(*_PROMISING))
        while lacking > 0 and (slot := self._next()) is not None:
            self._stages[slot] = Stage.ASKED
            out.append(Fetch(slot))
            lacking -= 1
        if lacking > 0:
            self._look_around(out)
        if self._in(*_UNDER_WAY, Stage.CHECKING) or self._locating:
            return
        if fresh:  # too few, but who lied and what is good belongs into the answer
            self._check(fresh, good, out)
        else:
            out.append(Fail(TooFewShares(blob=self._blob, needed=self._k, found=len(good))))
            self._end(out)

    def _check(self, fresh: list[Slot], good: dict[ShareNumber, Slot], out: list[DownloadAction]) -> None:
        """Check k shares at once, which is one piece of work instead of k; one check at a time."""
        if self._in(Stage.CHECKING):
            return
        chosen = tuple(sorted(fresh)[: self._k - len(good)])
        for slot in chosen:
            self._stages[slot] = Stage.CHECKING
        out.append(Check(chosen, tuple(good.values())))

    def _look_around(self, out: list[DownloadAction]) -> None:
        for node in self._nodes:
            if node not in self._asked and node not in self._shunned:
                self._asked.add(node)
                self._locating.add(node)
                out.append(Locate(node))

    def _next(self) -> Slot | None:
        """The best slot not yet tried whose share nobody in time is bringing."""
        coming = self._distinct(*_PROMISING)
        skipped = []
        found = None
        while self._queue and found is None:
            slot = self._queue.popleft()
            if not self._is_open(slot):
                continue
            if slot.share in coming:
                skipped.append(slot)
            else:
                found = slot
        self._queue.extendleft(reversed(skipped))
        return found

    def _is_open(self, slot: Slot) -> bool:
        return slot.node not in self._shunned and slot not in self._stages

    def _end(self, out: list[DownloadAction]) -> None:
        self._phase = Phase.ENDING
        self._locating.clear()  # a look-up holds no memory: nobody waits for its answer
        out.extend(Withdraw(slot) for slot in self._in(*_UNDER_WAY))

    # --- looking

    def _in(self, *stages: Stage) -> list[Slot]:
        return [slot for slot, stage in self._stages.items() if stage in stages]

    def _distinct(self, *stages: Stage) -> dict[ShareNumber, Slot]:
        """One slot for each share number in these stages."""
        found: dict[ShareNumber, Slot] = {}
        for slot in self._in(*stages):
            found.setdefault(slot.share, slot)
        return found
