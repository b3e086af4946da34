"""A witness of a log: cosigns its checkpoints, and only those that continue all that was seen of it before.

He needs no entries and no keys of the volume, so a small machine can do it for many logs.  What he cosigns
next is durable before the signature is made: a witness who forgot might sign both sides of a fork.  What he
keeps blocks the loop for the time of a flush, so that no cancellation can come between keeping and signing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from muniment.crypto.checkpoints import cosign, open_checkpoint, open_cosignatures
from muniment.crypto.identity import Identity
from muniment.engine.accusing import Suspicion, charge_of, gather
from muniment.engine.evidence import make_evidence
from muniment.engine.follower import EvidenceSink
from muniment.errors import (
    InternalError,
    InvalidRequest,
    LocalError,
    LogForked,
    MalformedRecord,
    MunimentError,
    NotMember,
)
from muniment.ids import MemberId, VolumeId
from muniment.merkle.log_tree import check_consistency
from muniment.ports import CheckpointStore, Clock, LogClient
from muniment.spec.checkpoint import Checkpoint, decode_checkpoint, decode_note, origin_of, witness_of

_TRIES: Final = 8
_PAUSE_S: Final = 1.0
"""Between two cosignatures, and after a failure at first: a service is not asked without rest."""
_PAUSE_MAX_S: Final = 60.0
_NEWS_S: Final = 30.0
"""One long poll; it ends early when there is news."""
RENEWED_S: Final = 3600
"""A checkpoint that stays the newest is cosigned again so often, to show that somebody still looks."""

Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A checkpoint was cosigned, and its service has kept the cosignature.

    Attributes:
        size: entries of the log.
        root: of their tree.
        time_s: in the cosignature; seconds since the epoch.
    """

    size: int
    root: bytes
    time_s: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """A log was not cosigned.

    Attributes:
        error: why.
        again_s: it is tried again after so many seconds; None: never.
    """

    error: MunimentError
    again_s: float | None


Tell = Callable[[Cosigned | Trouble], None]


class Witness:
    """Cosigns the log of one volume.

    Args:
        volume: whose log it is.
        identity: of a member; the service keeps the cosignatures of members only.
        log: the service.
        log_key: Ed25519 key of it.
        cosigned: what this witness has cosigned, and nothing else.
        clock: for the time in cosignatures.
        seen: other checkpoints that were seen of this log; read, and never written.
        evidence_sink: takes evidence against the service.
        refused: gives the name of the evidence for which the service is refused already, or "".
        pause: waits so many seconds.

    Attributes:
        refused: the name of that evidence, or of what was found since; nothing is cosigned any more.
    """

    def __init__(
        self,
        volume: VolumeId,
        identity: Identity,
        log: LogClient,
        log_key: bytes,
        cosigned: CheckpointStore,
        clock: Clock,
        *,
        seen: CheckpointStore | None = None,
        evidence_sink: EvidenceSink | None = None,
        refused: Callable[[], str] = str,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.refused = ""
        self._volume = volume
        self._identity = identity
        self._name = witness_of(MemberId(identity.public_key))
        self._log = log
        self._log_key = log_key
        self._cosigned = cosigned
        self._kept = (cosigned,) if seen is None else (cosigned, seen)
        self._clock = clock
        self._evidence_sink = evidence_sink
        self._refusal = refused
        self._pause = pause

    async def run(self, tell: Tell) -> LogForked:
        """Cosign whatever comes, until there is evidence against the service, or it is cancelled.

        What a later try may mend is told once and tried again, with longer and longer pauses.

        Args:
            tell: of each cosignature, and of what keeps this witness from the next.
        Returns: the error that has the name of the evidence.
        Raises: LocalError: this machine cannot keep what it has seen, so nothing may be cosigned.
        """
        pause_s, told = _PAUSE_S, ""
        while True:
            try:
                done = await self.cosign_newest()
                tell(done)
                pause_s, told = _PAUSE_S, ""
                await self._wait_news(done)
            except (LocalError, InternalError):
                raise
            except MunimentError as error:
                if isinstance(error, LogForked) and self.refused:
                    return error
                if str(error) != told:
                    tell(Trouble(error, pause_s))
                    told = str(error)
                await self._pause(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def cosign_newest(self) -> Cosigned:
        """Cosign the newest checkpoint and hand the cosignature over.

        Returns: what was cosigned.
        Raises: LogForked: it does not continue what was seen before; MalformedRecord: it is not this log's;
            NotMember: the service did not keep the cosignature; InvalidRequest: the log grows too fast;
            DiskFull, StoreFailed: and then nothing was signed; as `LogClient`.
        """
        for attempt in range(_TRIES):
            note = await self._log.checkpoint()
            checkpoint = await self._checked(note)
            self._cosigned.keep(checkpoint.size, note)
            self._cosigned.flush()
            time_s = int(self._clock.now_s())
            signed = cosign(self._identity, self._name, note, time_s=time_s)
            try:
                await self._log.cosign(signed)
            except InvalidRequest:  # the log has grown since
                if attempt == _TRIES - 1:
                    raise
                continue
            await self._check_kept(note)
            return Cosigned(checkpoint.size, checkpoint.root, time_s)
        raise AssertionError

    async def _check_kept(self, note: bytes) -> None:
        """See the cosignature on what is the newest now; another checkpoint there is for the next turn."""
        newest = await self._log.checkpoint()
        if decode_note(newest).text != decode_note(note).text:
            return
        if self._name not in open_cosignatures(newest, {self._name: self._identity.public_key}):
            raise NotMember(member=self._identity.public_key)

    async def _wait_news(self, done: Cosigned) -> None:
        """Until the log has grown, or the cosignature is to be renewed."""
        while True:
            await self._pause(_PAUSE_S)
            note = await self._log.wait_beyond(done.size, _NEWS_S)
            checkpoint = await self._checked(note)
            if checkpoint.size > done.size or self._clock.now_s() - done.time_s >= RENEWED_S:
                return

    # --- is it one log? -----------------------------------------------------------------------

    async def _checked(self, note: bytes) -> Checkpoint:
        """What a note says, if it fits everything that was seen of the log before."""
        self.refused = self.refused or self._refusal()
        if self.refused:
            raise self._forked(f"it was refused before; evidence: {self.refused}")
        checkpoint = open_checkpoint(note, self._log_key, origin=origin_of(self._volume))
        for store in self._kept:
            if newest := store.newest():
                await self._compare(note, checkpoint, newest, store)
        return checkpoint

    async def _compare(
        self, note: bytes, checkpoint: Checkpoint, newest: bytes, store: CheckpointStore
    ) -> None:
        before = _of_own(newest)
        if checkpoint.size < before.size:
            for other in _of_size(store, checkpoint.size):
                if _of_own(other).root != checkpoint.root:
                    raise await self._two_of_one_size(other, note, checkpoint.size)
            # It may have signed this note once, in good faith: no evidence.
            raise self._forked(f"it has {checkpoint.size} entries and had signed for {before.size}")
        if checkpoint.size == before.size and checkpoint.root != before.root:
            raise await self._two_of_one_size(newest, note, checkpoint.size)
        if 0 < before.size < checkpoint.size:
            proof = await self._log.consistency(before.size, checkpoint.size)
            try:
                check_consistency(before.size, before.root, checkpoint.size, checkpoint.root, proof)
            except MalformedRecord as error:
                reason = f"its log of {checkpoint.size} entries does not extend that of {before.size}"
                suspicion = Suspicion(reason, (newest, note), checkpoint.size, (before.size - 1,))
                raise await self._accused(suspicion) from error

    async def _two_of_one_size(self, one: bytes, other: bytes, size: int) -> LogForked:
        reason = f"it signed two different logs of {size} entries"
        return await self._accused(Suspicion(reason, (one, other), size, ()))

    async def _accused(self, suspicion: Suspicion) -> LogForked:
        """The error, with evidence if the service itself gives what it takes.

        Raises: DiskFull, StoreFailed: the evidence cannot be kept.
        """
        try:
            charge = charge_of(suspicion, await gather(suspicion, self._log), lambda _: [])
            evidence = make_evidence(self._volume, self._log_key, charge)
        except MunimentError:
            return self._forked(suspicion.reason)
        self.refused = self._evidence_sink(evidence) if self._evidence_sink else "not kept"
        return self._forked(f"{suspicion.reason}; evidence: {self.refused}")

    def _forked(self, reason: str) -> LogForked:
        return LogForked(volume=self._volume, reason=reason)


def _of_own(note: bytes) -> Checkpoint:
    """It was verified when it was kept; after a change of hosts it is signed by another key."""
    return decode_checkpoint(decode_note(note).text)


def _of_size(store: CheckpointStore, size: int) -> Iterator[bytes]:
    return takewhile(lambda note: _of_own(note).size == size, store.notes(size))
