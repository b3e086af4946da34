"""The upload machine: brings the shares of one sealed blob to enough nodes, and leaves nothing behind.

Sans-io.  What happened comes in as an event, what to do goes out as a list of actions; time is the event
`Late`.  The machine works through *places*: one for each copy of each share the placement asks for.  A place
is tried at its planned node first; a refusal or failure moves it to the next candidate, lateness races the
next candidate against the late one.  Every (share, node) is tried once, so the machine always ends.

    phase      leaves on                                                            emits
    RUNNING    every place filled, and happy                                        Finish
               happy, and what is open is late or out of candidates                 Finish
               happiness cannot be reached any more                                 Fail
               GiveUp                                                               -
    ENDING     no claim or send is under way any more                               Settled
    SETTLED    never; events are ignored

    attempt    event -> next; of small shares (direct) it begins with SENDING
    CLAIMING   ClaimAccepted -> SENDING   ShareHeld -> HELD   ShareRefused, ShareLost, ShareWithdrawn -> GONE
    SENDING    ShareHeld -> HELD   ShareRefused -> GONE (CLAIMING once, if the node forgot the reservation)
               ShareLost, ShareWithdrawn -> GONE

Invariants: what was accepted and is not sent is released; `Finish` or `Fail` comes once, `Settled` once and
last; after `Finish` the stragglers go on (the rest is finished in the background) until they end by
themselves or `GiveUp` withdraws them.  Source: docs/transfer.md section 2.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from muniment.core.happiness import happiness
from muniment.core.placement import Placement, Slot
from muniment.errors import NotHappy
from muniment.ids import BlobId, NodeId, id_text

REASONS_MAX = 16
"""As many refusals are told in an error; a grid of a thousand full nodes says nothing new after that."""


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The blob is sealed and its buffers are ready to be sent from."""


@dataclass(frozen=True, slots=True)
class ClaimAccepted:
    """The node has set space aside for this share."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class ShareHeld:
    """The node holds this share durably: it had it already, or it took it now."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class ShareRefused:
    """The node answered no, to a claim or to a send; it keeps no reservation.

    Attributes:
        reason: for the error message.
        forgotten: it did not know of a reservation it had given (it was restarted, or was slow to be sent
            the share); asking once more can help.
    """

    slot: Slot
    reason: str
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class ShareLost:
    """The node did not answer; whether it keeps a reservation is unknown."""

    slot: Slot
    reason: str


@dataclass(frozen=True, slots=True)
class ShareWithdrawn:
    """A claim or send was taken back before it was under way, or broken off."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Late:
    """Whatever has not answered by now is late."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody wants this upload any more, or nobody can wait for its stragglers."""


UploadEvent = Begin | ClaimAccepted | ShareHeld | ShareRefused | ShareLost | ShareWithdrawn | Late | GiveUp


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask the node to set space aside for this share."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Send:
    """Send the share to the node that accepted it.

    Attributes:
        direct: it was not asked yet; space is asked for with the share.
    """

    slot: Slot
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """Tell the node that the share does not come."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take a claim or send back if it can be; its end is still to be reported, whatever it is."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Finish:
    """The upload has succeeded.

    Attributes:
        nodes: how many distinct nodes hold distinct shares now.
        open: places not filled yet; some may still be under way.
    """

    nodes: int
    open: int


@dataclass(frozen=True, slots=True)
class Fail:
    """The upload cannot succeed."""

    error: NotHappy


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing is under way any more: buffers may be reused."""


UploadAction = Claim | Send | Release | Withdraw | Finish | Fail | Settled


# --- machine --------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """Where the whole upload stands."""

    RUNNING = "running"
    ENDING = "ending"
    SETTLED = "settled"


class Stage(enum.Enum):
    """Where one attempt, one share at one node, stands."""

    CLAIMING = "claiming"
    SENDING = "sending"
    HELD = "held"
    GONE = "gone"


_LIVE = (Stage.CLAIMING, Stage.SENDING)


@dataclass(slots=True)
class _Attempt:
    """One share at one node.

    Attributes:
        place: index of the placement's slot it fills.
        stage: as in the table above.
        late: it did not answer in time; nobody waits for it, but it may still win.
        unwanted: its place was filled by another attempt, or the upload was given up.
        again: the node forgot a reservation once already.
    """

    place: int
    stage: Stage = Stage.CLAIMING
    late: bool = False
    unwanted: bool = False
    again: bool = False


class Upload:
    """The machine for one blob.

    Args:
        blob: for the error.
        placement: where its shares should go.
        happy: how many distinct nodes must hold distinct shares; at least k, so that the blob is whole.
        direct: shares are so small that to ask a node first costs more than to send them in vain.
    """

    def __init__(self, blob: BlobId, placement: Placement, *, happy: int, direct: bool = False) -> None:
        self._blob = blob
        self._plan = placement
        self._happy = happy
        self._direct = direct
        self._phase = Phase.RUNNING
        self._attempts: dict[Slot, _Attempt] = {}
        self._open = set(range(len(placement.slots)))
        self._held: list[Slot] = []
        self._spares = list(placement.spares)
        self._failed: dict[NodeId, str] = {}

    @property
    def held(self) -> tuple[Slot, ...]:
        """Every share known to be held durably, and where."""
        return tuple(self._held)

    def handle(self, event: UploadEvent) -> list[UploadAction]:
        """Take one event and say what to do now.

        Events that do not fit the state (duplicates, answers for what was never asked) change nothing.
        """
        out: list[UploadAction] = []
        match event:
            case ClaimAccepted(slot):
                self._accepted(slot, out)
            case ShareHeld(slot):
                self._landed(slot, out)
            case ShareRefused(slot, reason, forgotten):
                self._refused(slot, reason, out, forgotten=forgotten)
            case ShareLost(slot, reason):
                self._lost(slot, reason, out)
            case ShareWithdrawn(slot):
                self._withdrawn(slot, out)
            case Late():
                self._late(out)
            case GiveUp():
                self._give_up(out)
            case Begin() if self._phase is Phase.RUNNING and not self._attempts:
                self._begin(out)
        self._conclude(out)
        return out

    # --- transitions

    def _begin(self, out: list[UploadAction]) -> None:
        if len(self._plan.nodes) < self._happy:
            self._failed.setdefault(NodeId(b""), f"only {len(self._plan.nodes)} nodes take shares")
            self._fail(out)
            return
        for place, slot in enumerate(self._plan.slots):
            self._try(slot, place, out)

    def _try(self, slot: Slot, place: int, out: list[UploadAction]) -> None:
        if self._direct:
            self._attempts[slot] = _Attempt(place, Stage.SENDING)
            out.append(Send(slot, direct=True))
        else:
            self._attempts[slot] = _Attempt(place)
            out.append(Claim(slot))

    def _accepted(self, slot: Slot, out: list[UploadAction]) -> None:
        attempt = self._attempts.get(slot)
        if attempt is None or attempt.stage is not Stage.CLAIMING:
            return
        if attempt.unwanted:
            attempt.stage = Stage.GONE
            out.append(Release(slot))
        else:
            attempt.stage = Stage.SENDING
            out.append(Send(slot))

    def _landed(self, slot: Slot, out: list[UploadAction]) -> None:
        attempt = self._attempts.get(slot)
        if attempt is None or attempt.stage not in _LIVE:
            return
        attempt.stage = Stage.HELD
        self._held.append(slot)
        if attempt.place in self._open:
            self._open.discard(attempt.place)
            for rival_slot, rival in self._attempts.items():
                if rival.place == attempt.place and rival.stage in _LIVE:
                    rival.unwanted = True
                    out.append(Withdraw(rival_slot))

    def _refused(self, slot: Slot, reason: str, out: list[UploadAction], *, forgotten: bool) -> None:
        attempt = self._attempts.get(slot)
        if attempt is None or attempt.stage not in _LIVE:
            return
        if forgotten and attempt.stage is Stage.SENDING and not (attempt.again or attempt.unwanted):
            attempt.stage = Stage.CLAIMING
            attempt.again = True
            out.append(Claim(slot))
            return
        attempt.stage = Stage.GONE
        self._failed.setdefault(slot.node, reason)
        self._replace(attempt, out)

    def _lost(self, slot: Slot, reason: str, out: list[UploadAction]) -> None:
        attempt = self._attempts.get(slot)
        if attempt is None or attempt.stage not in _LIVE:
            return
        attempt.stage = Stage.GONE
        self._failed.setdefault(slot.node, reason)
        out.append(Release(slot))  # the answer may have been yes
        self._replace(attempt, out)

    def _withdrawn(self, slot: Slot, out: list[UploadAction]) -> None:
        attempt = self._attempts.get(slot)
        if attempt is None or attempt.stage not in _LIVE:
            return
        if attempt.stage is Stage.SENDING:
            out.append(Release(slot))
        attempt.stage = Stage.GONE

    def _late(self, out: list[UploadAction]) -> None:
        if self._phase is not Phase.RUNNING:
            return
        for attempt in list(self._attempts.values()):
            if attempt.stage in _LIVE and not attempt.late:
                attempt.late = True
                self._replace(attempt, out)

    def _give_up(self, out: list[UploadAction]) -> None:
        if self._phase is Phase.RUNNING:
            self._phase = Phase.ENDING
        self._withdraw_all(out)

    # --- decisions

    def _replace(self, attempt: _Attempt, out: list[UploadAction]) -> None:
        """Try the attempt's place at the next candidate, unless it is filled or somebody else is in time."""
        if self._phase is not Phase.RUNNING or attempt.place not in self._open:
            return
        if any(
            rival.place == attempt.place and rival.stage in _LIVE and not rival.late
            for rival in self._attempts.values()
        ):
            return
        share = self._plan.slots[attempt.place].share
        for node in self._candidates():
            slot = Slot(share, node)
            if node not in self._failed and slot not in self._attempts:
                if node in self._spares:
                    self._spares.remove(node)
                self._try(slot, attempt.place, out)
                return

    def _candidates(self) -> Iterator[NodeId]:
        """Unused nodes, best first; then used ones with room for another share, emptiest first."""
        yield from tuple(self._spares)
        load: dict[NodeId, int] = {}
        for slot, attempt in self._attempts.items():
            load[slot.node] = load.get(slot.node, 0) + (attempt.stage is not Stage.GONE)
        light = [node for node, count in load.items() if count < self._plan.per_node_max]
        yield from sorted(light, key=load.__getitem__)  # stable: the earlier attempted first

    def _conclude(self, out: list[UploadAction]) -> None:
        if self._phase is Phase.RUNNING and self._attempts:
            self._judge(out)
        if self._phase is Phase.ENDING and not any(a.stage in _LIVE for a in self._attempts.values()):
            self._phase = Phase.SETTLED
            out.append(Settled())

    def _judge(self, out: list[UploadAction]) -> None:
        wanted = [a for a in self._attempts.values() if a.stage in _LIVE and not a.unwanted]
        if self._open and any(not attempt.late for attempt in wanted):
            if self._failed and self._reachable_nodes() < self._happy:
                self._fail(out)
            return
        nodes = happiness(self._held)
        if nodes >= self._happy:
            self._phase = Phase.ENDING
            out.append(Finish(nodes, len(self._open)))
        elif not wanted or self._reachable_nodes() < self._happy:
            self._fail(out)

    def _reachable_nodes(self) -> int:
        """Upper bound of the happiness that can still come about."""
        nodes = {slot.node for slot, attempt in self._attempts.items() if attempt.stage is not Stage.GONE}
        return len(nodes.union(self._plan.nodes - self._failed.keys()))

    def _fail(self, out: list[UploadAction]) -> None:
        reasons = tuple(
            f"{id_text(node)[:12]}: {reason}" if node else reason for node, reason in self._failed.items()
        )[:REASONS_MAX]
        placed = happiness(self._held)
        out.append(Fail(NotHappy(blob=self._blob, happy=self._happy, placed=placed, reasons=reasons)))
        self._phase = Phase.ENDING
        self._withdraw_all(out)

    def _withdraw_all(self, out: list[UploadAction]) -> None:
        for slot, attempt in self._attempts.items():
            if attempt.stage in _LIVE and not attempt.unwanted:
                attempt.unwanted = True
                out.append(Withdraw(slot))
