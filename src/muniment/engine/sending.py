"""Bringing one sealed blob to the nodes: runs the upload machine on the lanes.

A `Sending` is callbacks only; it owns no task.  It lives until the machine has settled and every release was
heard, which may be after `done` (shares finished in the background) and after its caller is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from muniment.core.placement import Placement, Slot
from muniment.core.upload import (
    Begin,
    Claim,
    ClaimAccepted,
    Fail,
    Finish,
    GiveUp,
    Late,
    Release,
    Send,
    Settled,
    ShareHeld,
    ShareLost,
    ShareRefused,
    ShareWithdrawn,
    Upload,
    UploadEvent,
    Withdraw,
)
from muniment.engine.jobs import Answer, ClaimJob, Failed, Job, ReleaseJob, SendJob, Withdrawn
from muniment.engine.lane import Lane
from muniment.engine.lateness import Lateness
from muniment.engine.nodes import Nodes
from muniment.engine.policy import Limits
from muniment.errors import InternalError, NodeUnreachable, NotHappy, ReservationMissing
from muniment.ports import Accepted, Held, Refused, ShareClaim, ShareUpload
from muniment.spec.blob import BlobName

_J = TypeVar("_J", bound=Job)


class OutgoingShares(Protocol):
    """Shares of one blob, ready to be sent: all of one just sealed, or those that were rebuilt."""

    @property
    def name(self) -> BlobName: ...

    def parts(self, number: int) -> tuple[bytes | memoryview, ...]:
        """The record of a share as scattered parts."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """A blob that enough nodes hold.

    Attributes:
        nodes: distinct nodes with distinct shares when the upload succeeded.
        missing: shares that had no node then; late ones are finished in the background.
        new_bytes: share records sent so far.
        present_bytes: share records the nodes had before.
        reserve_s: from the first claim to the last answer to one.
        send_s: from then to the end.
    """

    nodes: int
    missing: int
    new_bytes: int
    present_bytes: int
    reserve_s: float
    send_s: float


class Sending:
    """One blob on its way.

    Args:
        sealed: its shares; their buffers are in use until `free` is called.
        plan: where they go.
        happy: distinct nodes wanted.
        nodes: the lanes.
        limits: how patient to be.
        free: called once, when nothing reads the buffers any more.
        fresh: where shares are written down that were sent and taken.
        direct: they are sent without a claim.

    Attributes:
        happy: as given.
        given_up: its outcome is not to be waited for any more.
        waiters: callers that wait for `done`.
        done: the upload's outcome, Sent or NotHappy.
        settled: done when nothing is under way or reserved any more.
        freed: whether `free` was called.
    """

    def __init__(
        self,
        sealed: OutgoingShares,
        plan: Placement,
        happy: int,
        nodes: Nodes,
        limits: Limits,
        free: Callable[[], None],
        fresh: list[Slot],
        *,
        direct: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sealed = sealed
        self._name = sealed.name
        self._size_bytes = self._name.shape.record_bytes
        self._machine = Upload(self._name.blob, plan, happy=happy, direct=direct)
        self._nodes = nodes
        self._limits = limits
        self._free = free
        self._fresh = fresh
        self._jobs: dict[Slot, Job] = {}
        self._releases = 0
        self._lateness = Lateness(len(plan.slots), limits.put_patience_s, self._patience_s, self._late)
        self._new = self._present = 0
        self._begun_s = self._loop.time()
        self._reserved_s = self._begun_s
        self.happy = happy
        self.given_up = False
        self.waiters = 0
        self.done: asyncio.Future[Sent] = self._loop.create_future()
        self.settled: asyncio.Future[None] = self._loop.create_future()
        self.freed = False

    @property
    def succeeded(self) -> bool:
        """Whether enough nodes hold it; it may still be finished in the background."""
        return self.done.done() and not self.done.cancelled() and self.done.exception() is None

    def begin(self) -> None:
        """Start; `done` and `settled` follow."""
        self._lateness.start()
        self._feed(Begin())

    def give_up(self) -> None:
        """Break off what can be, release what is reserved; `settled` follows."""
        self.given_up = True
        self._feed(GiveUp())

    # --- machine

    def _feed(self, event: UploadEvent) -> None:
        for action in self._machine.handle(event):
            match action:
                case Claim(slot):
                    claim = ShareClaim(self._name.share(slot.share), self._size_bytes)
                    self._ask(slot, Lane.claim, ClaimJob(partial(self._claimed, slot), claim))
                case Send(slot, direct):
                    upload = ShareUpload(self._name.share(slot.share), self._sealed.parts(slot.share))
                    job = SendJob(partial(self._sent, slot), upload, direct, size_bytes=self._size_bytes)
                    self._ask(slot, Lane.send, job)
                case Release(slot):
                    self._release(slot)
                case Withdraw(slot):
                    lane = self._nodes.lane(slot.node)
                    if lane is not None:
                        lane.withdraw(self._jobs[slot])
                case Finish(nodes, missing):
                    self._finish(nodes, missing)
                case Fail(error):
                    self._fail(error)
                case Settled():
                    self._lateness.stop()
                    self.freed = True
                    self._free()
        self._check_settled()

    def _ask(self, slot: Slot, how: Callable[[Lane, _J], None], job: _J) -> None:
        self._jobs[slot] = job
        lane = self._nodes.lane(slot.node)
        if lane is not None:
            how(lane, job)
        else:
            gone = Failed(NodeUnreachable(node=slot.node, reason="it left the roster"))
            self._loop.call_soon(job.done, gone)

    def _release(self, slot: Slot) -> None:
        lane = self._nodes.lane(slot.node)
        if lane is not None:
            self._releases += 1
            lane.release(ReleaseJob(self._released, self._name.share(slot.share)))

    # --- answers

    def _claimed(self, slot: Slot, answer: Answer) -> None:
        self._reserved_s = self._loop.time()
        match answer:
            case Held():
                self._present += self._size_bytes
                self._land(slot)
            case Accepted():
                self._feed(ClaimAccepted(slot))
            case _:
                self._feed(_refusal(slot, answer))

    def _sent(self, slot: Slot, answer: Answer) -> None:
        if not isinstance(answer, Held):
            self._feed(_refusal(slot, answer))
            return
        if answer.new:
            self._new += self._size_bytes
            self._fresh.append(slot)
        else:
            self._present += self._size_bytes
        self._land(slot)

    def _released(self, _: Answer) -> None:
        self._releases -= 1
        self._check_settled()

    def _land(self, slot: Slot) -> None:
        self._lateness.share_came()
        self._feed(ShareHeld(slot))

    # --- lateness

    def _patience_s(self) -> float:
        return self._nodes.patience_s(self._size_bytes, self._limits.put_patience_s)

    def _late(self) -> None:
        if self.done.done():
            return
        self._nodes.avoid({slot.node for slot, job in self._jobs.items() if not job.ended})
        self._lateness.start()
        self._feed(Late())

    # --- ends

    def _finish(self, nodes: int, missing: int) -> None:
        self._lateness.stop()
        now_s = self._loop.time()
        if not self.done.done():
            self.done.set_result(
                Sent(
                    nodes,
                    missing,
                    self._new,
                    self._present,
                    self._reserved_s - self._begun_s,
                    now_s - self._reserved_s,
                )
            )

    def _fail(self, error: NotHappy) -> None:
        self._lateness.stop()
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # whoever waits hears it; nobody may be left to

    def _check_settled(self) -> None:
        if self.freed and not self._releases and not self.settled.done():
            self.settled.set_result(None)
            if not self.done.done():
                self.done.cancel()


def _refusal(slot: Slot, answer: Answer) -> UploadEvent:
    """Any answer but yes as the machine's event."""
    match answer:
        case Refused(error):
            return ShareRefused(slot, str(error), forgotten=isinstance(error, ReservationMissing))
        case Failed(error):
            return ShareLost(slot, str(error))
        case Withdrawn():
            return ShareWithdrawn(slot)
    raise InternalError(reason=f"{answer} answers no upload")
