"""A witness of a log: cosigns its checkpoints, and only those that continue the largest it has cosigned.

He needs no entries and no keys of the volume, so a small machine can do it for many logs.  What he cosigns
next is durable before the signature is made: a witness who forgot might sign both sides of a fork.
"""

from __future__ import annotations

from typing import Final

from muniment.crypto.checkpoints import cosign, open_checkpoint
from muniment.crypto.identity import Identity
from muniment.engine.accusing import Suspicion, charge_of, gather
from muniment.engine.evidence import make_evidence
from muniment.engine.follower import EvidenceSink
from muniment.errors import InvalidRequest, LogForked, MalformedRecord, MunimentError
from muniment.ids import MemberId, VolumeId
from muniment.merkle.log_tree import check_consistency
from muniment.ports import CheckpointStore, Clock, LogClient
from muniment.spec.checkpoint import Checkpoint, decode_checkpoint, decode_note, origin_of, witness_of

_TRIES: Final = 8


class Witness:
    """Cosigns the log of one volume.

    Args:
        volume: whose log it is.
        identity: of a member; the service keeps the cosignatures of members only.
        log: the service.
        log_key: Ed25519 key of it.
        cosigned: what this witness has cosigned, and nothing else.
        clock: for the time in cosignatures.
        evidence_sink: takes evidence against the service.
        refused: the name of the evidence for which it is refused already.

    Attributes:
        refused: as given, or of the evidence found since; nothing is cosigned any more.
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
        evidence_sink: EvidenceSink | None = None,
        refused: str = "",
    ) -> None:
        self.refused = refused
        self._volume = volume
        self._identity = identity
        self._name = witness_of(MemberId(identity.public_key))
        self._log = log
        self._log_key = log_key
        self._cosigned = cosigned
        self._clock = clock
        self._evidence_sink = evidence_sink

    async def cosign_newest(self) -> Checkpoint:
        """Cosign the newest checkpoint and hand the cosignature over.

        Returns: what was cosigned.
        Raises: LogForked: it does not continue what was cosigned before; MalformedRecord: it is not this
            log's; as `LogClient`.
        """
        for attempt in range(_TRIES):
            note = await self._log.checkpoint()
            checkpoint = await self._checked(note)
            self._cosigned.keep(checkpoint.size, note)
            self._cosigned.flush()
            signed = cosign(self._identity, self._name, note, time_s=int(self._clock.now_s()))
            try:
                await self._log.cosign(signed)
            except InvalidRequest:  # the log has grown since
                if attempt == _TRIES - 1:
                    raise
                continue
            return checkpoint
        raise AssertionError

    async def run(self, wait_s: float) -> None:
        """Cosign whatever comes, until it is cancelled; waits `wait_s` for news at a time.

        Raises: as `cosign_newest`.
        """
        while True:
            checkpoint = await self.cosign_newest()
            await self._log.wait_beyond(checkpoint.size, wait_s)

    async def _checked(self, note: bytes) -> Checkpoint:
        if self.refused:
            raise self._forked(f"it was refused before; evidence: {self.refused}")
        checkpoint = self._opened(note)
        own = self._cosigned.newest()
        if not own:
            return checkpoint
        # It was verified when it was kept; after a change of hosts it is signed by another key.
        before = decode_checkpoint(decode_note(own).text)
        if checkpoint.size < before.size:
            raise self._forked(f"it has {checkpoint.size} entries and had signed for {before.size}")
        grown = 0 < before.size < checkpoint.size
        proof = await self._log.consistency(before.size, checkpoint.size) if grown else ()
        try:
            check_consistency(before.size, before.root, checkpoint.size, checkpoint.root, proof)
        except MalformedRecord as error:
            reason = f"its log of {checkpoint.size} entries does not extend that of {before.size}"
            asks = (before.size - 1,) if checkpoint.size > before.size else ()
            raise await self._accused(Suspicion(reason, (own, note), checkpoint.size, asks)) from error
        return checkpoint

    async def _accused(self, suspicion: Suspicion) -> LogForked:
        try:
            charge = charge_of(suspicion, await gather(suspicion, self._log), lambda _: [])
            evidence = make_evidence(self._volume, self._log_key, charge)
        except MunimentError:
            return self._forked(suspicion.reason)
        self.refused = self._evidence_sink(evidence) if self._evidence_sink else "not kept"
        return self._forked(f"{suspicion.reason}; evidence: {self.refused}")

    def _opened(self, note: bytes) -> Checkpoint:
        return open_checkpoint(note, self._log_key, origin=origin_of(self._volume))

    def _forked(self, reason: str) -> LogForked:
        return LogForked(volume=self._volume, reason=reason)
